//! A TCP proxy: a network between two programs that a test can break.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::ports;
use super::wait::until;

/// How many bytes from the client are searched for a pattern. An AMQP client sends its client properties
/// within this many bytes, before it opens a channel.
const HEAD: usize = 4096;

/// The direction in which a stalled connection forwards no more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
    Both,
}

/// Listens on 127.0.0.1 and forwards to one target. The proxy and all its connections end when it is
/// dropped. It needs the runtime on which it was started.
pub(crate) struct Proxy {
    port: u16,
    controls: Arc<Controls>,
    accepting: JoinHandle<()>,
}

struct Controls {
    /// Whether new connections are refused.
    refusing: watch::Sender<bool>,
    /// Whether the listener is closed. It follows `refusing`.
    closed: watch::Sender<bool>,
    stalls: watch::Sender<Vec<Stall>>,
    accepted: watch::Sender<usize>,
    open: Mutex<Vec<Arc<Line>>>,
}

/// One open connection.
#[derive(Default)]
struct Line {
    /// The first bytes from the client.
    head: Mutex<Vec<u8>>,
    cut: CancellationToken,
}

#[derive(Clone)]
struct Stall {
    direction: Direction,
    /// An empty pattern holds back every connection.
    pattern: Vec<u8>,
}

impl Proxy {
    /// Starts to forward to `target`, a port of 127.0.0.1.
    pub(crate) async fn start(target: u16) -> Self {
        let listener = listen_somewhere().await;
        let port = listener.local_addr().expect("own address").port();
        let controls = Arc::new(Controls {
            refusing: watch::Sender::new(false),
            closed: watch::Sender::new(false),
            stalls: watch::Sender::new(Vec::new()),
            accepted: watch::Sender::new(0),
            open: Mutex::default(),
        });
        // Subscribe before the task first runs. Otherwise it would miss every change before its first run.
        let refusing = controls.refusing.subscribe();
        let accepting = tokio::spawn(accept(listener, target, Arc::clone(&controls), refusing));
        Self { port, controls, accepting }
    }

    /// The port of 127.0.0.1 to connect to instead of the target's.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Resets (TCP RST) every open connection, on both sides. Returns when that is done. New connections
    /// are let through.
    pub(crate) async fn cut(&self) {
        self.cut_matching(b"").await;
    }

    /// The same, but only for connections on which the client sent `pattern` in its first 4 KiB. Bytes that
    /// a stall holds back on them are lost.
    ///
    /// # Panics
    ///
    /// When there is no such connection.
    pub(crate) async fn cut_matching(&self, pattern: &[u8]) {
        let mut lines = self.controls.open().clone();
        lines.retain(|line| line.has_said(pattern));
        assert!(pattern.is_empty() || !lines.is_empty(), "no open connection has said {pattern:?}");
        for line in &lines {
            line.cut.cancel();
        }
        let gone = || !self.controls.open().iter().any(|open| lines.iter().any(|line| Arc::ptr_eq(open, line)));
        until("cut connections are gone", LIMIT, async || gone()).await;
    }

    /// From now on the operating system refuses new connections. Open connections stay.
    pub(crate) async fn refuse(&self) {
        self.set_refusing(true).await;
    }

    /// Lets new connections in again.
    pub(crate) async fn accept_again(&self) {
        self.set_refusing(false).await;
    }

    async fn set_refusing(&self, refusing: bool) {
        self.controls.refusing.send_if_modified(|now| std::mem::replace(now, refusing) != refusing);
        let mut closed = self.controls.closed.subscribe();
        let settled = closed.wait_for(|closed| *closed == refusing);
        tokio::time::timeout(LIMIT, settled)
            .await
            .expect("listener opened or closed in time")
            .expect("a running proxy");
    }

    /// From now on forwards nothing in `direction`, on every open and new connection, until
    /// [`resume`](Self::resume). No byte is lost.
    pub(crate) fn stall(&self, direction: Direction) {
        self.stall_matching(b"", direction);
    }

    /// The same, but only for connections on which the client sent `pattern` in its first 4 KiB. Such a
    /// pattern is the name that an AMQP client gives its connection.
    pub(crate) fn stall_matching(&self, pattern: &[u8], direction: Direction) {
        let pattern = pattern.to_vec();
        self.controls.stalls.send_modify(|stalls| stalls.push(Stall { direction, pattern }));
    }

    /// The same, but only for connections to which the AMQP client gives exactly this name. The name is an
    /// entry in the table of client properties: a length of one byte and the key, `S` for a string, a
    /// length of four bytes and the value.
    pub(crate) fn stall_named(&self, name: &str, direction: Direction) {
        let length = u32::try_from(name.len()).expect("a short name").to_be_bytes();
        self.stall_matching(&[b"\x0fconnection_nameS", &length[..], name.as_bytes()].concat(), direction);
    }

    /// Ends every stall. The bytes held back go through.
    pub(crate) fn resume(&self) {
        self.controls.stalls.send_modify(Vec::clear);
    }

    /// How many connections were accepted since the start.
    pub(crate) fn accepted(&self) -> usize {
        *self.controls.accepted.borrow()
    }

    /// How many connections are open now.
    pub(crate) fn open(&self) -> usize {
        self.controls.open().len()
    }
}

impl Controls {
    fn open(&self) -> MutexGuard<'_, Vec<Arc<Line>>> {
        self.open.lock().expect("an unpoisoned lock")
    }
}

impl Line {
    fn has_said(&self, pattern: &[u8]) -> bool {
        contains(&self.head.lock().expect("an unpoisoned lock"), pattern)
    }

    fn remember(&self, bytes: &[u8]) {
        let mut head = self.head.lock().expect("an unpoisoned lock");
        let room = HEAD - head.len();
        head.extend(bytes.iter().take(room));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The limit for work that happens only inside this process.
const LIMIT: Duration = Duration::from_secs(10);

async fn listen_somewhere() -> TcpListener {
    loop {
        // Another program took the port between the look and the bind: look again.
        if let Ok(listener) = listen(ports::free_block(1)).await {
            return listener;
        }
    }
}

async fn listen(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

/// Listens on the same port again. A process that has just been started holds a copy of the old listener
/// until its program runs, so this may need several tries.
async fn listen_again(port: u16) -> TcpListener {
    let listening = async {
        loop {
            if let Ok(listener) = listen(port).await {
                return listener;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, listening).await.expect("the proxy's own port is free")
}

async fn accept(listener: TcpListener, target: u16, controls: Arc<Controls>, mut refusing: watch::Receiver<bool>) {
    let port = listener.local_addr().expect("own address").port();
    let mut listener = Some(listener);
    // This set aborts its tasks when the current task is aborted.
    let mut connections = JoinSet::new();
    loop {
        controls.closed.send_replace(listener.is_none());
        tokio::select! {
            Ok((client, _)) = next_client(listener.as_ref()) => {
                controls.accepted.send_modify(|count| *count += 1);
                connections.spawn(serve(client, target, Arc::clone(&controls)));
            }
            Ok(()) = refusing.changed() => {
                listener = None;
                if !*refusing.borrow_and_update() {
                    listener = Some(listen_again(port).await);
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn next_client(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, std::net::SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn serve(client: TcpStream, target: u16, controls: Arc<Controls>) {
    let open = Open::new(&controls);
    relay(client, target, &controls, &open.line).await;
}

/// Both sockets are closed when this returns.
async fn relay(mut client: TcpStream, target: u16, controls: &Controls, line: &Line) {
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else {
        // A proxy cannot refuse this connection any more. A reset is the closest thing.
        client.set_zero_linger().ok();
        return;
    };
    let was_cut = tokio::select! {
        () = forward_both(&mut client, &mut server, controls, line) => false,
        () = line.cut.cancelled() => true,
    };
    if was_cut {
        client.set_zero_linger().ok();
        server.set_zero_linger().ok();
    }
}

/// Keeps a connection in the list while the connection lives.
struct Open<'a> {
    controls: &'a Controls,
    line: Arc<Line>,
}

impl<'a> Open<'a> {
    fn new(controls: &'a Controls) -> Self {
        let line = Arc::new(Line::default());
        controls.open().push(Arc::clone(&line));
        Self { controls, line }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.controls.open().retain(|line| !Arc::ptr_eq(line, &self.line));
    }
}

async fn forward_both(client: &mut TcpStream, server: &mut TcpStream, controls: &Controls, line: &Line) {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let to_server = forward(Direction::ToServer, from_client, to_server, controls, line);
    let to_client = forward(Direction::ToClient, from_server, to_client, controls, line);
    tokio::join!(to_server, to_client);
}

/// Forwards until `from` ends or either side has an error. Then it ends `to`.
async fn forward(
    direction: Direction,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    controls: &Controls,
    line: &Line,
) {
    let mut stalls = controls.stalls.subscribe();
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..count];
        if direction == Direction::ToServer {
            line.remember(bytes);
        }
        // Look at the stalls after the read. So a stall works from the moment it is asked for, and not only
        // from the next read on.
        let free = stalls.wait_for(|stalls| !stalled(stalls, direction, line));
        if free.await.is_err() || to.write_all(bytes).await.is_err() {
            break;
        }
    }
    to.shutdown().await.ok();
}

fn stalled(stalls: &[Stall], direction: Direction, line: &Line) -> bool {
    stalls.iter().any(|stall| {
        (stall.direction == Direction::Both || stall.direction == direction) && line.has_said(&stall.pattern)
    })
}

fn contains(bytes: &[u8], pattern: &[u8]) -> bool {
    pattern.is_empty() || bytes.windows(pattern.len()).any(|part| part == pattern)
}
