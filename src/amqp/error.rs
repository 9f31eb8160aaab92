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
    /// The name does not resolve, or none of its addresses accepts a TCP connection. The problem may pass.
    #[error("cannot reach the broker at {at}: {source}; check the host and port of AMQP_URL, and that the broker runs")]
    Unreachable {
        /// Host and port.
        at: String,
        /// The error of the last address tried.
        source: io::Error,
    },
    /// The TLS handshake failed. The usual cause is a certificate that is not trusted, or one for another
    /// host.
    #[error(
        "no TLS with the broker at {at}: {source}; check its certificate, AMQP_CA_FILE, and that the port is one for TLS"
    )]
    Tls {
        /// Host and port.
        at: String,
        /// Holds a `rustls::Error` when TLS itself failed.
        source: io::Error,
    },
    /// The broker does not know the user, or the password is wrong (403). Waiting does not help.
    #[error("the broker at {at} refuses the credentials: {reason}; check the user and password of AMQP_URL")]
    Credentials {
        /// Host and port.
        at: String,
        /// The broker's own text.
        reason: String,
    },
    /// The virtual host does not exist, is full, or is closed to this user (530).
    #[error(
        "the broker at {at} does not open virtual host `{vhost}`: {reason}; check the path of AMQP_URL (`/` is written %2f) and the user's permissions"
    )]
    Vhost {
        /// Host and port.
        at: String,
        /// The virtual host from the URL, decoded.
        vhost: String,
        /// The broker's own text.
        reason: String,
    },
    /// The broker opens no more connections (530): for the user, the virtual host or the node.
    #[error(
        "the broker at {at} opens no more connections: {reason}; a worker needs two, and a third for replies: close others, or raise the limit"
    )]
    Limit {
        /// Host and port.
        at: String,
        /// The broker's own text.
        reason: String,
    },
    /// The broker, or another program on its port, is too slow or sends nothing. The problem may pass.
    #[error(
        "the broker at {at} took longer than {limit:?} for {step}; check that it is healthy and that the port is right for the scheme of AMQP_URL"
    )]
    Timeout {
        /// Host and port.
        at: String,
        /// The step that took too long.
        step: &'static str,
        /// The time limit of the step.
        limit: Duration,
    },
    /// Anything else, such as a port that does not speak AMQP 0-9-1.
    #[error(
        "no AMQP connection to the broker at {at}: {source}; check the scheme and port of AMQP_URL and the broker's log"
    )]
    Other {
        /// Host and port.
        at: String,
        /// lapin's error.
        source: lapin::Error,
    },
    /// None of several addresses gave a connection.
    #[error("none of {} addresses gives a connection: {}", .0.len(), list(.0))]
    Several(Vec<ConnectError>),
}

impl ConnectError {
    /// The error of addresses that were tried in turn.
    pub fn of_all(mut errors: Vec<Self>) -> Self {
        match errors.pop() {
            Some(only) if errors.is_empty() => only,
            last => Self::Several(errors.into_iter().chain(last).collect()),
        }
    }
}

fn list(errors: &[ConnectError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

/// Host and port, with brackets around an IPv6 address.
pub(super) fn endpoint(uri: &AMQPUri) -> String {
    let authority = &uri.authority;
    if authority.host.contains(':') {
        format!("[{}]:{}", authority.host, authority.port)
    } else {
        format!("{}:{}", authority.host, authority.port)
    }
}

/// Finds out what a failed AMQP handshake means. RabbitMQ answers wrong credentials with 403, because lapin
/// announces `authentication_failure_close`. It answers an unknown or forbidden virtual host with 530.
pub(super) fn of_handshake(source: lapin::Error, uri: &AMQPUri, limit: Duration) -> ConnectError {
    let at = endpoint(uri);
    match source.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => ConnectError::Credentials { at, reason: said(error) },
            // The same code says that there is no such virtual host, and that there are enough connections.
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if said(error).contains("connection limit") => {
                ConnectError::Limit { at, reason: said(error) }
            }
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                ConnectError::Vhost { at, vhost: uri.vhost.clone(), reason: said(error) }
            }
            _ => ConnectError::Other { at, source },
        },
        ErrorKind::IOError(error) if error.kind() == io::ErrorKind::TimedOut => slow_handshake(uri, limit),
        _ => ConnectError::Other { at, source },
    }
}

/// The broker's own text without the full stop at its end, so that it fits into a sentence.
fn said(error: &AMQPError) -> String {
    error.get_message().as_str().trim_end_matches('.').to_owned()
}

/// The broker did not open the connection in time.
pub(super) fn slow_handshake(uri: &AMQPUri, limit: Duration) -> ConnectError {
    ConnectError::Timeout { at: endpoint(uri), step: "the AMQP handshake", limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts are those of RabbitMQ 3.10 to 4.1.
    #[test]
    fn a_limit_on_connections_is_told_from_a_virtual_host_that_is_not_there() {
        for (text, is_limit) in [
            ("NOT_ALLOWED - connection refused for user 'otp': user connection limit (1) is reached", true),
            ("NOT_ALLOWED - access to vhost '/' refused for user 'otp': connection limit (5) is reached", true),
            ("NOT_ALLOWED - connection refused: node connection limit (2) is reached", true),
            ("NOT_ALLOWED - vhost otp not found", false),
            ("NOT_ALLOWED - access to vhost '/' refused for user 'otp'", false),
        ] {
            let refused = AMQPError::new(AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED), text.into());
            let source = ErrorKind::ProtocolError(refused).into();
            let error = of_handshake(source, &AMQPUri::default(), Duration::ZERO);
            assert_eq!(matches!(error, ConnectError::Limit { .. }), is_limit, "{text}: {error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn the_error_of_several_addresses_names_each_and_that_of_one_is_its_own() {
        let slow = || slow_handshake(&AMQPUri::default(), Duration::ZERO);
        assert_eq!(ConnectError::of_all(vec![slow()]).to_string(), slow().to_string());
        let both = ConnectError::of_all(vec![slow(), slow()]).to_string();
        assert!(both.starts_with("none of 2 addresses") && both.matches("the AMQP handshake").count() == 2, "{both}");
    }
}
