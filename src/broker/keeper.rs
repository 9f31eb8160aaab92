//! Keeps a connection for publishing open, and on it a channel for each kind of message.
//!
//! The broker closes a channel on a message that it does not allow (403) or that names no exchange (404).
//! Then this channel alone is opened again. Other messages go on meanwhile.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;

use futures_util::future::select_all;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use lapin::{Connection, Event};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{Instrument as _, debug, info, warn};

use super::close;
use super::opening::{Opening, Target, open};
use super::publisher::{Line, Publisher, Session};
use super::session::{self, Ended, GOOD_SESSION, Sessions};
use super::settings::BrokerSettings;
use super::standing::{OnChange, Standing};
use crate::backoff::Policy;
use crate::stop::Stop;
use crate::telemetry::logs;
use crate::telemetry::metrics::Metrics;

/// After so many losses of a channel the whole connection is opened again. lapin 4.12 does not forget that the
/// broker closed a channel with an error: a new channel with the same number fails with that error. There are
/// 2,047 numbers, and each loss uses up to a dozen.
const MOST_LOSSES: u32 = 100;

/// Keeps a connection open while [`Keeper::run`] runs.
pub struct Keeper {
    broker: BrokerSettings,
    name: &'static str,
    metrics: Arc<Metrics>,
    lanes: Vec<Lane>,
    wanted: watch::Sender<bool>,
    is_connected: watch::Sender<bool>,
    gives_way_to: Option<watch::Receiver<bool>>,
}

/// A channel on the connection, opened again whenever it is lost.
struct Lane {
    target: Target,
    session: watch::Sender<Option<Arc<Session>>>,
    standing: Arc<Standing>,
}

impl Keeper {
    /// A connection that the broker shows as `name`.
    pub fn new(broker: BrokerSettings, name: &'static str, metrics: Arc<Metrics>) -> Self {
        let [wanted, is_connected] = [(); 2].map(|()| watch::Sender::new(false));
        Self { broker, name, metrics, lanes: Vec::new(), wanted, is_connected, gives_way_to: None }
    }

    /// The connection is opened only when there is something to publish, and only while `other` has one. A
    /// user may have only so many connections.
    #[must_use]
    pub fn giving_way_to(self, other: &Self) -> Self {
        Self { gives_way_to: Some(other.is_connected.subscribe()), ..self }
    }

    /// Adds a channel, and returns its publisher. `on_change` is told whether messages are taken.
    pub fn lane(&mut self, target: Target, on_change: OnChange) -> Publisher {
        let (session, watched) = watch::channel(None);
        let standing = Arc::new(Standing::new(on_change));
        self.lanes.push(Lane { target, session, standing: Arc::clone(&standing) });
        Publisher::new(watched, standing, self.wanted.clone())
    }

    /// Keeps the connection open until the phase `closing`.
    pub async fn run(self, stop: Stop) {
        let keeping = Keeping { keeper: &self, stop: &stop };
        let sessions = session::repeat("not able to publish", stop.closing(), keeping);
        // A session here never ends for good: publishers and their jobs wait for the next session.
        let Ok(()) = sessions.instrument(logs::connection_span(self.name)).await;
    }

    /// Runs one session, from connecting to its end.
    async fn keep_one(&self, stop: &Stop) -> Ended<Infallible> {
        let connecting = async {
            self.until_due().await;
            self.broker.connect(self.name).await
        };
        let connection = match stop.closing().run_until_cancelled(connecting).await {
            Some(Ok(opened)) => opened.connection,
            Some(Err(error)) => return Ended::Lost(error.to_string()),
            None => return Ended::Stopped,
        };
        self.metrics.connection_made();
        self.is_connected.send_replace(true);
        let ended = stop.closing().run_until_cancelled(self.serve(&connection)).await;
        self.is_connected.send_replace(false);
        for lane in &self.lanes {
            lane.down();
        }
        close(&connection).await;
        ended.map_or(Ended::Stopped, Ended::Lost)
    }

    /// Serves all channels until the connection is lost. Returns why it was lost.
    async fn serve(&self, connection: &Connection) -> String {
        let line = Line::default();
        let events = connection.events_listener();
        let lanes = self.lanes.iter().map(|lane| lane.serve(connection, &self.broker, &line).boxed());
        tokio::select! {
            why = watch_over(events, connection, &line, &self.lanes) => why,
            (why, ..) = select_all(lanes) => why,
            () = line.dead.cancelled() => "the broker does not confirm; the connection is opened again".into(),
            () = self.until_in_the_way() => "the connection for results is lost, and comes first".into(),
        }
    }

    /// Waits until the connection is to be opened.
    async fn until_due(&self) {
        if let Some(mut other) = self.gives_way_to.clone() {
            // Both fail only when the other keeper has ended, and then the worker ends.
            let _ = self.wanted.subscribe().wait_for(|wanted| *wanted).await;
            let _ = other.wait_for(|is_connected| *is_connected).await;
        }
    }

    /// Waits until the other connection, which comes first, is lost.
    async fn until_in_the_way(&self) {
        if let Some(mut other) = self.gives_way_to.clone()
            && other.wait_for(|is_connected| !is_connected).await.is_ok()
        {
            return;
        }
        pending().await
    }
}

/// The sessions of a keeper.
struct Keeping<'a> {
    keeper: &'a Keeper,
    stop: &'a Stop,
}

impl Sessions for Keeping<'_> {
    type ForGood = Infallible;

    async fn session(&mut self) -> Ended<Infallible> {
        self.keeper.keep_one(self.stop).await
    }
}

impl Lane {
    /// Opens the channel, and again whenever it is lost, with growing waits. Returns why the connection is of
    /// no more use.
    async fn serve(&self, connection: &Connection, broker: &BrokerSettings, line: &Line) -> String {
        let mut waits = Policy::RECONNECT.waits();
        for _ in 0..MOST_LOSSES {
            let began = Instant::now();
            let why = match open(connection, broker, &self.target, line).await {
                Ok(session) => {
                    let session = Arc::new(session);
                    self.up(&session);
                    session.lost.cancelled().await;
                    self.down();
                    "the broker closed the channel".to_owned()
                }
                Err(Opening::Refused(why)) => why,
                Err(Opening::Lost(why)) => return why,
            };
            if !connection.status().connected() {
                return "the connection was closed".into();
            }
            if began.elapsed() >= GOOD_SESSION {
                waits.reset();
            }
            let wait = waits.next_wait();
            self.say(&why, wait.as_millis() as u64);
            sleep(wait).await;
        }
        "many of its channels were lost; the connection is opened again".into()
    }

    /// The one reply that was refused is logged by its job, so nothing is said of replies here.
    fn say(&self, why: &str, retry_in_ms: u64) {
        let (exchange, consequence) = (self.target.exchange(), self.target.consequence());
        match self.target {
            Target::Replies => debug!(why, retry_in_ms, "{consequence}"),
            Target::Results { .. } | Target::DeadLetters { .. } => {
                let hint = self.target.hint();
                warn!(exchange, why, hint, retry_in_ms, "{consequence}");
            }
        }
    }

    fn up(&self, session: &Arc<Session>) {
        info!(exchange = self.target.exchange(), "able to publish");
        self.session.send_replace(Some(Arc::clone(session)));
        self.standing.set(|state| state.is_open = true);
    }

    fn down(&self) {
        self.standing.set(|state| {
            state.is_open = false;
            state.is_blocked = false;
        });
        if let Some(session) = self.session.send_replace(None) {
            session.lost.cancel();
        }
    }

    fn set_blocked(&self, is_blocked: bool) {
        self.standing.set(|state| state.is_blocked = is_blocked);
    }

    /// The broker has closed some channel. If it is this one, it is lost.
    fn notice_loss(&self) {
        let session = self.session.borrow();
        if let Some(session) = session.as_ref().filter(|session| !session.channel.status().connected()) {
            session.lost.cancel();
        }
    }
}

/// Waits until the connection is lost, and returns why.
async fn watch_over(events: impl Stream<Item = Event>, connection: &Connection, line: &Line, lanes: &[Lane]) -> String {
    let mut events = std::pin::pin!(events);
    let set_blocked = |is_blocked| {
        line.alarm.set(is_blocked);
        lanes.iter().for_each(|lane| lane.set_blocked(is_blocked));
    };
    loop {
        match events.next().await {
            Some(Event::ConnectionBlocked(reason)) => {
                set_blocked(true);
                warn!(reason, "the broker blocks publishers: it is short of memory or disk");
            }
            Some(Event::ConnectionUnblocked) => {
                set_blocked(false);
                info!("the broker takes publishes again");
            }
            // An error of one channel also comes here.
            Some(Event::Error(error)) if error.is_amqp_soft_error() && connection.status().connected() => {
                lanes.iter().for_each(Lane::notice_loss);
            }
            Some(Event::Error(error)) => return error.to_string(),
            Some(_) => {}
            None => return "the connection was closed".into(),
        }
    }
}
