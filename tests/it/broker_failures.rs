//! What the worker does when the broker, or the network to it, misbehaves. It waits and says what is wrong.
//! Nothing is lost, and nothing is sent twice.

mod operated;
pub(crate) mod permissions;
mod restarts;
mod unroutable;

use esms_otp_worker::sandbox::Fault;
use tokio::time::timeout;

use crate::stage::{LIMIT, PHONE, Running, Stage, ending, field};
use crate::support::broker::Broker;
use crate::support::client::Job;
use crate::support::metrics::get;
use crate::support::proxy::{Direction, Proxy};
use crate::support::wait::until;

/// The names by which the broker, and the proxy, know the worker's connections.
const PUBLISHER: &[u8] = b"esms-otp-worker publisher";
pub(crate) const CONSUMER: &[u8] = b"esms-otp-worker consumer";

/// A stage with workers that reach the shared broker through a proxy. Its clients connect directly.
pub(crate) async fn behind_a_proxy() -> (Stage, Proxy, &'static Broker) {
    let broker = Broker::shared().await;
    let proxy = Proxy::start(broker.port()).await;
    let mut stage = Stage::on(&broker.url()).await;
    stage.set("AMQP_URL", &broker.url_through(proxy.port()));
    (stage, proxy, broker)
}

/// Waits until the queue of jobs is empty and every job is acknowledged.
async fn until_settled(broker: &Broker, stage: &Stage) {
    until("every job is acknowledged", LIMIT, async || broker.messages(&stage.names.jobs).await == 0).await;
}

pub(crate) async fn until_held(stage: &Stage, requests: u64) {
    timeout(LIMIT, stage.sandbox.wait_until_held(requests)).await.expect("the requests arrive");
}

/// How many results the broker has confirmed to this worker.
async fn confirmed(running: &Running) -> f64 {
    running.metric("otp_results_published_total", &[("status", "confirmed")]).await
}

#[tokio::test]
async fn a_job_is_acknowledged_only_after_the_broker_has_confirmed_its_result() {
    let (stage, proxy, broker) = behind_a_proxy().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    proxy.stall_matching(PUBLISHER, Direction::ToClient);
    // If the first job did not wait for its confirm, it would be acknowledged when the second result comes.
    for (phone, id) in [("0901888481", "first"), ("0901888482", "second")] {
        client.publish(&stage.names.jobs, Job::for_phone(phone, id)).await;
        assert_eq!(field(&results.next(LIMIT).await, "JobId"), id);
    }
    assert_eq!(broker.unacked(&stage.names.jobs).await, 2);
    proxy.resume();
    until_settled(broker, &stage).await;
    assert_eq!(confirmed(&running).await, 2.0);
    assert_eq!(stage.sandbox.stats().requests, 2, "each was sent once");
}

/// One frame acknowledges many deliveries: all up to a tag.
#[tokio::test]
async fn jobs_that_still_run_are_not_acknowledged_with_those_that_ended_around_them() {
    const JOBS: usize = 40;
    let broker = Broker::shared().await;
    let stage = Stage::on(&broker.url()).await;
    let mut running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let phone = |nth: usize| format!("09018884{nth:02}");
    let is_slow = |nth: usize| nth.is_multiple_of(10);
    let slow = (0..JOBS).filter(|nth| is_slow(*nth)).count();
    for nth in (0..JOBS).filter(|nth| is_slow(*nth)) {
        stage.sandbox.script(Some(&phone(nth)), vec![Fault::Hold]);
    }
    let jobs = (0..JOBS).map(|nth| Job::for_phone(&phone(nth), &format!("job-{nth}")));
    client.publish_all(&stage.names.jobs, jobs).await;
    results.collect(JOBS - slow, LIMIT).await;
    until_held(&stage, slow as u64).await;
    until("the others are acknowledged", LIMIT, async || broker.unacked(&stage.names.jobs).await == slow as u32).await;
    running.process.signal("KILL");
    running.process.wait_exit(LIMIT).await;
    until("they are back", LIMIT, async || broker.queue_depth(&stage.names.jobs).await == Some(slow as u32)).await;
    let _next = stage.worker().await;
    let mut again: Vec<_> = results.collect(slow, LIMIT).await.iter().map(|result| field(result, "JobId")).collect();
    again.sort_unstable();
    assert_eq!(again, ["job-0", "job-10", "job-20", "job-30"]);
}

#[tokio::test]
async fn a_result_whose_confirmation_was_cut_off_is_published_again_and_the_job_not_sent_again() {
    let (stage, proxy, broker) = behind_a_proxy().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    proxy.stall_matching(PUBLISHER, Direction::ToClient);
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    let first = results.next(LIMIT).await;
    assert_eq!(broker.unacked(&stage.names.jobs).await, 1);
    proxy.cut_matching(PUBLISHER).await;
    proxy.resume();
    let second = results.next(LIMIT).await;
    assert_eq!(first.body, second.body);
    assert_eq!(first.properties.message_id(), second.properties.message_id());
    until_settled(broker, &stage).await;
    assert_eq!(confirmed(&running).await, 1.0);
    assert_eq!(running.metric("otp_redeliveries_total", &[]).await, 0.0, "the delivery itself was never lost");
    assert_eq!(stage.sandbox.stats().requests, 1);
}

#[tokio::test]
async fn a_job_delivered_again_while_its_call_is_in_flight_gets_one_call_and_one_result() {
    let (stage, proxy, broker) = behind_a_proxy().await;
    stage.sandbox.script(None, vec![Fault::Hold]);
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    until_held(&stage, 1).await;
    proxy.cut_matching(CONSUMER).await;
    running.until_metric("otp_redeliveries_total", &[("found", "in_flight")], 1.0).await;
    stage.sandbox.release_held();
    assert_eq!(ending(&results.next(LIMIT).await), ("accepted".into(), 1, false));
    until_settled(broker, &stage).await;
    assert_eq!(confirmed(&running).await, 1.0);
    assert_eq!(stage.sandbox.stats().requests, 1);
}

#[tokio::test]
async fn a_job_whose_acknowledgement_was_lost_gets_the_recorded_result_again_and_is_not_sent_again() {
    let (stage, proxy, broker) = behind_a_proxy().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    proxy.stall_matching(CONSUMER, Direction::ToServer);
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    let first = results.next(LIMIT).await;
    // From here on the acknowledgement is on its way, and the proxy holds it back.
    running.until_metric("otp_job_duration_seconds_count", &[("outcome", "accepted")], 1.0).await;
    assert_eq!(broker.unacked(&stage.names.jobs).await, 1);
    proxy.cut_matching(CONSUMER).await;
    proxy.resume();
    let second = results.next(LIMIT).await;
    assert_eq!(first.body, second.body);
    assert_eq!(ending(&second), ("accepted".into(), 1, false));
    until_settled(broker, &stage).await;
    assert_eq!(running.metric("otp_redeliveries_total", &[("found", "done")]).await, 1.0);
    assert_eq!(confirmed(&running).await, 2.0);
    assert_eq!(stage.sandbox.stats().requests, 1);
}

/// A worker that has started but cannot work yet. It is alive, not ready, and still trying.
async fn waiting(stage: &Stage, trouble: &str) -> Running {
    let process = stage.spawn();
    let http = process.http_addr(LIMIT).await;
    // The worker tries two connections. More than six log lines show that each was tried again.
    until(trouble, LIMIT, async || process.log_containing(trouble).len() > 6).await;
    assert_eq!(get(http, "/livez").await.0, 200);
    assert_eq!(get(http, "/readyz").await.0, 503);
    Running { process, http }
}

/// Waits until it is ready, and then has it process a job.
async fn works(running: &Running, stage: &Stage) {
    running.until_ready().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "at-last")).await;
    assert_eq!(ending(&results.next(LIMIT).await), ("accepted".into(), 1, false));
}

#[tokio::test]
async fn a_worker_started_before_its_broker_waits_for_it_and_then_works() {
    let (stage, proxy, _broker) = behind_a_proxy().await;
    proxy.refuse().await;
    let running = waiting(&stage, "cannot reach the broker").await;
    assert!(running.process.log().join("\n").contains("check the host and port of AMQP_URL"));
    proxy.accept_again().await;
    works(&running, &stage).await;
}

#[tokio::test]
async fn wrong_credentials_are_named_without_the_password_and_tried_until_they_are_right() {
    let broker = Broker::shared().await;
    let (user, password) = ("late-user", "canary-of-a-password");
    let stage = Stage::on(&format!("amqp://{user}:{password}@127.0.0.1:{}/%2f", broker.port())).await;
    let running = waiting(&stage, "refuses the credentials").await;
    assert!(running.process.log().join("\n").contains("check the user and password of AMQP_URL"));
    broker.eval(&format!("rabbit_auth_backend_internal:add_user(<<\"{user}\">>, <<\"{password}\">>, <<\"\">>).")).await;
    allow(broker, user, "/").await;
    works(&running, &stage).await;
    assert!(running.process.log_containing(password).is_empty());
}

#[tokio::test]
async fn an_unknown_virtual_host_is_named_and_tried_until_it_is_there() {
    let broker = Broker::shared().await;
    let vhost = "late-vhost";
    let stage = Stage::on(&format!("amqp://guest:guest@127.0.0.1:{}/{vhost}", broker.port())).await;
    let running = waiting(&stage, "does not open virtual host `late-vhost`").await;
    assert!(running.process.log().join("\n").contains("check the path of AMQP_URL"));
    broker.eval(&format!("rabbit_vhost:add(<<\"{vhost}\">>, <<\"\">>).")).await;
    allow(broker, "guest", vhost).await;
    works(&running, &stage).await;
}

/// Lets a user do everything.
pub(crate) async fn allow(broker: &Broker, user: &str, vhost: &str) {
    let all = "<<\".*\">>";
    let allow = "rabbit_auth_backend_internal:set_permissions";
    broker.eval(&format!("{allow}(<<\"{user}\">>, <<\"{vhost}\">>, {all}, {all}, {all}, <<\"\">>).")).await;
}

#[tokio::test]
async fn a_queue_deleted_under_the_worker_is_declared_again_and_the_job_in_flight_gets_its_result() {
    let broker = Broker::shared().await;
    let stage = Stage::new().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    stage.sandbox.script(None, vec![Fault::Hold]);
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "in-flight")).await;
    until_held(&stage, 1).await;
    for (nth, queue) in [&stage.names.jobs, &stage.names.dropped].into_iter().enumerate() {
        client.channel().queue_delete(queue.as_str().into(), Default::default()).await.expect("the queue was there");
        let said = async || running.process.log_containing("was a queue deleted?").len() == nth + 1;
        until("it says that a queue is gone", LIMIT, said).await;
        running.until_ready().await;
        assert_eq!(broker.queue_depth(queue).await, Some(0), "declared again");
    }
    stage.sandbox.release_held();
    assert_eq!(field(&results.next(LIMIT).await, "JobId"), "in-flight");
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "later")).await;
    assert_eq!(field(&results.next(LIMIT).await, "JobId"), "later");
    until_settled(broker, &stage).await;
}

/// The consumer's connection is away for longer than some jobs wait for their turn. The broker delivers them
/// again, and the delivery counts show that nobody else had them.
#[tokio::test]
async fn jobs_whose_turn_came_while_their_deliveries_were_lost_are_sent_when_they_come_again() {
    const JOBS: usize = 20;
    let (mut stage, proxy, broker) = behind_a_proxy().await;
    stage.set("OTP_ON_AMBIGUOUS", "give-up").set("OTP_RATE_LIMIT", "10");
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let phone = |nth: usize| format!("09{nth:08}");
    let jobs = (0..JOBS).map(|nth| Job::for_phone(&phone(nth), &nth.to_string()));
    client.publish_all(&stage.names.jobs, jobs).await;
    let in_flight = async || running.metric("otp_jobs_in_flight", &[]).await;
    until("some are sent", LIMIT, async || stage.sandbox.stats().requests >= 2).await;
    proxy.refuse().await;
    proxy.cut_matching(CONSUMER).await;
    until("some are given back", LIMIT, async || in_flight().await <= JOBS as f64 / 2.0).await;
    proxy.accept_again().await;
    let mut ended = std::collections::BTreeSet::new();
    while ended.len() < JOBS {
        let result = results.next(LIMIT).await;
        assert_eq!(ending(&result), ("accepted".into(), 1, false), "{}", result.json());
        ended.insert(field(&result, "JobId"));
    }
    until_settled(broker, &stage).await;
    assert_eq!(stage.sandbox.accepted_total(), JOBS as u64);
    assert!(running.metric("otp_redeliveries_total", &[("found", "new")]).await >= 1.0, "some were claimed again");
}
