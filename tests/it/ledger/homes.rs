//! Several deployments with one Redis: none sees another's jobs.

use esms_otp_worker::ledger::store::{Store, StoreError};

use super::{HOLD, HOME, LEASE, PREFIX, key, shared, state, steps, store_of, told};
use crate::broker_failures::CONSUMER;
use crate::program::run;
use crate::stage::{LIMIT, PHONE, Running, Stage, ending};
use crate::support::broker::Broker;
use crate::support::client::Job;
use crate::support::metrics::get;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::wait::until;

/// A stage whose workers use this Redis and name no prefix.
async fn without_prefix(redis: &Redis) -> Stage {
    let mut stage = Stage::new().await;
    stage.set("OTP_LEDGER_URL", &redis.url());
    stage
}

#[tokio::test]
async fn the_same_id_in_two_deployments_on_one_redis_is_two_jobs() {
    let redis = Redis::start().await;
    for _ in 0..2 {
        let stage = without_prefix(&redis).await;
        let running = stage.worker().await;
        let (client, mut results) = stage.audience().await;
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, "1001")).await;
        let result = results.next(LIMIT).await;
        assert_eq!(ending(&result), told("accepted", 1, false));
        assert_eq!(stage.sandbox.accepted(PHONE), 1);
        let key = format!("esms-otp-worker:/:{}:job:1001", stage.names.jobs);
        assert_eq!(redis.cli(&["HGET", &key, "state"]).await, "done");
        running.until_settled(&stage.names).await;
    }
}

#[tokio::test]
async fn a_prefix_of_another_deployment_is_refused_at_start_and_by_check_with_what_to_set() {
    let (stage, redis) = shared().await;
    stage.worker().await.stop().await;
    let mut other = Stage::new().await;
    other.set("OTP_LEDGER_URL", &redis.url()).set("OTP_LEDGER_PREFIX", PREFIX);
    for command in ["run", "check"] {
        let ended = run(&[command], &other.env()).await;
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, 1, "{said}");
        assert!(said.contains(&stage.names.jobs) && said.contains("OTP_LEDGER_PREFIX"), "{said}");
    }
    assert_eq!(redis.cli(&["HGET", HOME, "queue"]).await, stage.names.jobs, "it stays whose it was");
    // The first one starts again.
    stage.worker().await.stop().await;
}

#[tokio::test]
async fn another_broker_with_the_same_names_is_another_deployment() {
    let (stage, redis) = shared().await;
    stage.worker().await.stop().await;
    let cluster = redis.cli(&["HGET", HOME, "broker"]).await;
    assert!(!cluster.is_empty(), "the broker says its cluster's name");
    redis.cli(&["HSET", HOME, "broker", "rabbit@another"]).await;
    for command in ["run", "check"] {
        let ended = run(&[command], &stage.env()).await;
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, 1, "{said}");
        assert!(said.contains("rabbit@another") && said.contains("OTP_LEDGER_PREFIX"), "{said}");
    }
    // What the message says for a broker that only has another name now.
    redis.cli(&["DEL", HOME]).await;
    stage.worker().await.stop().await;
    assert_eq!(redis.cli(&["HGET", HOME, "broker"]).await, cluster);
}

#[tokio::test]
async fn all_workers_of_a_queue_share_the_key_of_fingerprints_and_it_stays() {
    let (stage, redis) = shared().await;
    stage.worker().await.stop().await;
    let key = redis.cli(&["HGET", HOME, "key"]).await;
    assert_eq!(key.len(), 64);
    stage.worker().await.stop().await;
    assert_eq!(redis.cli(&["HGET", HOME, "key"]).await, key);
    assert_eq!(redis.cli(&["PTTL", HOME]).await, "-1", "it does not expire");
}

#[tokio::test]
async fn the_brokers_name_once_it_is_known_tells_two_deployments_of_the_same_names_apart() {
    let redis = Redis::start().await;
    let [first, second] = [(); 2].map(|()| store_of(&redis, "otp.jobs", LEASE));
    assert_eq!(first.open().await, Ok(()));
    assert_eq!(second.open().await, Ok(()), "nobody knows a name yet");
    assert_eq!(first.belongs_to("rabbit@one").await, Ok(()));
    assert_eq!(first.belongs_to("rabbit@one").await, Ok(()), "it stays ours");
    let another = second.belongs_to("rabbit@two").await;
    assert!(matches!(&another, Err(StoreError::NotOurs(whose)) if whose.contains("rabbit@one")), "{another:?}");
    // A worker that does not know the name yet is let in.
    assert_eq!(store_of(&redis, "otp.jobs", LEASE).open().await, Ok(()));
    assert_eq!(redis.cli(&["HGET", HOME, "broker"]).await, "rabbit@one");
}

/// A worker that was started while its Redis was away, which is back now with the home of another broker.
async fn begun_without(stage: &Stage, redis: &Redis) -> Running {
    stage.worker().await.stop().await;
    redis.cli(&["HSET", HOME, "broker", "rabbit@another"]).await;
    redis.stop().await;
    let running = stage.worker().await;
    running.process.wait_for_log("the ledger does not answer", LIMIT).await;
    redis.start_again().await;
    running
}

/// The record of another deployment is as it was, and no job was written beside it.
async fn assert_untouched(redis: &Redis) {
    assert_eq!(redis.cli(&["HGET", HOME, "broker"]).await, "rabbit@another");
    let keys = redis.cli(&["KEYS", &format!("{PREFIX}*")]).await;
    // What the workers tell each other of their pace is no record of a job.
    assert_eq!(keys.lines().filter(|key| !key.ends_with(":pace")).collect::<Vec<_>>(), [HOME]);
}

#[tokio::test]
async fn with_hold_a_worker_that_learns_late_that_its_prefix_is_anothers_says_so_and_sends_nothing() {
    let (mut stage, redis) = shared().await;
    for (name, value) in HOLD {
        stage.set(name, value);
    }
    let mut running = begun_without(&stage, &redis).await;
    stage.client().await.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    let said = running.process.wait_for_log("rabbit@another", LIMIT).await;
    assert!(said.contains("OTP_LEDGER_PREFIX") && said.contains("jobs wait until it does"), "{said}");
    assert_eq!(get(running.http, "/readyz").await.0, 200, "it has the job, and waits");
    assert_eq!(running.stop().await, Some(0));
    assert_eq!(stage.sandbox.stats().requests, 0);
    let depth = async || Broker::shared().await.queue_depth(&stage.names.jobs).await;
    until("the job is back", LIMIT, async || depth().await == Some(1)).await;
    assert_untouched(&redis).await;
}

/// With `send` it works as while Redis is away, until its next connection to the broker: from then on it takes no job.
#[tokio::test]
async fn a_worker_that_learns_late_that_its_prefix_is_anothers_takes_no_job_over_its_next_connection() {
    let (mut stage, redis) = shared().await;
    let proxy = Proxy::start(Broker::shared().await.port()).await;
    stage.set("AMQP_URL", &Broker::shared().await.url_through(proxy.port()));
    let running = begun_without(&stage, &redis).await;
    let (client, mut results) = stage.audience().await;
    let publish = async |id: &str| client.publish(&stage.names.jobs, Job::for_phone(PHONE, id)).await;
    // A second question: so the first has been answered.
    until("Redis is asked whose the prefix is", LIMIT, async || steps(&redis).await >= 2).await;
    publish("as-if-away").await;
    assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, false));
    running.process.wait_for_log("rabbit@another", LIMIT).await;
    running.until_settled(&stage.names).await;
    assert_untouched(&redis).await;

    proxy.cut_matching(CONSUMER).await;
    running.until_not_ready().await;
    publish("too-late").await;
    let refused = |line: &String| line.contains("rabbit@another") && line.contains("OTP_LEDGER_PREFIX");
    let not_consuming = || running.process.log_containing("\"not consuming\"");
    until("it says why", LIMIT, async || not_consuming().iter().any(refused)).await;
    assert_eq!(get(running.http, "/readyz").await.0, 503);
    assert_eq!(stage.sandbox.stats().requests, 1, "the second job is not sent");
    assert_untouched(&redis).await;

    // What the message says for a broker that only has another name now.
    redis.cli(&["DEL", HOME]).await;
    assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, false));
    assert_eq!(state(&redis, "too-late").await, "done");
    running.until_ready().await;
    until("what Redis was not told is told", LIMIT, async || state(&redis, "as-if-away").await == "done").await;
    assert!(redis.cli(&["HGET", &key("as-if-away"), "result"]).await.contains("accepted"));
}

#[tokio::test]
async fn a_worker_whose_redis_comes_back_as_anothers_before_it_has_consumed_ends_and_says_what_to_set() {
    let (mut stage, redis) = shared().await;
    stage.worker().await.stop().await;
    redis.cli(&["HSET", HOME, "broker", "rabbit@another"]).await;
    redis.stop().await;
    let proxy = Proxy::start(Broker::shared().await.port()).await;
    stage.set("AMQP_URL", &Broker::shared().await.url_through(proxy.port()));
    proxy.refuse().await;
    let mut process = stage.spawn();
    process.wait_for_log("the ledger does not answer", LIMIT).await;
    redis.start_again().await;
    // The broker's name is not known yet, so Redis is taken.
    until("Redis is asked whose the prefix is", LIMIT, async || steps(&redis).await > 0).await;
    stage.client().await.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    proxy.accept_again().await;
    assert_eq!(process.wait_exit(LIMIT).await, Some(1), "{:?}", process.log());
    let said = process.wait_for_log("\"ended\"", LIMIT).await;
    assert!(said.contains("rabbit@another") && said.contains("OTP_LEDGER_PREFIX"), "{said}");
    assert!(process.log_containing("\"consuming\"").is_empty());
    assert_eq!(stage.sandbox.stats().requests, 0);
    assert_untouched(&redis).await;
}
