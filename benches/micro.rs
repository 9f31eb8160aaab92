//! What the steps of a job cost by themselves, without a network. `make micro` runs it. It is built as the fault
//! campaign is, with debug assertions: its numbers are for comparing two versions of a step.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a broken expectation here is a failed benchmark")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
use esms_otp_worker::esms::classify::{ClassName, End, Seen, classify};
use esms_otp_worker::job::progress::{OnAmbiguous, Progress};
use esms_otp_worker::job::request::{OtpRequest, decode};
use esms_otp_worker::job::result::{Answer, Ending, Outcome};
use esms_otp_worker::ledger::past::JobRef;
use esms_otp_worker::ledger::settings::{LedgerSettings, OnLedgerError, StoreSettings};
use esms_otp_worker::ledger::{Claimed, Ledger};
use esms_otp_worker::limits::Limits;
use esms_otp_worker::telemetry::labels::Published;
use esms_otp_worker::telemetry::metrics::Metrics;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

const JOB: &[u8] = br#"{"Phone": "0901888484", "MultiChannelTempId": "1234", "TypeId": "2", "TimeAlive": "5"}"#;
const ANSWER: &[u8] = br#"{"CodeResult":"100","CountRegenerate":0,"SMSID":"d533459ee42b2b9525ba9eabf6a8156"}"#;
const ID: &str = "5f0c2a4e-1b7d-4c55-9a3e-0d6f2b8c7e91";

fn main() {
    // `cargo test` passes no such argument, and compiles this only.
    if std::env::args().any(|arg| arg == "--bench") {
        divan::main();
    }
}

/// A job's body becomes a request.
#[divan::bench(sample_size = 200)]
fn decode_a_job() -> OtpRequest {
    decode(black_box(JOB), None).expect("a job")
}

/// An answer of eSMS becomes a class.
#[divan::bench(sample_size = 200)]
fn classify_an_answer(bencher: Bencher<'_, '_>) {
    let (retry_codes, now) = (BTreeSet::from(["160".to_owned()]), SystemTime::now());
    let body = Bytes::from_static(ANSWER);
    let seen = || Seen::Reply { status: 200, retry_after: None, body: body.clone(), end: End::Whole };
    bencher.with_inputs(seen).bench_values(|seen| classify(seen, &retry_codes, now));
}

/// A job's end becomes the JSON of its result.
#[divan::bench(sample_size = 200)]
fn encode_a_result(bencher: Bencher<'_, '_>) {
    let now = SystemTime::now();
    bencher.with_inputs(ending).bench_values(|ending| ending.into_event(black_box(ID), now));
}

fn ending() -> Ending {
    let answer =
        Answer { code: "100".into(), sms_id: Some("d533459ee42b2b9525ba9eabf6a8156".into()), ..Answer::default() };
    let mut progress = Progress::default();
    progress.begin_attempt();
    Ending { answer: Some(answer), ..progress.end(Outcome::Accepted, None) }
}

/// A job is claimed, marked and finished in the ledger in memory.
#[divan::bench(sample_size = 200)]
fn ledger_in_memory(bencher: Bencher<'_, '_>) {
    let (runtime, ledger) = (runtime(), ledger());
    let request = decode(JOB, None).expect("a job");
    let id = || Uuid::new_v4().to_string();
    bencher.with_inputs(id).bench_local_values(|id| runtime.block_on(work(&ledger, &id, &request)));
}

/// The same as often as the ledger has room for, and once more: now it forgets the oldest.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn ledger_in_memory_beyond_its_bound(bencher: Bencher<'_, '_>) {
    const JOBS: usize = 50_000;
    let (runtime, ledger) = (runtime(), ledger());
    let request = decode(JOB, None).expect("a job");
    for _ in 0..esms_otp_worker::ledger::memory::MOST_JOBS {
        runtime.block_on(work(&ledger, &Uuid::new_v4().to_string(), &request));
    }
    let ids = || (0..JOBS).map(|_| Uuid::new_v4().to_string()).collect::<Vec<_>>();
    bencher.counter(ItemsCount::new(JOBS)).with_inputs(ids).bench_local_refs(|ids| {
        for id in ids {
            runtime.block_on(work(&ledger, id, &request));
        }
    });
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn ledger() -> Ledger {
    let settings = LedgerSettings {
        store: StoreSettings::Memory,
        lease: Duration::from_secs(15),
        ttl: Duration::from_secs(86_400),
        on_error: OnLedgerError::Send,
    };
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    Ledger::new(&settings, Arc::new(Limits::default()), OnAmbiguous::Resend, metrics).0
}

async fn work(ledger: &Ledger, id: &str, request: &OtpRequest) {
    let job = JobRef {
        id,
        fingerprint: ledger.fingerprint(request),
        is_named: true,
        is_dropped: false,
        first_delivered: Some(tokio::time::Instant::now()),
        may_have_been_elsewhere: false,
        delivery_count: None,
        place: None,
    };
    let Claimed::Ours(holding, mut progress) = ledger.claim(job).await else { panic!("a new job") };
    progress.begin_attempt();
    ledger.mark(job, &holding, &progress).await;
    let event = progress.end(Outcome::Accepted, None).into_event(id, SystemTime::UNIX_EPOCH);
    ledger.finish(job, &holding, &event, &event).await;
}

/// What is counted of one job that goes well.
#[divan::bench(sample_size = 200)]
fn metrics_of_a_job(bencher: Bencher<'_, '_>) {
    let metrics = Metrics::new().expect("metrics");
    let took = Duration::from_millis(50);
    bencher.bench(|| {
        let _in_flight = metrics.in_flight();
        metrics.delivered_after(black_box(took));
        metrics.attempt(ClassName::Answered, black_box(took));
        metrics.code_result(black_box("100"));
        metrics.job_ended(Outcome::Accepted, false);
        metrics.published(Published::Confirmed);
        metrics.acknowledged(Outcome::Accepted, black_box(took));
    });
}
