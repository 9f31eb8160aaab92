//! Connections that a handler can reset, and on which it can say what no HTTP server says.
//!
//! hyper has no call for "drop this connection at once with a TCP RST". So the socket is wrapped.
//! Once the connection is reset, every read and write of the wrapper fails, and hyper drops the socket.
//! The socket's linger time is zero by then, so the kernel sends an RST. In the same way hyper refuses to send a
//! malformed response. So the handler leaves its bytes with the wrapper, which sends them in place of everything
//! that hyper writes from then on.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Bytes,
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::shared::{Entered, Shared};

/// How long to wait after a failed accept. It fails when file descriptors run out; some become free as
/// connections close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A listening socket that signals when it has closed.
pub(crate) struct Doorway {
    // Fields are dropped in this order: the socket closes before `_closed` signals it.
    pub(crate) listener: TcpListener,
    pub(crate) shared: Arc<Shared>,
    pub(crate) _closed: oneshot::Sender<()>,
}

impl Listener for Doorway {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, addr)) => return (Wire::new(stream, &self.shared), addr),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Lets a handler take over the connection of its request.
#[derive(Clone)]
pub(crate) struct Connection {
    reset: CancellationToken,
    /// What is left to send in place of what hyper writes.
    instead: Arc<Mutex<Option<Bytes>>>,
}

impl Connection {
    /// Resets the connection (TCP RST) at any time.
    pub(crate) fn reset(&self) {
        self.reset.cancel();
    }

    /// Sends these bytes in place of the response. They are sent when hyper writes the response, which must
    /// close the connection.
    pub(crate) fn send_instead(&self, bytes: Vec<u8>) {
        *self.instead.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes.into());
    }

    /// The future's result, or `None` if the connection is reset first.
    pub(crate) async fn while_open<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.reset.run_until_cancelled(future).await
    }
}

impl Connected<IncomingStream<'_, Doorway>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Doorway>) -> Self {
        stream.io().connection.clone()
    }
}

/// A connection's socket.
pub(crate) struct Wire {
    stream: TcpStream,
    connection: Connection,
    reset: Pin<Box<WaitForCancellationFutureOwned>>,
    _open: Entered,
}

impl Wire {
    fn new(stream: TcpStream, shared: &Arc<Shared>) -> Self {
        shared.change(|records| records.counts.connections += 1);
        // Without this, the small pieces of a slow body would wait for each other.
        let _ = stream.set_nodelay(true);
        let token = shared.life.child_token();
        Self {
            stream,
            connection: Connection { reset: token.clone(), instead: Arc::default() },
            reset: Box::pin(token.cancelled_owned()),
            _open: shared.enter(|records| &mut records.connections),
        }
    }

    /// Fails if the connection is reset. Otherwise makes sure that a later reset wakes the task.
    fn still_open(&mut self, cx: &mut Context<'_>) -> io::Result<&mut TcpStream> {
        if self.reset.as_mut().poll(cx).is_ready() {
            self.stream.set_zero_linger()?;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(&mut self.stream)
    }

    /// Sends what a handler left in place of a write of hyper, and says whether a handler did.
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let instead = Arc::clone(&self.connection.instead);
        let mut instead = instead.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rest) = &mut *instead else { return Poll::Ready(Ok(false)) };
        let stream = self.still_open(cx)?;
        while !rest.is_empty() {
            let sent = ready!(Pin::new(&mut *stream).poll_write(cx, rest))?;
            drop(rest.split_to(sent));
        }
        Poll::Ready(Ok(true))
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.still_open(cx)?).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if ready!(self.poll_instead(cx))? {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(self.still_open(cx)?).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if ready!(self.poll_instead(cx))? {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        Pin::new(self.still_open(cx)?).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.still_open(cx)?).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.still_open(cx)?).poll_shutdown(cx)
    }
}
