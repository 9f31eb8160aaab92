//! Why `send` failed.

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};

use crate::amqp;
use crate::broker::REPLY_WITHIN;

/// Why `send` failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The broker cannot be connected to.
    #[error(transparent)]
    NotConnected(#[from] amqp::ConnectError),
    /// The connection was lost.
    #[error("the connection to the broker was lost: {0}")]
    Lost(lapin::Error),
    /// The user may not publish.
    #[error(
        "the broker refuses: {0}\nTo mend it: give the user write permission for amq.default, the default exchange"
    )]
    Forbidden(String),
    /// The broker did not answer.
    #[error("the broker did not answer within {} s", REPLY_WITHIN.as_secs())]
    Silent,
    /// The queue does not exist.
    #[error("the broker has no queue {0}: start a worker first, which declares it")]
    NoQueue(String),
    /// The broker refused a job with a nack. The queue may be full.
    #[error("the broker refused a job (nack): the queue may be full. Start workers, or send the rest later")]
    Refused,
    /// The jobs cannot be read.
    #[error("cannot read {0}: {1}")]
    Input(String, std::io::Error),
    /// The jobs are in another encoding.
    #[error("{0} is UTF-16 text: save it as UTF-8")]
    Encoding(String),
    /// The jobs are no CSV.
    #[error("{0} cannot be read as CSV: {1}")]
    Csv(String, String),
    /// The ids or results cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(std::io::Error),
    /// A person has ended it.
    #[error("interrupted")]
    Interrupted,
}

impl From<lapin::Error> for SendError {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(said) if said.kind() == &AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => {
                Self::Forbidden(said.get_message().to_string())
            }
            _ => Self::Lost(error),
        }
    }
}
