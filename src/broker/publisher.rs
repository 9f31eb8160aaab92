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

/// How long the broker may take to confirm a message. The limit does not apply while the broker says that it
/// blocks publishers. A quorum queue confirms in milliseconds, or in a second or two while it elects a
/// leader.
const CONFIRM_WITHIN: Duration = Duration::from_secs(15);

/// One message to publish.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// The exchange. Empty means the default exchange.
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
    /// Nowhere: the broker returned the message, and confirmed that.
    Nowhere,
}

/// Why a publish is not confirmed. The publish is tried again after each of these.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A queue could not take it, for instance because it is full.
    #[error("the broker refused it (nack): a queue may be full")]
    Refused,
    /// The connection or the channel was lost before the confirmation.
    #[error("the connection was lost before the broker confirmed: {0}")]
    Lost(#[from] lapin::Error),
    /// No confirmation came in time. The session is given up.
    #[error("the broker did not confirm within {} s", CONFIRM_WITHIN.as_secs())]
    Silent,
    /// Another publish found the session dead.
    #[error("the connection was given up before the broker confirmed")]
    SessionEnded,
    /// The publisher was closed.
    #[error("the publisher is closed")]
    Closed,
}

/// A channel with publisher confirms, until it is lost.
#[derive(Clone, Debug)]
struct Session {
    channel: Channel,
    lost: CancellationToken,
    blocked: watch::Sender<bool>,
    turn: Arc<Mutex<()>>,
}

/// Publishes over its own connection. The [`Keeper`] opens the connection again whenever it is lost.
#[derive(Clone, Debug)]
pub struct Publisher {
    session: watch::Receiver<Option<Session>>,
}

/// Keeps a publisher's connection open, while [`Keeper::run`] runs.
pub struct Keeper {
    broker: BrokerSettings,
    name: &'static str,
    metrics: Arc<Metrics>,
    session: watch::Sender<Option<Session>>,
}

impl Publisher {
    /// Makes a publisher and the keeper of its connection. The broker shows the connection as `name`.
    pub fn new(broker: BrokerSettings, name: &'static str, metrics: Arc<Metrics>) -> (Self, Keeper) {
        let (sender, session) = watch::channel(None);
        (Self { session }, Keeper { broker, name, metrics, session: sender })
    }

    /// Publishes and waits until the broker has confirmed. If there is no connection, waits for one first,
    /// without a time limit: the caller decides when to give up.
    ///
    /// # Errors
    /// When it is not certain that the broker has the message. Publish it again.
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

    /// Gives a message to lapin, one message at a time. lapin first numbers the message for its confirm, and
    /// then queues its frames. Both steps happen in one poll. If two threads were between these steps, each
    /// would get the confirm of the other's message.
    async fn hand_over(&self, message: Message<'_>) -> lapin::Result<PublisherConfirm> {
        // Mandatory, because the broker would otherwise silently drop a message that no queue takes. Not
        // for direct reply-to: the broker does not count it as a queue, and would return the message although
        // it delivers it.
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

    /// Returns when a confirmation is overdue. A broker that is short of memory or disk says so, and confirms
    /// once it has room. Publishing again would only give it more messages to take then.
    async fn silence(&self) {
        let mut blocked = self.blocked.subscribe();
        loop {
            let is_blocked = *blocked.borrow_and_update();
            tokio::select! {
                // This session owns the sender, so this cannot fail.
                _ = blocked.changed() => {}
                () = sleep(CONFIRM_WITHIN), if !is_blocked => return,
            }
        }
    }
}

/// Whether a message with this routing key goes directly to a waiting channel. The channel asks with the name
/// [`DIRECT_REPLY`], and the broker adds a token to that name.
fn is_direct_reply(routing_key: &str) -> bool {
    routing_key.strip_prefix(DIRECT_REPLY).is_some_and(|token| token.starts_with('.'))
}

/// The broker confirms an unroutable message with an ack too, and the ack carries the message. So an ack
/// alone does not prove that a queue took the message.
fn routed(confirmation: Confirmation) -> Result<Routed, PublishError> {
    match confirmation {
        Confirmation::Ack(None) => Ok(Routed::ToAQueue),
        Confirmation::Ack(Some(_)) => Ok(Routed::Nowhere),
        Confirmation::Nack(_) | Confirmation::NotRequested => Err(PublishError::Refused),
    }
}

impl Keeper {
    /// Keeps the connection open until the phase `closing`. Calls `on_change` to say whether publishing
    /// works.
    pub async fn run(self, stop: Stop, on_change: impl Fn(bool) + Send + Sync) {
        let keeping = Keeping { keeper: &self, on_change: &on_change, stop: &stop };
        let sessions = session::repeat("not able to publish", stop.closing(), keeping);
        // A session here never ends for good: publishers and their jobs wait for the next session.
        let Ok(()) = sessions.instrument(logs::connection_span(self.name)).await;
    }

    /// Runs one session, from connecting to its end.
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

/// Waits until the session is lost, and returns why.
async fn watch_over(
    events: impl Stream<Item = Event>,
    session: &Session,
    on_change: &(impl Fn(bool) + Sync),
) -> String {
    let mut events = std::pin::pin!(events);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = session.lost.cancelled() => return "a publish failed; the connection is opened again".into(),
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
