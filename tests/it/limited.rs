//! Limits on what is sent: a person gets one code and is told when to try again; a script gets next to nothing.

mod flood;

use std::time::{Duration, SystemTime};

use esms_otp_worker::sandbox::Fault;

use crate::stage::{LIMIT, PHONE, Running, Stage, ending, field};
use crate::support::client::{Client, Job, Received, Results};
use crate::support::redis::Redis;
use crate::support::wait::until;

const REFUSED: Fault = Fault::Status { code: 404, retry_after: None };
const REFUSAL: fn() -> Fault = || Fault::Code { code: "108".into(), message: String::new() };

/// Stages without and with a Redis.
async fn stages(settings: &[(&str, &str)]) -> [(Stage, Option<Redis>); 2] {
    let redis = Redis::start().await;
    let (mut alone, mut shared) = (Stage::new().await, Stage::new().await);
    shared.set("OTP_LEDGER_URL", &redis.url());
    for (name, value) in settings {
        alone.set(name, value);
        shared.set(name, value);
    }
    [(alone, None), (shared, Some(redis))]
}

async fn result_of(stage: &Stage, client: &Client, results: &mut Results, job: Job) -> Received {
    client.publish(&stage.names.jobs, job).await;
    results.next(LIMIT).await
}

fn outcome(result: &Received) -> String {
    ending(result).0
}

/// `RetryAfter`; 0 where there is none.
fn retry_after(result: &Received) -> u64 {
    result.json()["RetryAfter"].as_u64().unwrap_or_default()
}

async fn limited(running: &Running, limit: &str, prefix: &str) -> f64 {
    running.metric("otp_limited_total", &[("limit", limit), ("prefix", prefix)]).await
}

#[tokio::test]
async fn a_person_who_presses_resend_five_times_gets_one_code_and_is_told_when_to_try_again() {
    for (stage, _redis) in stages(&[("OTP_PHONE_COOLDOWN", "60s")]).await {
        let mut running = stage.worker().await;
        let (client, mut results) = stage.audience().await;
        let forms = ["0901888484", "84901888484", "+84 901 888 484", "0084901888484", "090.188.8484"];
        for (n, phone) in forms.iter().enumerate() {
            client.publish(&stage.names.jobs, Job::for_phone(phone, &n.to_string())).await;
        }
        let results = results.collect(forms.len(), LIMIT).await;
        let (sent, held): (Vec<_>, Vec<_>) = results.iter().partition(|result| outcome(result) == "accepted");
        assert_eq!((sent.len(), held.len()), (1, 4));
        for result in held {
            assert_eq!((outcome(result).as_str(), ending(result).1), ("limited", 0));
            assert!((50..=60).contains(&retry_after(result)), "{}", result.json());
            assert!(field(result, "Reason").contains("OTP_PHONE_COOLDOWN"), "{}", result.json());
            assert!(!String::from_utf8_lossy(&result.body).contains("901888"), "{}", result.json());
        }
        assert_eq!(stage.sandbox.accepted_total(), 1);
        assert_eq!(limited(&running, "cooldown", "").await, 4.0);
        running.until_metric("otp_jobs_total", &[("outcome", "limited")], 4.0).await;
        assert_eq!(running.metric("otp_numbers_total", &[("prefix", ""), ("seen", "new")]).await, 1.0);
        running.until_settled(&stage.names).await;
        running.stop().await;
        // A limit that works is no trouble: its lines are at info.
        let log = running.process.log();
        let mut lines = log.iter().filter(|line| line.contains("\"limited\""));
        assert!(lines.clone().count() == 4 && lines.all(|line| line.contains("\"INFO\"")), "{log:?}");
    }
}

#[tokio::test]
async fn only_otps_that_went_out_or_may_have_are_counted() {
    for (stage, _redis) in stages(&[("OTP_PHONE_LIMIT", "2/1h"), ("OTP_RESEND_LIMIT", "1")]).await {
        let running = stage.worker().await;
        let (client, mut results) = stage.audience().await;
        let mut send = async |id: &str, faults: Vec<Fault>| {
            stage.sandbox.script(None, faults);
            outcome(&result_of(&stage, &client, &mut results, Job::for_phone(PHONE, id)).await)
        };
        assert_eq!(send("failed", vec![REFUSED]).await, "failed");
        assert_eq!(send("rejected", vec![REFUSAL()]).await, "rejected");
        // Perhaps one OTP, from the first attempt: this place is not given back.
        assert_eq!(send("perhaps", vec![Fault::ResetAfter, REFUSAL()]).await, "rejected");
        assert_eq!(send("first", vec![]).await, "accepted");
        assert_eq!(send("second", vec![]).await, "limited");
        // A repeat of a job that is done takes no place, and gets its result.
        assert_eq!(send("first", vec![]).await, "accepted");
        running.until_settled(&stage.names).await;
    }
}

#[tokio::test]
async fn a_code_that_is_only_generated_is_neither_counted_nor_held_back() {
    for (stage, _redis) in stages(&[("OTP_PHONE_COOLDOWN", "1h"), ("OTP_PREFIX_DENY", "84")]).await {
        let _running = stage.worker().await;
        let (client, mut results) = stage.audience().await;
        for id in ["1", "2"] {
            let body = serde_json::json!({"Phone": PHONE, "MultiChannelTempId": "1234", "TypeId": "1"});
            let result = result_of(&stage, &client, &mut results, Job::new(body).id(id)).await;
            assert_eq!(outcome(&result), "accepted");
        }
    }
}

#[tokio::test]
async fn a_number_that_is_not_served_is_never_called_for_and_nobody_is_told_to_try_again() {
    let settings = [("OTP_PREFIX_ALLOW", "84"), ("OTP_PREFIX_DENY", "8499"), ("OTP_PREFIX_LIMIT", "8490:1/1h,*:5/1h")];
    for (stage, _redis) in stages(&settings).await {
        let running = stage.worker().await;
        let (client, mut results) = stage.audience().await;
        for (id, phone, setting) in [("1", "0991888484", "OTP_PREFIX_DENY"), ("2", "+12025550123", "OTP_PREFIX_ALLOW")]
        {
            for _ in 0..2 {
                let result = result_of(&stage, &client, &mut results, Job::for_phone(phone, id)).await;
                assert_eq!((outcome(&result), retry_after(&result)), ("limited".into(), 0));
                assert!(field(&result, "Reason").contains(setting), "{}", result.json());
            }
        }
        assert_eq!(stage.sandbox.stats().requests, 0);
        assert_eq!(limited(&running, "prefix_denied", "8499").await, 2.0);
        assert_eq!(limited(&running, "prefix_denied", "*").await, 2.0);
        assert_eq!(outcome(&result_of(&stage, &client, &mut results, Job::for_phone(PHONE, "3")).await), "accepted");
        let held = result_of(&stage, &client, &mut results, Job::for_phone("0901888485", "4")).await;
        assert_eq!((outcome(&held), limited(&running, "prefix", "8490").await), ("limited".into(), 1.0));
    }
}

#[tokio::test]
async fn a_job_that_was_held_back_is_tried_anew_when_its_producer_publishes_it_again_in_time() {
    for (stage, _redis) in stages(&[("OTP_PHONE_COOLDOWN", "1s")]).await {
        let running = stage.worker().await;
        let (client, mut results) = stage.audience().await;
        let job = |id: &str| Job::for_phone(PHONE, id);
        assert_eq!(outcome(&result_of(&stage, &client, &mut results, job("1")).await), "accepted");
        let mut runs = Vec::new();
        until("the cooldown is over", LIMIT, async || {
            let result = result_of(&stage, &client, &mut results, job("2")).await;
            runs.push(result.properties.message_id().clone().unwrap().to_string());
            if outcome(&result) == "limited" {
                assert_eq!(retry_after(&result), 1);
            }
            outcome(&result) == "accepted"
        })
        .await;
        assert_eq!(runs[0], "2:result");
        assert_eq!(*runs.last().unwrap(), format!("2:result:{}", runs.len()), "each run has a result of its own");
        assert_eq!(stage.sandbox.accepted(PHONE), 2);
        running.until_settled(&stage.names).await;
    }
}

#[tokio::test]
async fn a_second_job_for_a_number_gets_the_place_that_a_call_under_way_gives_back() {
    let settings = [("OTP_PHONE_COOLDOWN", "1h"), ("OTP_RETRY_MAX_ELAPSED", "1s"), ("OTP_BREAKER_FAILURES", "1000")];
    for (stage, _redis) in stages(&settings).await {
        let running = stage.worker().await;
        let (client, mut results) = stage.audience().await;
        stage.sandbox.stop_listening().await.unwrap();
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, "1")).await;
        running.until_metric("otp_jobs_in_flight", &[], 1.0).await;
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, "2")).await;
        assert_eq!(outcome(&results.next(LIMIT).await), "failed");
        stage.sandbox.listen_again().await.unwrap();
        assert_eq!(outcome(&results.next(LIMIT).await), "accepted");
    }
}

#[tokio::test]
async fn the_total_is_bounded_over_all_workers_that_share_a_redis_and_over_a_restart() {
    let [_, (mut stage, redis)] = stages(&[("OTP_TOTAL_LIMIT", "10/1h"), ("OTP_PREFIX_LIMIT", "84:8/1h")]).await;
    let (mut one, two) = (stage.worker().await, stage.worker().await);
    let (client, mut results) = stage.audience().await;
    let jobs = |from: usize| (from..from + 20).map(|n| Job::for_phone(&format!("0901{n:06}"), &n.to_string()));
    client.publish_all(&stage.names.jobs, jobs(0)).await;
    let sent = results.collect(20, LIMIT).await.iter().filter(|result| outcome(result) == "accepted").count();
    assert_eq!((sent, stage.sandbox.accepted_total()), (8, 8));
    one.stop().await;
    drop(two);
    // The number of places is the same after a restart, and so is the prefix's.
    let three = stage.set("OTP_PREFIX_LIMIT", "84:8/1h,44:100/1h").worker().await;
    client.publish_all(&stage.names.jobs, jobs(100)).await;
    assert!(results.collect(20, LIMIT).await.iter().all(|result| outcome(result) == "limited"));
    let abroad = (0..4).map(|n| Job::for_phone(&format!("0044{n:09}"), &format!("abroad-{n}")));
    client.publish_all(&stage.names.jobs, abroad).await;
    assert_eq!(results.collect(4, LIMIT).await.iter().filter(|result| outcome(result) == "accepted").count(), 2);
    assert_eq!(limited(&three, "total", "44").await, 2.0);
    assert_eq!(stage.sandbox.accepted_total(), 10);
    drop(redis);
}

#[tokio::test]
async fn while_redis_is_away_a_worker_applies_the_limits_to_what_it_has_counted_itself() {
    let [_, (stage, redis)] = stages(&[("OTP_PHONE_LIMIT", "2/1h"), ("OTP_PREFIX_DENY", "99")]).await;
    let redis = redis.expect("a Redis");
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let mut send = async |id: &str, phone: &str| {
        outcome(&result_of(&stage, &client, &mut results, Job::for_phone(phone, id)).await)
    };
    assert_eq!(send("1", PHONE).await, "accepted");
    redis.kill().await;
    assert_eq!(send("2", PHONE).await, "accepted");
    assert_eq!(send("3", PHONE).await, "limited");
    assert_eq!(send("4", "9901888484").await, "limited", "prefix rules always hold");
    redis.start_again().await;
    until("what was counted meanwhile is in Redis", LIMIT, async || {
        redis.cli(&["--scan", "--pattern", "*:job:2"]).await.contains(":job:2")
    })
    .await;
    assert_eq!(send("5", PHONE).await, "limited");
    assert_eq!(stage.sandbox.accepted(PHONE), 2);
    running.until_settled(&stage.names).await;
}

#[tokio::test]
async fn a_number_is_kept_as_a_keyed_hash_that_expires() {
    let [_, (stage, redis)] = stages(&[("OTP_PHONE_LIMIT", "2/1h"), ("OTP_TOTAL_LIMIT", "100/2h")]).await;
    let redis = redis.expect("a Redis");
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    assert_eq!(outcome(&result_of(&stage, &client, &mut results, Job::for_phone(PHONE, "1")).await), "accepted");
    running.until_settled(&stage.names).await;
    let keys = redis.cli(&["--scan"]).await;
    assert!(keys.contains(":number:") && keys.contains(":limit:total:7200000"), "{keys}");
    assert!(!keys.contains("901888"), "{keys}");
    for key in keys.lines().filter(|key| !key.ends_with(":home")) {
        let left: u64 = redis.cli(&["PTTL", key]).await.parse().expect("a time");
        assert!(left <= Duration::from_secs(24 * 3600).as_millis() as u64, "{key}: {left}");
    }
}

#[tokio::test]
async fn a_job_past_its_deadline_is_expired_whatever_the_limits_say_and_takes_no_place() {
    for (stage, _redis) in stages(&[("OTP_PHONE_LIMIT", "1/1h")]).await {
        let _running = stage.worker().await;
        let (client, mut results) = stage.audience().await;
        let late = || Job::for_phone(PHONE, "late").timestamp(SystemTime::now() - Duration::from_secs(3_600));
        assert_eq!(outcome(&result_of(&stage, &client, &mut results, late()).await), "expired");
        assert_eq!(outcome(&result_of(&stage, &client, &mut results, Job::for_phone(PHONE, "1")).await), "accepted");
        assert_eq!(outcome(&result_of(&stage, &client, &mut results, late()).await), "expired");
    }
}

#[tokio::test]
async fn a_worker_that_stops_still_tells_the_jobs_that_a_limit_holds_back() {
    for (mut stage, _redis) in stages(&[("OTP_PHONE_LIMIT", "1/1h")]).await {
        stage.set("OTP_CONCURRENCY", "1").set("OTP_PREFETCH", "10");
        let mut running = stage.worker().await;
        let (client, mut results) = stage.audience().await;
        assert_eq!(outcome(&result_of(&stage, &client, &mut results, Job::for_phone(PHONE, "1")).await), "accepted");
        stage.sandbox.script(None, vec![Fault::Hold]);
        client.publish(&stage.names.jobs, Job::for_phone("0901888485", "held")).await;
        stage.sandbox.wait_until_held(1).await;
        for n in 2..5 {
            client.publish(&stage.names.jobs, Job::for_phone(PHONE, &n.to_string())).await;
        }
        running.until_metric("otp_jobs_in_flight", &[], 4.0).await;
        running.process.signal("TERM");
        for result in results.collect(3, LIMIT).await {
            assert_eq!((outcome(&result), ending(&result).2), ("limited".into(), false));
        }
        stage.sandbox.release_held();
        assert_eq!(outcome(&results.next(LIMIT).await), "accepted");
        assert_eq!(running.process.wait_exit(LIMIT).await, Some(0));
    }
}

#[tokio::test]
async fn a_flood_for_a_number_whose_call_is_under_way_does_not_fill_the_worker() {
    for (mut stage, _redis) in stages(&[("OTP_PHONE_LIMIT", "1/1h")]).await {
        stage.set("OTP_CONCURRENCY", "4").set("OTP_PREFETCH", "80");
        let _running = stage.worker().await;
        let (client, mut results) = stage.audience().await;
        stage.sandbox.script(None, vec![Fault::Hold]);
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, "held")).await;
        stage.sandbox.wait_until_held(1).await;
        // More than may wait for the call; and behind them a job for another number.
        let flood = (0..200).map(|n| Job::for_phone(PHONE, &format!("flood-{n}")));
        client.publish_all(&stage.names.jobs, flood).await;
        client.publish(&stage.names.jobs, Job::for_phone("0901888485", "healthy")).await;
        loop {
            let result = results.next(LIMIT).await;
            if field(&result, "JobId") == "healthy" {
                break assert_eq!(outcome(&result), "accepted");
            }
            assert_eq!(outcome(&result), "limited");
        }
        stage.sandbox.release_held();
    }
}
