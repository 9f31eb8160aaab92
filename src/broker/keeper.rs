//! Keeps a connection for publishing open, and on it a channel for each kind of message.
//!
//! The broker closes a channel on a message that it does not allow (403) or that names no exchange (404).
//! Then this channel alone is opened again. Other messages go on meanwhile.

use std::convert::Infallible;
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

/// Keeps a connection open while [`Keeper::run`] runs.
pub struct Keeper {
    broker: BrokerSettings,
    name: &'static str,
    metrics: Arc<Metrics>,
    lanes: Vec<Lane>,
    wanted: watch::Sender<bool>,
    is_lazy: bool,
}

/// A channel on the connection, opened again whenever it is lost.
struct Lane {
    target: Target,
    session: watch::Sender<Option<Session>>,
    standing: Arc<Standing>,
}

impl Keeper {
    /// A connection that the broker shows as `name`.
    pub fn new(broker: BrokerSettings, name: &'static str, metrics: Arc<Metrics>) -> Self {
        Self { broker, name, metrics, lanes: Vec::new(), wanted: watch::Sender::new(false), is_lazy: false }
    }

    /// The connection is opened when there is something to publish. A user may have only so many connections.
    #[must_use]
    pub fn when_wanted(self) -> Self {
        Self { is_lazy: true, ..self }
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
        if self.is_lazy {
            let mut wanted = self.wanted.subscribe();
            let is_wanted = wanted.wait_for(|wanted| *wanted);
            if stop.closing().run_until_cancelled(is_wanted).await.is_none() {
                return;
            }
        }
        let keeping = Keeping { keeper: &self, stop: &stop };
        let sessions = session::repeat("not able to publish", stop.closing(), keeping);
        // A session here never ends for good: publishers and their jobs wait for the next session.
        let Ok(()) = sessions.instrument(logs::connection_span(self.name)).await;
    }

    /// Runs one session, from connecting to its end.
    async fn keep_one(&self, stop: &Stop) -> Ended<Infallible> {
        let connecting = self.broker.connect(self.name);
        let connection = match stop.closing().run_until_cancelled(connecting).await {
            Some(Ok(connection)) => connection,
            Some(Err(error)) => return Ended::Lost(error.to_string()),
            None => return Ended::Stopped,
        };
        self.metrics.connection_made();
        let ended = stop.closing().run_until_cancelled(self.serve(&connection)).await;
        for lane in &self.lanes {
            lane.down();
        }
        close(&connection).await;
        ended.map_or(Ended::Stopped, Ended::Lost)
    }

    /// Serves all channels until the connection is lost. Returns why it was lost.
    async fn serve(&self, connection: &Connection) -> String {
        let line = Line::new();
        let events = connection.events_listener();
        let lanes = self.lanes.iter().map(|lane| lane.serve(connection, &self.broker, &line).boxed());
        tokio::select! {
            why = watch_over(events, connection, &line, &self.lanes) => why,
            (why, ..) = select_all(lanes) => why,
            () = line.dead.cancelled() => "the broker does not confirm; the connection is opened again".into(),
        }
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
        loop {
            let began = Instant::now();
            let why = match open(connection, broker, &self.target, line).await {
                Ok(session) => {
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

    fn up(&self, session: &Session) {
        info!(exchange = self.target.exchange(), "able to publish");
        self.session.send_replace(Some(session.clone()));
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
        line.blocked.send_replace(is_blocked);
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
