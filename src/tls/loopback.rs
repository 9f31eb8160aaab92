//! TLS servers on loopback with their own certificate authority, for tests.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use std::{net::SocketAddr, sync::Arc};
use tokio::{io::AsyncWriteExt, net::TcpListener};
use tokio_rustls::TlsAcceptor;

/// The text that a [`greeter`] sends to every client that trusts it.
pub(crate) const GREETING: &str = "hello";

/// A server that runs until the test's runtime ends.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) ca_pem: String,
}

/// Makes a new certificate authority. Returns its certificate as PEM, and the configuration of a server. The
/// authority has signed that server's certificate for `localhost`.
pub(crate) fn authority() -> (String, Arc<ServerConfig>) {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().expect("a key")).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let leaf = leaf.signed_by(&key, &ca).expect("a certificate");
    (ca.as_ref().pem(), serving(leaf.der(), &key))
}

fn serving(certificate: &CertificateDer<'static>, key: &KeyPair) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
        .expect("a configuration");
    Arc::new(config)
}

/// A server with one certificate that it has signed itself. `openssl req -x509` makes it an authority's.
pub(crate) async fn self_signed(is_authority: bool) -> Server {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    if is_authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let certificate = params.self_signed(&key).expect("a certificate");
    greet(certificate.pem(), serving(certificate.der(), &key)).await
}

pub(crate) async fn greeter() -> Server {
    let (ca_pem, config) = authority();
    greet(ca_pem, config).await
}

async fn greet(ca_pem: String, config: Arc<ServerConfig>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(mut stream) = TlsAcceptor::from(Arc::clone(&config)).accept(tcp).await {
                let _ = stream.write_all(GREETING.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    Server { address, ca_pem }
}
