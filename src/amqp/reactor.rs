//! The runtime for lapin: tokio's, with [`SievedStream`] as its type of TCP stream.

use super::stream::SievedStream;
use async_rs::{Runtime, Tokio, traits::Reactor, util::RuntimeParts};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;
use std::{
    future::Future,
    io::{self, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Gives lapin tokio's timers. It never opens a stream: the stream is opened before lapin is called, and is
/// handed to lapin's connector.
#[derive(Clone, Debug)]
pub(super) struct SieveReactor(Tokio);

/// The current tokio runtime, in the form that lapin's connector needs.
///
/// # Panics
/// Outside a tokio runtime.
pub(super) fn current() -> Runtime<RuntimeParts<Tokio, SieveReactor>> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), SieveReactor(tokio)))
}

impl Reactor for SieveReactor {
    type TcpStream = SievedStream;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<SievedStream, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, period: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(period)
    }

    fn tcp_connect_addr(&self, _: SocketAddr) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
