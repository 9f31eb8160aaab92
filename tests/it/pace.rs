//! When the worker holds back: the circuit and the rate limit.

use std::time::Duration;

use esms_otp_worker::sandbox::Fault;

use crate::stage::{LIMIT, PHONE, Stage, ending};
use crate::support::client::Job;

const OPEN: &str = "otp_circuit_open";

fn phone(n: usize) -> String {
    format!("0901{n:06}")
}

#[tokio::test]
async fn the_circuit_opens_during_an_outage_and_closes_by_a_probe_after_it() {
    let mut stage = Stage::new().await;
    stage.set("OTP_BREAKER_FAILURES", "3").set("OTP_BREAKER_COOLDOWN", "200ms");
    stage.sandbox.stop_listening().await.unwrap();
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    for n in 0..20 {
        client.publish(&stage.names.jobs, Job::for_phone(&phone(n), &n.to_string())).await;
    }
    running.until_metric(OPEN, &[], 1.0).await;
    running.process.wait_for_log("circuit opened", LIMIT).await;
    stage.sandbox.listen_again().await.unwrap();
    let results = results.collect(20, LIMIT).await;
    assert_eq!(results.len(), 20);
    assert!(results.iter().all(|result| ending(result).0 == "accepted"));
    running.until_metric(OPEN, &[], 0.0).await;
    assert!((0..20).all(|n| stage.sandbox.accepted(&phone(n)) == 1));
}

#[tokio::test]
async fn a_backlog_drains_as_expired_while_the_circuit_is_open_and_uses_up_no_attempts() {
    let mut stage = Stage::new().await;
    stage.set("OTP_BREAKER_FAILURES", "5").set("OTP_BREAKER_COOLDOWN", "1h");
    stage.set("OTP_JOB_TTL", "2s").set("OTP_CONCURRENCY", "8");
    stage.sandbox.stop_listening().await.unwrap();
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let now = std::time::SystemTime::now();
    for n in 0..100 {
        client.publish(&stage.names.jobs, Job::for_phone(&phone(n), &n.to_string()).timestamp(now)).await;
    }
    let results = results.collect(100, LIMIT).await;
    assert_eq!(results.len(), 100);
    assert!(results.iter().all(|result| ending(result).0 == "expired"));
    // Five attempts opened it. The other seven jobs in flight may have been attempted already.
    let attempts = running.metric("otp_attempts_total", &[]).await;
    assert!((5.0..=12.0).contains(&attempts), "{attempts} attempts");
    assert_eq!(results.iter().map(|result| ending(result).1 as f64).sum::<f64>(), attempts);
}

#[tokio::test]
async fn refusals_by_esms_never_open_the_circuit() {
    let mut stage = Stage::new().await;
    stage.set("OTP_BREAKER_FAILURES", "2").set("OTP_BREAKER_COOLDOWN", "1h");
    let refusals = vec![Fault::Code { code: "103".into(), message: String::new() }; 10];
    stage.sandbox.script(None, refusals);
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    for n in 0..11 {
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, &n.to_string())).await;
    }
    let results = results.collect(11, LIMIT).await;
    assert_eq!(results.iter().filter(|result| ending(result).0 == "rejected").count(), 10);
    assert_eq!(results.iter().filter(|result| ending(result).0 == "accepted").count(), 1);
    assert_eq!(running.metric(OPEN, &[]).await, 0.0);
}

#[tokio::test]
async fn a_worker_told_to_stop_while_the_circuit_is_open_gives_its_jobs_back() {
    let mut stage = Stage::new().await;
    stage.set("OTP_BREAKER_FAILURES", "1").set("OTP_BREAKER_COOLDOWN", "1h");
    stage.sandbox.stop_listening().await.unwrap();
    let mut running = stage.worker().await;
    let client = stage.client().await;
    for n in 0..5 {
        client.publish(&stage.names.jobs, Job::for_phone(&phone(n), &n.to_string())).await;
    }
    running.until_metric(OPEN, &[], 1.0).await;
    assert_eq!(running.stop().await, Some(0));
    stage.sandbox.listen_again().await.unwrap();
    let _next = stage.worker().await;
    let mut kept = client.results(&stage.names.results, "otp.*").await;
    // Results that come before this queue is bound are kept in the queue of unrouted results.
    let mut unrouted = client.consume(&stage.names.unrouted).await;
    let (mut live, kept_before) =
        tokio::join!(kept.collect(5, Duration::from_secs(5)), unrouted.collect(5, Duration::from_secs(5)));
    live.extend(kept_before);
    assert_eq!(live.len(), 5);
    assert!(live.iter().all(|result| ending(result).0 == "accepted"));
}

#[tokio::test]
async fn calls_are_spread_by_the_rate_limit_and_the_waiting_is_counted() {
    let mut stage = Stage::new().await;
    stage.set("OTP_RATE_LIMIT", "20");
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let began = std::time::Instant::now();
    for n in 0..21 {
        client.publish(&stage.names.jobs, Job::for_phone(&phone(n), &n.to_string())).await;
    }
    let results = results.collect(21, LIMIT).await;
    assert!(results.iter().all(|result| ending(result).0 == "accepted"));
    // 21 calls have 20 intervals of 50 ms between them, however quick everything else is.
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(running.metric("otp_rate_limited_seconds_total", &[]).await > 0.0);
}

#[tokio::test]
async fn a_job_whose_deadline_passes_while_it_waits_for_its_turn_is_not_sent() {
    let mut stage = Stage::new().await;
    stage.set("OTP_RATE_LIMIT", "0.1").set("OTP_JOB_TTL", "1s");
    let _running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    for n in 0..3 {
        client.publish(&stage.names.jobs, Job::for_phone(&phone(n), &n.to_string())).await;
    }
    let mut endings: Vec<_> = results.collect(3, LIMIT).await.iter().map(|result| ending(result).0).collect();
    endings.sort();
    assert_eq!(endings, ["accepted", "expired", "expired"]);
    assert_eq!(stage.sandbox.accepted_total(), 1);
}
