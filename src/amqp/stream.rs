//! The byte stream that lapin reads and writes: a socket behind a [`Sieve`], with limits on the broker's
//! silence.

use super::sieve::Sieve;
use std::{
    future::Future,
    io::{self, IoSlice},
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use tracing::{info, warn};

/// Half a RabbitMQ frame: few system calls, and little memory for each connection.
const BUFFER: usize = 64 * 1024;

/// A connected TCP socket, or TLS over one.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// How long a broker may say nothing before reads fail with `TimedOut`.
///
/// lapin runs a thread for each connection. The thread ends only when the stream ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// When the connection must be open at the latest.
    pub(super) open_by: Instant,
    /// The longest silence after that, if there is a limit. lapin's own heartbeat check stops once lapin has
    /// asked the broker to close the connection. From then on lapin waits for ever.
    pub(super) silence: Option<Duration>,
}

/// The stream that lapin uses as its TCP stream.
pub(super) struct SievedStream {
    socket: Box<dyn Socket>,
    sieve: Sieve,
    buffer: Box<[u8]>,
    /// The part of `buffer` that has been read but not yet sieved.
    unsieved: Range<usize>,
    alarm: Pin<Box<Sleep>>,
    silence: Option<Duration>,
    warned: bool,
}

impl SievedStream {
    /// Must be called inside a tokio runtime with a timer.
    pub(super) fn new(socket: Box<dyn Socket>, sieve: Sieve, patience: Patience) -> Self {
        Self {
            socket,
            sieve,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            unsieved: 0..0,
            alarm: Box::pin(sleep_until(patience.open_by)),
            silence: patience.silence,
            warned: false,
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
        let filled = buffer.filled().len();
        self.unsieved = 0..filled;
        Poll::Ready(Ok(filled))
    }

    fn sift(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let moved = self.sieve.pull(&self.buffer[self.unsieved.clone()], output)?;
        self.unsieved.start += moved.taken;
        if self.sieve.repaired() > 0 && !self.warned {
            self.warned = true;
            warn!("a message with unreadable properties was repaired; more on this connection are only counted");
        }
        Ok(moved.given)
    }

    fn heard(&mut self) {
        if let (true, Some(silence)) = (self.sieve.is_open(), self.silence) {
            self.alarm.as_mut().reset(Instant::now() + silence);
        }
    }

    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.sieve.is_open() && self.silence.is_none() {
            return Poll::Pending;
        }
        ready!(self.alarm.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the broker has been silent for too long")))
    }
}

impl futures_io::AsyncRead for SievedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, output: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut given = self.sift(output)?;
        while given == 0 && !output.is_empty() {
            match self.poll_fill(cx)? {
                Poll::Pending => return self.poll_patience(cx),
                Poll::Ready(0) => break,
                Poll::Ready(_) => given = self.sift(output)?,
            }
            self.heard();
        }
        Poll::Ready(Ok(given))
    }
}

impl futures_io::AsyncWrite for SievedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Never waits. lapin closes a stream only when the broker no longer answers, and blocks its thread while
    /// it does. The close message of TLS could block that thread for minutes if nobody reads it.
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.socket).poll_shutdown(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for SievedStream {
    fn drop(&mut self) {
        if self.sieve.repaired() > 0 {
            info!(
                messages = self.sieve.repaired(),
                "messages with unreadable properties were repaired on this connection"
            );
        }
    }
}
