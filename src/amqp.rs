//! The AMQP transport. No message can break it.
//!
//! ```text
//! broker == TCP [== TLS] ==> Sieve ==> lapin
//! ```
//!
//! lapin speaks AMQP. The socket under it is ours, for two reasons: it makes the bytes readable before lapin
//! parses them (see `sieve.rs`), and a broker that falls silent cannot block lapin's thread. A string that is
//! not UTF-8 arrives with [`SUBSTITUTE`](crate::job::envelope::SUBSTITUTE) in place of each invalid byte.

mod error;
mod fields;
#[doc(hidden)]
pub mod fuzzing;
mod reach;
mod reactor;
mod repair;
mod sieve;
mod stream;

pub use error::ConnectError;

use lapin::{AsyncTcpStream, Connection, ConnectionProperties, uri::AMQPUri};
use rustls::ClientConfig;
use sieve::Sieve;
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use stream::{Patience, SievedStream, Socket};
use tokio::time::{Instant, timeout};

/// For DNS and TCP: enough time to send a lost SYN again twice (after 1 s and 3 s).
const TCP_LIMIT: Duration = Duration::from_secs(5);
/// For TLS, which needs two round trips and one signature.
const TLS_LIMIT: Duration = Duration::from_secs(5);
/// From the protocol header to connection.open-ok. The value is RabbitMQ's own `handshake_timeout`.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// In seconds, used when the URI names no heartbeat. A dead broker is noticed after twice this time. With
/// RabbitMQ's default that takes two minutes. RabbitMQ's documentation recommends 5 to 20.
const HEARTBEAT: u16 = 10;
/// How many heartbeats may be missing. lapin gives up after two, so this limit acts only when lapin's own
/// check does not.
const SILENT_HEARTBEATS: u32 = 3;
/// In bytes, used when the URI names no frame size: RabbitMQ's default. lapin reserves 64 times this size for
/// each connection. For "no limit" it reserves 64 times 4 GiB.
const FRAME_MAX: u32 = 128 * 1024;
/// In bytes: the smallest limit that a peer may set (AMQP 0-9-1, 4.2.3).
const FRAME_MIN: u32 = 4096;

/// How long each step of a connection may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    reach: reach::Limits,
    handshake: Duration,
}

const LIMITS: Limits = Limits { reach: reach::Limits { tcp: TCP_LIMIT, tls: TLS_LIMIT }, handshake: HANDSHAKE_LIMIT };

/// A connection to a broker.
#[derive(Debug)]
pub struct Opened {
    /// The connection.
    pub connection: Connection,
    /// The name of the broker's cluster, if it says one: RabbitMQ does.
    pub cluster: Option<String>,
}

/// Opens a connection to the broker, over TLS for `amqps`. RabbitMQ shows the connection as `name`.
///
/// The URI's `connection_timeout` (milliseconds) replaces the 5 s for DNS and TCP. If the URI has no
/// `heartbeat` (seconds), lapin asks for 10 s. lapin's own recovery is off: the caller must reopen a lost
/// connection. lapin's thread always ends with the connection, also when the returned future is dropped.
///
/// # Errors
/// See [`ConnectError`]. The call takes at most 20 s.
///
/// # Panics
/// Outside a tokio runtime.
pub async fn connect(uri: &AMQPUri, tls: &Arc<ClientConfig>, name: &str) -> Result<Opened, ConnectError> {
    connect_within(LIMITS, uri, tls, name).await
}

async fn connect_within(
    mut limits: Limits,
    uri: &AMQPUri,
    tls: &Arc<ClientConfig>,
    name: &str,
) -> Result<Opened, ConnectError> {
    let uri = with_defaults(uri);
    if let Some(milliseconds) = uri.query.connection_timeout {
        limits.reach.tcp = Duration::from_millis(milliseconds);
    }
    let socket = reach::reach(&uri, tls, limits.reach).await?;
    let sieve = Sieve::new(uri.query.frame_max.unwrap_or(FRAME_MAX));
    let cluster = sieve.cluster();
    let stream = sieved(socket, sieve, &uri, limits.handshake);
    let opened = handshake(stream, uri.clone(), name);
    match timeout(limits.handshake, opened).await {
        Ok(Ok(connection)) => Ok(Opened { connection, cluster: cluster.get().cloned() }),
        Ok(Err(source)) => Err(error::of_handshake(source, &uri, limits.handshake)),
        Err(_) => Err(error::slow_handshake(&uri, limits.handshake)),
    }
}

fn with_defaults(uri: &AMQPUri) -> AMQPUri {
    let mut uri = uri.clone();
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    uri.query.frame_max = match uri.query.frame_max {
        None | Some(0) => Some(FRAME_MAX),
        Some(size) => Some(size.max(FRAME_MIN)),
    };
    uri
}

fn sieved(socket: Box<dyn Socket>, sieve: Sieve, uri: &AMQPUri, handshake: Duration) -> SievedStream {
    let heartbeat = uri.query.heartbeat.filter(|seconds| *seconds > 0);
    let patience = Patience {
        open_by: Instant::now() + handshake,
        silence: heartbeat.map(|seconds| Duration::from_secs(seconds.into()) * SILENT_HEARTBEATS),
    };
    SievedStream::new(socket, sieve, patience)
}

async fn handshake(stream: SievedStream, uri: AMQPUri, name: &str) -> lapin::Result<Connection> {
    let properties = ConnectionProperties::default()
        .with_connection_name(name.into())
        .with_client_property("product".into(), env!("CARGO_PKG_NAME").into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let stream = Mutex::new(Some(stream));
    let hand_over = async move |_, _| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stream = stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        Ok(AsyncTcpStream::Plain(stream))
    };
    Connection::connector(uri, reactor::current(), hand_over, properties).await
}

#[cfg(test)]
mod tests;
