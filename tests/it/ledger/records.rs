//! What is in the store: ids as the producers gave them, nothing personal, and nothing that stays for ever.

use std::collections::BTreeSet;

use esms_otp_worker::sandbox::Fault;
use tokio::time::timeout;

use super::{HOME, PACE, key, patient, until_state};
use crate::stage::{LIMIT, ending};
use crate::support::client::Job;
use crate::support::redis::Redis;

const DAY_MS: i64 = 24 * 3600 * 1000;

/// The keys of jobs' records.
async fn keys(redis: &Redis) -> BTreeSet<String> {
    redis.cli(&["--scan"]).await.lines().filter(|key| ![HOME, PACE].contains(key)).map(str::to_owned).collect()
}

/// Every key, and everything that is stored under it.
async fn dump(redis: &Redis) -> String {
    let mut all = String::new();
    for key in keys(redis).await.into_iter().chain([HOME, PACE].map(str::to_owned)) {
        all += &format!("{key}\n{}\n", redis.cli(&["HGETALL", &key]).await);
    }
    all
}

async fn assert_each_expires(redis: &Redis) {
    for key in keys(redis).await.into_iter().chain([PACE.to_owned()]) {
        let left: i64 = redis.cli(&["PTTL", &key]).await.parse().expect("a number");
        assert!((1..=DAY_MS).contains(&left), "{key}: {left}");
    }
}

#[tokio::test]
async fn ids_are_stored_as_they_were_given_and_results_carry_them() {
    let (stage, redis) = patient().await;
    let _running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let ids = [
        "đơn-hàng-✓-🔐".to_owned(),
        "x".repeat(200),
        "é".repeat(100),
        " a b  c".to_owned(),
        "{order}{1}".to_owned(),
        "*?[a-z]".to_owned(),
        "\"quoted\" 'twice' \\n".to_owned(),
        "a:b:job:c".to_owned(),
        "-n".to_owned(),
    ];
    for id in &ids {
        client.publish(&stage.names.jobs, Job::for_phone("0901888484", id)).await;
        let result = results.next(LIMIT).await;
        assert_eq!(result.json()["JobId"], id.as_str());
        assert_eq!(ending(&result).0, "accepted", "{id}");
        assert_eq!(redis.cli(&["HGET", &key(id), "state"]).await, "done", "{id}");
    }
    assert_eq!(keys(&redis).await, ids.iter().map(|id| key(id)).collect());
    assert_each_expires(&redis).await;
}

#[tokio::test]
async fn no_record_of_any_state_holds_a_number_or_a_credential_and_each_expires() {
    let (mut stage, redis) = patient().await;
    redis.cli(&["ACL", "SETUSER", "worker", "on", ">canary-password", "~*", "+@all"]).await;
    stage.set("OTP_LEDGER_URL", &format!("redis://worker:canary-password@127.0.0.1:{}/0", redis.port()));
    let phone = |n: u32| format!("098765432{n}");
    let later = Fault::Status { code: 503, retry_after: None };
    let repeats_all = Fault::EchoSecrets;
    let try_later = Fault::Code { code: "160".into(), message: format!("84{} is busy", &phone(3)[1..]) };
    for (n, fault) in
        [Fault::None, repeats_all, later, try_later, Fault::ResetAfter, Fault::Hold].into_iter().enumerate()
    {
        let n = u32::try_from(n).expect("a digit");
        stage.sandbox.script(Some(&phone(n)), vec![fault]);
    }
    // A job that is to be tried again waits until the end of the test.
    stage.set("OTP_RETRY_INITIAL", "2m").set("OTP_RETRY_MAX_INTERVAL", "2m").set("OTP_RETRY_MAX_ELAPSED", "4m");
    let mut running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    for n in 0..6 {
        client.publish(&stage.names.jobs, Job::for_phone(&phone(n), &format!("job-{n}"))).await;
    }
    assert_eq!(results.collect(2, LIMIT).await.len(), 2);
    running.until_metric("otp_attempts_total", &[], 5.0).await;
    timeout(LIMIT, stage.sandbox.wait_until_held(1)).await.expect("the call");
    for (n, state) in ["done", "done", "waiting", "waiting", "waiting", "sending"].into_iter().enumerate() {
        until_state(&redis, &format!("job-{n}"), state).await;
    }
    assert_silent(&dump(&redis).await);
    assert_each_expires(&redis).await;

    stage.sandbox.release_held();
    assert_eq!(running.stop().await, Some(0));
    let after = dump(&redis).await;
    assert_eq!(after.matches("\nreleased\n").count(), 3, "{after}");
    assert_silent(&after);
    assert_each_expires(&redis).await;
}

fn assert_silent(dump: &str) {
    for canary in ["98765432", "sandbox-key", "sandbox-secret", "canary-password", "guest"] {
        assert!(!dump.contains(canary), "{canary} in\n{dump}");
    }
}

#[tokio::test]
async fn a_record_lives_as_long_as_the_settings_say_after_its_last_change() {
    let (mut stage, redis) = patient().await;
    stage.set("OTP_LEDGER_TTL", "10m");
    let _running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone("0901888484", "a-job")).await;
    results.next(LIMIT).await;
    let left: i64 = redis.cli(&["PTTL", &key("a-job")]).await.parse().expect("a number");
    assert!((1..=600_000).contains(&left), "{left}");
}
