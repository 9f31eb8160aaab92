//! Publishing: a publish returns only when the broker has confirmed it.

use std::future::poll_fn;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use lapin::options::BasicPublishOptions;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, ErrorKind, PublisherConfirm};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::task::yield_now;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::DIRECT_REPLY;
use super::alarm::Alarm;
use super::standing::Standing;
use crate::backoff::{Policy, Waits};

/// How long the broker may take to confirm a message. The limit does not apply while the broker says that it
/// blocks publishers. A quorum queue confirms in milliseconds, or in a second or two while it elects a
/// leader.
const CONFIRM_WITHIN: Duration = Duration::from_secs(15);

/// One message to publish.
#[derive(Debug)]
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

/// Whether a message is published for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Try {
    /// For the first time.
    First,
    /// It was not confirmed before. A queue that takes it gets one copy more each time, so while the broker
    /// refuses, one message at a time is tried again, with growing waits.
    Again,
}

/// Where a confirmed message went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Routed {
    /// To at least one queue.
    ToAQueue,
    /// Nowhere: the broker returned a message. The protocol does not say which confirm belongs to a returned
    /// message. When several are confirmed together, each confirm gets one of the returned messages of its
    /// channel, but not always its own. So the message says itself which one it is.
    Nowhere {
        /// The `message_id` of the message that came back.
        message_id: Option<ShortString>,
    },
}

/// Why a publish is not confirmed. The publish is tried again after each of these.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A queue could not take it, for instance because it is full.
    #[error("the broker refused it (nack): a queue may be full")]
    Refused,
    /// The user has no permission for it (403). The broker has closed the channel.
    #[error("the broker does not allow it: {0}")]
    Forbidden(String),
    /// The connection or the channel was lost before the confirmation.
    #[error("the connection was lost before the broker confirmed: {0}")]
    Lost(lapin::Error),
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

impl From<lapin::Error> for PublishError {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(said) if said.kind() == &AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => {
                Self::Forbidden(said.get_message().to_string())
            }
            _ => Self::Lost(error),
        }
    }
}

/// A connection, as the channels on it see it.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    /// Cancelled when the connection is to be given up.
    pub(super) dead: CancellationToken,
    pub(super) alarm: Alarm,
}

/// A channel with publisher confirms, until it is lost.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) channel: Channel,
    /// Cancelled when the channel is lost.
    pub(super) lost: CancellationToken,
    line: Line,
    turn: std::sync::Mutex<()>,
}

/// Publishes on a channel of its own. The keeper of its connection opens the channel again whenever it is
/// lost.
#[derive(Clone, Debug)]
pub struct Publisher {
    session: watch::Receiver<Option<Arc<Session>>>,
    standing: Arc<Standing>,
    /// Held by the one message that is tried again while the broker refuses.
    again: Arc<Mutex<Waits>>,
    wanted: watch::Sender<bool>,
}

impl Publisher {
    pub(super) fn new(
        session: watch::Receiver<Option<Arc<Session>>>,
        standing: Arc<Standing>,
        wanted: watch::Sender<bool>,
    ) -> Self {
        Self { session, standing, again: Arc::new(Mutex::new(Policy::RECONNECT.waits())), wanted }
    }

    /// Publishes and waits until the broker has confirmed. If there is no channel, waits for one first,
    /// without a time limit: the caller decides when to give up.
    ///
    /// # Errors
    /// When it is not certain that the broker has the message. Publish it again.
    pub async fn publish(&self, message: &Message<'_>, tried: Try) -> Result<Routed, PublishError> {
        let _turn = match tried {
            Try::First => None,
            Try::Again => self.turn().await,
        };
        let session = self.session().await?;
        let confirmed = session.publish(message).await;
        match &confirmed {
            Ok(_) => self.standing.set(|state| state.is_refused = false),
            Err(PublishError::Refused) => self.standing.set(|state| state.is_refused = true),
            Err(PublishError::Silent) => {
                // The next connection may be as silent. Until a message is confirmed, it counts as refused.
                self.standing.set(|state| state.is_refused = true);
                session.line.dead.cancel();
            }
            Err(PublishError::Forbidden(_) | PublishError::Lost(_)) => session.lost.cancel(),
            Err(PublishError::SessionEnded | PublishError::Closed) => {}
        }
        confirmed
    }

    /// While the broker refuses, the turn of a message that is tried again, after a wait that grows.
    async fn turn(&self) -> Option<MutexGuard<'_, Waits>> {
        if !self.standing.is_refused() {
            return None;
        }
        let mut waits = self.again.lock().await;
        if self.standing.is_refused() {
            sleep(waits.next_wait()).await;
            return Some(waits);
        }
        waits.reset();
        None
    }

    async fn session(&self) -> Result<Arc<Session>, PublishError> {
        self.wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
        let is_up = |session: &Option<Arc<Session>>| session.as_ref().is_some_and(|s| !s.lost.is_cancelled());
        if let Some(session) = self.session.borrow().as_ref().filter(|session| !session.lost.is_cancelled()) {
            return Ok(Arc::clone(session));
        }
        let mut session = self.session.clone();
        let up = session.wait_for(is_up).await;
        up.ok().and_then(|session| session.clone()).ok_or(PublishError::Closed)
    }
}

impl Session {
    pub(super) fn new(channel: Channel, line: Line) -> Self {
        Self { channel, lost: CancellationToken::new(), line, turn: std::sync::Mutex::default() }
    }

    async fn publish(&self, message: &Message<'_>) -> Result<Routed, PublishError> {
        let confirmed = async {
            // After all that is ready has had its turn: results that are published one right after the other wake
            // lapin's thread once.
            yield_now().await;
            // On the heap, for the moment that it takes: a job that waits need not have room for it.
            let confirm = Box::pin(self.hand_over(message)).await?;
            confirm.await
        };
        tokio::select! {
            // First, because it says more.
            biased;
            confirmed = confirmed => routed(confirmed?),
            () = self.lost.cancelled() => Err(PublishError::SessionEnded),
            () = self.line.alarm.silence(CONFIRM_WITHIN) => Err(PublishError::Silent),
        }
    }

    /// Gives a message to lapin, one message at a time. lapin first numbers the message for its confirm, and
    /// then queues its frames. Both steps happen in one poll. If two threads were between these steps, each
    /// would get the confirm of the other's message.
    async fn hand_over(&self, message: &Message<'_>) -> lapin::Result<PublisherConfirm> {
        // Mandatory, because the broker would otherwise silently drop a message that no queue takes. Not
        // for direct reply-to: the broker does not count it as a queue, and would return the message although
        // it delivers it.
        let mandatory = !is_direct_reply(message.routing_key);
        let options = BasicPublishOptions { mandatory, ..Default::default() };
        let exchange = ShortString::from(message.exchange);
        let routing_key = ShortString::from(message.routing_key);
        let properties = message.properties.clone();
        let publish = self.channel.basic_publish(exchange, routing_key, options, message.body, properties);
        let mut publish = std::pin::pin!(publish);
        poll_fn(|context| {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            publish.as_mut().poll(context)
        })
        .await
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
        Confirmation::Ack(Some(returned)) => {
            Ok(Routed::Nowhere { message_id: returned.delivery.properties.message_id().clone() })
        }
        Confirmation::Nack(_) | Confirmation::NotRequested => Err(PublishError::Refused),
    }
}
