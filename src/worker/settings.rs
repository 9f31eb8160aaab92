//! The settings of working jobs.

use std::time::Duration;

use crate::settings::reader::Reader;
use crate::settings::table as settings;

/// How jobs are worked.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// How many calls are under way at once.
    pub concurrency: u16,
    /// How many jobs are held at once, those that wait included: the prefetch of the consumer.
    pub prefetch: u16,
    /// The age at which a job is no longer sent.
    pub job_ttl: Duration,
    /// The time between a signal and the end of the process.
    pub shutdown_grace: Duration,
}

impl WorkerSettings {
    pub(crate) fn from_reader(reader: &mut Reader<'_>) -> Self {
        let concurrency = concurrency(reader);
        Self {
            concurrency,
            prefetch: prefetch(reader, concurrency),
            job_ttl: reader.duration(&settings::OTP_JOB_TTL, Duration::from_secs(1)),
            shutdown_grace: reader.duration(&settings::OTP_SHUTDOWN_GRACE, Duration::from_millis(1)),
        }
    }
}

/// How many jobs are held for each call, unless `OTP_PREFETCH` says otherwise. docs/operating.md says why.
const HELD_PER_CALL: u16 = 8;

fn concurrency(reader: &mut Reader<'_>) -> u16 {
    reader
        .parsed(&settings::OTP_CONCURRENCY, |text| {
            text.parse::<u16>().ok().filter(|n| *n > 0).ok_or_else(|| "must be a whole number from 1 to 65535".into())
        })
        .unwrap_or(1)
}

/// Fewer jobs than calls would leave calls unused.
fn prefetch(reader: &mut Reader<'_>, concurrency: u16) -> u16 {
    let derived = concurrency.saturating_mul(HELD_PER_CALL);
    if reader.given(&settings::OTP_PREFETCH).is_none() {
        return derived;
    }
    reader
        .parsed(&settings::OTP_PREFETCH, |text| {
            let prefetch = text.parse().ok().filter(|prefetch| *prefetch >= concurrency);
            prefetch.ok_or_else(|| format!("must be a whole number from OTP_CONCURRENCY ({concurrency}) to 65535"))
        })
        .unwrap_or(derived)
}
