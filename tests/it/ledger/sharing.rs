//! Two workers, one ledger, and a job that reaches both.

use std::collections::HashMap;
use std::time::Instant;

use esms_otp_worker::job::result::{Ending, Outcome};
use esms_otp_worker::ledger::store::{End, Finish, Store};
use esms_otp_worker::sandbox::Fault;
use tokio::time::timeout;

use super::{LEASE, MOMENT, fingerprint, key, patient, shared, state, steps, store_of, told, until_state};
use crate::stage::{LIMIT, PHONE, Stage, ending, field};
use crate::support::client::{Job, Received};
use crate::support::redis::Redis;
use crate::support::wait::until;

fn jobs(count: usize) -> impl Iterator<Item = Job> {
    (0..count).map(|n| Job::for_phone(&format!("0901{n:06}"), &format!("job-{n}")))
}

fn by_job(results: Vec<Received>) -> HashMap<String, Vec<Received>> {
    let mut found: HashMap<String, Vec<Received>> = HashMap::new();
    for result in results {
        found.entry(field(&result, "JobId")).or_default().push(result);
    }
    found
}

#[tokio::test]
async fn of_many_jobs_published_twice_at_once_each_phone_gets_one_otp_and_each_message_the_one_result() {
    const JOBS: usize = 200;
    let (mut stage, _redis) = shared().await;
    stage.set("OTP_LEDGER_ON_ERROR", "hold").set("ESMS_TIMEOUT", "20s");
    let (first, second) = (stage.worker().await, stage.worker().await);
    let (client, mut results) = stage.audience().await;
    let again = stage.client().await;
    tokio::join!(client.publish_all(&stage.names.jobs, jobs(JOBS)), again.publish_all(&stage.names.jobs, jobs(JOBS)));
    let found = by_job(results.collect(2 * JOBS, LIMIT).await);
    assert_eq!(found.len(), JOBS);
    for (id, results) in &found {
        assert_eq!(results.len(), 2, "{id}");
        assert_eq!(results[0].body, results[1].body, "{id}");
        assert_eq!(ending(&results[0]), told("accepted", 1, false), "{id}");
    }
    first.until_settled(&stage.names).await;
    assert_eq!((stage.sandbox.accepted_phones().len(), stage.sandbox.duplicates()), (JOBS, vec![]));
    for worker in [&first, &second] {
        assert!(worker.metric("otp_results_published_total", &[]).await > 0.0, "both had a part");
    }
}

#[tokio::test]
async fn a_repeat_waits_for_another_workers_call_without_calling_or_polling_hot() {
    let (mut stage, redis) = patient().await;
    stage.sandbox.script(None, vec![Fault::Hold]);
    // The first worker is full with its one job, so the repeat goes to the second.
    stage.set("OTP_CONCURRENCY", "1").set("OTP_PREFETCH", "1");
    let _first = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    timeout(LIMIT, stage.sandbox.wait_until_held(1)).await.expect("the call");
    let second = stage.worker().await;
    let (before, began) = (steps(&redis).await, Instant::now());
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    second.until_metric("otp_redeliveries_total", &[("found", "in_flight")], 1.0).await;
    until("it has asked several times", LIMIT, async || steps(&redis).await >= before + 12).await;
    let asked = steps(&redis).await - before;
    // The pauses between asks begin at 50 ms and double. In the end they are at least half a second. And each of the two
    // workers says once a second that it is there.
    let most = 9.0 + 4.0 * began.elapsed().as_secs_f64();
    assert!(asked as f64 <= most, "asked {asked} times in {:?}", began.elapsed());
    assert!(results.collect(1, MOMENT).await.is_empty());
    assert_eq!(stage.sandbox.stats().requests, 1);

    stage.sandbox.release_held();
    let both = results.collect(2, LIMIT).await;
    assert_eq!(both.len(), 2);
    assert_eq!(both[0].body, both[1].body);
    assert_eq!(ending(&both[0]), told("accepted", 1, false));
    second.until_settled(&stage.names).await;
    assert_eq!(stage.sandbox.accepted(PHONE), 1);
}

#[tokio::test]
async fn a_job_that_another_worker_has_keeps_no_place_from_other_jobs() {
    let (mut stage, redis) = patient().await;
    stage.set("OTP_CONCURRENCY", "2");
    claimed_by_another(&redis, "theirs").await;
    let _running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "theirs")).await;
    for n in 0..5 {
        let id = format!("ours-{n}");
        client.publish(&stage.names.jobs, Job::for_phone(&format!("090100000{n}"), &id)).await;
        assert_eq!(field(&results.next(LIMIT).await, "JobId"), id);
    }
    assert_eq!(stage.sandbox.accepted(PHONE), 0);
}

async fn claimed_by_another(redis: &Redis, id: &str) {
    let text = fingerprint().text();
    let record =
        ["fingerprint", &text, "state", "sending", "owner", "another", "until", FAR, "step", "1", "found", "new"];
    redis.cli(&[&["HSET", &key(id)], &record[..]].concat()).await;
}

/// In milliseconds, as Redis counts time. It is long after any test.
const FAR: &str = "9999999999999";

/// Another worker takes the job over, as after a pause of the process that was longer than its lease.
async fn taken_over(redis: &Redis, id: &str) {
    redis.cli(&["HSET", &key(id), "owner", "another", "until", FAR]).await;
}

/// Starts one worker on the stage, and waits until it calls eSMS for one job.
async fn calling(stage: &Stage) -> crate::stage::Running {
    stage.sandbox.script(None, vec![Fault::Hold]);
    let running = stage.worker().await;
    stage.client().await.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    timeout(LIMIT, stage.sandbox.wait_until_held(1)).await.expect("the call");
    running
}

#[tokio::test]
async fn what_esms_answered_after_the_hold_was_lost_is_everybodys_result_and_says_may_be_duplicate() {
    let (stage, redis) = patient().await;
    // The worker starts first, so that the exchange exists for the audience.
    let running = calling(&stage).await;
    let (_client, mut results) = stage.audience().await;
    taken_over(&redis, "a-job").await;
    stage.sandbox.release_held();
    let result = results.next(LIMIT).await;
    assert_eq!(ending(&result), told("accepted", 1, true));
    assert_eq!(state(&redis, "a-job").await, "done");
    assert_eq!(redis.cli(&["HGET", &key("a-job"), "result"]).await.as_bytes(), result.body);
    running.until_settled(&stage.names).await;
}

#[tokio::test]
async fn a_worker_whose_job_was_taken_over_before_its_next_attempt_makes_none_and_tells_the_others_result() {
    let (stage, redis) = patient().await;
    stage.sandbox.script(None, vec![Fault::Status { code: 503, retry_after: Some("1".into()) }]);
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    until_state(&redis, "a-job", "waiting").await;
    let before = steps(&redis).await;
    taken_over(&redis, "a-job").await;
    // Its mark is refused. Then it asks for the other worker's result. Once a second it says that it is there.
    until("it asks for the result", LIMIT, async || steps(&redis).await >= before + 6).await;
    let theirs =
        Ending::without_attempt(Outcome::Rejected, "said by another").into_event("a-job", std::time::UNIX_EPOCH);
    let end = End::uncounted("a-job", fingerprint(), Some("another"), &theirs);
    let finish = store_of(&redis, &stage.names.jobs, LEASE).finish(end).await;
    assert!(matches!(finish, Ok((Finish::Recorded, None))), "{finish:?}");
    assert_eq!(results.next(LIMIT).await.body, theirs.body);
    running.until_settled(&stage.names).await;
    assert_eq!(stage.sandbox.stats().requests, 1);
}
