//! Makes a connection to Redis that is ready for steps: reached, logged in, moved in, and written to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::address::{Address, Source};
use super::home::{Home, Owner};
use super::refusal::{Meaning, meaning};
use super::store::StoreError;

/// The limit on making a connection, all addresses of the name included. No job waits for so long: see
/// [`super::link`].
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// An address that does not answer for this long does not hold up the next one.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(200);

/// A connection without traffic for this long is tried by the system, so that a firewall does not forget it
/// and a server that is gone is found out.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How often, and how many times, it is tried.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TRIES: u32 = 3;

/// A connection on which so many steps in a row were refused is replaced: the error may be one that is not
/// known to [`super::refusal`].
const MOST_REFUSALS: u32 = 3;

/// A connection, and the task that drives it. The task ends with the connection: a stalled task would keep its
/// socket for ever.
#[derive(Debug)]
pub struct Live {
    /// Takes steps.
    pub connection: Connection,
    driver: JoinHandle<()>,
    dead: CancellationToken,
    usage: Arc<Usage>,
    refusals: AtomicU32,
    last_answer: Mutex<Instant>,
}

/// The client's connection, which has no `Debug`.
#[derive(Clone)]
pub struct Connection(pub MultiplexedConnection);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Live {
    fn new(connection: MultiplexedConnection, driver: JoinHandle<()>, dead: CancellationToken) -> Self {
        let now = Instant::now();
        Self {
            connection: Connection(connection),
            driver,
            dead,
            usage: Arc::new(Usage { born: now, has_worked: AtomicBool::new(false), lasted: OnceLock::new() }),
            refusals: AtomicU32::new(0),
            last_answer: Mutex::new(now),
        }
    }

    /// It is not used any more.
    pub fn retire(&self) {
        self.dead.cancel();
    }

    /// Whether it has ended, or is not used any more.
    pub fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    /// Waits until it is dead.
    pub async fn died(&self) {
        self.dead.cancelled().await;
    }

    /// The server took a step.
    pub fn worked(&self) {
        self.usage.has_worked.store(true, Ordering::Relaxed);
        self.refusals.store(0, Ordering::Relaxed);
        self.answered();
    }

    /// The server refused a step. A connection on which nothing works any more is retired.
    pub(super) fn refused(&self) {
        self.answered();
        if self.refusals.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_REFUSALS {
            self.retire();
        }
    }

    fn answered(&self) {
        *self.last_answer.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// For how long the server has said nothing.
    pub fn silence(&self) -> Duration {
        self.last_answer.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Whether it was of any use. It has died.
    pub fn usage(&self) -> Arc<Usage> {
        let _ = self.usage.lasted.set(self.usage.born.elapsed());
        Arc::clone(&self.usage)
    }
}

/// What use a connection was. It is kept after the connection.
#[derive(Debug)]
pub struct Usage {
    born: Instant,
    has_worked: AtomicBool,
    lasted: OnceLock<Duration>,
}

impl Usage {
    /// Whether it was of any: the server took a step, or kept the connection for longer than `short`.
    pub fn was_any(&self, short: Duration) -> bool {
        self.has_worked.load(Ordering::Relaxed) || self.lasted.get().is_none_or(|lasted| *lasted > short)
    }
}

/// Makes connections.
#[derive(Debug)]
pub struct Dialer {
    source: Source,
    home: Home,
}

impl Dialer {
    /// Connects to where this source says, and moves in there.
    pub const fn new(source: Source, home: Home) -> Self {
        Self { source, home }
    }

    /// The home.
    pub const fn home(&self) -> &Home {
        &self.home
    }

    /// Makes a connection, within [`CONNECT_LIMIT`] for each address to try: that of now, and the last good one.
    ///
    /// # Errors
    /// What came of the address of now.
    pub async fn dial(&self) -> Result<Live, StoreError> {
        let mut first_error = None;
        for (n, address) in self.source.candidates().await.iter().enumerate() {
            match timeout(CONNECT_LIMIT, self.reach(address)).await {
                Ok(Ok(live)) => {
                    if n > 0 {
                        info!("the ledger is reached with its last good address, and not with that in the file");
                    }
                    self.source.set_good(address);
                    return Ok(live);
                }
                Ok(Err(error)) => first_error.get_or_insert(error),
                Err(_) => first_error.get_or_insert(StoreError::Unreachable("connecting took too long".into())),
            };
        }
        Err(first_error.unwrap_or(StoreError::Unreachable("it has no address".into())))
    }

    async fn reach(&self, address: &Address) -> Result<Live, StoreError> {
        let found = lookup_host((address.host.as_str(), address.port)).await.map_err(unreachable)?;
        self.first_of(address, found.collect()).await
    }

    /// The first of these that can be logged in to and takes writes. A name may have addresses that are dead, or
    /// those of replicas.
    pub(super) async fn first_of(&self, address: &Address, found: Vec<SocketAddr>) -> Result<Live, StoreError> {
        let mut rest = found.into_iter();
        let mut tries = FuturesUnordered::new();
        let mut last = StoreError::Unreachable("the name has no address".into());
        tries.extend(rest.next().map(|one| self.connect(address, one)));
        while !tries.is_empty() {
            tokio::select! {
                Some(done) = tries.next() => match done {
                    Ok(live) => return Ok(live),
                    Err(error) => {
                        last = last.or_worse(error);
                        tries.extend(rest.next().map(|one| self.connect(address, one)));
                    }
                },
                () = sleep(NEXT_ADDRESS_AFTER), if rest.len() > 0 => {
                    tries.extend(rest.next().map(|one| self.connect(address, one)));
                }
            }
        }
        Err(last)
    }

    async fn connect(&self, address: &Address, one: SocketAddr) -> Result<Live, StoreError> {
        let stream = TcpStream::connect(one).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let keep_alive =
            TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE_EVERY).with_retries(KEEP_ALIVE_TRIES);
        SockRef::from(&stream).set_tcp_keepalive(&keep_alive).map_err(unreachable)?;
        match &address.tls {
            None => self.log_in(&address.login, stream).await,
            Some(tls) => {
                let name = ServerName::try_from(address.host.clone())
                    .map_err(|error| StoreError::Unreachable(error.to_string()))?;
                let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(unreachable)?;
                self.log_in(&address.login, stream).await
            }
        }
    }

    async fn log_in<C>(&self, login: &RedisConnectionInfo, stream: C) -> Result<Live, StoreError>
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // No limits of the client's own: the step has one. No login of its own either, since it hides what the
        // server said.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let plain = RedisConnectionInfo::default().set_skip_set_lib_name();
        let (mut connection, driver) =
            MultiplexedConnection::new_with_config(&plain, stream, config).await.map_err(|error| refused(&error))?;
        let dead = CancellationToken::new();
        let dies = dead.clone().drop_guard();
        let driver = tokio::spawn(async move {
            driver.await;
            drop(dies);
        });
        let live = Live::new(connection.clone(), driver, dead);
        authenticate(login, &mut connection).await.map_err(|error| without(login, refused(&error)))?;
        match self.home.move_in(&mut connection).await.map_err(|error| refused(&error))? {
            Owner::Ours => Ok(live),
            Owner::Another(whose) | Owner::Nobody(whose) => Err(StoreError::NotOurs(whose)),
        }
    }
}

async fn authenticate(login: &RedisConnectionInfo, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    if let Some(password) = login.password() {
        let mut command = redis::cmd("AUTH");
        if let Some(user) = login.username() {
            command.arg(user);
        }
        command.arg(password).query_async::<()>(connection).await?;
    }
    if login.db() != 0 {
        redis::cmd("SELECT").arg(login.db()).query_async::<()>(connection).await?;
    }
    Ok(())
}

/// The error without the password: a server or a proxy that does not know the command repeats its arguments.
fn without(login: &RedisConnectionInfo, error: StoreError) -> StoreError {
    let Some(password) = login.password().filter(|password| !password.is_empty()) else { return error };
    error.map_text(|text| {
        // A server that does not know the command cuts its arguments, so that a part of the password may be left.
        let told = text.split("with args beginning with").next().unwrap_or_default();
        told.replace(password, "[removed]")
    })
}

fn unreachable(error: std::io::Error) -> StoreError {
    StoreError::Unreachable(error.to_string())
}

/// What an error of the client means.
pub(super) fn refused(error: &RedisError) -> StoreError {
    match error.code().map(|code| meaning(code, error.detail().unwrap_or_default())) {
        None | Some(Meaning::Refused { hint: None, .. }) => StoreError::Unreachable(error.to_string()),
        Some(Meaning::Refused { hint: Some(hint), .. }) => StoreError::Refused { why: error.to_string(), hint },
        Some(Meaning::BadRecord) => StoreError::Unreadable(error.to_string()),
    }
}
