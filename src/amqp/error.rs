use lapin::{
    ErrorKind,
    protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError},
    uri::AMQPUri,
};
use std::{io, time::Duration};
use thiserror::Error;

/// Why there is no connection to the broker. `at` is its host and port.
///
/// No variant holds the password. `reason` is the broker's own text, at most 255 bytes.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The name does not resolve, or no address of it takes a TCP connection. May pass.
    #[error("cannot reach the broker at {at}: {source}; check the host and port of AMQP_URL, and that the broker runs")]
    Unreachable {
        /// Host and port.
        at: String,
        /// Of the last address tried.
        source: io::Error,
    },
    /// The TLS handshake failed: mostly a certificate that is not trusted or is for another host.
    #[error(
        "no TLS with the broker at {at}: {source}; check its certificate, AMQP_CA_FILE, and that the port is one for TLS"
    )]
    Tls {
        /// Host and port.
        at: String,
        /// Holds a `rustls::Error` where TLS itself failed.
        source: io::Error,
    },
    /// The broker does not know the user, or not by this password (403). Waiting does not help.
    #[error("the broker at {at} refuses the credentials: {reason}; check the user and password of AMQP_URL")]
    Credentials {
        /// Host and port.
        at: String,
        /// What the broker says.
        reason: String,
    },
    /// The virtual host does not exist, is full, or is closed to this user (530).
    #[error(
        "the broker at {at} does not open virtual host `{vhost}`: {reason}; check the path of AMQP_URL (`/` is written %2f) and the user's permissions"
    )]
    Vhost {
        /// Host and port.
        at: String,
        /// As in the URL, decoded.
        vhost: String,
        /// What the broker says.
        reason: String,
    },
    /// The broker, or what answers in its place, is too slow or says nothing. May pass.
    #[error(
        "the broker at {at} took longer than {limit:?} for {step}; check that it is healthy and that the port is right for the scheme of AMQP_URL"
    )]
    Timeout {
        /// Host and port.
        at: String,
        /// What it was to do.
        step: &'static str,
        /// The time it had.
        limit: Duration,
    },
    /// Anything else, such as a port where something other than AMQP 0-9-1 is spoken.
    #[error(
        "no AMQP connection to the broker at {at}: {source}; check the scheme and port of AMQP_URL and the broker's log"
    )]
    Other {
        /// Host and port.
        at: String,
        /// As lapin tells it.
        source: lapin::Error,
    },
}

/// Host and port, as people write them.
pub(super) fn endpoint(uri: &AMQPUri) -> String {
    let authority = &uri.authority;
    if authority.host.contains(':') {
        format!("[{}]:{}", authority.host, authority.port)
    } else {
        format!("{}:{}", authority.host, authority.port)
    }
}

/// What a failed AMQP handshake means. RabbitMQ answers wrong credentials with 403 because lapin
/// announces `authentication_failure_close`, and an unknown or forbidden virtual host with 530.
pub(super) fn of_handshake(source: lapin::Error, uri: &AMQPUri, limit: Duration) -> ConnectError {
    let at = endpoint(uri);
    match source.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => ConnectError::Credentials { at, reason: said(error) },
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                ConnectError::Vhost { at, vhost: uri.vhost.clone(), reason: said(error) }
            }
            _ => ConnectError::Other { at, source },
        },
        ErrorKind::IOError(error) if error.kind() == io::ErrorKind::TimedOut => slow_handshake(uri, limit),
        _ => ConnectError::Other { at, source },
    }
}

/// The broker's words, without the full stop some end with, to be part of a sentence.
fn said(error: &AMQPError) -> String {
    error.get_message().as_str().trim_end_matches('.').to_owned()
}

/// The broker did not open the connection in time.
pub(super) fn slow_handshake(uri: &AMQPUri, limit: Duration) -> ConnectError {
    ConnectError::Timeout { at: endpoint(uri), step: "the AMQP handshake", limit }
}
