//! Why a command about dead letters failed.

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};

use crate::amqp::ConnectError;
use crate::broker::REPLY_WITHIN;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// The broker cannot be connected to.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// There is no such queue.
    #[error(
        "the broker has no queue {0}\nTo mend it: give this command the AMQP_URL and OTP_DEAD_LETTER_EXCHANGE of the workers; a worker declares the queue at its start, and so does topology apply"
    )]
    NoQueue(String),
    /// The user may not do it.
    #[error("the broker does not allow it: {0}\nTo mend it: the user of AMQP_URL needs {1}")]
    Forbidden(String, &'static str),
    /// The connection was lost.
    #[error("the connection to the broker was lost: {0}")]
    Lost(lapin::Error),
    /// The broker ended the consumer.
    #[error("the broker ended the reading of the queue: was it deleted?")]
    Cancelled,
    /// The broker did not answer.
    #[error("the broker did not answer within {} s", REPLY_WITHIN.as_secs())]
    Silent,
    /// The broker did not confirm.
    #[error("the broker did not confirm a job in time")]
    NotConfirmed,
    /// The queue of jobs does not exist.
    #[error(
        "the broker has no queue {0} to requeue to\nTo mend it: start a worker, or run topology apply; or give this command the OTP_QUEUE of the workers"
    )]
    NoJobs(String),
    /// The queue of dead letters takes no copy.
    #[error("the queue {0} takes no message (nack): is it full, and does a policy have it refuse messages?")]
    Full(String),
    /// The ledger did not tell.
    #[error("{0}")]
    Ledger(String),
    /// Something cannot be written to standard output.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] std::io::Error),
    /// Somebody pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// What a user needs to take letters.
const TO_TAKE: &str = "read permission on the queue of dead letters";

impl From<lapin::Error> for Failed {
    fn from(error: lapin::Error) -> Self {
        match refusal(&error) {
            Some((AMQPSoftError::ACCESSREFUSED, words)) => Self::Forbidden(words, TO_TAKE),
            _ => Self::Lost(error),
        }
    }
}

/// What the broker says where it refuses one request.
pub(super) fn refusal(error: &lapin::Error) -> Option<(AMQPSoftError, String)> {
    let ErrorKind::ProtocolError(said) = error.kind() else { return None };
    match said.kind() {
        AMQPErrorKind::Soft(kind) => Some((kind.clone(), said.get_message().to_string())),
        AMQPErrorKind::Hard(_) => None,
    }
}
