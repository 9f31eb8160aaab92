//! Jobs that wait, fail or hang leave the others their calls.

use std::time::Duration;

use esms_otp_worker::sandbox::{Fault, Sandbox, Settings};
use tokio::time::timeout;

use crate::stage::{LIMIT, Stage, ending, field};
use crate::support::broker::Broker;
use crate::support::client::Job;
use crate::support::wait::until;

/// More faults than any test lets a job meet.
const FOR_EVER: usize = 10_000;

fn phone(n: usize) -> String {
    format!("0901{n:06}")
}

fn job(n: usize, template: &str) -> Job {
    let body = serde_json::json!({"Phone": phone(n), "MultiChannelTempId": template});
    Job::new(body).id(&n.to_string())
}

/// The calls of one phone always end in this way.
fn always(stage: &Stage, n: usize, fault: Fault) {
    stage.sandbox.script(Some(&phone(n)), vec![fault; FOR_EVER]);
}

#[tokio::test]
async fn a_tenth_that_always_fails_takes_no_place_from_the_others_while_it_waits() {
    const JOBS: usize = 200;
    let fails = |n: usize| n.is_multiple_of(10);
    let mut stage = Stage::new().await;
    // The failing jobs are more than there are slots, and wait for longer than the test takes.
    stage.set("OTP_CONCURRENCY", "4").set("OTP_RETRY_MAX_ELAPSED", "1h").set("OTP_JOB_TTL", "2h");
    stage.set("OTP_PREFETCH", "40");
    for n in (0..JOBS).filter(|n| fails(*n)) {
        always(&stage, n, Fault::Status { code: 503, retry_after: None });
    }
    let mut running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish_all(&stage.names.jobs, (0..JOBS).map(|n| job(n, "1234"))).await;
    for result in results.collect(JOBS - JOBS / 10, LIMIT).await {
        assert_eq!(ending(&result), ("accepted".to_owned(), 1, false));
        assert!(!fails(field(&result, "JobId").parse().unwrap()));
    }
    assert!(running.process.log_containing("circuit opened").is_empty(), "eSMS answers nearly everyone");
    assert_eq!(stage.sandbox.accepted_total() as usize, JOBS - JOBS / 10);
    assert!(stage.sandbox.stats().most_in_progress <= 4, "no more calls than slots");
    // Those that fail are all still here, and go on.
    running.until_metric("otp_jobs_in_flight", &[], (JOBS / 10) as f64).await;
    let calls = stage.sandbox.stats().requests;
    timeout(LIMIT, stage.sandbox.wait_until(|stats| stats.requests > calls)).await.expect("another try");
    assert_eq!(running.stop().await, Some(0));
    until("they are back", LIMIT, async || Broker::shared().await.messages(&stage.names.jobs).await == 20).await;
}

#[tokio::test]
async fn a_template_whose_calls_hang_leaves_the_others_running() {
    let mut stage = Stage::new().await;
    stage.set("OTP_CONCURRENCY", "8").set("ESMS_TIMEOUT", "2m").set("OTP_SHUTDOWN_GRACE", "3m");
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, job(0, "works")).await;
    assert_eq!(ending(&results.next(LIMIT).await).0, "accepted");
    // More than there are slots.
    for n in 1_000..1_020 {
        always(&stage, n, Fault::Hold);
    }
    client.publish_all(&stage.names.jobs, (1_000..1_020).map(|n| job(n, "hangs"))).await;
    timeout(LIMIT, stage.sandbox.wait_until_held(2)).await.expect("it has its share");
    running.until_metric("otp_jobs_in_flight", &[], 20.0).await;
    assert_eq!(stage.sandbox.stats().requests, 1 + 2, "a quarter of the slots");
    client.publish_all(&stage.names.jobs, (1..=200).map(|n| job(n, "works"))).await;
    for result in results.collect(200, LIMIT).await {
        assert_eq!(ending(&result), ("accepted".to_owned(), 1, false));
        assert!(field(&result, "JobId").parse::<usize>().unwrap() <= 200);
    }
    // Those that hang are all still here.
    running.until_metric("otp_jobs_in_flight", &[], 20.0).await;
}

#[tokio::test]
async fn a_template_that_hangs_alone_has_every_place() {
    let mut stage = Stage::new().await;
    stage.set("OTP_CONCURRENCY", "8").set("ESMS_TIMEOUT", "2m").set("OTP_SHUTDOWN_GRACE", "3m");
    for n in 0..20 {
        always(&stage, n, Fault::Hold);
    }
    let _running = stage.worker().await;
    let client = stage.client().await;
    client.publish_all(&stage.names.jobs, (0..20).map(|n| job(n, "hangs"))).await;
    timeout(LIMIT, stage.sandbox.wait_until_held(8)).await.expect("every slot");
}

#[tokio::test]
async fn a_worker_holds_no_more_jobs_than_its_prefetch() {
    let mut stage = Stage::new().await;
    stage.set("OTP_CONCURRENCY", "2").set("OTP_PREFETCH", "5");
    stage.set("OTP_RETRY_MAX_ELAPSED", "1h").set("OTP_JOB_TTL", "2h");
    stage.sandbox.script(None, vec![Fault::Status { code: 503, retry_after: None }; FOR_EVER]);
    let mut running = stage.worker().await;
    let client = stage.client().await;
    client.publish_all(&stage.names.jobs, (0..20).map(|n| job(n, "1234"))).await;
    running.until_metric("otp_jobs_in_flight", &[], 5.0).await;
    let broker = Broker::shared().await;
    until("all others wait", LIMIT, async || broker.messages(&stage.names.jobs).await == 20).await;
    assert_eq!(broker.unacked(&stage.names.jobs).await, 5);
    assert_eq!(running.stop().await, Some(0));
    until("all are back", LIMIT, async || broker.unacked(&stage.names.jobs).await == 0).await;
    assert_eq!(broker.messages(&stage.names.jobs).await, 20);
}

#[tokio::test]
async fn a_job_that_waits_for_a_place_expires_in_time() {
    let mut stage = Stage::new().await;
    stage.set("OTP_CONCURRENCY", "1").set("ESMS_TIMEOUT", "2m").set("OTP_SHUTDOWN_GRACE", "3m");
    stage.sandbox.script(None, vec![Fault::Hold]);
    let _running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, job(0, "1234")).await;
    timeout(LIMIT, stage.sandbox.wait_until_held(1)).await.expect("the call");
    client.publish(&stage.names.jobs, job(1, "1234").expiration(Duration::from_millis(300))).await;
    let result = results.next(LIMIT).await;
    assert_eq!((field(&result, "JobId"), ending(&result)), ("1".to_owned(), ("expired".to_owned(), 0, false)));
    assert_eq!(stage.sandbox.stats().requests, 1);
    assert!(results.collect(1, Duration::from_millis(100)).await.is_empty());
}

/// How long a worker takes for 1,800 jobs that are answered after `latency`, which wait in the queue together with
/// `others`.
async fn takes(latency: Duration, others: &[(Fault, &str)]) -> Duration {
    const ANSWERED: usize = 1_800;
    let mut stage = Stage::new().await;
    stage.sandbox = Sandbox::start(Settings { latency, ..Settings::default() }).await.expect("a sandbox");
    let esms = stage.sandbox.send_url();
    stage.set("ESMS_URL", &esms);
    for name in ["OTP_RETRY_INITIAL", "OTP_RETRY_MAX_INTERVAL"] {
        stage.unset(name);
    }
    // A first worker declares the queue.
    assert_eq!(stage.worker().await.stop().await, Some(0));
    let (every, others) = (ANSWERED.checked_div(others.len()).unwrap_or(usize::MAX), others.iter().enumerate());
    for (n, (fault, _)) in others.clone() {
        stage.sandbox.script(Some(&phone(ANSWERED + n)), vec![fault.clone(); 100]);
    }
    let mut others = others.map(|(n, (_, template))| job(ANSWERED + n, template));
    let mut jobs = Vec::new();
    for n in 0..ANSWERED {
        if n.is_multiple_of(every) {
            jobs.extend(others.next());
        }
        jobs.push(job(n, "1234"));
    }
    stage.client().await.publish_all(&stage.names.jobs, jobs).await;
    let mut running = stage.worker().await;
    timeout(LIMIT, stage.sandbox.wait_until(|stats| stats.requests > 0)).await.expect("a call");
    let began = std::time::Instant::now();
    timeout(10 * LIMIT, stage.sandbox.wait_until(|stats| stats.accepted == ANSWERED as u64)).await.expect("all");
    let took = began.elapsed();
    running.stop().await;
    took
}

/// Run by hand, since no time is right on every machine:
/// `cargo test --profile chaos --test it slots::how -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "measures"]
async fn how_much_longer_jobs_take_beside_jobs_that_fail_or_hang() {
    let fails = vec![(Fault::Status { code: 503, retry_after: None }, "1234"); 200];
    let hangs = vec![(Fault::HangBefore, "hangs"); 200];
    for latency in [0, 50, 50, 50].map(Duration::from_millis) {
        let alone = takes(latency, &[]).await;
        println!("answers after {latency:?}: alone {alone:?}");
        for (what, others) in [("200 that fail", &fails), ("200 that hang", &hangs)] {
            let took = takes(latency, others).await;
            println!("  beside {what} {took:?}: {:.0} %", 100.0 * alone.as_secs_f64() / took.as_secs_f64());
        }
    }
}
