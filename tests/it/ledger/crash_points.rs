//! A worker is killed at each named point between two steps of a job, and another takes its place.

use esms_otp_worker::crash::Point;

use super::{GIVE_UP, HOLD, LEASE, MOMENT, shared, told};
use crate::stage::{PHONE, Stage, ending};
use crate::support::client::{Job, Received};
use crate::support::redis::Redis;

/// What is left after one worker died at a point and another processed its job.
struct Aftermath {
    stage: Stage,
    _redis: Redis,
    /// Every result of the job.
    results: Vec<Received>,
}

impl Aftermath {
    /// The ending, which must be the same in all results.
    fn ending(&self) -> (String, u64, bool) {
        let first = self.results.first().expect("a result");
        assert!(self.results.iter().all(|result| result.body == first.body), "{:?}", self.results);
        ending(first)
    }

    fn accepted(&self) -> u32 {
        self.stage.sandbox.accepted(PHONE)
    }
}

/// A worker dies when the first job reaches `point`. Another worker starts after it.
async fn crashed_at(point: Point, settings: &[(&str, &str)]) -> Aftermath {
    let (mut stage, redis) = shared().await;
    for (name, value) in settings {
        stage.set(name, value);
    }
    stage.set("CRASH_AT", point.name());
    let mut first = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    assert_eq!(first.process.wait_exit(LEASE).await, Some(128 + 9), "killed");
    stage.unset("CRASH_AT");
    let second = stage.worker().await;
    let mut found = vec![results.next(LEASE).await];
    second.until_settled(&stage.names).await;
    found.extend(results.collect(1, MOMENT).await);
    Aftermath { stage, _redis: redis, results: found }
}

#[tokio::test]
async fn after_claim_nothing_was_sent_and_the_job_starts_afresh() {
    for settings in [GIVE_UP, HOLD] {
        let after = crashed_at(Point::AfterClaim, settings).await;
        assert_eq!(after.ending(), told("accepted", 1, false));
        assert_eq!(after.accepted(), 1);
    }
}

#[tokio::test]
async fn after_claim_it_is_said_where_jobs_may_be_sent_without_the_ledger() {
    let after = crashed_at(Point::AfterClaim, &[]).await;
    assert_eq!(after.ending(), told("accepted", 1, true));
    assert_eq!(after.accepted(), 1);
}

#[tokio::test]
async fn after_marking_it_may_have_been_sent_and_is_sent_again_saying_so() {
    let after = crashed_at(Point::AfterMarking, &[]).await;
    assert_eq!(after.ending(), told("accepted", 2, true));
    assert_eq!(after.accepted(), 1);
}

#[tokio::test]
async fn after_marking_with_give_up_it_is_unknown_and_never_sent() {
    let after = crashed_at(Point::AfterMarking, GIVE_UP).await;
    assert_eq!(after.ending(), told("unknown", 1, false));
    assert_eq!(after.accepted(), 0);
}

#[tokio::test]
async fn after_the_call_it_is_sent_again_saying_so() {
    let after = crashed_at(Point::AfterCall, &[]).await;
    assert_eq!(after.ending(), told("accepted", 2, true));
    assert_eq!(after.accepted(), 2);
}

#[tokio::test]
async fn after_the_call_with_give_up_it_is_unknown_and_was_sent_once() {
    let after = crashed_at(Point::AfterCall, GIVE_UP).await;
    assert_eq!(after.ending(), told("unknown", 1, false));
    assert_eq!(after.accepted(), 1);
}

#[tokio::test]
async fn before_publishing_the_recorded_result_is_published_by_another() {
    for settings in [&[] as &[_], GIVE_UP] {
        let after = crashed_at(Point::BeforePublish, settings).await;
        assert_eq!(after.ending(), told("accepted", 1, false));
        assert_eq!((after.accepted(), after.results.len()), (1, 1));
    }
}

#[tokio::test]
async fn between_confirm_and_acknowledge_the_same_result_is_published_again() {
    for settings in [&[] as &[_], GIVE_UP] {
        let after = crashed_at(Point::BeforeAcknowledge, settings).await;
        assert_eq!(after.ending(), told("accepted", 1, false));
        assert_eq!((after.accepted(), after.results.len()), (1, 2));
    }
}
