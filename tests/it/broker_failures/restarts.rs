//! A broker that is stopped, killed and started again, and a broker that is short of memory.

use std::collections::BTreeMap;
use std::time::Duration;

use esms_otp_worker::sandbox::{Fault, Sandbox, Settings};
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use tokio::time::{sleep, timeout};

use super::{confirmed, until_held, until_settled, works};
use crate::stage::{LIMIT, Running, Stage, field};
use crate::support::broker::Broker;
use crate::support::client::{Job, Received};
use crate::support::metrics::get;

/// A node that one test at a time has for itself. The test may do anything with it.
pub(super) async fn own_node() -> MutexGuard<'static, Broker> {
    static NODE: OnceCell<Mutex<Broker>> = OnceCell::const_new();
    let node = NODE.get_or_init(async || Mutex::new(Broker::start().await)).await.lock().await;
    // A failed test may have left it in any state.
    node.start_again().await;
    set_memory_limit(&node, ENOUGH).await;
    node
}

const ENOUGH: &str = "0.4";
const TOO_LITTLE: &str = "0.0000001";

/// The limit is a share of the machine's memory. It takes effect before this returns.
async fn set_memory_limit(node: &Broker, share: &str) {
    node.eval(&format!("vm_memory_monitor:set_vm_memory_high_watermark({share}).")).await;
}

#[tokio::test]
async fn a_worker_outlives_a_restart_of_its_broker_and_is_ready_again_by_itself() {
    let node = own_node().await;
    let stage = Stage::on(&node.url()).await;
    let mut running = stage.worker().await;
    node.stop().await;
    running.until_not_ready().await;
    assert_eq!(get(running.http, "/livez").await.0, 200);
    node.start_again().await;
    works(&running, &stage).await;
    assert_eq!(running.process.wait_exit(Duration::ZERO).await, None, "it is the same process");
}

/// How a broker goes down.
#[derive(Clone, Copy)]
enum Down {
    Stopped,
    Killed,
}

/// Jobs, and a queue that keeps their results over a restart.
struct Load {
    stage: Stage,
    jobs: usize,
    kept: String,
}

impl Load {
    /// Queues the jobs for a provider that takes 20 to 50 ms. No worker processes them yet.
    async fn queued(node: &Broker, jobs: usize, concurrency: &str) -> Self {
        let mut stage = Stage::on(&node.url()).await;
        let pace =
            Settings { latency: Duration::from_millis(20), jitter: Duration::from_millis(30), ..Settings::default() };
        stage.sandbox = Sandbox::start(pace).await.expect("a sandbox");
        let esms = stage.sandbox.send_url();
        stage.set("ESMS_URL", &esms).set("OTP_CONCURRENCY", concurrency);
        Self::of(node, stage, jobs).await
    }

    /// Queues the jobs. No worker processes them yet.
    async fn of(node: &Broker, stage: Stage, jobs: usize) -> Self {
        let kept = format!("{}.kept", stage.names.results);
        let load = Self { stage, jobs, kept };
        load.declare().await;
        write_down_queues(node).await;
        let client = load.stage.client().await;
        let each = (0..jobs).map(|nth| Job::for_phone(&phone(nth), &id(nth)));
        client.publish_all(&load.stage.names.jobs, each).await;
        client.close().await;
        load
    }

    /// Starts and stops a worker, which declares its objects, and then binds the queue for the results.
    async fn declare(&self) {
        let mut running = self.stage.worker().await;
        assert_eq!(running.stop().await, Some(0));
        let client = self.stage.client().await;
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let mut quorum = FieldTable::default();
        quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let (queue, exchange) = (self.kept.as_str(), self.stage.names.results.as_str());
        client.channel().queue_declare(queue.into(), options, quorum).await.expect("a queue for the results");
        let bind = QueueBindOptions::default();
        let bound =
            client.channel().queue_bind(queue.into(), exchange.into(), "otp.*".into(), bind, FieldTable::default());
        bound.await.expect("bound");
        client.close().await;
    }

    /// Starts a worker. When `begun` of the jobs were sent, takes the broker down and starts it again.
    async fn worked_over_a_restart(&self, node: &Broker, down: Down, begun: u64) -> Running {
        let running = self.stage.worker().await;
        let under_way = self.stage.sandbox.wait_until(|stats| stats.accepted >= begun);
        timeout(LIMIT, under_way).await.expect("the worker works");
        match down {
            Down::Stopped => node.stop().await,
            Down::Killed => node.kill().await,
        }
        let sent = self.stage.sandbox.accepted_total();
        assert!(sent < self.jobs as u64, "the broker went down when all was done already");
        running.until_not_ready().await;
        node.start_again().await;
        running.until_ready().await;
        running
    }

    /// Every result by job. Waits until every job has a result and is acknowledged.
    async fn results(&self, node: &Broker) -> BTreeMap<String, Vec<Received>> {
        const END: &str = "end";
        let client = self.stage.client().await;
        let mut results = client.consume(&self.kept).await;
        let mut found: BTreeMap<String, Vec<Received>> = BTreeMap::new();
        while found.len() < self.jobs {
            let result = results.next(LIMIT).await;
            found.entry(field(&result, "JobId")).or_default().push(result);
        }
        until_settled(node, &self.stage).await;
        // A message published now comes after the last result.
        client.publish(&self.kept, Job::new(serde_json::json!({"JobId": END}))).await;
        loop {
            let result = results.next(LIMIT).await;
            match field(&result, "JobId") {
                end if end == END => return found,
                id => found.entry(id).or_default().push(result),
            }
        }
    }

    /// Checks that nothing was lost, nothing was sent twice, and nothing is left over.
    async fn audit(&self, node: &Broker) {
        let results = self.results(node).await;
        for nth in 0..self.jobs {
            let found = &results[&id(nth)];
            assert_eq!(field(&found[0], "Outcome"), "accepted", "{}", found[0].json());
            assert!(found.iter().all(|result| result.body == found[0].body), "{nth}: differing results");
            assert_eq!(self.stage.sandbox.accepted(&phone(nth)), 1, "{}", found[0].json());
        }
        let names = &self.stage.names;
        for queue in [&names.dropped, &names.dead, &names.unrouted] {
            assert_eq!(node.messages(queue).await, 0, "{queue}");
        }
    }
}

/// RabbitMQ writes down the place of a new quorum queue's data only half a second later (in the table
/// `ra_directory` of its Raft library). A node that is killed before that creates the queue again, empty.
async fn write_down_queues(node: &Broker) {
    node.eval("[ok = dets:sync(Table) || Table <- dets:all()].").await;
}

fn phone(nth: usize) -> String {
    format!("09{nth:08}")
}

fn id(nth: usize) -> String {
    format!("job-{nth}")
}

/// 300 jobs, with so few at a time that they take a second and more. The broker goes down in the middle.
async fn every_job_ends_once_although_the_broker_is(down: Down) {
    let node = own_node().await;
    let load = Load::queued(&node, 300, "8").await;
    let running = load.worked_over_a_restart(&node, down, 40).await;
    load.audit(&node).await;
    assert!(running.metric("otp_redeliveries_total", &[]).await >= 1.0, "jobs were under way");
}

#[tokio::test]
async fn every_job_ends_once_although_the_broker_is_stopped_and_started_amid_them() {
    every_job_ends_once_although_the_broker_is(Down::Stopped).await;
}

#[tokio::test]
async fn every_job_ends_once_although_the_broker_is_killed_and_started_amid_them() {
    every_job_ends_once_although_the_broker_is(Down::Killed).await;
}

#[tokio::test]
async fn five_thousand_jobs_with_rabbitmq_stopped_and_started_under_load_each_end_with_a_result() {
    let node = own_node().await;
    let load = Load::queued(&node, 5_000, "256").await;
    let _running = load.worked_over_a_restart(&node, Down::Stopped, 1_000).await;
    load.audit(&node).await;
}

#[tokio::test]
async fn a_broker_short_of_memory_is_waited_for_and_then_every_job_ends_once() {
    const JOBS: usize = 50;
    let node = own_node().await;
    let stage = Stage::on(&node.url()).await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    stage.sandbox.script(None, vec![Fault::Hold; JOBS]);
    client.publish_all(&stage.names.jobs, (0..JOBS).map(|nth| Job::for_phone(&phone(nth), &id(nth)))).await;
    until_held(&stage, JOBS as u64).await;
    let connections = running.metric("otp_broker_connections_total", &[]).await;
    set_memory_limit(&node, TOO_LITTLE).await;
    // RabbitMQ blocks a connection, and says so, at its next publish. Here that is a result.
    stage.sandbox.release_held();
    running.until_not_ready().await;
    // The test checks that nothing happens for longer than a confirm may otherwise take (15 s).
    sleep(Duration::from_secs(17)).await;
    assert_eq!(running.metric("otp_broker_connections_total", &[]).await, connections, "no connection is given up");
    assert_eq!(node.unacked(&stage.names.jobs).await, JOBS as u32);
    assert_eq!(get(running.http, "/livez").await.0, 200);

    set_memory_limit(&node, ENOUGH).await;
    running.until_ready().await;
    assert_eq!(results.collect(JOBS, LIMIT).await.len(), JOBS);
    until_settled(&node, &stage).await;
    assert_eq!(confirmed(&running).await, JOBS as f64, "each result was published once");
    assert_eq!(stage.sandbox.duplicates(), []);
    assert_eq!(stage.sandbox.accepted_total(), JOBS as u64);
}

/// With `give-up` a job that another worker may have sent ends `unknown`. These jobs wait for the rate limit
/// of the one worker there is, and their deliveries are lost meanwhile.
#[tokio::test]
async fn jobs_that_were_not_begun_when_the_broker_was_restarted_are_sent_by_the_worker_that_knows_it() {
    const JOBS: usize = 60;
    let node = own_node().await;
    let mut stage = Stage::on(&node.url()).await;
    stage.set("OTP_ON_AMBIGUOUS", "give-up").set("OTP_RATE_LIMIT", "10");
    let load = Load::of(&node, stage, JOBS).await;
    let _running = load.worked_over_a_restart(&node, Down::Stopped, 5).await;
    load.audit(&node).await;
}
