//! Where the Redis is, and where that is read from. A password that is rotated in its file is read again.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use rustls::ClientConfig;

use crate::settings::secret::{self, Secret};
use crate::tls;

/// The address of a Redis, and the login there.
#[derive(Clone)]
pub struct Address {
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The trusted certificates, for `rediss://`.
    pub tls: Option<Arc<ClientConfig>>,
    /// User, password and database.
    pub login: RedisConnectionInfo,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// The rule that the text breaks. It repeats neither the text nor the parser's message: they may hold the
    /// password.
    pub fn parse(url: &str, trust: &Trust) -> Result<Self, String> {
        let info = plain(url).and_then(|url| url.into_connection_info().ok()).ok_or(ADDRESS_RULE)?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else { return Err(ADDRESS_RULE.into()) };
        if host.is_empty() {
            return Err(ADDRESS_RULE.into());
        }
        let tls = is_tls(url).then(|| trust.client_config()).transpose()?;
        Ok(Self { host: host.clone(), port: *port, tls, login: info.redis_settings().clone() })
    }

    /// Whether both lead to the same server with the same login.
    fn is_same(&self, other: &Self) -> bool {
        let login = |address: &Self| {
            let login = &address.login;
            (login.username().map(str::to_owned), login.password().map(str::to_owned), login.db())
        };
        (&self.host, self.port, self.tls.is_some()) == (&other.host, other.port, other.tls.is_some())
            && login(self) == login(other)
    }
}

const ADDRESS_RULE: &str = "must be memory:, or an address such as rediss://user:password@host:6379/0 (redis:// without TLS, special characters percent-encoded)";

/// The address with `redis://` in place of `rediss://`. The TLS connection is made here, and the client refuses
/// `rediss://` unless it is built with its own TLS. A `#` is refused: the client knows only `#insecure`.
fn plain(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let known = scheme.eq_ignore_ascii_case("redis") || is_tls(url);
    (known && !rest.contains('#')).then(|| format!("redis://{rest}"))
}

fn is_tls(url: &str) -> bool {
    url.split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("rediss"))
}

/// Which certificates are trusted for `rediss://`: the system's, and those of a private CA.
#[derive(Clone, Default)]
pub struct Trust {
    /// The private CA's certificates, as PEM.
    pub extra_ca: Option<Vec<u8>>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("extra_ca", &self.extra_ca.is_some()).finish()
    }
}

impl Trust {
    /// The TLS configuration.
    ///
    /// # Errors
    /// What is wrong with the certificates.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, String> {
        tls::client_config(self.extra_ca.as_deref())
            // The room of TLS names the broker's setting.
            .map_err(|error| error.to_string().replace("AMQP_CA_FILE", "the file"))
    }
}

/// Where the address is read from, each time a connection is made.
#[derive(Clone, Debug)]
pub struct Source {
    address: Secret<Address>,
    /// The last address that led to a server that took the login; at first, the one read at start.
    good: Arc<Mutex<Address>>,
}

impl Source {
    /// Reads the address from this text, and again from its file if it has one.
    ///
    /// # Errors
    /// As for [`Address::parse`].
    pub fn new(text: secret::Source, trust: Trust) -> Result<Self, String> {
        let address = Secret::new(text, move |url| Address::parse(url, &trust))?;
        Ok(Self { good: Arc::new(Mutex::new(address.last())), address })
    }

    /// The last address that was good.
    pub fn good(&self) -> Address {
        self.good.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The addresses to try, in this order: what the file says now, and the last one that was good. A file that
    /// is being written may hold the beginning of an address, which looks like another.
    pub async fn candidates(&self) -> Vec<Address> {
        let (fresh, good) = (self.address.current().await, self.good());
        if fresh.is_same(&good) { vec![good] } else { vec![fresh, good] }
    }

    /// This address led to a server that took the login.
    pub fn set_good(&self, address: &Address) {
        *self.good.lock().unwrap_or_else(PoisonError::into_inner) = address.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::secret::SecretFile;
    use std::fs;

    fn address(url: &str) -> Address {
        Address::parse(url, &Trust::default()).unwrap()
    }

    fn passwords(candidates: &[Address]) -> Vec<&str> {
        candidates.iter().map(|address| address.login.password().unwrap_or_default()).collect()
    }

    #[tokio::test]
    async fn what_the_file_says_now_is_tried_first_and_the_last_good_address_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("url");
        let file = Some(SecretFile::new("OTP_LEDGER_URL_FILE", &path));
        let text = secret::Source { text: "redis://:old@host".into(), file };
        let source = Source::new(text, Trust::default()).unwrap();
        for (content, expected) in [
            ("redis://:old@host", &["old"] as &[_]),
            ("\u{feff}redis://:new@host\r\n", &["new", "old"]),
            // Empty, cut, and no address at all: what was read last stays.
            ("", &["new", "old"]),
            (" \n", &["new", "old"]),
            ("redis://", &["new", "old"]),
            ("redis://:ne", &["new", "old"]),
            ("memory:", &["new", "old"]),
        ] {
            fs::write(&path, content).unwrap();
            assert_eq!(passwords(&source.candidates().await), expected, "{content:?}");
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(passwords(&source.candidates().await), ["new", "old"], "not text");
        fs::remove_file(&path).unwrap();
        assert_eq!(passwords(&source.candidates().await), ["new", "old"], "no file");
        fs::write(&path, "redis://:new@host").unwrap();
        source.set_good(&address("redis://:new@host"));
        assert_eq!(passwords(&source.candidates().await), ["new"]);
    }
}
