//! Why a call failed, in words for people.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible};

/// The error and its causes in one line, without the URL, and what it means where that is known.
pub(super) fn describe(error: reqwest::Error) -> String {
    let timeout = if error.is_timeout() { "timed out: " } else { "" };
    let is_connect = error.is_connect();
    let error = error.without_url();
    let mut line = format!("{timeout}{error}");
    let mut meaning = None;
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(&format!(": {error}"));
        meaning = meaning.or_else(|| meaning_of(error, is_connect));
        cause = error.source();
    }
    match meaning {
        Some(meaning) => format!("{line} ({meaning})"),
        None => line,
    }
}

fn meaning_of(error: &(dyn Error + 'static), is_connect: bool) -> Option<&'static str> {
    let mut error = error;
    // An I/O error does not name the error in it as its source, and TLS errors are wrapped twice.
    while let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        error = inner;
    }
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return tls_meaning(tls);
    }
    // The words of tokio-rustls; the error has no type of its own.
    (is_connect && error.to_string() == "tls handshake eof").then_some(
        "the server ended the TLS handshake without a word: perhaps it speaks only TLS 1.1 or older, or something in \
         between forbids the connection; this worker speaks TLS 1.2 and 1.3",
    )
}

/// What a failed handshake says about the server, and what a person can do. Nothing where the error's own words
/// are enough.
fn tls_meaning(error: &rustls::Error) -> Option<&'static str> {
    use rustls::Error as Tls;
    Some(match error {
        Tls::AlertReceived(AlertDescription::ProtocolVersion)
        | Tls::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13 | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        )
        | Tls::InvalidMessage(InvalidMessage::UnknownProtocolVersion) => {
            "the server seems to speak only TLS 1.1 or older, and this worker speaks TLS 1.2 and 1.3: the server must be \
             updated, or a proxy put in front of it"
        }
        Tls::AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity)
        | Tls::PeerIncompatible(_) => {
            "the server and this worker have no cipher suite or key exchange in common: the server must offer ECDHE with \
             AES-GCM or ChaCha20, or a proxy must be put in front of it"
        }
        Tls::InvalidMessage(_) => {
            "what answers does not speak TLS on this port: check the scheme and the port of ESMS_URL, and what stands \
             in between"
        }
        Tls::AlertReceived(AlertDescription::UnrecognisedName) => {
            "the server does not know this host name: check ESMS_URL"
        }
        Tls::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::BadCertificate) => {
            "the server wants a certificate of this worker, which has none"
        }
        Tls::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the server's certificate has expired, or this machine's clock is wrong"
        }
        Tls::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "the server's certificate is not valid yet, or this machine's clock is wrong"
        }
        Tls::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "this machine does not trust who signed the server's certificate: install the CA's certificate, or set \
             SSL_CERT_FILE; a proxy that looks into TLS signs with a CA of its own"
        }
        Tls::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the server's certificate is for another name: check ESMS_URL",
        Tls::InvalidCertificate(_) => {
            "the server's certificate cannot be accepted: check ESMS_URL, and what stands in between"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::Error as Tls;

    fn meaning(error: Tls) -> &'static str {
        let error = io::Error::new(io::ErrorKind::InvalidData, error);
        let meaning = meaning_of(&error, true);
        assert_eq!(meaning, meaning_of(&io::Error::other(error), true), "wrapped once more");
        meaning.unwrap_or_default()
    }

    #[test]
    fn a_tls_mismatch_says_what_the_server_speaks_and_what_to_do() {
        for error in [
            Tls::AlertReceived(AlertDescription::ProtocolVersion),
            Tls::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13),
        ] {
            let words = meaning(error);
            assert!(words.contains("TLS 1.1 or older") && words.contains("must be updated"), "{words}");
        }
        for error in [
            Tls::AlertReceived(AlertDescription::HandshakeFailure),
            Tls::AlertReceived(AlertDescription::InsufficientSecurity),
            Tls::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
            Tls::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon),
        ] {
            let words = meaning(error);
            assert!(words.contains("no cipher suite") && words.contains("ECDHE"), "{words}");
        }
    }

    #[test]
    fn each_other_failure_of_tls_that_a_person_can_mend_has_its_words() {
        for (error, word) in [
            (Tls::InvalidMessage(InvalidMessage::InvalidContentType), "ESMS_URL"),
            (Tls::AlertReceived(AlertDescription::UnrecognisedName), "host name"),
            (Tls::AlertReceived(AlertDescription::CertificateRequired), "certificate of this worker"),
            (Tls::InvalidCertificate(CertificateError::Expired), "expired"),
            (Tls::InvalidCertificate(CertificateError::NotValidYet), "not valid yet"),
            (Tls::InvalidCertificate(CertificateError::UnknownIssuer), "SSL_CERT_FILE"),
            (Tls::InvalidCertificate(CertificateError::NotValidForName), "another name"),
            (Tls::InvalidCertificate(CertificateError::BadEncoding), "in between"),
        ] {
            let words = meaning(error);
            assert!(words.contains(word), "{words}");
        }
    }

    #[test]
    fn a_handshake_that_is_broken_off_has_its_words_and_another_failure_has_none() {
        let eof = io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof");
        assert!(meaning_of(&eof, true).is_some_and(|words| words.contains("TLS 1.1 or older")));
        assert_eq!(meaning_of(&eof, false), None);
        assert_eq!(meaning_of(&io::Error::from(io::ErrorKind::ConnectionRefused), true), None);
        assert_eq!(meaning(Tls::HandshakeNotComplete), "");
    }
}
