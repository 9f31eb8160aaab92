//! Publishing: a publish returns only when the broker has confirmed it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection, Event, PublisherConfirm};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, warn};

use super::session::{self, Ended, Sessions};
use super::settings::BrokerSettings;
use super::{DIRECT_REPLY, REPLY_WITHIN, close};
use crate::amqp;
use crate::stop::Stop;
use crate::telemetry::logs;
use crate::telemetry::metrics::Metrics;

/// The limit on the broker's confirmation, while it has not said that it is blocking publishers. A
/// quorum queue confirms in milliseconds, in a second or two while it elects a leader.
const CONFIRM_WITHIN: Duration = Duration::from_secs(15);

/// One message to publish.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// The exchange; empty for the default one.
    pub exchange: &'a str,
    /// The routing key.
    pub routing_key: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// The properties.
    pub properties: BasicProperties,
}

/// Where a confirmed message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    /// To at least one queue.
    ToAQueue,
    /// Nowhere: the broker confirmed that it returned it.
    Nowhere,
}

/// Why a publish is not confirmed. All are tried again.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A queue could not take it, for instance because it is full.
    #[error("the broker refused it (nack): a queue may be full")]
    Refused,
    /// The connection or the channel was lost before the confirmation.
    #[error("the connection was lost before the broker confirmed: {0}")]
    Lost(#[from] lapin::Error),
    /// No confirmation came in time; the session is given up.
    #[error("the broker did not confirm within {} s", CONFIRM_WITHIN.as_secs())]
    Silent,
    /// Another publish found the session dead.
    #[error("the connection was given up before the broker confirmed")]
    SessionEnded,
    /// The publisher was closed.
    #[error("the publisher is closed")]
    Closed,
}

/// A channel with confirms, while it lasts.
#[derive(Clone, Debug)]
struct Session {
    channel: Channel,
    lost: CancellationToken,
    blocked: watch::Sender<bool>,
    turn: Arc<Mutex<()>>,
}

/// Publishes over a connection of its own, which is made again whenever it is lost.
#[derive(Clone, Debug)]
pub struct Publisher {
    session: watch::Receiver<Option<Session>>,
}

/// What keeps a publisher's connection up; run it until `stop`.
pub struct Keeper {
    broker: BrokerSettings,
    name: &'static str,
    metrics: Arc<Metrics>,
    session: watch::Sender<Option<Session>>,
}

impl Publisher {
    /// A publisher, and the keeper of its connection. `name` is what the broker shows of it.
    pub fn new(broker: BrokerSettings, name: &'static str, metrics: Arc<Metrics>) -> (Self, Keeper) {
        let (sender, session) = watch::channel(None);
        (Self { session }, Keeper { broker, name, metrics, session: sender })
    }

    /// Publishes and waits until the broker has confirmed. Waits for a connection first, as long as
    /// it takes: the caller decides when to give up.
    ///
    /// # Errors
    /// When it is not known to be on the broker: publish it again.
    pub async fn publish(&self, message: Message<'_>) -> Result<Routed, PublishError> {
        let session = self.session().await?;
        let confirmed = session.publish(message).await;
        if matches!(confirmed, Err(PublishError::Lost(_) | PublishError::Silent)) {
            session.lost.cancel();
        }
        confirmed
    }

    async fn session(&self) -> Result<Session, PublishError> {
        let mut session = self.session.clone();
        let up = session.wait_for(|session| session.as_ref().is_some_and(|s| !s.lost.is_cancelled())).await;
        up.ok().and_then(|session| session.clone()).ok_or(PublishError::Closed)
    }
}

impl Session {
    async fn publish(&self, message: Message<'_>) -> Result<Routed, PublishError> {
        let confirmed = async {
            let confirm = self.hand_over(message).await?;
            confirm.await
        };
        tokio::select! {
            confirmed = confirmed => routed(confirmed?),
            () = self.lost.cancelled() => Err(PublishError::SessionEnded),
            () = self.silence() => Err(PublishError::Silent),
        }
    }

    /// Gives a message to the client, in turn. The client numbers a message for its confirm and queues
    /// its frames in two steps of one poll; two threads between these steps would each get the
    /// confirm of the other's message.
    async fn hand_over(&self, message: Message<'_>) -> lapin::Result<PublisherConfirm> {
        // Mandatory, or the broker would drop what no queue takes without a word. Direct reply-to is
        // no queue to it: it would return the message although it delivers it.
        let mandatory = !is_direct_reply(message.routing_key);
        let options = BasicPublishOptions { mandatory, ..Default::default() };
        let exchange = ShortString::from(message.exchange);
        let routing_key = ShortString::from(message.routing_key);
        let publish = self.channel.basic_publish(exchange, routing_key, options, message.body, message.properties);
        let mut publish = std::pin::pin!(publish);
        poll_fn(|context| {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            publish.as_mut().poll(context)
        })
        .await
    }

    /// Ends when a confirmation is overdue. A broker short of memory or disk says so, and confirms
    /// once it has room: publishing again would only add to what it must take then.
    async fn silence(&self) {
        let mut blocked = self.blocked.subscribe();
        loop {
            let is_blocked = *blocked.borrow_and_update();
            tokio::select! {
                // The sender is this session's own.
                _ = blocked.changed() => {}
                () = sleep(CONFIRM_WITHIN), if !is_blocked => return,
            }
        }
    }
}

/// Whether a message with this routing key goes straight to a waiting channel. The broker adds a token to
/// the name that the channel asked with.
fn is_direct_reply(routing_key: &str) -> bool {
    routing_key.strip_prefix(DIRECT_REPLY).is_some_and(|token| token.starts_with('.'))
}

/// An unroutable message is confirmed by an ack that carries it: the ack alone proves nothing.
fn routed(confirmation: Confirmation) -> Result<Routed, PublishError> {
    match confirmation {
        Confirmation::Ack(None) => Ok(Routed::ToAQueue),
        Confirmation::Ack(Some(_)) => Ok(Routed::Nowhere),
        Confirmation::Nack(_) | Confirmation::NotRequested => Err(PublishError::Refused),
    }
}

impl Keeper {
    /// Keeps the connection up until the phase `closing`, and says through `on_change` whether publishing
    /// works.
    pub async fn run(self, stop: Stop, on_change: impl Fn(bool) + Send + Sync) {
        let keeping = Keeping { keeper: &self, on_change: &on_change, stop: &stop };
        let sessions = session::repeat("not able to publish", stop.closing(), keeping);
        // No session ends for good: publishing waits for the next, and jobs with it.
        let Ok(()) = sessions.instrument(logs::connection_span(self.name)).await;
    }

    /// One session from its start to its loss.
    async fn keep_one(&self, on_change: &(impl Fn(bool) + Sync), stop: &Stop) -> Ended<Infallible> {
        let connecting = amqp::connect(&self.broker.uri, &self.broker.tls, self.name);
        let connection = match stop.closing().run_until_cancelled(connecting).await {
            Some(Ok(connection)) => connection,
            Some(Err(error)) => return Ended::Lost(error.to_string()),
            None => return Ended::Stopped,
        };
        self.metrics.connection_made();
        let events = connection.events_listener();
        let session = match open(&connection).await {
            Ok(session) => session,
            Err(error) => return Ended::Lost(error.to_string()),
        };
        info!("able to publish");
        on_change(true);
        self.session.send_replace(Some(session.clone()));
        let watching = stop.closing().run_until_cancelled(watch_over(events, &session, on_change)).await;
        session.lost.cancel();
        close(&connection).await;
        watching.map_or(Ended::Stopped, Ended::Lost)
    }
}

/// The sessions of a publisher.
struct Keeping<'a, F> {
    keeper: &'a Keeper,
    on_change: &'a F,
    stop: &'a Stop,
}

impl<F: Fn(bool) + Send + Sync> Sessions for Keeping<'_, F> {
    type ForGood = Infallible;

    async fn session(&mut self) -> Ended<Infallible> {
        let ended = self.keeper.keep_one(self.on_change, self.stop).await;
        self.keeper.session.send_replace(None);
        (self.on_change)(false);
        ended
    }
}

async fn open(connection: &Connection) -> Result<Session, PublishError> {
    let confirming = async {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    };
    let channel =
        timeout(REPLY_WITHIN, confirming).await.map_err(|_| PublishError::Silent)?.map_err(PublishError::Lost)?;
    Ok(Session { channel, lost: CancellationToken::new(), blocked: watch::Sender::new(false), turn: Arc::default() })
}

/// Waits until the session is lost; says why.
async fn watch_over(
    events: impl Stream<Item = Event>,
    session: &Session,
    on_change: &(impl Fn(bool) + Sync),
) -> String {
    let mut events = std::pin::pin!(events);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = session.lost.cancelled() => return "a publish failed; the connection is made anew".into(),
        };
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                session.blocked.send_replace(true);
                on_change(false);
                warn!(reason, "the broker blocks publishers: it is short of memory or disk");
            }
            Some(Event::ConnectionUnblocked) => {
                session.blocked.send_replace(false);
                on_change(true);
                info!("the broker takes publishes again");
            }
            Some(Event::Error(error)) => return error.to_string(),
            Some(_) => {}
            None => return "the connection was closed".into(),
        }
    }
}
