//! The ledger of the workers, for commands that ask it: its settings, and what is said where it does not answer.

use std::time::Duration;

use crate::broker::settings::BrokerSettings;
use crate::job::progress::OnAmbiguous;
use crate::ledger::home::Deployment;
use crate::ledger::redis::RedisSettings;
use crate::ledger::settings::{LedgerSettings, StoreSettings};
use crate::ledger::store::StoreError;
use crate::settings::reader::{Reader, WrongSettings};
use crate::settings::table;

/// The store of the workers of this queue. The queue and the virtual host are part of the keys' prefix.
pub(super) fn store(reader: &mut Reader<'_>, broker: &BrokerSettings) -> StoreSettings {
    let (vhost, queue) = (broker.addresses.first().vhost, broker.queue.clone());
    let deployment = Deployment { broker: None, vhost, queue };
    // No job is worked here: how ambiguous attempts are dealt with and how long one takes changes nothing.
    LedgerSettings::from_reader(reader, OnAmbiguous::Resend, Duration::ZERO, deployment).store
}

/// That a command needs a Redis, and why. Other mistakes come first: one of them may be why there is none.
pub(super) fn without_redis(mut reader: Reader<'_>, why: &str) -> WrongSettings {
    if !reader.has_mistakes() {
        reader.mistake(&table::OTP_LEDGER_URL, format!("must be that of a Redis: {why}"));
    }
    reader.finish(()).err().unwrap_or_else(|| WrongSettings(Vec::new()))
}

/// Why the ledger did not tell, and what a person must do.
pub(super) fn not_told(redis: &RedisSettings, error: &StoreError) -> String {
    let address = redis.source.good();
    let hint = match error {
        StoreError::NotOurs(_) => {
            "give this command the AMQP_URL, OTP_QUEUE, OTP_LEDGER_URL and OTP_LEDGER_PREFIX of the workers"
        }
        StoreError::Unreachable(_) | StoreError::Refused { .. } | StoreError::Unreadable(_) => {
            error.hint().unwrap_or("check OTP_LEDGER_URL (scheme, host, port, user, password) and that the server runs")
        }
    };
    format!("the ledger at {}:{} did not tell: {error}\nTo mend it: {hint}", address.host, address.port)
}
