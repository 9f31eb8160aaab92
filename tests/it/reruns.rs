//! A job that its producer publishes again: tried anew where nothing was sent, else answered with its result.

use std::time::{Duration, SystemTime};

use esms_otp_worker::sandbox::Fault;

use crate::stage::{LIMIT, PHONE, Stage, ending};
use crate::support::client::{Client, Job, Received, Results};
use crate::support::redis::Redis;

const REFUSED: Fault = Fault::Status { code: 404, retry_after: None };

/// A stage without and with a Redis.
async fn stages() -> [(Stage, Option<Redis>); 2] {
    let redis = Redis::start().await;
    let mut shared = Stage::new().await;
    shared.set("OTP_LEDGER_URL", &redis.url());
    [(Stage::new().await, None), (shared, Some(redis))]
}

async fn result_of(stage: &Stage, client: &Client, results: &mut Results, job: Job) -> Received {
    client.publish(&stage.names.jobs, job).await;
    results.next(LIMIT).await
}

fn job() -> Job {
    Job::for_phone(PHONE, "a-job")
}

fn message_id(result: &Received) -> String {
    result.properties.message_id().as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn a_job_that_failed_or_expired_is_tried_anew_and_each_run_has_a_result_of_its_own() {
    for (stage, _redis) in stages().await {
        let running = stage.worker().await;
        let (client, mut results) = stage.audience().await;
        stage.sandbox.script(None, vec![REFUSED]);
        let failed = result_of(&stage, &client, &mut results, job()).await;
        assert_eq!((ending(&failed), message_id(&failed)), (("failed".into(), 1, false), "a-job:result".into()));
        let late = SystemTime::now() - Duration::from_secs(3_600);
        let expired = result_of(&stage, &client, &mut results, job().timestamp(late)).await;
        assert_eq!((ending(&expired), message_id(&expired)), (("expired".into(), 0, false), "a-job:result:2".into()));
        let accepted = result_of(&stage, &client, &mut results, job()).await;
        assert_eq!(
            (ending(&accepted), message_id(&accepted)),
            (("accepted".into(), 1, false), "a-job:result:3".into())
        );
        // From now on it is done.
        let again = result_of(&stage, &client, &mut results, job()).await;
        assert_eq!((&again.body, message_id(&again)), (&accepted.body, message_id(&accepted)));
        assert_eq!(stage.sandbox.accepted(PHONE), 1);
        running.until_settled(&stage.names).await;
    }
}

#[tokio::test]
async fn a_job_that_was_answered_or_may_have_been_sent_is_not_tried_anew() {
    let refusal = Fault::Code { code: "108".into(), message: String::new() };
    for (fault, outcome) in [(refusal, "rejected"), (Fault::ResetAfter, "unknown")] {
        for (mut stage, _redis) in stages().await {
            stage.set("OTP_ON_AMBIGUOUS", "give-up");
            let _running = stage.worker().await;
            let (client, mut results) = stage.audience().await;
            stage.sandbox.script(None, vec![fault.clone()]);
            let first = result_of(&stage, &client, &mut results, job()).await;
            assert_eq!(ending(&first).0, outcome);
            let again = result_of(&stage, &client, &mut results, job()).await;
            assert_eq!((again.body == first.body, message_id(&again)), (true, "a-job:result".into()), "{outcome}");
            assert_eq!(stage.sandbox.requests(PHONE).len(), 1);
        }
    }
}

/// The second run is held by a worker that dies. Its redelivery goes on with this run, and is no third one.
#[tokio::test]
async fn a_redelivery_is_no_repeat() {
    let redis = Redis::start().await;
    let mut stage = Stage::new().await;
    stage.set("OTP_LEDGER_URL", &redis.url()).set("OTP_LEDGER_ON_ERROR", "hold");
    stage.set("ESMS_CONNECT_TIMEOUT", "1s").set("ESMS_TIMEOUT", "2s").set("OTP_SHUTDOWN_GRACE", "3s");
    stage.set("CRASH_AT", "after-claim:2");
    let mut first = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    stage.sandbox.script(None, vec![REFUSED, REFUSED]);
    assert_eq!(ending(&result_of(&stage, &client, &mut results, job()).await).0, "failed");
    client.publish(&stage.names.jobs, job()).await;
    assert_eq!(first.process.wait_exit(LIMIT).await, Some(128 + 9), "killed");
    stage.unset("CRASH_AT");
    let second = stage.worker().await;
    let result = results.next(LIMIT).await;
    assert_eq!((ending(&result).0, message_id(&result)), ("failed".into(), "a-job:result:2".into()));
    second.until_settled(&stage.names).await;
    assert_eq!(stage.sandbox.requests(PHONE).len(), 2);
}
