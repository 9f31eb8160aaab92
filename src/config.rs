//! Every setting: where it is read from, its unit and its rules.
//!
//! All of them are read before the first mistake is reported, so that one start shows every
//! mistake. A message names the setting and the rule; it repeats no value that may be secret.

pub use crate::broker::settings::{BrokerConfig, TopologyMode};
pub use crate::ledger::settings::{LedgerConfig, OnLedgerError, StoreConfig};
pub use crate::settings::reader::{ConfigError, Mistake, Source};
pub use crate::telemetry::traces::settings::TracesConfig;

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tracing_subscriber::EnvFilter;

use crate::backoff;
use crate::ledger::LEASE_MARGIN;
use crate::send::circuit;
use crate::settings::reader::Reader;
use crate::settings::table as settings;

/// Everything `run` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The broker and its objects.
    pub broker: BrokerConfig,
    /// How many jobs are in flight at once; also the prefetch of the consumer.
    pub concurrency: u16,
    /// The age at which a job is no longer sent.
    pub job_ttl: Duration,
    /// How attempts are repeated.
    pub retry: RetryConfig,
    /// When calls are held back.
    pub pace: PaceConfig,
    /// The provider.
    pub esms: EsmsConfig,
    /// Where jobs are remembered.
    pub ledger: LedgerConfig,
    /// The time between a signal and the end of the process.
    pub shutdown_grace: Duration,
    /// Where metrics and health are served.
    pub http_addr: SocketAddr,
    /// How log lines look.
    pub log: LogConfig,
    /// Where traces go.
    pub traces: TracesConfig,
}

/// What follows an attempt that may have reached eSMS and got no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAmbiguous {
    /// Try again and mark the result `MayBeDuplicate`.
    Resend,
    /// Stop with the outcome `unknown`.
    GiveUp,
}

/// How attempts are repeated.
#[derive(Clone, Debug)]
pub struct RetryConfig {
    /// The waits between attempts.
    pub backoff: backoff::Policy,
    /// No further attempt starts after this long.
    pub max_elapsed: Duration,
    /// What follows an ambiguous attempt.
    pub on_ambiguous: OnAmbiguous,
    /// `CodeResult`s that mean "not sent, try later".
    pub codes: BTreeSet<String>,
}

/// When calls are held back.
#[derive(Clone, Copy, Debug)]
pub struct PaceConfig {
    /// The circuit.
    pub circuit: circuit::Policy,
    /// The time between two calls, if their rate is limited.
    pub interval: Option<Duration>,
}

/// The provider and the account there.
#[derive(Clone, Debug)]
pub struct EsmsConfig {
    /// The V5 endpoint.
    pub url: Url,
    /// The account's key.
    pub api_key: SecretString,
    /// The account's secret.
    pub secret_key: SecretString,
    /// The template of jobs that name none.
    pub template_id: Option<String>,
    /// The limit on DNS, TCP and TLS together.
    pub connect_timeout: Duration,
    /// The limit on a whole attempt.
    pub timeout: Duration,
    /// The time between two questions for the account's balance, if it is asked for.
    pub balance_interval: Option<Duration>,
    /// Whether a call carries the trace context.
    pub traced: bool,
}

/// How log lines look.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// JSON lines, or text for a person at a terminal.
    pub format: LogFormat,
    /// The filter, in the syntax of `RUST_LOG`; known to parse.
    pub filter: String,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a person.
    Pretty,
}

impl Config {
    /// Reads everything `run` needs.
    ///
    /// # Errors
    /// Every mistake in the settings, together.
    pub fn read(source: &Source<'_>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(source);
        let broker = BrokerConfig::from_reader(&mut reader);
        let concurrency = concurrency(&mut reader);
        let job_ttl = reader.duration(&settings::OTP_JOB_TTL, Duration::from_secs(1));
        let retry = RetryConfig::from_reader(&mut reader);
        let config = Self {
            broker,
            concurrency,
            job_ttl,
            ledger: LedgerConfig::from_reader(&mut reader, retry.on_ambiguous),
            retry,
            pace: PaceConfig::from_reader(&mut reader),
            esms: EsmsConfig::from_reader(&mut reader),
            shutdown_grace: reader.duration(&settings::OTP_SHUTDOWN_GRACE, Duration::from_millis(1)),
            http_addr: http_addr(&mut reader),
            log: LogConfig::from_reader(&mut reader),
            traces: TracesConfig::from_reader(&mut reader),
        };
        if config.ledger.ttl < config.job_ttl + config.esms.timeout + LEASE_MARGIN {
            reader.mistake(
                &settings::OTP_LEDGER_TTL,
                "must be at least OTP_JOB_TTL, ESMS_TIMEOUT and 5s together, or a job could be forgotten while it may still be sent",
            );
        }
        if config.shutdown_grace <= config.esms.timeout {
            reader.mistake(
                &settings::OTP_SHUTDOWN_GRACE,
                "must be longer than ESMS_TIMEOUT, or stopping would cut off a call under way",
            );
        }
        reader.finish(config)
    }
}

fn concurrency(reader: &mut Reader<'_>) -> u16 {
    reader
        .parsed(&settings::OTP_CONCURRENCY, |text| {
            text.parse::<u16>().ok().filter(|n| *n > 0).ok_or_else(|| "must be a whole number from 1 to 65535".into())
        })
        .unwrap_or(1)
}

fn http_addr(reader: &mut Reader<'_>) -> SocketAddr {
    reader
        .parsed(&settings::HTTP_ADDR, |text| {
            text.parse().map_err(|_| "must be an address and a port, such as 0.0.0.0:9090".to_owned())
        })
        .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
}

impl RetryConfig {
    fn from_reader(reader: &mut Reader<'_>) -> Self {
        let initial = reader.duration(&settings::OTP_RETRY_INITIAL, Duration::from_millis(1));
        let longest = reader.duration(&settings::OTP_RETRY_MAX_INTERVAL, Duration::from_millis(1));
        let backoff = backoff::Policy::new(initial, longest).unwrap_or_else(|error| {
            reader.mistake(&settings::OTP_RETRY_MAX_INTERVAL, error.to_string());
            backoff::Policy::RECONNECT
        });
        Self {
            backoff,
            max_elapsed: reader.duration(&settings::OTP_RETRY_MAX_ELAPSED, Duration::ZERO),
            on_ambiguous: on_ambiguous(reader),
            codes: retry_codes(reader),
        }
    }
}

impl PaceConfig {
    fn from_reader(reader: &mut Reader<'_>) -> Self {
        let failures = reader.parsed(&settings::OTP_BREAKER_FAILURES, |text| {
            text.parse().map_err(|_| "must be a whole number of at least 1".to_owned())
        });
        let cooldown = reader.duration(&settings::OTP_BREAKER_COOLDOWN, Duration::from_millis(1));
        let circuit = circuit::Policy { failures: failures.unwrap_or(NonZeroU32::MIN), cooldown };
        Self { circuit, interval: reader.given(&settings::OTP_RATE_LIMIT).and_then(|_| interval(reader)) }
    }
}

/// The time between two calls of so many a second.
fn interval(reader: &mut Reader<'_>) -> Option<Duration> {
    reader.parsed(&settings::OTP_RATE_LIMIT, |text| {
        let rate = text.parse::<f64>().ok().filter(|rate| (0.001..=100_000.0).contains(rate));
        rate.map(|rate| Duration::from_secs_f64(rate.recip()))
            .ok_or_else(|| "must be a number of calls a second, from 0.001 to 100000".to_owned())
    })
}

fn on_ambiguous(reader: &mut Reader<'_>) -> OnAmbiguous {
    reader
        .parsed(&settings::OTP_ON_AMBIGUOUS, |text| match text {
            "resend" => Ok(OnAmbiguous::Resend),
            "give-up" => Ok(OnAmbiguous::GiveUp),
            _ => Err("must be resend or give-up".into()),
        })
        .unwrap_or(OnAmbiguous::Resend)
}

fn retry_codes(reader: &mut Reader<'_>) -> BTreeSet<String> {
    reader
        .parsed(&settings::ESMS_RETRY_CODES, |text| {
            text.split(',').map(str::trim).map(retry_code).collect::<Result<BTreeSet<_>, _>>()
        })
        .unwrap_or_default()
}

fn retry_code(code: &str) -> Result<String, String> {
    let digits = (1..=6).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_digit());
    match code {
        "100" => Err("must not hold 100: it means accepted, and would be sent again".into()),
        _ if digits => Ok(code.to_owned()),
        _ => Err("must be codes such as 160 or 160,199".into()),
    }
}

impl EsmsConfig {
    fn from_reader(reader: &mut Reader<'_>) -> Self {
        let config = Self {
            url: esms_url(reader),
            api_key: reader.required_secret(&settings::ESMS_API_KEY, &settings::ESMS_API_KEY_FILE),
            secret_key: reader.required_secret(&settings::ESMS_SECRET_KEY, &settings::ESMS_SECRET_KEY_FILE),
            template_id: reader.given(&settings::ESMS_TEMPLATE_ID).map(|id| id.trim().to_owned()),
            connect_timeout: reader.duration(&settings::ESMS_CONNECT_TIMEOUT, Duration::from_millis(1)),
            timeout: reader.duration(&settings::ESMS_TIMEOUT, Duration::from_millis(1)),
            balance_interval: balance_interval(reader),
            traced: traced(reader),
        };
        if config.connect_timeout > config.timeout {
            reader.mistake(
                &settings::ESMS_CONNECT_TIMEOUT,
                "must not be longer than ESMS_TIMEOUT, or a failure to connect could not be told from a lost answer",
            );
        }
        config
    }

    /// Every word that must never be repeated in anything published or logged.
    pub fn secrets(&self) -> [&str; 2] {
        [self.api_key.expose_secret(), self.secret_key.expose_secret()]
    }
}

/// Not more often than every second: the call counts against the account's rate.
fn balance_interval(reader: &mut Reader<'_>) -> Option<Duration> {
    let interval = reader.duration(&settings::ESMS_BALANCE_INTERVAL, Duration::ZERO);
    if interval > Duration::ZERO && interval < Duration::from_secs(1) {
        reader.mistake(&settings::ESMS_BALANCE_INTERVAL, "must be 0s (never) or at least 1s");
    }
    (interval > Duration::ZERO).then_some(interval)
}

fn esms_url(reader: &mut Reader<'_>) -> Url {
    let setting = &settings::ESMS_URL;
    let text = reader.text(setting);
    match (http_url(&text), setting.default.and_then(|d| Url::parse(d).ok())) {
        (Some(url), _) => url,
        (None, Some(default)) => {
            reader
                .mistake(setting, "must be an https:// (or, for a sandbox, http://) address without credentials in it");
            default
        }
        (None, None) => unreachable!("the default address parses"),
    }
}

/// An address to call, which has no credentials in it.
pub(crate) fn http_url(text: &str) -> Option<Url> {
    Url::parse(text.trim()).ok().filter(|url| {
        matches!(url.scheme(), "https" | "http")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    })
}

fn traced(reader: &mut Reader<'_>) -> bool {
    reader
        .parsed(&settings::OTP_TRACE_PROPAGATE_TO_ESMS, |text| {
            text.parse::<bool>().map_err(|_| "must be true or false".to_owned())
        })
        .unwrap_or(false)
}

impl LogConfig {
    fn from_reader(reader: &mut Reader<'_>) -> Self {
        let format = match reader.given(&settings::LOG_FORMAT) {
            None if std::io::stderr().is_terminal() => Some(LogFormat::Pretty),
            None => Some(LogFormat::Json),
            Some(_) => reader.parsed(&settings::LOG_FORMAT, |text| match text {
                "json" => Ok(LogFormat::Json),
                "pretty" => Ok(LogFormat::Pretty),
                _ => Err("must be json or pretty".into()),
            }),
        };
        let filter = reader.parsed(&settings::RUST_LOG, |text| match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(_) => Err("must be a level such as info, or a filter such as info,esms_otp_worker=debug".into()),
        });
        Self { format: format.unwrap_or(LogFormat::Json), filter: filter.unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests;
