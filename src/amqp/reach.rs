//! From a URI to a connected socket: DNS, TCP, TLS.

use super::{
    error::{ConnectError, endpoint},
    stream::Socket,
};
use lapin::uri::{AMQPScheme, AMQPUri};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

/// How long the first two steps of a connection may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For DNS and TCP together, over all addresses of a name.
    pub(super) tcp: Duration,
    /// For the TLS handshake.
    pub(super) tls: Duration,
}

/// Connects a socket to the broker, with TLS for `amqps`.
pub(super) async fn reach(
    uri: &AMQPUri,
    tls: &Arc<ClientConfig>,
    limits: Limits,
) -> Result<Box<dyn Socket>, ConnectError> {
    let tcp = reach_tcp(uri, limits.tcp).await?;
    match uri.scheme {
        AMQPScheme::AMQP => Ok(Box::new(tcp)),
        AMQPScheme::AMQPS => secure(uri, tls, tcp, limits.tls).await,
    }
}

async fn reach_tcp(uri: &AMQPUri, limit: Duration) -> Result<TcpStream, ConnectError> {
    let deadline = Instant::now() + limit;
    let authority = &uri.authority;
    let resolve = lookup_host((authority.host.as_str(), authority.port));
    let tcp = async {
        let addresses = within(limit, resolve).await?.collect::<Vec<_>>();
        let tcp = connect_any(&addresses, deadline).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    };
    tcp.await.map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::TimedOut => ConnectError::Timeout { at: endpoint(uri), step: "DNS and TCP", limit },
        _ => ConnectError::Unreachable { at: endpoint(uri), source },
    })
}

/// Tries each address in turn, and gives each an equal share of the time left. An address that drops all
/// packets therefore cannot use up the time for a good one.
async fn connect_any(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (index, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match within(share, TcpStream::connect(address)).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn secure(
    uri: &AMQPUri,
    tls: &Arc<ClientConfig>,
    tcp: TcpStream,
    limit: Duration,
) -> Result<Box<dyn Socket>, ConnectError> {
    let at = endpoint(uri);
    let name = match ServerName::try_from(uri.authority.host.clone()) {
        Ok(name) => name,
        Err(error) => {
            let source = io::Error::new(io::ErrorKind::InvalidInput, error);
            return Err(ConnectError::Tls { at, source });
        }
    };
    let handshake = TlsConnector::from(Arc::clone(tls)).connect(name, tcp);
    match timeout(limit, handshake).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(source)) => Err(ConnectError::Tls { at, source }),
        Err(_) => Err(ConnectError::Timeout { at, step: "the TLS handshake", limit }),
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::{super::tests::bound_only, *};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn every_address_of_a_name_is_tried() {
        let (_bound, gone) = bound_only();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let there = listener.local_addr().expect("an address");
        let deadline = Instant::now() + Duration::from_secs(5);
        let tcp = connect_any(&[gone, there], deadline).await.expect("a connection");
        assert_eq!(tcp.peer_addr().expect("an address"), there);
    }

    #[tokio::test]
    async fn a_name_without_addresses_is_an_error() {
        let error = connect_any(&[], Instant::now()).await.expect_err("nothing to try");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
