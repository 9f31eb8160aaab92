//! Opens a channel for publishing, after trying whether the broker lets this user publish there at all.

use futures_util::future::try_join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::{BasicProperties, Channel, Connection, ErrorKind};
use tokio::time::timeout;

use super::REPLY_WITHIN;
use super::publisher::{Line, Session};
use super::settings::{BrokerSettings, TopologyMode};
use super::topology::{self, TopologyError};

/// Where the messages of a channel go.
#[derive(Clone, Debug)]
pub enum Target {
    /// Results.
    Results {
        /// Their exchange.
        exchange: String,
        /// Every routing key they may have: a user may be allowed some of them only.
        routing_keys: Vec<String>,
    },
    /// Copies of jobs for people.
    DeadLetters {
        /// Their exchange.
        exchange: String,
    },
    /// Replies to producers' queues, through the default exchange.
    Replies,
}

impl Target {
    /// The exchange.
    pub fn exchange(&self) -> &str {
        match self {
            Self::Results { exchange, .. } | Self::DeadLetters { exchange } => exchange,
            Self::Replies => "",
        }
    }

    /// The routing keys that are tried. Replies are not tried: a refused reply holds nothing up.
    fn routing_keys(&self) -> Vec<&str> {
        match self {
            Self::Results { routing_keys, .. } => routing_keys.iter().map(String::as_str).collect(),
            Self::DeadLetters { .. } => vec![""],
            Self::Replies => Vec::new(),
        }
    }

    /// What the worker cannot do while the channel is not open.
    pub(super) const fn consequence(&self) -> &'static str {
        match self {
            Self::Results { .. } => "not able to publish results; no call is begun meanwhile",
            Self::DeadLetters { .. } => "not able to publish dead letters; jobs for people wait meanwhile",
            Self::Replies => "not able to publish replies",
        }
    }

    /// What a person can do.
    pub(super) const fn hint(&self) -> &'static str {
        match self {
            Self::Results { .. } => {
                "the user of AMQP_URL needs write permission on OTP_REPLY_EXCHANGE, which must exist"
            }
            Self::DeadLetters { .. } => {
                "the user of AMQP_URL needs write permission on OTP_DEAD_LETTER_EXCHANGE, which must exist"
            }
            Self::Replies => "the user of AMQP_URL needs write permission on the default exchange (amq.default)",
        }
    }
}

/// Why a channel could not be opened.
#[derive(Debug)]
pub(super) enum Opening {
    /// The broker does not take these messages: no permission (403), or no exchange (404).
    Refused(String),
    /// The connection is of no more use.
    Lost(String),
}

impl From<lapin::Error> for Opening {
    fn from(error: lapin::Error) -> Self {
        if error.is_amqp_soft_error() || is_closed(&error) {
            Self::Refused(error.to_string())
        } else {
            Self::Lost(error.to_string())
        }
    }
}

impl From<TopologyError> for Opening {
    fn from(error: TopologyError) -> Self {
        match error {
            TopologyError::Differs(_) => Self::Refused(error.to_string()),
            TopologyError::Lost(_) | TopologyError::Silent => Self::Lost(error.to_string()),
        }
    }
}

/// Opens the channel. An exchange that is missing is declared, if that is this worker's task.
pub(super) async fn open(
    connection: &Connection,
    broker: &BrokerSettings,
    target: &Target,
    line: &Line,
) -> Result<Session, Opening> {
    match answered(try_to_publish(connection, target), line).await? {
        Ok(()) => {}
        Err(error) if is_missing(&error) && broker.topology == TopologyMode::Declare => {
            topology::prepare(connection, broker).await?;
            answered(try_to_publish(connection, target), line).await??;
        }
        Err(error) => return Err(error.into()),
    }
    let channel = answered(confirming(connection), line).await??;
    Ok(Session::new(channel, line.clone()))
}

/// Waits for the broker's answer. While it blocks publishers it also answers no question.
async fn answered<T>(asked: impl Future<Output = lapin::Result<T>>, line: &Line) -> Result<lapin::Result<T>, Opening> {
    tokio::select! {
        answer = asked => Ok(answer),
        () = line.alarm.silence(REPLY_WITHIN) => Err(Opening::Lost("the broker did not answer in time".into())),
    }
}

async fn confirming(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// Asks the broker whether a message would be taken, and leaves none: it is published in a transaction, which
/// is rolled back. The broker looks for the exchange, and at the permissions, before that.
async fn try_to_publish(connection: &Connection, target: &Target) -> lapin::Result<()> {
    let routing_keys = target.routing_keys();
    if routing_keys.is_empty() { Ok(()) } else { try_publishing(connection, target.exchange(), &routing_keys).await }
}

/// How often the broker is asked until it is heard why it refuses.
const ASKED: u32 = 5;

/// The same, for any exchange.
///
/// # Errors
/// The broker's refusal, or why it did not answer.
pub async fn try_publishing(connection: &Connection, exchange: &str, routing_keys: &[&str]) -> lapin::Result<()> {
    let mut asked = 1;
    loop {
        match try_once(connection, exchange, routing_keys).await {
            // The channel was closed just before the next question. Then the client does not say why.
            Err(error) if is_closed(&error) && asked < ASKED => asked += 1,
            answer => return answer,
        }
    }
}

async fn try_once(connection: &Connection, exchange: &str, routing_keys: &[&str]) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    channel.tx_select().await?;
    let options = BasicPublishOptions::default();
    let publishes = routing_keys.iter().map(|routing_key| {
        channel.basic_publish(exchange.into(), (*routing_key).into(), options, b"", BasicProperties::default())
    });
    // Each waits until it is written. lapin would write the rollback before a publish that still waits.
    try_join_all(publishes).await?;
    channel.tx_rollback().await?;
    let _ = timeout(REPLY_WITHIN, channel.close(200, "done".into())).await;
    Ok(())
}

fn is_closed(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidChannel(_))
}

fn is_missing(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else { return false };
    *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)
}
