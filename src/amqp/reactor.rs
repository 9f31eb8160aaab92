//! The runtime lapin runs on: tokio's, with [`SievedStream`] as its kind of TCP stream.

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

/// Tokio's timers. Streams are made before lapin is called and handed to its connector, so this
/// reactor never makes one.
#[derive(Clone, Debug)]
pub(super) struct SieveReactor(Tokio);

/// The current tokio runtime, as lapin's connector wants it.
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
