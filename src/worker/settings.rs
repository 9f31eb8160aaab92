//! The settings of working jobs.

use std::time::Duration;

use crate::settings::reader::Reader;
use crate::settings::table as settings;

/// How jobs are worked.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// How many jobs are in flight at once; also the prefetch of the consumer.
    pub concurrency: u16,
    /// The age at which a job is no longer sent.
    pub job_ttl: Duration,
    /// The time between a signal and the end of the process.
    pub shutdown_grace: Duration,
}

impl WorkerSettings {
    pub(crate) fn from_reader(reader: &mut Reader<'_>) -> Self {
        Self {
            concurrency: concurrency(reader),
            job_ttl: reader.duration(&settings::OTP_JOB_TTL, Duration::from_secs(1)),
            shutdown_grace: reader.duration(&settings::OTP_SHUTDOWN_GRACE, Duration::from_millis(1)),
        }
    }
}

fn concurrency(reader: &mut Reader<'_>) -> u16 {
    reader
        .parsed(&settings::OTP_CONCURRENCY, |text| {
            text.parse::<u16>().ok().filter(|n| *n > 0).ok_or_else(|| "must be a whole number from 1 to 65535".into())
        })
        .unwrap_or(1)
}
