//! Where the broker is: one address or several, which may come from a file that changes.

use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapin::uri::{AMQPScheme, AMQPUri};
use reqwest::Url;
use rustls::ClientConfig;

use crate::amqp::{self, ConnectError, Opened};
use crate::settings::secret::{self, Secret};

/// What is said of a wrong address. It repeats neither the text nor the parser's message: both may hold the
/// password.
const ADDRESS_RULE: &str = "must be an address such as amqps://user:password@host:5671/vhost (special characters percent-encoded, a name or IPv4 as host), or several, separated by commas";

/// Addresses of the same broker, tried in turn. Never empty. They hold the password, so they are never
/// printed.
#[derive(Clone)]
pub struct Addresses {
    listed: Secret<Listed>,
    /// The address of the last connection.
    worked: Arc<Mutex<Option<AMQPUri>>>,
}

#[derive(Clone, Default)]
struct Listed {
    first: AMQPUri,
    more: Vec<AMQPUri>,
}

impl Default for Addresses {
    /// Only for a reader of settings that has found a mistake.
    fn default() -> Self {
        Self { listed: Secret::fixed(Listed::default()), worked: Arc::default() }
    }
}

impl Addresses {
    /// Reads addresses that are separated by commas. If they came from a file, it is read again at every new
    /// connection.
    ///
    /// A comma may also be part of a password, so only one before another `scheme://` separates.
    ///
    /// # Errors
    /// The rule that one of them breaks.
    pub fn new(text: secret::Source) -> Result<Self, String> {
        let listed = Secret::new(text, |text| parse(text).ok_or_else(|| ADDRESS_RULE.to_owned()))?;
        Ok(Self { listed, worked: Arc::default() })
    }

    /// The first address.
    pub fn first(&self) -> AMQPUri {
        self.listed.last().first
    }

    /// Whether one of them is for TLS.
    pub(super) fn may_use_tls(&self) -> bool {
        let Listed { first, more } = self.listed.last();
        std::iter::once(&first).chain(&more).any(|uri| uri.scheme == AMQPScheme::AMQPS)
    }

    /// Whether the addresses may change.
    pub(super) fn may_change(&self) -> bool {
        self.listed.may_change()
    }

    /// Opens a connection to the first address that gives one.
    ///
    /// # Errors
    /// The error of every address.
    pub(super) async fn connect(&self, tls: &Arc<ClientConfig>, name: &str) -> Result<Opened, ConnectError> {
        let mut errors = Vec::new();
        for uri in self.to_try().await {
            match amqp::connect(&uri, tls, name).await {
                Ok(opened) => {
                    *self.lock() = Some(uri);
                    return Ok(opened);
                }
                Err(error) => errors.push(error),
            }
        }
        Err(ConnectError::of_all(errors))
    }

    /// The addresses, and last the one that worked last: the file may have been read while it was being
    /// written, or be ahead of the broker.
    async fn to_try(&self) -> Vec<AMQPUri> {
        let Listed { first, more } = self.listed.current().await;
        let mut all = vec![first];
        all.extend(more);
        if let Some(worked) = &*self.lock()
            && !all.contains(worked)
        {
            all.push(worked.clone());
        }
        all
    }

    fn lock(&self) -> MutexGuard<'_, Option<AMQPUri>> {
        // No code panics while it holds this lock, and its content is whole even if some did.
        self.worked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(text: &str) -> Option<Listed> {
    let mut all = split(text).into_iter().map(address);
    let first = all.next()??;
    Some(Listed { first, more: all.collect::<Option<Vec<_>>>()? })
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
