//! The settings of sending: when a call is tried again, and when calls are held back.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::backoff;
use crate::job::progress::OnAmbiguous;
use crate::settings::reader::Reader;
use crate::settings::table::{self as settings, Setting};

/// How a job is sent.
#[derive(Clone, Debug)]
pub struct SendSettings {
    /// The waits between attempts.
    pub backoff: backoff::Policy,
    /// No further attempt starts after this long.
    pub max_elapsed: Duration,
    /// What follows an ambiguous attempt.
    pub on_ambiguous: OnAmbiguous,
    /// How many further attempts may follow ambiguous ones, with `resend`.
    pub resend_limit: u32,
    /// `CodeResult`s that mean "not sent, try later".
    pub retry_codes: BTreeSet<String>,
    /// When the circuit opens, and for how long.
    pub circuit: CircuitSettings,
    /// The time between two calls, if their rate is limited.
    pub interval: Option<Duration>,
    /// The most calls a second of all workers together.
    pub shared_limit: Option<f64>,
}

/// When the circuit opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitSettings {
    /// Failed attempts in a row that open it.
    pub failures: NonZeroU32,
    /// How long it stays open before a probe.
    pub cooldown: Duration,
}

impl SendSettings {
    pub(crate) fn from_reader(reader: &mut Reader<'_>) -> Self {
        Self {
            backoff: backoff(reader),
            max_elapsed: reader.duration(&settings::OTP_RETRY_MAX_ELAPSED, Duration::ZERO),
            on_ambiguous: on_ambiguous(reader),
            resend_limit: resend_limit(reader),
            retry_codes: retry_codes(reader),
            circuit: circuit(reader),
            interval: rate(reader, &settings::OTP_RATE_LIMIT).map(|rate| Duration::from_secs_f64(rate.recip())),
            shared_limit: rate(reader, &settings::OTP_SHARED_RATE_LIMIT),
        }
    }
}

fn backoff(reader: &mut Reader<'_>) -> backoff::Policy {
    let initial = reader.duration(&settings::OTP_RETRY_INITIAL, Duration::from_millis(1));
    let longest = reader.duration(&settings::OTP_RETRY_MAX_INTERVAL, Duration::from_millis(1));
    backoff::Policy::new(initial, longest).unwrap_or_else(|error| {
        reader.mistake(&settings::OTP_RETRY_MAX_INTERVAL, error.to_string());
        backoff::Policy::RECONNECT
    })
}

fn circuit(reader: &mut Reader<'_>) -> CircuitSettings {
    let failures = reader.parsed(&settings::OTP_BREAKER_FAILURES, |text| {
        text.parse().map_err(|_| "must be a whole number of at least 1".to_owned())
    });
    let cooldown = reader.duration(&settings::OTP_BREAKER_COOLDOWN, Duration::from_millis(1));
    CircuitSettings { failures: failures.unwrap_or(NonZeroU32::MIN), cooldown }
}

/// Calls a second.
fn rate(reader: &mut Reader<'_>, setting: &Setting) -> Option<f64> {
    reader.given(setting)?;
    reader.parsed(setting, |text| {
        let rate = text.parse().ok().filter(|rate| (0.001..=100_000.0).contains(rate));
        rate.ok_or_else(|| "must be a number of calls a second, from 0.001 to 100000".to_owned())
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

/// The most further attempts that can be allowed: each may cost an OTP.
const MOST_RESENDS: u32 = 100;

fn resend_limit(reader: &mut Reader<'_>) -> u32 {
    reader
        .parsed(&settings::OTP_RESEND_LIMIT, |text| {
            let limit = text.parse().ok().filter(|limit| *limit <= MOST_RESENDS);
            limit.ok_or_else(|| format!("must be a whole number from 0 to {MOST_RESENDS}"))
        })
        .unwrap_or_default()
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
