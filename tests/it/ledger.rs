//! The ledger that workers share: what a worker finds there after another worker was killed, at any point
//! and in any way.

mod access;
mod closing;
mod crash_points;
mod homes;
mod hostile_records;
mod outage;
mod pace;
mod places;
mod records;
mod repeats;
mod results_beside;
mod sharing;
mod stops;
mod store;

use std::sync::Arc;
use std::time::Duration;

use esms_otp_worker::ledger::address::{Source, Trust};
use esms_otp_worker::ledger::fingerprint::{Fingerprint, Fingerprints};
use esms_otp_worker::ledger::home::{Deployment, Prefix};
use esms_otp_worker::ledger::redis::{Redis as RedisStore, RedisSettings};
use esms_otp_worker::settings::secret;

use crate::stage::{LIMIT, PHONE, Stage};
use crate::support::redis::Redis;
use crate::support::wait::until;

/// A stage with workers that share a Redis. One attempt takes at most two seconds. So the lease of a dead
/// worker ends seven seconds after its attempt began.
async fn shared() -> (Stage, Redis) {
    let (mut stage, redis) = (Stage::new().await, Redis::start().await);
    stage.set("OTP_LEDGER_URL", &redis.url()).set("OTP_LEDGER_PREFIX", PREFIX);
    stage.set("ESMS_TIMEOUT", "2s").set("ESMS_CONNECT_TIMEOUT", "1s");
    (stage, redis)
}

/// The same with calls, and therefore leases, that last longer than any test.
async fn patient() -> (Stage, Redis) {
    let (mut stage, redis) = shared().await;
    stage.set("ESMS_TIMEOUT", "2m").set("OTP_SHUTDOWN_GRACE", "3m");
    (stage, redis)
}

/// Longer than any lease here.
const LEASE: Duration = Duration::from_secs(60);

/// How long to wait to show that nothing more comes.
const MOMENT: Duration = Duration::from_millis(200);

const GIVE_UP: &[(&str, &str)] = &[("OTP_ON_AMBIGUOUS", "give-up")];
const HOLD: &[(&str, &str)] = &[("OTP_LEDGER_ON_ERROR", "hold")];

fn told(outcome: &str, attempts: u64, may_be_duplicate: bool) -> (String, u64, bool) {
    (outcome.to_owned(), attempts, may_be_duplicate)
}

/// What every key begins with.
const PREFIX: &str = "otp-test:";

/// The record of whose the prefix is.
const HOME: &str = "otp-test:home";

/// The record of the workers' pace.
const PACE: &str = "otp-test:pace";

/// The key of a job's record.
fn key(id: &str) -> String {
    format!("{PREFIX}job:{id}")
}

async fn state(redis: &Redis, id: &str) -> String {
    redis.cli(&["HGET", &key(id), "state"]).await
}

async fn until_state(redis: &Redis, id: &str, wanted: &str) {
    until(&format!("the record of {id} is {wanted}"), LIMIT, async || state(redis, id).await == wanted).await;
}

/// How many scripts were run. Each step of the ledger runs one.
async fn steps(redis: &Redis) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]).await;
    stats
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_evalsha:calls="))
        .filter_map(|rest| rest.split(',').next()?.parse::<u64>().ok())
        .sum()
}

/// Where the workers of this queue find the ledger.
fn settings_of(redis: &Redis, queue: &str) -> RedisSettings {
    let source = Source::new(secret::Source::fixed(redis.url()), Trust::default()).expect("an address");
    let deployment = Deployment { broker: None, vhost: "/".into(), queue: queue.into() };
    let prefix = Prefix::parse(PREFIX).expect("a prefix");
    RedisSettings { source, prefix, deployment }
}

/// A store that asks this Redis as the workers of this queue would.
fn store_of(redis: &Redis, queue: &str, lease: Duration) -> RedisStore {
    RedisStore::new(&settings_of(redis, queue), Arc::default(), Arc::default(), lease, Duration::from_secs(3600))
}

/// The same for a test without workers.
fn store_at(redis: &Redis, lease: Duration) -> RedisStore {
    store_of(redis, "a-queue", lease)
}

/// The fingerprint of a job for this number, under a key of the tests' own.
fn fingerprint_of(phone: &str) -> Fingerprint {
    let body = format!(r#"{{"Phone":"{phone}","MultiChannelTempId":"1234"}}"#);
    let request = esms_otp_worker::job::request::decode(body.as_bytes(), None).expect("a job");
    Fingerprints::new("a test").of(&request)
}

fn fingerprint() -> Fingerprint {
    fingerprint_of(PHONE)
}
