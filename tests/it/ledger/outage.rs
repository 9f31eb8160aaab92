//! A store that cannot be reached. Jobs go on without it or wait for it, as `OTP_LEDGER_ON_ERROR` says.
//! When it is back, the worker uses it again.

use std::time::{Duration, Instant};

use esms_otp_worker::sandbox::Fault;
use lapin::options::{BasicGetOptions, BasicNackOptions};
use tokio::time::{sleep, timeout};

use super::{GIVE_UP, HOLD, MOMENT, key, patient, shared, state, told, until_state};
use crate::stage::{LIMIT, PHONE, Running, Stage, ending};
use crate::support::broker::Broker;
use crate::support::client::{Client, Job};
use crate::support::metrics::{get, wait_for};
use crate::support::proxy::{Direction, Proxy};
use crate::support::redis::Redis;
use crate::support::wait::until;

/// The limit for steps that need no waiting. It is long enough for a slow machine.
const PROMPT: Duration = Duration::from_secs(20);

/// How a store goes away.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    /// The server is killed: the connection ends, and new ones are refused.
    Killed,
    /// The network resets open connections and refuses new ones.
    Refused,
    /// The network takes everything and delivers nothing: no reset, no refusal.
    Stalled,
}

pub(super) const TROUBLES: [Trouble; 3] = [Trouble::Killed, Trouble::Refused, Trouble::Stalled];

/// A stage with workers that reach their Redis through a proxy.
pub(super) struct Afar {
    pub(super) stage: Stage,
    pub(super) redis: Redis,
    proxy: Proxy,
}

impl Afar {
    pub(super) async fn new(settings: &[(&str, &str)]) -> Self {
        let (mut stage, redis) = patient().await;
        let proxy = Proxy::start(redis.port()).await;
        stage.set("OTP_LEDGER_URL", &redis.url_through(proxy.port()));
        for (name, value) in settings {
            stage.set(name, value);
        }
        Self { stage, redis, proxy }
    }

    pub(super) async fn begin(&self, trouble: Trouble) {
        match trouble {
            Trouble::Killed => self.redis.kill().await,
            Trouble::Refused => {
                self.proxy.refuse().await;
                self.proxy.cut().await;
            }
            Trouble::Stalled => self.proxy.stall(Direction::Both),
        }
    }

    pub(super) async fn end(&self, trouble: Trouble) {
        match trouble {
            Trouble::Killed => self.redis.start_again().await,
            Trouble::Refused => self.proxy.accept_again().await,
            Trouble::Stalled => self.proxy.resume(),
        }
    }

    pub(super) async fn publish(&self, client: &Client, id: &str) {
        client.publish(&self.stage.names.jobs, Job::for_phone(PHONE, id)).await;
    }
}

async fn until_errors(running: &Running, more_than: f64) {
    wait_for(running.http, "otp_ledger_errors_total", &[], |errors| errors > more_than, LIMIT).await;
}

async fn assert_well(running: &Running) {
    assert_eq!((get(running.http, "/readyz").await.0, get(running.http, "/livez").await.0), (200, 200));
}

#[tokio::test]
async fn with_send_jobs_are_sent_and_counted_and_the_ledger_is_used_again_once_it_is_back() {
    for trouble in TROUBLES {
        let afar = Afar::new(&[]).await;
        let running = afar.stage.worker().await;
        let (client, mut results) = afar.stage.audience().await;
        afar.publish(&client, "before").await;
        assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, false));
        until_state(&afar.redis, "before", "done").await;
        assert_eq!(running.metric("otp_ledger_errors_total", &[]).await, 0.0);

        afar.begin(trouble).await;
        afar.publish(&client, "during").await;
        assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, false), "{trouble:?}");
        assert!(running.metric("otp_ledger_errors_total", &[]).await > 0.0, "{trouble:?}");
        assert_well(&running).await;
        let line = running.process.wait_for_log("the ledger does not answer", LIMIT).await;
        assert!(line.contains("WARN") && line.contains("jobs are sent all the same"), "{line}");
        // This process knows the job, although no other process does.
        afar.publish(&client, "during").await;
        assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, false), "{trouble:?}");
        assert_eq!(afar.stage.sandbox.stats().requests, 2, "{trouble:?}");

        afar.end(trouble).await;
        // After a failure the ledger is not tried for a moment, so the first job may still go without it.
        let mut n = 0;
        until("a job is in the ledger again", LIMIT, async || {
            n += 1;
            let id = format!("after-{n}");
            afar.publish(&client, &id).await;
            assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, false), "{trouble:?}");
            // The write-back may be the first that finds the ledger, and says nothing.
            let answers = !running.process.log_containing("the ledger answers again").is_empty();
            state(&afar.redis, &id).await == "done" && answers
        })
        .await;
        assert_eq!(state(&afar.redis, "before").await, "done", "what was answered is still there");
        running.until_settled(&afar.stage.names).await;
    }
}

/// The broker delivers the job to somebody who gives it back. Its next delivery is then a redelivery.
async fn deliver_in_vain(client: &Client, queue: &str) {
    let got = client.channel().basic_get(queue.into(), BasicGetOptions::default()).await.expect("an answer");
    let requeue = BasicNackOptions { requeue: true, ..Default::default() };
    assert!(got.expect("a job").delivery.acker.nack(requeue).await.expect("a nack"));
}

#[tokio::test]
async fn with_send_a_job_redelivered_while_the_store_is_away_is_sent_and_says_that_it_may_be_a_duplicate() {
    let (stage, redis) = shared().await;
    stage.worker().await.stop().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "redelivered")).await;
    deliver_in_vain(&client, &stage.names.jobs).await;
    redis.kill().await;
    // The same holds for a worker that starts without its store.
    let running = stage.worker().await;
    assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, true));
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "new")).await;
    assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, false));
    running.until_settled(&stage.names).await;
}

#[tokio::test]
async fn with_hold_nothing_is_called_while_the_store_is_away_and_all_is_when_it_is_back() {
    for (trouble, settings) in TROUBLES.into_iter().zip([HOLD, GIVE_UP, HOLD]) {
        let afar = Afar::new(settings).await;
        let running = afar.stage.worker().await;
        let (client, mut results) = afar.stage.audience().await;
        afar.publish(&client, "before").await;
        results.next(LIMIT).await;
        afar.begin(trouble).await;
        let requests = afar.stage.sandbox.stats().requests;
        afar.publish(&client, "during").await;
        until_errors(&running, 2.0).await;
        assert_well(&running).await;
        assert!(results.collect(1, MOMENT).await.is_empty(), "{trouble:?}");
        assert_eq!(afar.stage.sandbox.stats().requests, requests, "{trouble:?}");
        let line = running.process.wait_for_log("the ledger does not answer", LIMIT).await;
        assert!(line.contains("jobs wait until it does"), "{line}");
        assert_eq!(running.process.log_containing("the ledger does not answer").len(), 1, "said once, not each time");
        afar.end(trouble).await;
        assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, false), "{trouble:?}");
        assert_eq!(afar.stage.sandbox.stats().requests, requests + 1, "{trouble:?}");
        until_state(&afar.redis, "during", "done").await;
        running.until_settled(&afar.stage.names).await;
    }
}

#[tokio::test]
async fn with_hold_an_answer_that_comes_while_the_store_is_away_is_recorded_before_it_is_told() {
    for trouble in [Trouble::Killed, Trouble::Stalled] {
        let afar = Afar::new(HOLD).await;
        afar.stage.sandbox.script(None, vec![Fault::Hold]);
        let running = afar.stage.worker().await;
        let (client, mut results) = afar.stage.audience().await;
        afar.publish(&client, "a-job").await;
        timeout(LIMIT, afar.stage.sandbox.wait_until_held(1)).await.expect("the call");
        afar.begin(trouble).await;
        afar.stage.sandbox.release_held();
        until_errors(&running, 1.0).await;
        assert!(results.collect(1, MOMENT).await.is_empty(), "{trouble:?}");
        afar.end(trouble).await;
        let result = results.next(LIMIT).await;
        assert_eq!(ending(&result), told("accepted", 1, false), "{trouble:?}");
        assert_eq!(afar.redis.cli(&["HGET", &key("a-job"), "result"]).await.as_bytes(), result.body);
        running.until_settled(&afar.stage.names).await;
    }
}

#[tokio::test]
async fn a_worker_that_holds_its_jobs_stops_at_once_and_leaves_them_to_the_next() {
    for trouble in TROUBLES {
        let afar = Afar::new(HOLD).await;
        let mut running = afar.stage.worker().await;
        let (client, mut results) = afar.stage.audience().await;
        afar.begin(trouble).await;
        afar.publish(&client, "a-job").await;
        until_errors(&running, 0.0).await;
        let asked = Instant::now();
        assert_eq!(running.stop().await, Some(0), "{trouble:?}");
        assert!(asked.elapsed() < PROMPT, "{trouble:?}: {:?}", asked.elapsed());
        let ready = async || Broker::shared().await.queue_depth(&afar.stage.names.jobs).await == Some(1);
        until("the job is back", LIMIT, ready).await;
        assert!(results.collect(1, MOMENT).await.is_empty());
        assert_eq!(afar.stage.sandbox.stats().requests, 0);
        afar.end(trouble).await;
        let _next = afar.stage.worker().await;
        assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, false), "{trouble:?}");
    }
}

#[tokio::test]
async fn a_worker_that_holds_another_job_of_the_same_id_stops_at_once_too() {
    let afar = Afar::new(HOLD).await;
    afar.stage.sandbox.script(None, vec![Fault::Status { code: 503, retry_after: Some("25".into()) }]);
    let mut running = afar.stage.worker().await;
    let client = afar.stage.client().await;
    afar.publish(&client, "an-id").await;
    until_state(&afar.redis, "an-id", "waiting").await;
    afar.begin(Trouble::Killed).await;
    client.publish(&afar.stage.names.jobs, Job::for_phone("0901888485", "an-id")).await;
    until_errors(&running, 0.0).await;
    let asked = Instant::now();
    assert_eq!(running.stop().await, Some(0));
    assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
    let ready = async || Broker::shared().await.queue_depth(&afar.stage.names.jobs).await == Some(2);
    until("both are back", LIMIT, ready).await;
}

#[tokio::test]
async fn a_job_whose_deadline_passes_while_it_is_held_is_expired_and_was_never_sent() {
    let afar = Afar::new(&[("OTP_LEDGER_ON_ERROR", "hold"), ("OTP_JOB_TTL", "1s")]).await;
    let running = afar.stage.worker().await;
    let (client, mut results) = afar.stage.audience().await;
    afar.begin(Trouble::Killed).await;
    for n in 0..10 {
        afar.publish(&client, &format!("job-{n}")).await;
    }
    until_errors(&running, 10.0).await;
    // The test waits for the time itself to pass.
    sleep(Duration::from_millis(1_100)).await;
    afar.end(Trouble::Killed).await;
    let results = results.collect(10, LIMIT).await;
    assert_eq!(results.len(), 10);
    assert!(results.iter().all(|result| ending(result) == told("expired", 0, false)));
    assert_eq!(afar.stage.sandbox.stats().requests, 0);
    running.until_settled(&afar.stage.names).await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_recorded_before_the_grace_is_over_is_never_sent_again_with_give_up() {
    // Short, so that the lease is over soon. The grace must be longer than an attempt.
    let short = [("ESMS_TIMEOUT", "2s"), ("OTP_SHUTDOWN_GRACE", "2100ms"), GIVE_UP[0]];
    let afar = Afar::new(&short).await;
    afar.stage.sandbox.script(None, vec![Fault::Hold]);
    let mut running = afar.stage.worker().await;
    let (client, mut results) = afar.stage.audience().await;
    afar.publish(&client, "a-job").await;
    timeout(LIMIT, afar.stage.sandbox.wait_until_held(1)).await.expect("the call");
    afar.begin(Trouble::Refused).await;
    afar.stage.sandbox.release_held();
    until_errors(&running, 0.0).await;
    assert_eq!(running.stop().await, Some(4), "it could not finish, and says so");
    afar.end(Trouble::Refused).await;
    let next = afar.stage.worker().await;
    assert_eq!(ending(&results.next(LIMIT).await), told("unknown", 1, false));
    assert_eq!(afar.stage.sandbox.stats().requests, 1);
    next.until_settled(&afar.stage.names).await;
}
