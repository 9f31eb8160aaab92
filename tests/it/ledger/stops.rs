//! A worker is told to stop while its job waits for the next attempt. The job goes back to the queue at
//! once, and the next worker continues where the first one was.

use std::time::Instant;

use esms_otp_worker::sandbox::Fault;

use super::{GIVE_UP, HOLD, MOMENT, PACE, shared, state, told, until_state};
use crate::stage::{LIMIT, PHONE, Stage, ending};
use crate::support::broker::Broker;
use crate::support::client::{Job, Results};
use crate::support::redis::Redis;
use crate::support::wait::until;

/// eSMS does not send, and asks for a wait that is longer than anything here.
fn later() -> Fault {
    Fault::Status { code: 503, retry_after: Some("25".into()) }
}

/// A worker has a job that meets these faults. It is stopped during the wait after the last fault.
async fn stopped_after(faults: Vec<Fault>, settings: &[(&str, &str)]) -> (Stage, Redis, Results) {
    let (mut stage, redis) = shared().await;
    for (name, value) in settings {
        stage.set(name, value);
    }
    let calls = faults.len() as f64;
    stage.sandbox.script(None, faults);
    let mut running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    running.until_metric("otp_attempts_total", &[], calls).await;
    until_state(&redis, "a-job", "waiting").await;
    let asked = Instant::now();
    assert_eq!(running.stop().await, Some(0));
    assert!(asked.elapsed().as_secs() < 15, "it took {:?}", asked.elapsed());
    assert_eq!(state(&redis, "a-job").await, "released");
    // What eSMS has asked for would hold the next worker, too.
    redis.cli(&["DEL", PACE]).await;
    let back = async || Broker::shared().await.queue_depth(&stage.names.jobs).await == Some(1);
    until("the job is back", LIMIT, back).await;
    assert!(results.collect(1, MOMENT).await.is_empty(), "no result yet");
    (stage, redis, results)
}

/// How the next worker ends the job.
async fn next_worker(stage: &Stage, results: &mut Results) -> (String, u64, bool) {
    let next = stage.worker().await;
    let found = ending(&results.next(LIMIT).await);
    next.until_settled(&stage.names).await;
    assert!(results.collect(1, MOMENT).await.is_empty(), "one result");
    found
}

#[tokio::test]
async fn after_attempts_that_were_not_sent_the_next_worker_counts_on_and_says_no_duplicate() {
    for settings in [&[] as &[_], HOLD, GIVE_UP] {
        let (stage, _redis, mut results) = stopped_after(vec![later()], settings).await;
        assert_eq!(next_worker(&stage, &mut results).await, told("accepted", 2, false), "{settings:?}");
        assert_eq!(stage.sandbox.accepted(PHONE), 1);
    }
}

#[tokio::test]
async fn after_an_ambiguous_attempt_the_next_worker_sends_again_and_says_so() {
    for settings in [&[] as &[_], HOLD] {
        let (stage, _redis, mut results) = stopped_after(vec![Fault::ResetAfter, later()], settings).await;
        assert_eq!(next_worker(&stage, &mut results).await, told("accepted", 3, true), "{settings:?}");
        assert_eq!(stage.sandbox.accepted(PHONE), 2);
    }
}

#[tokio::test]
async fn a_job_stopped_again_and_again_is_counted_through() {
    let (stage, redis, mut results) = stopped_after(vec![later()], GIVE_UP).await;
    for _ in 0..3 {
        stage.sandbox.script(None, vec![later()]);
        let mut running = stage.worker().await;
        until_state(&redis, "a-job", "waiting").await;
        assert_eq!(running.stop().await, Some(0));
        assert_eq!(state(&redis, "a-job").await, "released");
    }
    assert_eq!(next_worker(&stage, &mut results).await, told("accepted", 5, false));
    assert_eq!(stage.sandbox.accepted(PHONE), 1);
}
