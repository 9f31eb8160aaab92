//! A producer's repeat of a finished job gets the recorded result again. It does not matter which worker
//! gets the repeat, or what was restarted in between.

use super::{GIVE_UP, MOMENT, shared, told};
use crate::stage::{LIMIT, PHONE, Stage, ending, field};
use crate::support::broker::Broker;
use crate::support::client::{Job, Received, Results};
use crate::support::redis::Redis;

/// A job that a worker has finished. That worker is stopped.
async fn ended(settings: &[(&str, &str)]) -> (Stage, Redis, Results, Received) {
    let (mut stage, redis) = shared().await;
    for (name, value) in settings {
        stage.set(name, value);
    }
    let mut running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job").correlation_id("first")).await;
    let result = results.next(LIMIT).await;
    assert_eq!(ending(&result), told("accepted", 1, false));
    assert_eq!(running.stop().await, Some(0));
    (stage, redis, results, result)
}

async fn repeat(stage: &Stage, results: &mut Results, job: Job) -> Received {
    stage.client().await.publish(&stage.names.jobs, job).await;
    let result = results.next(LIMIT).await;
    assert!(results.collect(1, MOMENT).await.is_empty());
    result
}

#[tokio::test]
async fn a_repeat_gets_the_recorded_result_from_another_worker_after_the_store_was_killed() {
    for settings in [&[] as &[_], GIVE_UP] {
        let (stage, redis, mut results, first) = ended(settings).await;
        redis.kill().await;
        redis.start_again().await;
        let next = stage.worker().await;
        let job = Job::for_phone("0901-888-484", "a-job").correlation_id("second");
        let again = repeat(&stage, &mut results, job).await;
        assert_eq!(again.body, first.body);
        assert_eq!(again.properties.message_id(), first.properties.message_id());
        assert_eq!(again.properties.correlation_id().as_ref().map(|id| id.as_str()), Some("second"));
        assert_eq!(stage.sandbox.stats().requests, 1);
        assert_eq!(next.metric("otp_redeliveries_total", &[("found", "done")]).await, 1.0);
        next.until_settled(&stage.names).await;
    }
}

#[tokio::test]
async fn another_job_under_the_same_id_is_invalid_for_another_worker_too() {
    let (stage, _redis, mut results, first) = ended(&[]).await;
    let next = stage.worker().await;
    let other = repeat(&stage, &mut results, Job::for_phone("0901888485", "a-job")).await;
    assert_eq!(ending(&other), told("invalid", 0, false));
    assert!(field(&other, "Reason").contains("used before, for another job"), "{}", field(&other, "Reason"));
    assert_eq!(Broker::shared().await.queue_depth(&stage.names.dead).await, Some(1), "a copy for people");
    assert_eq!((stage.sandbox.stats().requests, stage.sandbox.accepted("0901888485")), (1, 0));
    let again = repeat(&stage, &mut results, Job::for_phone(PHONE, "a-job")).await;
    assert_eq!(again.body, first.body, "the record is untouched");
    next.until_settled(&stage.names).await;
}

#[tokio::test]
async fn after_a_change_of_the_secret_key_a_repeat_is_still_a_repeat() {
    let (mut stage, _redis, mut results, first) = ended(&[]).await;
    stage.set("ESMS_SECRET_KEY", "another-secret");
    let _next = stage.worker().await;
    assert_eq!(repeat(&stage, &mut results, Job::for_phone(PHONE, "a-job")).await.body, first.body);
    let other = repeat(&stage, &mut results, Job::for_phone("0901888485", "a-job")).await;
    assert_eq!(ending(&other), told("invalid", 0, false), "and another job is still another");
    assert_eq!(stage.sandbox.stats().requests, 1);
}

#[tokio::test]
async fn a_repeat_that_writes_the_number_in_another_usual_form_is_a_repeat() {
    let (stage, _redis, mut results, first) = ended(&[]).await;
    let _next = stage.worker().await;
    for phone in ["84901888484", "+84901888484", "0084901888484", "+84 901 888 484"] {
        assert_eq!(repeat(&stage, &mut results, Job::for_phone(phone, "a-job")).await.body, first.body, "{phone}");
    }
    assert_eq!(stage.sandbox.stats().requests, 1);
}
