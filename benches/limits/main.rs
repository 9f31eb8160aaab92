//! What the limits cost: microseconds a job, without and with them, in memory and in Redis. `make bench-limits` runs it.
//!
//! The kinds take turns, so that a busy machine is busy for all of them. What counts are the ratios within one run.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a broken expectation here is a failed benchmark")]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use esms_otp_worker::job::progress::{OnAmbiguous, Progress};
use esms_otp_worker::job::request::{OtpRequest, decode};
use esms_otp_worker::job::result::{Ending, Outcome};
use esms_otp_worker::ledger::address::{Source, Trust};
use esms_otp_worker::ledger::home::{Deployment, Prefix};
use esms_otp_worker::ledger::past::JobRef;
use esms_otp_worker::ledger::redis::RedisSettings;
use esms_otp_worker::ledger::settings::{LedgerSettings, OnLedgerError, StoreSettings};
use esms_otp_worker::ledger::{Claimed, Ledger};
use esms_otp_worker::limits::{Group, Limit, Limits, Rule};
use esms_otp_worker::settings::secret;
use esms_otp_worker::telemetry::metrics::Metrics;
use support::redis::Redis;

const ROUNDS: usize = 5;
const JOBS: usize = 2_000;

/// A cooldown, two limits of a number, one of a prefix, and one of all.
fn limits() -> Limits {
    let rule = |limit, most, seconds| Rule { limit, most, window: Duration::from_secs(seconds) };
    let number = [rule(Limit::Cooldown, 1, 60), rule(Limit::Phone, 3, 600), rule(Limit::Phone, 10, 86_400)];
    let groups = vec![Group { prefix: None, rules: vec![rule(Limit::Total, 100_000_000, 86_400)] }];
    Limits::of(number.to_vec(), groups)
}

/// One way to remember jobs.
struct Kind {
    name: &'static str,
    ledger: Ledger,
    limits: Arc<Limits>,
    took: Vec<Duration>,
    redis: Option<Redis>,
}

impl Kind {
    async fn new(name: &'static str, limits: Limits, in_redis: bool) -> Self {
        let redis = if in_redis { Some(Redis::start().await) } else { None };
        let store = redis.as_ref().map_or(StoreSettings::Memory, |redis| StoreSettings::Redis(Box::new(at(redis))));
        let settings = LedgerSettings {
            store,
            lease: Duration::from_secs(15),
            ttl: Duration::from_secs(86_400),
            on_error: OnLedgerError::Send,
        };
        let limits = Arc::new(limits);
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let (ledger, _) = Ledger::new(&settings, Arc::clone(&limits), OnAmbiguous::Resend, metrics);
        ledger.open().await.expect("a store");
        Self { name, ledger, limits, took: Vec::new(), redis }
    }

    /// Works jobs one after the other: claimed, marked, ended.
    async fn round(&mut self, round: usize) {
        let began = Instant::now();
        for n in 0..JOBS {
            self.work(&format!("{round}-{n}"), &request(round * JOBS + n)).await;
        }
        self.took.push(began.elapsed() / JOBS as u32);
    }

    async fn work(&self, id: &str, request: &OtpRequest) {
        let now = tokio::time::Instant::now();
        let place = self.limits.place(id, request, now + Duration::from_secs(300));
        let job = JobRef {
            id,
            fingerprint: self.ledger.fingerprint(request),
            is_named: true,
            is_dropped: false,
            first_delivered: Some(now),
            may_have_been_elsewhere: false,
            delivery_count: None,
            place: place.as_ref(),
        };
        let Claimed::Ours(holding, mut progress) = self.ledger.claim(job).await else { panic!("a new job") };
        progress.begin_attempt();
        self.ledger.mark(job, &holding, &progress).await;
        let event = ending(progress).into_event(id, SystemTime::UNIX_EPOCH);
        self.ledger.finish(job, &holding, &event, &event).await;
    }

    /// Microseconds a job in the median round.
    fn median(&self) -> f64 {
        let mut took = self.took.clone();
        took.sort_unstable();
        took[took.len() / 2].as_secs_f64() * 1e6
    }

    /// Microseconds that Redis itself spent on a job.
    async fn in_redis(&self) -> Option<f64> {
        let stats = self.redis.as_ref()?.cli(&["INFO", "commandstats"]).await;
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:"))?.to_owned();
        let usec = line.split(',').find_map(|field| field.strip_prefix("usec="))?.parse::<f64>().ok()?;
        Some(usec / (ROUNDS * JOBS) as f64)
    }
}

fn ending(progress: Progress) -> Ending {
    progress.end(Outcome::Accepted, None)
}

fn request(n: usize) -> OtpRequest {
    decode(format!(r#"{{"Phone":"0{:09}","MultiChannelTempId":"1"}}"#, 900_000_000 + n).as_bytes(), None)
        .expect("a job")
}

fn at(redis: &Redis) -> RedisSettings {
    let source = Source::new(secret::Source::fixed(redis.url()), Trust::default()).expect("an address");
    let deployment = Deployment { broker: None, vhost: "/".into(), queue: "otp.jobs".into() };
    RedisSettings { source, prefix: Prefix::parse("bench:").expect("a prefix"), deployment }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // `cargo test` passes no such argument, and compiles this only.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let mut kinds = [
        Kind::new("memory, no limits", Limits::default(), false).await,
        Kind::new("memory, limits", limits(), false).await,
        Kind::new("Redis, no limits", Limits::default(), true).await,
        Kind::new("Redis, limits", limits(), true).await,
    ];
    for round in 0..ROUNDS {
        for kind in &mut kinds {
            kind.round(round).await;
        }
    }
    println!("{JOBS} jobs a round, {ROUNDS} rounds in turn; microseconds a job, the median round");
    println!("{:<20} {:>10} {:>16}", "", "in all", "of this in Redis");
    for kind in &kinds {
        let in_redis = kind.in_redis().await.map_or_else(String::new, |usec| format!("{usec:.1}"));
        println!("{:<20} {:>10.1} {in_redis:>16}", kind.name, kind.median());
    }
}
