//! Code that panics while it works a job: the job goes back once, and is then given up. Never lost.

use esms_otp_worker::crash::Point;
use esms_otp_worker::sandbox::Fault;
use serde_json::Value;

use crate::broker_failures::{CONSUMER, behind_a_proxy, until_held};
use crate::stage::{LIMIT, PHONE, Running, Stage, ending, field};
use crate::support::client::{Job, Received};
use crate::support::redis::Redis;

/// Why a job is kept for people whose work panicked too often.
const GIVEN_UP: &str = "the worker panicked while it worked this job, and it is not tried again";

/// What a job comes to whose work panics at these places: its results, and the log.
async fn panicked_at(places: &str) -> (Stage, Running, Received) {
    let mut stage = Stage::new().await;
    stage.set("PANIC_AT", places);
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    let result = results.next(LIMIT).await;
    running.until_settled(&stage.names).await;
    // The worker goes on: others are not affected.
    client.publish(&stage.names.jobs, Job::for_phone("0901888485", "another")).await;
    assert_eq!(ending(&results.next(LIMIT).await), ("accepted".into(), 1, false));
    running.until_settled(&stage.names).await;
    assert!(results.collect(1, std::time::Duration::from_millis(300)).await.is_empty(), "one result each");
    (stage, running, result)
}

/// The log lines with this message, which all carry the job's id.
fn lines(running: &Running, message: &str) -> Vec<Value> {
    let lines = running.process.log_containing(message);
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.iter().all(|line| line["job_id"] == "a-job"), "{lines:?}");
    lines
}

/// Why the one job on the dead-letter queue is kept for people.
async fn kept_because(stage: &Stage) -> String {
    let client = stage.client().await;
    let copy = client.consume(&stage.names.dead).await.next(LIMIT).await;
    let headers = copy.properties.headers().clone().expect("headers");
    headers.inner()["x-error"].as_long_string().expect("a text").to_string()
}

fn twice(point: Point) -> String {
    format!("{0}:1,{0}:2", point.name())
}

#[tokio::test]
async fn a_job_whose_work_panics_before_any_attempt_is_worked_again() {
    let (stage, running, result) = panicked_at(Point::AfterClaim.name()).await;
    assert_eq!(ending(&result), ("accepted".into(), 1, false));
    assert_eq!(stage.sandbox.accepted(PHONE), 1);
    let [panicked] = lines(&running, "\"panicked\"").try_into().expect("one panic");
    assert!(panicked["location"].as_str().expect("a location").starts_with("src/crash.rs"), "{panicked}");
    assert_eq!(lines(&running, "goes back to its queue once").len(), 1);
}

#[tokio::test]
async fn a_panic_during_an_attempt_counts_as_an_attempt_that_may_have_been_made() {
    let (stage, _running, result) = panicked_at(Point::AfterMarking.name()).await;
    assert_eq!(ending(&result), ("accepted".into(), 2, true));
    assert_eq!(stage.sandbox.accepted(PHONE), 1);
}

/// The second delivery finds the job in flight and joins it. Whatever gives the job back then must say that an
/// attempt may have been made.
#[tokio::test]
async fn a_panic_during_an_attempt_that_a_second_delivery_has_joined_is_an_attempt_that_may_have_been_made() {
    let redis = Redis::start().await;
    for (ledger, on_ambiguous, expected, otps) in [
        ("memory:", "give-up", ("unknown", 1, false), 1),
        (&redis.url(), "give-up", ("unknown", 1, false), 1),
        ("memory:", "resend", ("accepted", 2, true), 2),
        (&redis.url(), "resend", ("accepted", 2, true), 2),
    ] {
        let (mut stage, proxy, _broker) = behind_a_proxy().await;
        stage.set("PANIC_AT", Point::AfterCall.name());
        stage.set("OTP_LEDGER_URL", ledger).set("OTP_ON_AMBIGUOUS", on_ambiguous);
        stage.sandbox.script(None, vec![Fault::Hold]);
        let running = stage.worker().await;
        let (client, mut results) = stage.audience().await;
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
        until_held(&stage, 1).await;
        proxy.cut_matching(CONSUMER).await;
        running.until_metric("otp_redeliveries_total", &[("found", "in_flight")], 1.0).await;
        stage.sandbox.release_held();
        let result = results.next(LIMIT).await;
        let (outcome, attempts, may_be_duplicate) = expected;
        assert_eq!(ending(&result), (outcome.into(), attempts, may_be_duplicate), "{ledger} {on_ambiguous}");
        running.until_settled(&stage.names).await;
        assert_eq!(stage.sandbox.accepted(PHONE), otps, "{ledger} {on_ambiguous}");
        assert_eq!(lines(&running, "\"panicked\"").len(), 1);
        assert!(results.collect(1, std::time::Duration::from_millis(200)).await.is_empty(), "one result");
    }
}

#[tokio::test]
async fn after_a_second_panic_a_job_that_was_never_attempted_has_failed_and_is_kept_for_people() {
    let (stage, running, result) = panicked_at(&twice(Point::AfterClaim)).await;
    assert_eq!(ending(&result), ("failed".into(), 0, false));
    assert!(field(&result, "Reason").contains("panicked"), "{result:?}");
    assert_eq!(stage.sandbox.accepted(PHONE), 0);
    assert_eq!(kept_because(&stage).await, GIVEN_UP);
    assert_eq!(lines(&running, "it is given up").len(), 1);
}

#[tokio::test]
async fn after_a_second_panic_a_job_that_may_have_been_attempted_is_unknown() {
    let (stage, _running, result) = panicked_at(&twice(Point::AfterMarking)).await;
    assert_eq!(ending(&result), ("unknown".into(), 2, true));
    assert_eq!(kept_because(&stage).await, GIVEN_UP);
}

#[tokio::test]
async fn a_panic_after_the_end_is_recorded_publishes_the_recorded_result() {
    let (stage, _running, result) = panicked_at(Point::BeforePublish.name()).await;
    assert_eq!(ending(&result), ("accepted".into(), 1, false));
    assert_eq!(stage.sandbox.accepted(PHONE), 1);
}

/// Between the confirmed result and the acknowledgement: the job comes again, and gets the same result.
#[tokio::test]
async fn a_panic_while_a_delivery_is_settled_leaves_no_delivery_unsettled() {
    let mut stage = Stage::new().await;
    stage.set("PANIC_AT", &format!("{0}:1,{0}:2", Point::BeforeAcknowledge.name()));
    let mut running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    let first = results.next(LIMIT).await;
    assert_eq!(ending(&first), ("accepted".into(), 1, false));
    for _ in 0..2 {
        assert_eq!(results.next(LIMIT).await.body, first.body);
    }
    running.until_settled(&stage.names).await;
    assert_eq!(stage.sandbox.accepted(PHONE), 1);
    assert_eq!(running.stop().await, Some(0));
}

#[tokio::test]
async fn a_job_without_an_id_is_given_up_at_its_first_panic() {
    let mut stage = Stage::new().await;
    stage.set("PANIC_AT", Point::AfterMarking.name());
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let job = serde_json::json!({"Phone": PHONE, "MultiChannelTempId": "1"});
    client.publish(&stage.names.jobs, Job::new(job)).await;
    assert_eq!(ending(&results.next(LIMIT).await), ("unknown".into(), 1, false));
    assert_eq!(kept_because(&stage).await, GIVEN_UP);
    running.until_settled(&stage.names).await;
}

#[tokio::test]
async fn no_line_has_a_field_twice_and_only_lines_about_connections_name_one() {
    let (_stage, running, _result) = panicked_at(&twice(Point::AfterClaim)).await;
    for line in running.process.log() {
        let count = |field: &str| line.matches(&format!("\"{field}\":")).count();
        assert!(count("job_id") <= 1 && count("connection") + count("job_id") <= 1, "{line}");
    }
    assert!(!running.process.log_containing("\"connection\":\"esms-otp-worker consumer\"").is_empty());
}

#[tokio::test]
async fn a_stopping_worker_that_panicked_exits_as_if_nothing_had_happened() {
    let (_stage, mut running, _result) = panicked_at(Point::AfterClaim.name()).await;
    running.process.signal("TERM");
    assert_eq!(running.process.wait_exit(LIMIT).await, Some(0));
}
