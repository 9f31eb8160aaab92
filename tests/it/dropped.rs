//! Jobs that the broker itself gave up: their expiration passed in the queue, or they were delivered too
//! often. Each of them gets a result, and none is sent.

use std::time::Duration;

use esms_otp_worker::sandbox::Fault;
use lapin::options::{BasicGetOptions, BasicNackOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::time::timeout;

use crate::stage::{LIMIT, PHONE, Running, Stage, ending, field};
use crate::support::broker::Broker;
use crate::support::client::{Client, Job, Received, Results};
use crate::support::wait::until;

/// Short, but long enough for the broker to put the message on its queue first.
const SOON: Duration = Duration::from_millis(50);

/// A stage on which the objects are declared and no worker runs.
async fn declared() -> Stage {
    let stage = Stage::new().await;
    assert_eq!(stage.worker().await.stop().await, Some(0));
    stage
}

/// Waits until the broker has given `count` jobs up, and nobody has taken them.
async fn until_given_up(stage: &Stage, count: u32) {
    let broker = Broker::shared().await;
    let given_up = async || broker.queue_depth(&stage.names.dropped).await == Some(count);
    until("the broker gives the job up", LIMIT, given_up).await;
}

async fn until_settled(stage: &Stage) {
    let broker = Broker::shared().await;
    for queue in [&stage.names.jobs, &stage.names.dropped] {
        until("every job is acknowledged", LIMIT, async || broker.messages(queue).await == 0).await;
    }
}

/// A queue of the producer's own, for the `reply_to` of its jobs.
async fn replies(client: &Client) -> (String, Results) {
    let options = QueueDeclareOptions::exclusive();
    let queue = client.channel().queue_declare("".into(), options, FieldTable::default()).await.expect("a queue");
    let name = queue.name().to_string();
    let results = client.consume(&name).await;
    (name, results)
}

async fn works(stage: &Stage) -> (Running, Results) {
    let (_client, results) = stage.audience().await;
    (stage.worker().await, results)
}

/// The header `x-error` of a copy that is kept for people.
fn error_of(kept: &Received) -> String {
    let headers = kept.properties.headers().as_ref().expect("headers");
    let error = headers.inner()["x-error"].as_long_string().expect("a text");
    String::from_utf8_lossy(error.as_bytes()).into_owned()
}

#[tokio::test]
async fn a_job_that_expired_in_the_queue_gets_an_expired_result_and_a_reply() {
    let stage = declared().await;
    let client = stage.client().await;
    let (reply_to, mut replies) = replies(&client).await;
    let job = Job::for_phone(PHONE, "too-late").expiration(SOON).reply_to(&reply_to).correlation_id("login-7");
    client.publish(&stage.names.jobs, job).await;
    until_given_up(&stage, 1).await;

    let (running, mut results) = works(&stage).await;
    let result = results.next(LIMIT).await;
    assert_eq!(ending(&result), ("expired".into(), 0, false));
    assert_eq!(field(&result, "JobId"), "too-late");
    assert_eq!(field(&result, "Reason"), "its expiration passed in the queue");
    let reply = replies.next(LIMIT).await;
    assert_eq!(reply.body, result.body);
    for copy in [&result, &reply] {
        assert_eq!(copy.properties.correlation_id().as_ref().map(|id| id.as_str()), Some("login-7"));
    }
    until_settled(&stage).await;
    assert_eq!(running.metric("otp_jobs_total", &[("outcome", "expired")]).await, 1.0);
    assert_eq!(stage.sandbox.stats().requests, 0);
    assert_eq!(Broker::shared().await.queue_depth(&stage.names.dead).await, Some(0));
}

/// Takes the job and puts it back until the broker no longer delivers it. Returns how often that was.
async fn take_and_put_back(client: &Client, stage: &Stage) -> u32 {
    let mut times = 0;
    let broker = Broker::shared().await;
    let given_up = async || {
        while let Some(job) =
            client.channel().basic_get(stage.names.jobs.as_str().into(), BasicGetOptions::default()).await.expect("get")
        {
            job.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await.expect("nack");
            times += 1;
        }
        broker.queue_depth(&stage.names.dropped).await == Some(1)
    };
    until("the broker gives the job up", LIMIT, given_up).await;
    times
}

#[tokio::test]
async fn a_job_delivered_over_the_limit_is_unknown_and_kept_for_people_with_the_reason() {
    let stage = declared().await;
    let client = stage.client().await;
    let job = Job::for_phone(PHONE, "poison")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .expiration(Duration::from_secs(3_600));
    client.publish(&stage.names.jobs, job).await;
    assert_eq!(take_and_put_back(&client, &stage).await, 21, "the first delivery, and 20 more");

    let (running, mut results) = works(&stage).await;
    let result = results.next(LIMIT).await;
    assert_eq!(ending(&result), ("unknown".into(), 0, false));
    assert!(field(&result, "Reason").contains("delivered over the limit"), "{}", result.json());
    let kept = client.consume(&stage.names.dead).await.next(LIMIT).await;
    assert!(error_of(&kept).contains("delivered over the limit"), "{}", error_of(&kept));
    assert_eq!(kept.properties.message_id().as_ref().map(|id| id.as_str()), Some("poison"));
    assert_eq!(kept.json()["Phone"], PHONE);
    // The broker took the property away.
    let headers = kept.properties.headers().clone().expect("headers");
    let expiration = lapin::types::AMQPValue::LongString("3600000".into());
    assert_eq!(headers.inner().get("x-expiration"), Some(&expiration));
    until_settled(&stage).await;
    assert_eq!(running.metric("otp_dead_lettered_total", &[]).await, 1.0);
    assert_eq!(stage.sandbox.stats().requests, 0);
}

/// A worker with one place. The job that `occupy` publishes takes that place, and jobs published after it
/// stay on the queue.
async fn occupied(stage: &mut Stage) -> (Running, Client, Results) {
    stage.set("OTP_CONCURRENCY", "1").set("OTP_PREFETCH", "1");
    let running = stage.worker().await;
    let (client, results) = stage.audience().await;
    stage.sandbox.script(Some("0901888480"), vec![Fault::Hold]);
    (running, client, results)
}

async fn occupy(stage: &Stage, client: &Client) {
    client.publish(&stage.names.jobs, Job::for_phone("0901888480", "in-the-way")).await;
    timeout(LIMIT, stage.sandbox.wait_until_held(1)).await.expect("the job in the way is sent");
}

#[tokio::test]
async fn a_job_already_done_that_expires_as_a_repeat_gets_its_recorded_result_again() {
    let mut stage = Stage::new().await;
    let (running, client, mut results) = occupied(&mut stage).await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    let first = results.next(LIMIT).await;
    occupy(&stage, &client).await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job").expiration(SOON)).await;
    let second = results.next(LIMIT).await;
    assert_eq!(ending(&second), ("accepted".into(), 1, false));
    assert_eq!(first.body, second.body);
    stage.sandbox.release_held();
    assert_eq!(field(&results.next(LIMIT).await, "JobId"), "in-the-way");
    until_settled(&stage).await;
    assert_eq!(running.metric("otp_redeliveries_total", &[("found", "done")]).await, 1.0);
    assert_eq!(stage.sandbox.accepted(PHONE), 1);
}

#[tokio::test]
async fn a_job_that_expires_while_the_worker_is_busy_is_answered_without_waiting_for_a_place() {
    let mut stage = Stage::new().await;
    let (_running, client, mut results) = occupied(&mut stage).await;
    occupy(&stage, &client).await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job").expiration(SOON)).await;
    assert_eq!(ending(&results.next(LIMIT).await), ("expired".into(), 0, false));
    stage.sandbox.release_held();
    assert_eq!(ending(&results.next(LIMIT).await), ("accepted".into(), 1, false));
    until_settled(&stage).await;
    assert_eq!(stage.sandbox.accepted(PHONE), 0);
}

#[tokio::test]
async fn a_dropped_job_that_cannot_be_understood_is_invalid() {
    let stage = declared().await;
    let client = stage.client().await;
    client.publish(&stage.names.jobs, Job::bytes("no job at all").id("nonsense").expiration(SOON)).await;
    until_given_up(&stage, 1).await;

    let (_running, mut results) = works(&stage).await;
    let result = results.next(LIMIT).await;
    assert_eq!(ending(&result), ("invalid".into(), 0, false));
    assert_eq!(field(&result, "JobId"), "nonsense");
    let kept = client.consume(&stage.names.dead).await.next(LIMIT).await;
    assert_eq!((kept.body.as_slice(), error_of(&kept)), (&b"no job at all"[..], field(&result, "Reason")));
    until_settled(&stage).await;
}
