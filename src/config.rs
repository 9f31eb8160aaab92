//! The settings of `run`: the settings of all rooms, and the rules between settings of two rooms.
//!
//! All settings are read before the first mistake is reported, so that one start shows every mistake. A
//! message names the setting and the rule. It does not repeat a value that may be secret. No room imports
//! this module: each room is given its own settings.

use crate::broker::settings::BrokerSettings;
use crate::esms::settings::EsmsSettings;
use crate::ledger::home::Deployment;
use crate::ledger::settings::{LEASE_MARGIN, LedgerSettings, StoreSettings};
use crate::limits::{Limit, Limits};
use crate::send::settings::SendSettings;
use crate::settings::reader::{Mistake, Reader, Source, WrongSettings};
use crate::settings::table as settings;
use crate::telemetry::settings::TelemetrySettings;
use crate::worker::settings::WorkerSettings;

/// The settings of `run`.
#[derive(Clone, Debug)]
pub struct Config {
    /// The broker and its objects.
    pub broker: BrokerSettings,
    /// How jobs are worked.
    pub worker: WorkerSettings,
    /// How calls are retried, and when they are held back.
    pub send: SendSettings,
    /// The provider.
    pub esms: EsmsSettings,
    /// How much is sent.
    pub limits: Limits,
    /// Where jobs are remembered.
    pub ledger: LedgerSettings,
    /// Metrics, health, logs and traces.
    pub telemetry: TelemetrySettings,
    /// What was not understood, and does not stop the worker.
    pub doubts: Vec<Mistake>,
}

impl Config {
    /// Reads all settings of `run`.
    ///
    /// # Errors
    /// [`WrongSettings`] with every mistake in the settings.
    pub fn read(source: &Source<'_>) -> Result<Self, WrongSettings> {
        let mut reader = Reader::new(source);
        let broker = BrokerSettings::from_reader(&mut reader);
        let worker = WorkerSettings::from_reader(&mut reader);
        let send = SendSettings::from_reader(&mut reader);
        let esms = EsmsSettings::from_reader(&mut reader);
        let limits = Limits::from_reader(&mut reader);
        let (vhost, queue) = (broker.addresses.first().vhost.clone(), broker.queue.clone());
        let deployment = Deployment { broker: None, vhost, queue };
        let ledger = LedgerSettings::from_reader(&mut reader, send.on_ambiguous, esms.timeout, deployment);
        let telemetry = TelemetrySettings::from_reader(&mut reader);
        let doubts = reader.take_doubts();
        let config = Self { broker, worker, send, esms, limits, ledger, telemetry, doubts };
        config.check(&mut reader);
        reader.finish(config)
    }

    /// Checks the rules between settings of two rooms.
    fn check(&self, reader: &mut Reader<'_>) {
        self.check_windows(reader);
        if self.ledger.ttl < self.worker.job_ttl + self.ledger.lease {
            let margin = humantime::format_duration(LEASE_MARGIN);
            let rule = format!(
                "must be at least OTP_JOB_TTL, ESMS_TIMEOUT and {margin} together, or a job could be forgotten while it may still be sent"
            );
            reader.mistake(&settings::OTP_LEDGER_TTL, rule);
        }
        if self.send.shared_limit.is_some() && matches!(self.ledger.store, StoreSettings::Memory) {
            let rule = "needs a Redis that the workers share: set OTP_LEDGER_URL to redis:// or rediss://, or use OTP_RATE_LIMIT";
            reader.mistake(&settings::OTP_SHARED_RATE_LIMIT, rule);
        }
        if self.worker.shutdown_grace <= self.esms.timeout {
            let rule = "must be longer than ESMS_TIMEOUT, or stopping would cut off a call under way";
            reader.mistake(&settings::OTP_SHUTDOWN_GRACE, rule);
        }
    }
}

impl Config {
    /// A job that the ledger has forgotten could be sent again, and be counted again.
    fn check_windows(&self, reader: &mut Reader<'_>) {
        for limit in Limit::ALL {
            let setting = match limit {
                Limit::Cooldown => &settings::OTP_PHONE_COOLDOWN,
                Limit::Phone => &settings::OTP_PHONE_LIMIT,
                Limit::Prefix => &settings::OTP_PREFIX_LIMIT,
                Limit::Total => &settings::OTP_TOTAL_LIMIT,
                Limit::PrefixDenied => continue,
            };
            if self.limits.longest_of(limit) > self.ledger.ttl {
                let ttl = humantime::format_duration(self.ledger.ttl);
                reader.mistake(
                    setting,
                    format!("must not have a longer window than the ledger remembers: OTP_LEDGER_TTL is {ttl}"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
