//! The proxy through which a URL is called, from the variables that a machine sets for all its programs:
//! `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in capitals or not.
//!
//! The route is decided once, when a client is made, so that the log says what is really used. Loopback is always
//! spared: a proxy cannot reach it. A variable that cannot be understood is not used, and the log says so.

use std::net::IpAddr;

use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use reqwest::{ClientBuilder, Url};
use tracing::{info, warn};

/// How a URL is called.
#[derive(Clone, Debug)]
pub enum Route {
    /// Without a proxy.
    Direct {
        /// A variable that was not used, because it cannot be understood.
        unusable: Option<&'static str>,
    },
    /// Through a proxy.
    Through(Proxy),
}

/// A proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// The variable that names it.
    variable: &'static str,
    /// Debug does not show its credentials.
    to: Intercept,
}

/// The variables for `https://` and for `http://`. The first one that is set is used.
const FOR_HTTPS: &[&str] = &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const FOR_HTTP: &[&str] = &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
const FOR_NONE: &[&str] = &["NO_PROXY", "no_proxy"];

impl Route {
    /// The route to `url`, by the variables of this process.
    pub fn to(url: &Url) -> Self {
        Self::by(url, &|name| std::env::var(name).ok())
    }

    fn by(url: &Url, variables: &dyn Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|name| {
                let value = variables(name)?.trim().to_owned();
                (!value.is_empty()).then_some((*name, value))
            })
        };
        let direct = Self::Direct { unusable: None };
        let names = if url.scheme() == "https" { FOR_HTTPS } else { FOR_HTTP };
        let Some((variable, value)) = first(names) else { return direct };
        let spared = first(FOR_NONE).map(|(_, list)| list).unwrap_or_default();
        if is_loopback(url) || is_spared(url, &spared) {
            return direct;
        }
        let found = url.as_str().parse().ok().and_then(|url| Matcher::builder().all(value).build().intercept(&url));
        match found {
            Some(to) => Self::Through(Proxy { variable, to }),
            None => Self::Direct { unusable: Some(variable) },
        }
    }

    /// A client that calls by this route and no other.
    ///
    /// # Errors
    /// When the client refuses the proxy's address.
    pub fn apply(&self, client: ClientBuilder) -> Result<ClientBuilder, reqwest::Error> {
        let Self::Through(Proxy { to, .. }) = self else { return Ok(client.no_proxy()) };
        let mut proxy = reqwest::Proxy::all(to.uri().to_string())?;
        if let Some(header) = to.basic_auth() {
            proxy = proxy.custom_http_auth(header.clone());
        }
        if let Some((user, password)) = to.raw_auth() {
            proxy = proxy.basic_auth(user, password);
        }
        Ok(client.proxy(proxy))
    }

    /// The proxy's host and port, without its credentials.
    pub fn proxy(&self) -> Option<String> {
        match self {
            Self::Direct { .. } => None,
            Self::Through(proxy) => proxy.to.uri().authority().map(ToString::to_string),
        }
    }

    /// Says in the log how the URL of `setting` is called, where that is not plain.
    pub fn log(&self, setting: &str) {
        match self {
            Self::Direct { unusable: None } => {}
            Self::Direct { unusable: Some(variable) } => warn!(
                setting,
                variable,
                hint = "write it as http://host:port, https://host:port or socks5h://host:port",
                "the proxy's address cannot be understood; calls are made without it"
            ),
            Self::Through(proxy) => info!(
                setting,
                proxy = self.proxy(),
                variable = proxy.variable,
                hint = "to call without it, name the host in NO_PROXY",
                "calls go through a proxy"
            ),
        }
    }
}

/// Whether the host is this machine.
pub fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    match literal(host) {
        Some(IpAddr::V6(address)) => {
            address.is_loopback() || address.to_ipv4_mapped().is_some_and(|address| address.is_loopback())
        }
        Some(IpAddr::V4(address)) => address.is_loopback(),
        None => {
            let name = host.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether `NO_PROXY` spares the host. Beside curl's rules it takes what other programs take: `*` for
/// addresses, too, `*.example.com`, entries with a port, and white space between entries.
fn is_spared(url: &Url, list: &str) -> bool {
    let entries = list.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty());
    let entries: Vec<&str> = entries.filter_map(|entry| without_port(entry, url.port_or_known_default())).collect();
    if entries.contains(&"*") {
        return true;
    }
    let entries: Vec<&str> = entries.into_iter().map(|entry| entry.trim_start_matches("*.")).collect();
    // Any address serves: only the list is asked.
    let matcher = Matcher::builder().all("http://proxy").no(entries.join(",")).build();
    url.as_str().parse().is_ok_and(|url| matcher.intercept(&url).is_none())
}

/// The entry without its port. `None` if it is for another port.
fn without_port(entry: &str, port: Option<u16>) -> Option<&str> {
    match entry.rsplit_once(':') {
        Some((host, number)) if !host.contains(':') || host.ends_with(']') => match number.parse::<u16>() {
            Ok(number) if Some(number) == port => Some(host),
            Ok(_) => None,
            Err(_) => Some(entry),
        },
        _ => Some(entry),
    }
}

#[cfg(test)]
mod tests;
