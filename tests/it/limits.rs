//! What large numbers cost the worker: jobs that wait, results that nobody reads, a broker that takes
//! nothing. `make limits` runs these tests with a million jobs.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use esms_otp_worker::sandbox::Fault;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::stage::{LIMIT, PROGRAM, Running, Stage, ending, field};
use crate::support::broker::Broker;
use crate::support::client::{Client, Job, Results};
use crate::support::metrics::{get, wait_for};
use crate::support::ports;
use crate::support::proxy::{Direction, Proxy};
use crate::support::redis::Redis;
use crate::support::wait::until;
use crate::support::worker::Worker;

/// How many jobs wait in the queue, unless `LIMITS_JOBS` sets another number.
const QUEUED: usize = 20_000;

fn queued() -> usize {
    std::env::var("LIMITS_JOBS").map_or(QUEUED, |text| text.parse().expect("LIMITS_JOBS is a number"))
}

fn job(n: usize) -> Job {
    Job::for_phone(&format!("0{n:09}"), &n.to_string())
}

/// Publishes in batches, because keeping every confirm of a million jobs would itself need much memory.
async fn publish(client: &Client, queue: &str, jobs: std::ops::Range<usize>) {
    let jobs: Vec<usize> = jobs.collect();
    for batch in jobs.chunks(2_000) {
        client.publish_all(queue, batch.iter().copied().map(job)).await;
    }
}

/// The process's memory that is in RAM, in KiB.
fn memory(running: &Running) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.process.pid())).expect("Linux's /proc");
    in_kib(&status, "VmRSS:")
}

fn in_kib(status: &str, what: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(what)).expect(what);
    line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
}

/// The processor time that the process has used.
fn processor_time(running: &Running) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", running.process.pid())).expect("Linux's /proc");
    // The second field is the name, in parentheses; user and system time are the 14th and 15th.
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number"));
    // A tick is 10 ms on every Linux that tests run on.
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn assert_no_more(what: &str, before: f64, after: f64) {
    println!("{what}: {before:.0} KiB before, {after:.0} KiB after");
    assert!(after < before * 1.5, "{what}: {before:.0} KiB grew to {after:.0} KiB");
}

/// Consumers without a limit take the whole queue into memory: <https://github.com/ruby-amqp/bunny/issues/603>,
/// <https://github.com/zulip/zulip/pull/20243>.
#[tokio::test]
async fn jobs_that_wait_in_the_queue_cost_the_worker_no_memory() {
    let mut stage = Stage::new().await;
    stage.set("OTP_BREAKER_FAILURES", "1").set("OTP_BREAKER_COOLDOWN", "1h").set("OTP_JOB_TTL", "2h");
    stage.sandbox.stop_listening().await.expect("a port to close");
    let mut running = stage.worker().await;
    let client = stage.client().await;
    let idle = memory(&running);
    publish(&client, &stage.names.jobs, 0..2_000).await;
    running.until_metric("otp_circuit_open", &[], 1.0).await;
    // The default of OTP_PREFETCH.
    running.until_metric("otp_jobs_in_flight", &[], 512.0).await;
    let (before, began) = (memory(&running), Instant::now());
    println!("a job that is held: {:.1} KiB", (before - idle) / 512.0);
    publish(&client, &stage.names.jobs, 2_000..queued()).await;
    println!("{} jobs queued in {:?}", queued() - 2_000, began.elapsed());
    assert_no_more("jobs that wait", before, memory(&running));
    assert_eq!(running.metric("otp_jobs_in_flight", &[]).await, 512.0);
    assert_eq!(running.stop().await, Some(0));
    let broker = Broker::shared().await;
    until("every job is back", LIMIT, async || broker.messages(&stage.names.jobs).await as usize == queued()).await;
    // Other tests share the broker, so the queue is deleted.
    client.channel().queue_delete(stage.names.jobs.as_str().into(), Default::default()).await.expect("the queue");
}

#[tokio::test]
async fn results_that_nobody_reads_pile_up_at_the_broker_and_not_in_the_worker() {
    // Enough for the results that a worker knows beside Redis: they are bounded, and grow up to their bound.
    let (first, all) = (25_000.min(queued() / 20), queued() / 10);
    let (mut stage, redis) = (Stage::new().await, Redis::start().await);
    // The ledger in memory would grow with the jobs, up to its own bound.
    stage.set("OTP_LEDGER_URL", &redis.url());
    let running = stage.worker().await;
    let client = stage.client().await;
    let done = async |jobs: usize| {
        let confirmed = [("status", "confirmed")];
        let within = Duration::from_secs(60 + jobs as u64 / 10);
        wait_for(running.http, "otp_results_published_total", &confirmed, |count| count == jobs as f64, within).await;
    };
    publish(&client, &stage.names.jobs, 0..first).await;
    done(first).await;
    let before = memory(&running);
    publish(&client, &stage.names.jobs, first..all).await;
    done(all).await;
    assert_no_more("results that nobody reads", before, memory(&running));
    running.until_settled(&stage.names).await;
    assert_eq!(Broker::shared().await.queue_depth(&stage.names.unrouted).await, u32::try_from(all).ok());
    assert_eq!((get(running.http, "/readyz").await.0, stage.sandbox.accepted_total() as usize), (200, all));
    // Other tests share the broker, so the queue is deleted.
    client.channel().queue_delete(stage.names.unrouted.as_str().into(), Default::default()).await.expect("the queue");
}

/// Reads until every job of `all` has a result.
async fn every_result(results: &mut Results, mut found: HashSet<String>, all: usize) {
    while found.len() < all {
        let result = results.next(LIMIT).await;
        let (outcome, attempts, may_be_duplicate) = ending(&result);
        assert_eq!((outcome.as_str(), attempts, may_be_duplicate), ("accepted", 1, false));
        found.insert(field(&result, "JobId"));
    }
}

/// A worker with as many calls in progress and jobs in hand as it may have, and with jobs that wait behind them.
async fn busy(stage: &mut Stage, at_once: usize, all: usize) -> (Running, Client, Results) {
    stage.set("OTP_CONCURRENCY", &at_once.to_string()).set("OTP_PREFETCH", &at_once.to_string());
    stage.set("ESMS_TIMEOUT", "2m").set("OTP_SHUTDOWN_GRACE", "3m");
    stage.sandbox.script(None, vec![Fault::Hold; at_once]);
    let running = stage.worker().await;
    let (listener, results) = stage.audience().await;
    publish(&stage.client().await, &stage.names.jobs, 0..all).await;
    let calls = stage.sandbox.wait_until_held(at_once as u64);
    timeout(LIMIT, calls).await.expect("the calls");
    (running, listener, results)
}

#[tokio::test]
async fn a_reply_exchange_that_does_not_confirm_stops_the_taking_of_jobs_until_it_does() {
    const AT_ONCE: usize = 8;
    const ALL: usize = 60;
    let broker = Broker::shared().await;
    let proxy = Proxy::start(broker.port()).await;
    let mut stage = Stage::new().await;
    stage.set("AMQP_URL", &broker.url_through(proxy.port()));
    let (_running, _listener, mut results) = busy(&mut stage, AT_ONCE, ALL).await;
    proxy.stall_named("esms-otp-worker publisher", Direction::ToClient);
    stage.sandbox.release_held();
    // These results are published, and not confirmed.
    let first = results.collect(AT_ONCE, LIMIT).await;
    let first: HashSet<String> = first.iter().map(|result| field(result, "JobId")).collect();
    assert_eq!(first.len(), AT_ONCE);
    let watched = Instant::now();
    while watched.elapsed() < Duration::from_secs(2) {
        assert_eq!(broker.unacked(&stage.names.jobs).await as usize, AT_ONCE);
        assert_eq!(stage.sandbox.stats().requests as usize, AT_ONCE, "nothing more is called");
    }
    proxy.resume();
    every_result(&mut results, first, ALL).await;
    until("every job is settled", LIMIT, async || broker.messages(&stage.names.jobs).await == 0).await;
    assert_eq!((stage.sandbox.accepted_total() as usize, stage.sandbox.duplicates()), (ALL, vec![]));
}

#[tokio::test]
async fn a_broker_out_of_memory_is_waited_for_without_spinning_and_nothing_is_lost() {
    const AT_ONCE: usize = 16;
    const ALL: usize = 200;
    let broker = Broker::start().await;
    let mut stage = Stage::on(&broker.url()).await;
    let (running, _listener, mut results) = busy(&mut stage, AT_ONCE, ALL).await;
    let watermark = async |share: &str| {
        broker.eval(&format!("vm_memory_monitor:set_vm_memory_high_watermark({share}).")).await;
    };
    watermark("0.0").await;
    until("the alarm", LIMIT, async || broker.eval("rabbit_alarm:get_alarms().").await.contains("memory")).await;
    stage.sandbox.release_held();
    running.until_not_ready().await;
    running.process.wait_for_log("the broker blocks publishers", LIMIT).await;

    let (used, began) = (processor_time(&running), Instant::now());
    // The test measures what happens in this time.
    sleep(Duration::from_secs(5)).await;
    let (used, took) = (processor_time(&running) - used, began.elapsed());
    println!("an alarm of {took:?} took {used:?} of processor time");
    assert!(used < took / 10, "{used:?} of processor time in {took:?}");
    assert_eq!(get(running.http, "/livez").await.0, 200);
    assert_eq!(stage.sandbox.stats().requests as usize, AT_ONCE, "nothing more is called");
    assert!(results.collect(1, Duration::from_millis(200)).await.is_empty());

    watermark("0.4").await;
    every_result(&mut results, HashSet::new(), ALL).await;
    running.until_ready().await;
    until("every job is settled", LIMIT, async || broker.messages(&stage.names.jobs).await == 0).await;
    assert_eq!((stage.sandbox.accepted_total() as usize, stage.sandbox.duplicates()), (ALL, vec![]));
    let confirmed = |count| count >= ALL as f64;
    wait_for(running.http, "otp_results_published_total", &[("status", "confirmed")], confirmed, LIMIT).await;
}

/// A pipe that is full blocks whoever writes to it. Programs that log directly stop working then, or never end:
/// <https://github.com/tokio-rs/tracing/issues/2653>, <https://github.com/cloudprober/cloudprober/pull/1481>,
/// <https://github.com/cockroachdb/cockroach/pull/23484>.
#[tokio::test]
async fn a_worker_whose_log_nobody_reads_works_on_counts_the_lines_that_are_lost_and_stops() {
    let mut stage = Stage::new().await;
    let http = format!("127.0.0.1:{}", ports::free_block(1));
    stage.set("HTTP_ADDR", &http).set("OTP_LEDGER_URL", "memory:");
    let process = Worker::spawn_unread(PROGRAM, &stage.env());
    let mut running = Running { process, http: http.parse().expect("an address") };
    until("it listens", LIMIT, async || TcpStream::connect(running.http).await.is_ok()).await;
    running.until_ready().await;
    let (client, before) = (stage.client().await, memory(&running));
    let mut told = 0;
    // Each of these is a line.
    while running.metric("otp_log_lines_dropped_total", &[]).await == 0.0 {
        assert!(told < 20_000, "more lines than that are kept");
        client.publish_all(&stage.names.jobs, (0..1_000).map(|_| Job::bytes("no job"))).await;
        told += 1_000;
        running.until_metric("otp_jobs_total", &[("outcome", "invalid")], f64::from(told)).await;
    }
    let kept = memory(&running) - before;
    println!("{told} lines: {kept:.0} KiB more");
    assert!(kept < 32.0 * 1024.0, "{kept:.0} KiB for lines that wait");
    let mut results = client.results(&stage.names.results, "otp.accepted").await;
    client.publish(&stage.names.jobs, job(1)).await;
    assert_eq!(ending(&results.next(LIMIT).await), ("accepted".to_owned(), 1, false));
    assert_eq!(running.stop().await, Some(0));
}

/// Clients that keep an answer whatever its size are killed for it: <https://github.com/JuliaWeb/HTTP.jl/pull/1262>,
/// <https://github.com/AzureAD/microsoft-authentication-library-for-go/issues/613>.
#[tokio::test]
async fn huge_pages_in_place_of_answers_cost_the_worker_no_memory_however_many_come_at_once() {
    const AT_ONCE: usize = 64;
    let mut stage = Stage::new().await;
    stage.set("OTP_ON_AMBIGUOUS", "give-up").set("OTP_CONCURRENCY", &AT_ONCE.to_string());
    stage.set("OTP_BREAKER_FAILURES", "1000");
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let before = memory(&running);
    stage.sandbox.script(None, vec![Fault::HugeBody { mib: 32 }; AT_ONCE]);
    publish(&client, &stage.names.jobs, 0..AT_ONCE).await;
    for result in results.collect(AT_ONCE, LIMIT).await {
        assert_eq!(ending(&result), ("unknown".to_owned(), 1, false));
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.process.pid())).expect("Linux's /proc");
    println!("before {before:.0} KiB, then {}", status.lines().find(|line| line.starts_with("VmHWM")).expect("VmHWM"));
    let most = in_kib(&status, "VmHWM:");
    assert!(most - before < 48.0 * 1024.0, "{before:.0} KiB grew to {most:.0} KiB");
    running.until_settled(&stage.names).await;
}
