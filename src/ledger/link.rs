//! The connection to Redis. All jobs share it. It is opened when a step needs it, and again after a failure.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::store::StoreError;

/// The limit on one step. A healthy store answers in a millisecond, and a person waits for the OTP.
pub const STEP_LIMIT: Duration = Duration::from_secs(1);

/// The limit on connecting. It is part of the step's limit.
const CONNECT_LIMIT: Duration = Duration::from_millis(800);

/// After a failure no step connects for this long. Otherwise each job that goes on without the store would
/// wait for a connection that fails.
const PAUSE: Duration = Duration::from_millis(300);

/// The errors of a server that does not take writes (now). Where the name follows the primary, a new
/// connection finds the right server.
const WRONG_SERVER: [&str; 3] = ["READONLY", "MASTERDOWN", "LOADING"];

/// The address of a Redis, and the login there.
#[derive(Clone)]
pub struct Address {
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The trusted certificates, for `rediss://`.
    pub tls: Option<Arc<ClientConfig>>,
    /// User, password and database.
    pub login: RedisConnectionInfo,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// A connection, and the task that drives it. The task ends with the connection: a stalled task would keep its
/// socket for ever.
struct Live {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[derive(Default)]
struct State {
    live: Option<Arc<Live>>,
    not_before: Option<Instant>,
}

/// The connection.
pub struct Link {
    address: Address,
    state: Mutex<State>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Link {
    /// A link to this Redis. It does not connect yet.
    pub fn new(address: Address) -> Self {
        Self { address, state: Mutex::default() }
    }

    /// Takes one step, within [`STEP_LIMIT`].
    ///
    /// # Errors
    /// [`StoreError`]. If the connection may be broken, the next step opens a new one.
    pub async fn step<T>(
        &self,
        step: impl AsyncFnOnce(MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, StoreError> {
        let live = match timeout(STEP_LIMIT, self.live()).await {
            Ok(live) => live?,
            Err(_) => return Err(StoreError::Unreachable("no connection in time".into())),
        };
        match timeout(STEP_LIMIT, step(live.connection.clone())).await {
            Ok(Ok(done)) => Ok(done),
            // The server answered: the connection works.
            Ok(Err(error)) if error.code() == Some("WRONGTYPE") => Err(StoreError::Unreadable(error.to_string())),
            Ok(Err(error)) if error.code().is_some_and(|code| !WRONG_SERVER.contains(&code)) => {
                Err(StoreError::Refused(error.to_string()))
            }
            Ok(Err(error)) => Err(self.drop_broken(&live, error.to_string()).await),
            Err(_) => Err(self.drop_broken(&live, "no answer in time".into()).await),
        }
    }

    async fn live(&self) -> Result<Arc<Live>, StoreError> {
        let mut state = self.state.lock().await;
        if let Some(live) = &state.live {
            return Ok(Arc::clone(live));
        }
        if state.not_before.is_some_and(|at| Instant::now() < at) {
            return Err(StoreError::Unreachable("it could not be reached a moment ago".into()));
        }
        let connected = match timeout(CONNECT_LIMIT, connect(&self.address)).await {
            Ok(connected) => connected,
            Err(_) => Err(StoreError::Unreachable("connecting took too long".into())),
        };
        state.not_before = connected.is_err().then(|| Instant::now() + PAUSE);
        let live = Arc::new(connected?);
        state.live = Some(Arc::clone(&live));
        Ok(live)
    }

    async fn drop_broken(&self, broken: &Arc<Live>, why: String) -> StoreError {
        let mut state = self.state.lock().await;
        // Another step may have replaced it already.
        if state.live.as_ref().is_some_and(|live| Arc::ptr_eq(live, broken)) {
            state.live = None;
            state.not_before = Some(Instant::now() + PAUSE);
        }
        StoreError::Unreachable(why)
    }
}

async fn connect(address: &Address) -> Result<Live, StoreError> {
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    match &address.tls {
        None => log_in(&address.login, stream).await,
        Some(tls) => {
            let name = ServerName::try_from(address.host.clone())
                .map_err(|error| StoreError::Unreachable(error.to_string()))?;
            let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(unreachable)?;
            log_in(&address.login, stream).await
        }
    }
}

fn unreachable(error: io::Error) -> StoreError {
    StoreError::Unreachable(error.to_string())
}

async fn log_in<C>(login: &RedisConnectionInfo, stream: C) -> Result<Live, StoreError>
where
    C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    // No limits of the client's own: the step has one.
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    let (connection, driver) = MultiplexedConnection::new_with_config(login, stream, config)
        .await
        .map_err(|error| StoreError::Refused(error.to_string()))?;
    Ok(Live { connection, driver: tokio::spawn(driver) })
}
