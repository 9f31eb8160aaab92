//! Where the broker is: one address or several, which may come from a file that changes.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::Connection;
use lapin::uri::{AMQPScheme, AMQPUri};
use reqwest::Url;
use rustls::ClientConfig;
use tokio::time::timeout;
use tracing::warn;

use crate::amqp::{self, ConnectError, Opened};

/// How long reading the file may take. It may be on a network.
const READ_WITHIN: Duration = Duration::from_secs(2);

/// Addresses of the same broker, tried in turn. Never empty. They hold the password, so they are never
/// printed.
#[derive(Clone)]
pub struct Addresses(Arc<Inner>);

struct Inner {
    file: Option<PathBuf>,
    known: Mutex<Known>,
}

struct Known {
    first: AMQPUri,
    more: Vec<AMQPUri>,
    /// The address of the last connection.
    worked: Option<AMQPUri>,
    /// The cluster that this connection led to, if its broker said it.
    cluster: Option<String>,
}

impl Default for Addresses {
    /// Only for a reader of settings that has found a mistake.
    fn default() -> Self {
        Self::of(AMQPUri::default(), Vec::new(), None)
    }
}

impl Addresses {
    fn of(first: AMQPUri, more: Vec<AMQPUri>, file: Option<PathBuf>) -> Self {
        Self(Arc::new(Inner { file, known: Mutex::new(Known { first, more, worked: None, cluster: None }) }))
    }

    /// Reads addresses that are separated by commas. Nothing if one of them is wrong, or there is none.
    ///
    /// A comma may also be part of a password, so only one before another `scheme://` separates.
    pub fn parse(text: &str) -> Option<Self> {
        let (first, more) = parse(text)?;
        Some(Self::of(first, more, None))
    }

    /// The same addresses, which came from `file`. It is read again at every new connection.
    pub(super) fn read_from(self, file: PathBuf) -> Self {
        let known = self.lock();
        Self::of(known.first.clone(), known.more.clone(), Some(file))
    }

    /// The first address.
    pub fn first(&self) -> AMQPUri {
        self.lock().first.clone()
    }

    /// The name of the cluster that the last connection led to, if its broker said it.
    pub fn cluster(&self) -> Option<String> {
        self.lock().cluster.clone()
    }

    /// Whether one of them is for TLS, or may become one for TLS.
    pub(super) fn may_use_tls(&self) -> bool {
        let known = self.lock();
        std::iter::once(&known.first).chain(&known.more).any(|uri| uri.scheme == AMQPScheme::AMQPS)
    }

    /// Whether the addresses may change.
    pub(super) fn may_change(&self) -> bool {
        self.0.file.is_some()
    }

    /// Opens a connection to the first address that gives one.
    ///
    /// # Errors
    /// The error of every address.
    pub(super) async fn connect(&self, tls: &Arc<ClientConfig>, name: &str) -> Result<Connection, ConnectError> {
        self.read_again().await;
        let mut errors = Vec::new();
        for uri in self.to_try() {
            match amqp::connect(&uri, tls, name).await {
                Ok(Opened { connection, cluster }) => {
                    let mut known = self.lock();
                    (known.worked, known.cluster) = (Some(uri), cluster);
                    return Ok(connection);
                }
                Err(error) => errors.push(error),
            }
        }
        Err(ConnectError::of_all(errors))
    }

    /// The addresses, and last the one that worked last: the file may have been read while it was being
    /// written, or be ahead of the broker.
    fn to_try(&self) -> Vec<AMQPUri> {
        let known = self.lock();
        let mut all: Vec<AMQPUri> = std::iter::once(&known.first).chain(&known.more).cloned().collect();
        if let Some(worked) = &known.worked
            && !all.contains(worked)
        {
            all.push(worked.clone());
        }
        all
    }

    /// Reads the file again. A file that cannot be used keeps what was read last.
    async fn read_again(&self) {
        let Some(file) = &self.0.file else { return };
        let problem = match timeout(READ_WITHIN, tokio::fs::read_to_string(file)).await {
            Ok(Ok(text)) => match parse(&text) {
                Some((first, more)) => {
                    let mut known = self.lock();
                    (known.first, known.more) = (first, more);
                    return;
                }
                // Neither the text nor the parser's message is shown: both may hold the password.
                None => "it holds no address of a broker".to_owned(),
            },
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it could not be read in time".to_owned(),
        };
        warn!(problem, "AMQP_URL_FILE cannot be used; the last address that was read from it is used");
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // No code panics while it holds this lock, and the addresses are whole even if some did.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first address, and the others.
fn parse(text: &str) -> Option<(AMQPUri, Vec<AMQPUri>)> {
    let mut all = split(text).into_iter().map(address);
    let first = all.next()??;
    Some((first, all.collect::<Option<Vec<_>>>()?))
}

fn is_padding(c: char) -> bool {
    c.is_whitespace() || c == '\u{feff}' || c == ','
}

fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_matches(is_padding);
    // Also of another scheme: then it is a wrong address, and not a part of the one before it.
    let begins = |text: &str| {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.trim_start_matches(is_padding));
        scheme.is_some_and(|scheme| !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphabetic()))
    };
    while let Some((at, _)) = rest.match_indices(',').find(|(at, _)| begins(&rest[at + 1..])) {
        parts.push(rest[..at].trim_matches(is_padding));
        rest = rest[at + 1..].trim_matches(is_padding);
    }
    parts.push(rest);
    parts
}

/// Parses an address, more strictly than lapin's own parser. That parser takes `amqp:/host` and an IPv6
/// literal for `localhost`, and an empty path for a virtual host without a name, which no broker has.
fn address(text: &str) -> Option<AMQPUri> {
    let url = Url::parse(text).ok()?;
    url.host_str().filter(|host| !host.is_empty() && !host.starts_with('['))?;
    let mut uri = AMQPUri::from_str(text).ok()?;
    if uri.vhost.is_empty() {
        "/".clone_into(&mut uri.vhost);
    }
    Some(uri)
}

#[cfg(test)]
mod tests;
