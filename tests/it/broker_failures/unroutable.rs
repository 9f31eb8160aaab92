//! Results for which no queue is bound.

use lapin::types::FieldTable;

use super::{confirmed, until_settled};
use crate::stage::{LIMIT, PHONE, Running, Stage, field};
use crate::support::broker::Broker;
use crate::support::client::{Client, Job};

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

/// Without the exchange of the results nothing can be published, so the jobs wait for it.
#[tokio::test]
async fn jobs_wait_unacknowledged_while_the_exchange_of_the_results_is_gone() {
    let broker = Broker::shared().await;
    let stage = Stage::new().await;
    let running = stage.worker().await;
    let client = stage.client().await;
    client.channel().exchange_delete(stage.names.results.as_str().into(), Default::default()).await.expect("deleted");
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    let said = running.process.wait_for_log("not published yet", LIMIT).await;
    assert!(said.contains("NOT_FOUND") && said.contains(&stage.names.results), "{said}");
    assert_eq!(broker.unacked(&stage.names.jobs).await, 1);
    // The start of another worker declares it again.
    let _other = stage.worker().await;
    let kept = client.consume(&stage.names.unrouted).await.next(LIMIT).await;
    assert_eq!(field(&kept, "JobId"), "a-job");
    until_settled(broker, &stage).await;
    assert_eq!(stage.sandbox.accepted(PHONE), 1);
}
