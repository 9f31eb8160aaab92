//! Which servers' certificates the worker trusts, for both AMQP and HTTP.

#[cfg(test)]
pub(crate) mod loopback;
mod pinned;

use pinned::Pinned;
use reqwest::Url;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer,
        pem::{self, PemObject},
    },
};
use rustls_platform_verifier::Verifier;
use std::sync::Arc;
use thiserror::Error;

/// Why there is no TLS configuration.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file is not PEM, or it holds no certificates.
    #[error("AMQP_CA_FILE holds no certificate; it must hold at least one, as PEM")]
    NoCertificate,
    /// A section of the file is not well-formed PEM.
    #[error("AMQP_CA_FILE is not well-formed PEM: {0}")]
    Pem(#[from] pem::Error),
    /// A certificate in the file cannot be used as a root.
    #[error("AMQP_CA_FILE holds a certificate that cannot be used: {0}")]
    Certificate(rustls::Error),
    /// There is nothing to trust: neither a private CA nor certificates of the system.
    #[error(
        "the system's CA certificates cannot be loaded: {0}; install them (package ca-certificates), or set SSL_CERT_FILE"
    )]
    System(rustls::Error),
    /// The crypto provider supports none of the TLS versions we ask for.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// A client configuration that trusts the system's roots, and the certificates in `extra_ca` (PEM) if given.
///
/// A certificate in `extra_ca` is trusted as an authority's, and as a server's own.
///
/// It has no ALPN, because neither AMQP nor HTTP/1.1 needs it. The crypto provider is given explicitly, so
/// nothing depends on a global one.
///
/// # Errors
/// See [`TlsError`].
pub fn client_config(extra_ca: Option<&[u8]>) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let roots = extra_ca.map(certificates).transpose()?.unwrap_or_default();
    let usual = Verifier::new_with_extra_roots(roots.clone(), Arc::clone(&provider)).map_err(why_no_verifier)?;
    let verifier = Pinned::new(roots, Arc::new(usual));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The client configuration for calls of `url`. For `https` it trusts the system's roots. For `http` it
/// trusts nothing, because `http` must also work on a machine without any roots.
///
/// # Errors
/// See [`TlsError`].
pub fn for_url(url: &Url) -> Result<ClientConfig, TlsError> {
    let config = if url.scheme() == "https" { client_config(None)? } else { trusting_nobody() };
    Ok(Arc::unwrap_or_clone(config))
}

/// A client configuration that refuses every server, for connections that use no TLS.
pub fn trusting_nobody() -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)
        .map(|builder| builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    Arc::new(match config {
        Ok(config) => config,
        Err(_) => unreachable!("ring supports the default versions of TLS"),
    })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    // Some editors begin a file with a byte order mark, and then the first section would not be seen.
    let pem = pem.strip_prefix(b"\xef\xbb\xbf").unwrap_or(pem);
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    Ok(found)
}

/// The verifier skips system roots that it cannot read. So if it refuses a certificate, that certificate is
/// one of ours.
fn why_no_verifier(error: rustls::Error) -> TlsError {
    match error {
        rustls::Error::InvalidCertificate(_) => TlsError::Certificate(error),
        error => TlsError::System(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::ServerName;
    use std::io;
    use tokio::{io::AsyncReadExt, net::TcpStream};
    use tokio_rustls::TlsConnector;

    async fn visit(extra_ca: Option<&[u8]>, server: &loopback::Server) -> io::Result<String> {
        let tcp = TcpStream::connect(server.address).await?;
        let connector = TlsConnector::from(client_config(extra_ca).expect("a configuration"));
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream = connector.connect(name, tcp).await?;
        let mut greeting = String::new();
        stream.read_to_string(&mut greeting).await?;
        Ok(greeting)
    }

    fn refusal(pem: &str) -> String {
        client_config(Some(pem.as_bytes())).expect_err("refused").to_string()
    }

    #[tokio::test]
    async fn a_server_of_the_extra_ca_is_trusted() {
        let server = loopback::greeter().await;
        let greeting = visit(Some(server.ca_pem.as_bytes()), &server).await;
        assert_eq!(greeting.expect("a greeting"), loopback::GREETING);
    }

    #[tokio::test]
    async fn a_server_with_the_given_certificate_is_trusted_also_if_it_is_an_authoritys() {
        for is_authority in [true, false] {
            let server = loopback::self_signed(is_authority).await;
            let greeting = visit(Some(server.ca_pem.as_bytes()), &server).await;
            assert_eq!(greeting.expect("a greeting"), loopback::GREETING, "authority: {is_authority}");
            // Another certificate, also for `localhost`.
            let other = loopback::self_signed(is_authority).await;
            assert!(visit(Some(other.ca_pem.as_bytes()), &server).await.is_err(), "authority: {is_authority}");
            assert!(visit(None, &server).await.is_err(), "authority: {is_authority}");
        }
    }

    #[tokio::test]
    async fn a_server_of_an_unknown_ca_is_refused() {
        let server = loopback::greeter().await;
        let other_ca = loopback::greeter().await.ca_pem;
        let error = visit(Some(other_ca.as_bytes()), &server).await.expect_err("refused");
        let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        assert!(matches!(error, Some(rustls::Error::InvalidCertificate(_))), "{error:?}");
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_refused() {
        let nothing = "AMQP_CA_FILE holds no certificate; it must hold at least one, as PEM";
        assert_eq!(refusal(""), nothing);
        assert_eq!(refusal("not PEM at all"), nothing);
        let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        assert_eq!(refusal(&key), nothing, "a key is no certificate");
    }

    #[test]
    fn a_ca_file_may_begin_with_a_byte_order_mark() {
        let marked = format!("\u{feff}{}", loopback::authority().0.replace('\n', "\r\n"));
        assert!(client_config(Some(marked.as_bytes())).is_ok());
    }

    #[test]
    fn a_ca_file_cut_short_is_refused() {
        let cut = refusal("-----BEGIN CERTIFICATE-----\nMIIB\n");
        assert!(cut.starts_with("AMQP_CA_FILE is not well-formed PEM"), "{cut}");
    }

    #[test]
    fn a_ca_file_with_another_thing_called_certificate_is_refused() {
        let fake = refusal("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        assert!(fake.starts_with("AMQP_CA_FILE holds a certificate that cannot be used"), "{fake}");
    }

    #[test]
    fn the_http_client_takes_the_same_configuration() {
        let pem = loopback::authority().0;
        let config = client_config(Some(pem.as_bytes())).expect("a configuration");
        let client = reqwest::Client::builder().tls_backend_preconfigured(ClientConfig::clone(&config));
        assert!(client.build().is_ok());
    }
}
