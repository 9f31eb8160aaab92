//! The settings of the ledger.

use std::time::Duration;

use redis::{ConnectionAddr, IntoConnectionInfo};
use rustls::ClientConfig;
use std::sync::Arc;

use super::link::Address;
use crate::job::progress::OnAmbiguous;
use crate::settings::reader::Reader;
use crate::settings::table as settings;
use crate::tls;

/// How much longer a lease is than the longest attempt: enough for two steps of the store and a pause of the
/// process.
pub const LEASE_MARGIN: Duration = Duration::from_secs(5);

/// Where jobs are remembered, for how long, and what is done when that place is gone.
#[derive(Clone, Debug)]
pub struct LedgerSettings {
    /// The store.
    pub store: StoreSettings,
    /// How long a job stays with the worker that asked for it, unless it renews its lease.
    pub lease: Duration,
    /// How long a job is remembered after its last change.
    pub ttl: Duration,
    /// What is done when the store cannot be reached.
    pub on_error: OnLedgerError,
}

/// Where jobs are remembered.
#[derive(Clone, Debug)]
pub enum StoreSettings {
    /// In this process.
    Memory,
    /// In a Redis, or a Valkey.
    Redis(Address),
}

/// What is done when the store cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLedgerError {
    /// Jobs go on without it.
    Send,
    /// They wait for it.
    Hold,
}

impl OnLedgerError {
    /// What a person is told.
    pub const fn hint(self) -> &'static str {
        match self {
            OnLedgerError::Send => {
                "jobs are sent all the same, and a repeat of them may not be recognised; check OTP_LEDGER_URL and the server there"
            }
            OnLedgerError::Hold => "jobs wait until it does; check OTP_LEDGER_URL and the server there",
        }
    }
}

impl LedgerSettings {
    /// An attempt takes at most `longest_attempt`. The lease must not end during an attempt.
    pub(crate) fn from_reader(reader: &mut Reader<'_>, on_ambiguous: OnAmbiguous, longest_attempt: Duration) -> Self {
        Self {
            store: store(reader),
            lease: longest_attempt + LEASE_MARGIN,
            ttl: reader.duration(&settings::OTP_LEDGER_TTL, Duration::from_secs(1)),
            on_error: on_error(reader, on_ambiguous),
        }
    }
}

fn store(reader: &mut Reader<'_>) -> StoreSettings {
    let setting = &settings::OTP_LEDGER_URL;
    let secret = reader.secret(setting, &settings::OTP_LEDGER_URL_FILE);
    let store = match secret.as_ref().map(|secret| secret.text.as_str()) {
        None | Some("memory:") => Ok(StoreSettings::Memory),
        Some(url) => address(url).map(StoreSettings::Redis),
    };
    store.unwrap_or_else(|problem| {
        reader.mistake(setting, problem);
        StoreSettings::Memory
    })
}

/// The error repeats neither the text nor the parser's message: they may hold the password.
fn address(url: &str) -> Result<Address, String> {
    let info = plain(url).and_then(|url| url.into_connection_info().ok()).ok_or(ADDRESS_RULE)?;
    let ConnectionAddr::Tcp(host, port) = info.addr() else { return Err(ADDRESS_RULE.into()) };
    if host.is_empty() {
        return Err(ADDRESS_RULE.into());
    }
    let tls = is_tls(url).then(trust).transpose()?;
    Ok(Address { host: host.clone(), port: *port, tls, login: info.redis_settings().clone() })
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

fn trust() -> Result<Arc<ClientConfig>, String> {
    tls::client_config(None).map_err(|error| error.to_string())
}

fn on_error(reader: &mut Reader<'_>, on_ambiguous: OnAmbiguous) -> OnLedgerError {
    let unless_given = match on_ambiguous {
        OnAmbiguous::Resend => OnLedgerError::Send,
        OnAmbiguous::GiveUp => OnLedgerError::Hold,
    };
    if reader.given(&settings::OTP_LEDGER_ON_ERROR).is_none() {
        return unless_given;
    }
    reader
        .parsed(&settings::OTP_LEDGER_ON_ERROR, |text| match text {
            "send" => Ok(OnLedgerError::Send),
            "hold" => Ok(OnLedgerError::Hold),
            _ => Err("must be send or hold".into()),
        })
        .unwrap_or(unless_given)
}
