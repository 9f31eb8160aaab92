//! Tries what a worker's user needs to be allowed. Takes no job, and leaves no message.

use std::fmt;

use lapin::options::BasicConsumeOptions;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ErrorKind};
use tokio::time::timeout;

use super::REPLY_WITHIN;
use super::opening::try_publishing;
use super::settings::BrokerSettings;

/// Something that a worker's user cannot do.
#[derive(Clone, Debug)]
pub struct Missing {
    /// What it is for.
    what: &'static str,
    /// The broker's own text.
    why: String,
    /// Whether only replies to producers' queues need it.
    pub is_for_replies_only: bool,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// What is not allowed.
///
/// # Errors
/// When the broker does not answer.
pub async fn missing(connection: &Connection, broker: &BrokerSettings) -> lapin::Result<Vec<Missing>> {
    let BrokerSettings { queue, dropped, reply_exchange, dead_letter, .. } = broker;
    let mut all = Vec::new();
    let mut add = |what, is_for_replies_only, refused: Option<String>| {
        all.extend(refused.map(|why| Missing { what, why, is_for_replies_only }));
    };
    add("to take jobs", false, refusal(try_consuming(connection, queue)).await?);
    add("to take dropped jobs", false, refusal(try_consuming(connection, dropped)).await?);
    add("to publish results", false, refusal(try_publishing(connection, reply_exchange, &["otp.accepted"])).await?);
    add("to publish dead letters", false, refusal(try_publishing(connection, dead_letter, &[""])).await?);
    add("to publish replies", true, refusal(try_publishing(connection, "", &[queue])).await?);
    Ok(all)
}

/// Anything else, such as a queue that is not there now, is no matter of permissions.
const REFUSED: AMQPErrorKind = AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED);

/// The broker's refusal, or nothing if it allows it.
async fn refusal(asked: impl Future<Output = lapin::Result<()>>) -> lapin::Result<Option<String>> {
    match timeout(REPLY_WITHIN, asked).await {
        Ok(Ok(())) => Ok(None),
        Ok(Err(error)) => match error.kind() {
            ErrorKind::ProtocolError(said) if *said.kind() == REFUSED => Ok(Some(said.get_message().to_string())),
            _ => Err(error),
        },
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

/// Asks to consume with an argument of a wrong type. The broker looks at the permission first (403), then at the
/// queue (404), and then at the argument (406). So it never delivers a job.
async fn try_consuming(connection: &Connection, queue: &str) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-priority".into(), AMQPValue::LongString("not a number".into()));
    match channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), arguments).await {
        Err(error) if is_about_the_argument(&error) => Ok(()),
        Err(error) => Err(error),
        // No known version takes it. With the channel the consumer ends, too.
        Ok(_) => channel.close(200, "done".into()).await,
    }
}

fn is_about_the_argument(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else { return false };
    *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
}
