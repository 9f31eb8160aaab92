//! The settings of the ledger.

use std::time::Duration;

use super::address::{Source, Trust};
use super::home::{Deployment, Prefix};
use super::redis::RedisSettings;
use crate::job::progress::OnAmbiguous;
use crate::settings::reader::Reader;
use crate::settings::table as settings;

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
    Redis(Box<RedisSettings>),
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
    /// An attempt takes at most `longest_attempt`. The lease must not end during an attempt. `deployment` says
    /// whose workers share the store.
    pub(crate) fn from_reader(
        reader: &mut Reader<'_>,
        on_ambiguous: OnAmbiguous,
        longest_attempt: Duration,
        deployment: Deployment,
    ) -> Self {
        Self {
            store: store(reader, deployment),
            lease: longest_attempt + LEASE_MARGIN,
            ttl: reader.duration(&settings::OTP_LEDGER_TTL, Duration::from_secs(1)),
            on_error: on_error(reader, on_ambiguous),
        }
    }
}

fn store(reader: &mut Reader<'_>, deployment: Deployment) -> StoreSettings {
    let (prefix, trust) = (prefix(reader, &deployment), trust(reader));
    let setting = &settings::OTP_LEDGER_URL;
    let text = match reader.secret(setting, &settings::OTP_LEDGER_URL_FILE) {
        Some(secret) if secret.text != "memory:" => secret,
        Some(_) | None => return StoreSettings::Memory,
    };
    match Source::new(text, trust) {
        Ok(source) => StoreSettings::Redis(Box::new(RedisSettings { source, prefix, deployment })),
        Err(problem) => {
            reader.mistake(setting, problem);
            StoreSettings::Memory
        }
    }
}

fn prefix(reader: &mut Reader<'_>, deployment: &Deployment) -> Prefix {
    let setting = &settings::OTP_LEDGER_PREFIX;
    let given = reader.given(setting).and_then(|_| reader.parsed(setting, Prefix::parse));
    given.unwrap_or_else(|| Prefix::of(deployment))
}

/// The file is tried at once, so that a mistake in it is told with the others.
fn trust(reader: &mut Reader<'_>) -> Trust {
    let setting = &settings::OTP_LEDGER_CA_FILE;
    let Some(path) = reader.given(setting) else { return Trust::default() };
    let read = std::fs::read(path.trim()).map_err(|error| format!("cannot read {path}: {error}"));
    let trust = read.map(|pem| Trust { extra_ca: Some(pem) });
    trust.and_then(|trust| trust.client_config().map(|_| trust)).unwrap_or_else(|problem| {
        reader.mistake(setting, problem);
        Trust::default()
    })
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
