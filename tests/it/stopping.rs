//! What a worker leaves behind when it is told to stop: nothing, or jobs that are ready for the next
//! worker.

use std::time::{Duration, Instant};

use esms_otp_worker::sandbox::Fault;
use futures_util::future::join_all;
use tokio::time::timeout;

use crate::stage::{LIMIT, PHONE, Running, Stage, ending, field};
use crate::support::broker::Broker;
use crate::support::client::{Client, Job};
use crate::support::metrics::get;
use crate::support::proxy::{Direction, Proxy};
use crate::support::redis::Redis;
use crate::support::wait::until;

/// The limit for steps that need no waiting, on a slow machine. The grace is longer.
const PROMPT: Duration = Duration::from_secs(15);

/// Longer than any test. So only a second signal or the end of the work ends the stopping.
const NO_HURRY: [(&str, &str); 2] = [("ESMS_TIMEOUT", "2m"), ("OTP_SHUTDOWN_GRACE", "3m")];

fn later() -> Fault {
    Fault::Status { code: 503, retry_after: Some("25".into()) }
}

async fn stage() -> Stage {
    let mut stage = Stage::new().await;
    for (name, value) in NO_HURRY {
        stage.set(name, value);
    }
    stage
}

/// How many jobs are ready in the queue.
async fn ready(stage: &Stage) -> u32 {
    Broker::shared().await.queue_depth(&stage.names.jobs).await.expect("the queue of jobs")
}

async fn until_ready(stage: &Stage, jobs: u32) {
    until(&format!("{jobs} jobs are ready again"), LIMIT, async || ready(stage).await == jobs).await;
}

async fn until_held(stage: &Stage, calls: u64) {
    timeout(LIMIT, stage.sandbox.wait_until_held(calls)).await.expect("calls that are held");
}

async fn publish(client: &Client, stage: &Stage, jobs: u32) {
    let jobs = (0..jobs).map(|n| Job::for_phone(&format!("0901{n:06}"), &format!("job-{n}")));
    join_all(jobs.map(|job| client.publish(&stage.names.jobs, job))).await;
}

/// A worker with one job. The calls for that job meet `faults`.
async fn one_job(stage: &Stage, faults: Vec<Fault>) -> (Running, Client, crate::support::client::Results) {
    stage.sandbox.script(None, faults);
    let running = stage.worker().await;
    let (client, results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    (running, client, results)
}

#[tokio::test]
async fn calls_in_flight_are_finished_published_and_acknowledged() {
    for signal in ["TERM", "INT"] {
        let stage = stage().await;
        let (mut running, _client, mut results) = one_job(&stage, vec![Fault::Hold]).await;
        until_held(&stage, 1).await;
        running.process.signal(signal);
        // It stops consuming and says that it stops at one moment, but not in one step.
        let stopping = (503, "stopping\n".to_owned());
        until("it says that it stops", LIMIT, async || get(running.http, "/readyz").await == stopping).await;
        assert_eq!(get(running.http, "/livez").await.0, 200);
        assert_eq!(running.metric("otp_jobs_in_flight", &[]).await, 1.0);
        stage.sandbox.release_held();
        assert_eq!(ending(&results.next(LIMIT).await), ("accepted".to_owned(), 1, false));
        assert_eq!(running.process.wait_exit(LIMIT).await, Some(0), "{signal}");
        running.until_settled(&stage.names).await;
        assert_eq!(ready(&stage).await, 0, "it was acknowledged");
        assert_eq!(stage.sandbox.accepted(PHONE), 1);
    }
}

#[tokio::test]
async fn jobs_that_were_not_started_are_left_in_the_queue_and_never_sent() {
    let mut stage = stage().await;
    stage.set("OTP_CONCURRENCY", "2");
    stage.sandbox.script(None, vec![Fault::Hold; 2]);
    let mut running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    publish(&client, &stage, 10).await;
    until_held(&stage, 2).await;
    running.process.signal("TERM");
    running.until_not_ready().await;
    stage.sandbox.release_held();
    assert_eq!(running.process.wait_exit(LIMIT).await, Some(0));
    assert_eq!(results.collect(2, LIMIT).await.len(), 2);
    assert!(results.collect(1, Duration::from_millis(200)).await.is_empty());
    until_ready(&stage, 8).await;
    assert_eq!(stage.sandbox.stats().requests, 2);
}

#[tokio::test]
async fn stopped_amid_a_burst_every_job_has_either_its_result_or_its_place_in_the_queue() {
    let mut stage = stage().await;
    stage.set("OTP_CONCURRENCY", "64");
    let mut running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let publisher = stage.client().await;
    let burst = publish(&publisher, &stage, 600);
    let stopping = async {
        timeout(LIMIT, stage.sandbox.wait_until(|stats| stats.accepted >= 100)).await.expect("100 calls");
        running.process.signal("TERM");
        running.process.wait_exit(LIMIT).await
    };
    let ((), code) = tokio::join!(burst, stopping);
    assert_eq!(code, Some(0));
    // Every published result is in its queue before the remaining jobs are back in theirs.
    let done = u32::try_from(stage.sandbox.accepted_total()).unwrap();
    until_ready(&stage, 600 - done).await;
    let one_each = usize::try_from(done).unwrap();
    assert_eq!(results.collect(one_each, LIMIT).await.len(), one_each, "each job that was sent has a result");
    assert!(results.collect(1, Duration::from_millis(200)).await.is_empty(), "and no other has one");
    assert!((100..600).contains(&done), "{done} were done: it was not amid the burst");
    assert_eq!(stage.sandbox.duplicates(), []);

    // Nobody listens any more, so the remaining results end in the queue without a reader.
    client.close().await;
    let next = stage.worker().await;
    next.until_metric("otp_jobs_total", &[("outcome", "accepted")], f64::from(600 - done)).await;
    next.until_settled(&stage.names).await;
    assert_eq!(Broker::shared().await.queue_depth(&stage.names.unrouted).await, Some(600 - done));
    assert_eq!(stage.sandbox.accepted_phones().len(), 600);
    assert_eq!(stage.sandbox.duplicates(), [], "what was left had not been sent");
}

#[tokio::test]
async fn a_job_that_waits_to_retry_goes_back_at_once_without_a_result() {
    let stage = stage().await;
    let (mut running, _client, mut results) = one_job(&stage, vec![later()]).await;
    running.until_metric("otp_jobs_waiting_retry", &[], 1.0).await;
    let told = Instant::now();
    assert_eq!(running.stop().await, Some(0));
    assert!(told.elapsed() < PROMPT, "it waited for {:?}", told.elapsed());
    until_ready(&stage, 1).await;
    assert!(results.collect(1, Duration::from_millis(200)).await.is_empty());
    let _next = stage.worker().await;
    assert_eq!(ending(&results.next(LIMIT).await).0, "accepted");
    assert_eq!(stage.sandbox.accepted(PHONE), 1);
}

#[tokio::test]
async fn a_job_that_waits_after_an_ambiguous_attempt_ends_as_unknown() {
    let stage = stage().await;
    let (mut running, _client, mut results) = one_job(&stage, vec![Fault::ResetAfter, later()]).await;
    // The job waits twice. The first wait is short, and the second is 25 s. Stop it in the second.
    running.process.wait_for_log("HTTP 503", LIMIT).await;
    running.until_metric("otp_jobs_waiting_retry", &[], 1.0).await;
    let told = Instant::now();
    assert_eq!(running.stop().await, Some(0));
    assert!(told.elapsed() < PROMPT, "it waited for {:?}", told.elapsed());
    let result = results.next(LIMIT).await;
    assert_eq!(ending(&result), ("unknown".to_owned(), 2, true));
    assert!(field(&result, "Reason").contains("stopped"));
    running.until_settled(&stage.names).await;
    assert_eq!(ready(&stage).await, 0);
    assert_eq!(stage.sandbox.accepted(PHONE), 1);
}

#[tokio::test]
async fn a_call_that_becomes_ambiguous_while_stopping_ends_as_unknown() {
    let stage = stage().await;
    let (mut running, _client, mut results) = one_job(&stage, vec![Fault::HangAfter]).await;
    until_held(&stage, 1).await;
    running.process.signal("TERM");
    running.until_not_ready().await;
    stage.sandbox.release_hangs();
    assert_eq!(ending(&results.next(LIMIT).await), ("unknown".to_owned(), 1, false));
    assert_eq!(running.process.wait_exit(LIMIT).await, Some(0));
    assert_eq!(stage.sandbox.stats().requests, 1, "nothing new is begun while stopping");
}

/// A worker that reaches the broker through a proxy. Nothing else uses that proxy.
async fn behind_a_proxy(mut stage: Stage) -> (Stage, Proxy, Running) {
    let broker = Broker::shared().await;
    let proxy = Proxy::start(broker.port()).await;
    stage.set("AMQP_URL", &broker.url_through(proxy.port()));
    let running = stage.worker().await;
    (stage, proxy, running)
}

/// Refuses the worker's new connections, and breaks those it has.
async fn disconnect(proxy: &Proxy, running: &Running) {
    proxy.refuse().await;
    proxy.cut().await;
    running.until_not_ready().await;
}

#[tokio::test]
async fn an_idle_worker_without_a_broker_stops_at_once() {
    let (_stage, proxy, mut running) = behind_a_proxy(stage().await).await;
    disconnect(&proxy, &running).await;
    let told = Instant::now();
    assert_eq!(running.stop().await, Some(0));
    assert!(told.elapsed() < PROMPT, "it took {:?}", told.elapsed());
}

#[tokio::test]
async fn a_worker_that_never_had_a_broker_stops_at_once() {
    let mut stage = stage().await;
    let proxy = Proxy::start(Broker::shared().await.port()).await;
    proxy.refuse().await;
    stage.set("AMQP_URL", &Broker::shared().await.url_through(proxy.port()));
    let process = stage.spawn();
    let http = process.http_addr(LIMIT).await;
    let mut running = Running { process, http };
    running.process.wait_for_log("not consuming", LIMIT).await;
    assert_eq!(get(http, "/livez").await.0, 200);
    let told = Instant::now();
    assert_eq!(running.stop().await, Some(0));
    assert!(told.elapsed() < PROMPT, "it took {:?}", told.elapsed());
}

/// The network to Redis takes everything and delivers nothing, from before the first connection on or only from the
/// second on: that one is made once the broker has said its cluster's name.
#[tokio::test]
async fn a_worker_that_waits_for_its_ledger_at_the_start_stops_before_the_ledger_counts_as_away() {
    for connections in [1, 2] {
        let (mut stage, redis) = (stage().await, Redis::start().await);
        let [to_redis, to_broker] =
            [Proxy::start(redis.port()).await, Proxy::start(Broker::shared().await.port()).await];
        stage.set("OTP_LEDGER_URL", &redis.url_through(to_redis.port()));
        stage.set("AMQP_URL", &Broker::shared().await.url_through(to_broker.port()));
        to_broker.refuse().await;
        if connections == 1 {
            to_redis.stall(Direction::Both);
        }
        let mut process = stage.spawn();
        if connections == 2 {
            process.wait_for_log("not consuming", LIMIT).await;
            to_redis.stall(Direction::Both);
            to_broker.accept_again().await;
        }
        until("the ledger is asked", LIMIT, async || to_redis.accepted() == connections).await;
        let told = Instant::now();
        process.signal("TERM");
        assert_eq!(process.wait_exit(LIMIT).await, Some(0), "{connections}");
        println!("stopped {:?} after the signal", told.elapsed());
        // It would be said after three seconds.
        let away = process.log_containing("the ledger does not answer");
        assert!(away.is_empty(), "{connections}: the stop waited for the ledger: {away:?}");
    }
}

#[tokio::test]
async fn a_result_that_waits_for_the_broker_is_published_when_it_returns_within_the_grace() {
    let (stage, proxy, mut running) = behind_a_proxy(stage().await).await;
    stage.sandbox.script(None, vec![Fault::Hold]);
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    until_held(&stage, 1).await;
    disconnect(&proxy, &running).await;
    stage.sandbox.release_held();
    running.process.wait_for_log("job ended", LIMIT).await;
    running.process.signal("TERM");
    running.process.wait_for_log("stopping", LIMIT).await;
    assert_eq!(running.process.wait_exit(Duration::from_millis(300)).await, None, "it waits for the broker");
    proxy.accept_again().await;
    assert_eq!(ending(&results.next(LIMIT).await), ("accepted".to_owned(), 1, false));
    assert_eq!(running.process.wait_exit(LIMIT).await, Some(0));
    assert_eq!(stage.sandbox.accepted(PHONE), 1);
}

#[tokio::test]
async fn when_the_grace_is_over_it_says_so_with_code_4_and_the_next_worker_gets_the_job() {
    let mut stage = Stage::new().await;
    stage.set("ESMS_CONNECT_TIMEOUT", "1s").set("ESMS_TIMEOUT", "2s").set("OTP_SHUTDOWN_GRACE", "2100ms");
    let (mut stage, proxy, mut running) = behind_a_proxy(stage).await;
    let (client, mut results) = stage.audience().await;
    proxy.stall_named("esms-otp-worker publisher", Direction::ToServer);
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    running.process.wait_for_log("job ended", LIMIT).await;
    assert_eq!(running.stop().await, Some(4));
    let last = running.process.wait_for_log("unfinished", LIMIT).await;
    assert!(last.contains("stopped with 1 job") && last.contains("delivers"), "{last}");

    stage.set("AMQP_URL", &Broker::shared().await.url());
    let _next = stage.worker().await;
    let result = results.next(LIMIT).await;
    assert_eq!(ending(&result), ("accepted".to_owned(), 1, true), "the first worker had sent it, and this says so");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let stage = stage().await;
    let (mut running, _client, mut results) = one_job(&stage, vec![Fault::Hold]).await;
    until_held(&stage, 1).await;
    running.process.signal("TERM");
    running.process.wait_for_log("stopping", LIMIT).await;
    let told = Instant::now();
    running.process.signal("INT");
    assert_eq!(running.process.wait_exit(LIMIT).await, Some(4));
    assert!(told.elapsed() < PROMPT, "it took {:?}", told.elapsed());
    until_ready(&stage, 1).await;
    assert!(results.collect(1, Duration::from_millis(200)).await.is_empty());
}
