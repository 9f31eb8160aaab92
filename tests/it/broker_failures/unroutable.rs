//! Results for which no queue is bound.

use std::collections::BTreeSet;

use esms_otp_worker::sandbox::Fault;
use lapin::types::FieldTable;

use super::{confirmed, until_held, until_settled};
use crate::stage::{LIMIT, Names, PHONE, Running, Stage, field};
use crate::support::broker::Broker;
use crate::support::client::{Client, Job};
use crate::support::wait::until;

#[tokio::test]
async fn a_result_that_nobody_has_bound_a_queue_for_is_kept() {
    let stage = Stage::new().await;
    let running = stage.worker().await;
    let client = stage.client().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    let kept = client.consume(&stage.names.unrouted).await.next(LIMIT).await;
    assert_eq!((kept.routing_key.as_str(), field(&kept, "JobId")), ("otp.accepted", "a-job".into()));
    until_settled(Broker::shared().await, &stage).await;
    assert_eq!(confirmed(&running).await, 1.0);
}

#[tokio::test]
async fn a_result_that_comes_back_unroutable_is_counted_and_logged_and_its_job_acknowledged() {
    let stage = Stage::new().await;
    let running = stage.worker().await;
    let client = stage.client().await;
    let unrouted = stage.names.unrouted.as_str();
    let channel = client.channel();
    channel.queue_unbind(unrouted.into(), unrouted.into(), "".into(), FieldTable::default()).await.expect("unbound");
    is_returned(&stage, &running, &client, "unbound", 1).await;
    channel.exchange_delete(unrouted.into(), Default::default()).await.expect("deleted");
    is_returned(&stage, &running, &client, "deleted", 2).await;
    assert_eq!(confirmed(&running).await, 0.0);
    assert_eq!(Broker::shared().await.queue_depth(unrouted).await, Some(0));
}

async fn is_returned(stage: &Stage, running: &Running, client: &Client, id: &str, times: u32) {
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, id)).await;
    running.until_metric("otp_results_published_total", &[("status", "returned")], times.into()).await;
    until_settled(Broker::shared().await, stage).await;
    let said = running.process.log_containing("result returned as unroutable");
    let last = said.last().expect("a log line");
    assert!(last.contains(r#""level":"ERROR""#) && last.contains(id), "{last}");
}

/// An exchange of this stage that is deleted while a job is in flight is there again when its result comes.
async fn is_declared_again(exchange: impl Fn(&Names) -> String) {
    let broker = Broker::shared().await;
    let stage = Stage::new().await;
    let running = stage.worker().await;
    let client = stage.client().await;
    stage.sandbox.script(None, vec![Fault::Hold]);
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "in-flight")).await;
    until_held(&stage, 1).await;
    client.channel().exchange_delete(exchange(&stage.names).into(), Default::default()).await.expect("deleted");
    stage.sandbox.release_held();
    client.publish(&stage.names.jobs, Job::bytes("no job").id("nonsense")).await;
    let mut kept = client.consume(&stage.names.unrouted).await;
    let mut told = [field(&kept.next(LIMIT).await, "JobId"), field(&kept.next(LIMIT).await, "JobId")];
    told.sort();
    assert_eq!(told, ["in-flight", "nonsense"]);
    until_settled(broker, &stage).await;
    assert_eq!(broker.queue_depth(&stage.names.dead).await, Some(1));
    assert_eq!(stage.sandbox.accepted(PHONE), 1);
    let connections = running.metric("otp_broker_connections_total", &[]).await;
    assert_eq!(connections, 2.0, "no connection was given up: {}", running.process.log().join("\n"));
    running.until_ready().await;
}

#[tokio::test]
async fn the_exchange_of_the_results_is_declared_again_when_it_is_deleted() {
    is_declared_again(|names| names.results.clone()).await;
}

#[tokio::test]
async fn the_exchange_of_the_dead_letters_is_declared_again_when_it_is_deleted() {
    is_declared_again(|names| names.dead.clone()).await;
}

#[tokio::test]
async fn without_declaring_jobs_wait_unacknowledged_and_none_is_begun_while_the_exchange_of_the_results_is_gone() {
    let broker = Broker::shared().await;
    let mut stage = Stage::new().await;
    assert_eq!(stage.worker().await.stop().await, Some(0), "the objects are declared");
    let running = stage.set("OTP_TOPOLOGY", "check").worker().await;
    let client = stage.client().await;
    client.channel().exchange_delete(stage.names.results.as_str().into(), Default::default()).await.expect("deleted");
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    let said = running.process.wait_for_log("not published yet", LIMIT).await;
    assert!(said.contains("NOT_FOUND") && said.contains(&stage.names.results), "{said}");
    running.until_not_ready().await;
    client.publish(&stage.names.jobs, Job::for_phone("0901888485", "later")).await;
    until("both jobs are here", LIMIT, async || broker.unacked(&stage.names.jobs).await == 2).await;
    assert_eq!(stage.sandbox.stats().requests, 1, "no call is begun");
    // The start of another worker declares it again.
    let mut other = stage.set("OTP_TOPOLOGY", "declare").worker().await;
    let mut kept = client.consume(&stage.names.unrouted).await;
    let mut told = [field(&kept.next(LIMIT).await, "JobId"), field(&kept.next(LIMIT).await, "JobId")];
    told.sort();
    assert_eq!(told, ["a-job", "later"]);
    until_settled(broker, &stage).await;
    assert_eq!(other.stop().await, Some(0));
    assert_eq!(stage.sandbox.accepted(PHONE), 1);
}

/// The broker confirms many messages with one ack, and the client cannot tell which of them came back.
#[tokio::test]
async fn of_four_hundred_results_that_come_back_at_once_each_is_told_and_no_dead_letter_is_taken_for_one() {
    const JOBS: usize = 400;
    let mut stage = Stage::new().await;
    let running = stage.set("OTP_CONCURRENCY", "400").worker().await;
    let client = stage.client().await;
    let unrouted = stage.names.unrouted.as_str();
    client.channel().exchange_delete(unrouted.into(), Default::default()).await.expect("deleted");
    let id = |nth: usize| format!("job-{nth}");
    let jobs = (0..JOBS).map(|nth| match nth % 2 {
        0 => Job::bytes("no job").id(&id(nth)),
        _ => Job::for_phone(&format!("09{nth:08}"), &id(nth)),
    });
    client.publish_all(&stage.names.jobs, jobs).await;
    running.until_metric("otp_results_published_total", &[("status", "returned")], JOBS as f64).await;
    until_settled(Broker::shared().await, &stage).await;
    assert_eq!(confirmed(&running).await, 0.0);
    assert_eq!(Broker::shared().await.queue_depth(&stage.names.dead).await, Some(JOBS as u32 / 2));
    assert!(running.process.log_containing("dead letter returned").is_empty());
    let told = running.process.log_containing("result returned as unroutable");
    let told: BTreeSet<String> = told.iter().map(|line| job_of(line)).collect();
    assert_eq!(told, (0..JOBS).map(id).collect(), "each is named");
}

fn job_of(line: &str) -> String {
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    line["job_id"].as_str().expect("a job_id").to_owned()
}
