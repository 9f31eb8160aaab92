//! `job` tells one job's story from the ledger, in each state.

use esms_otp_worker::sandbox::Fault;
use serde_json::Value;
use tokio::time::timeout;

use crate::program::{Ended, run};
use crate::stage::{LIMIT, PHONE, Stage, ending};
use crate::support::client::Job;
use crate::support::redis::Redis;
use crate::support::wait::until;

const PREFIX: &str = "story:";

async fn stage() -> (Stage, Redis) {
    let (mut stage, redis) = (Stage::new().await, Redis::start().await);
    stage.set("OTP_LEDGER_URL", &redis.url()).set("OTP_LEDGER_PREFIX", PREFIX);
    (stage, redis)
}

/// It is not given eSMS's keys.
async fn job(stage: &Stage, args: &[&str]) -> Ended {
    let settings: Vec<_> = stage.env().into_iter().filter(|(name, _)| !name.starts_with("ESMS_")).collect();
    run(&[&["job"], args].concat(), &settings).await
}

fn assert_told(ended: &Ended, said: &[&str]) {
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
    for said in said {
        assert!(ended.stdout.contains(said), "{said:?} is not in:\n{}", ended.stdout);
    }
}

async fn state(redis: &Redis, id: &str) -> String {
    redis.cli(&["HGET", &format!("{PREFIX}job:{id}"), "state"]).await
}

async fn until_state(redis: &Redis, id: &str, wanted: &str) {
    until(wanted, LIMIT, async || state(redis, id).await == wanted).await;
}

#[tokio::test]
async fn a_job_that_has_ended_is_told_with_its_answer_and_what_a_repeat_gets() {
    let (mut stage, redis) = stage().await;
    stage.set("OTP_RETRY_MAX_ELAPSED", "0s").set("OTP_RESEND_LIMIT", "0");
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    for (id, fault, outcome, said) in [
        (
            "a",
            None,
            "accepted",
            &["state      ended: accepted (eSMS took it)", "CodeResult 100, SMSID ", "nothing is sent"],
        ),
        (
            "b",
            Some(Fault::Status { code: 404, retry_after: None }),
            "failed",
            &["state      ended: failed (nothing was sent)", "reason     ", "it is tried anew"],
        ),
        (
            "c",
            Some(Fault::Status { code: 500, retry_after: None }),
            "unknown",
            &["state      ended: unknown (an OTP may have gone out)", "attempts   1", "dead-letters requeue --new-id"],
        ),
    ] {
        stage.sandbox.script(None, fault.into_iter().collect());
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, id)).await;
        assert_eq!(ending(&results.next(LIMIT).await).0, outcome);
        let told = job(&stage, &[id]).await;
        assert_told(&told, said);
        assert_told(&told, &[&format!("job        {id}\n"), "ended      20", " ago\n", "kept       for "]);
    }
    // Tried anew.
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "b")).await;
    assert_eq!(ending(&results.next(LIMIT).await).0, "accepted");
    assert_told(&job(&stage, &["b"]).await, &["run        2: tried anew once", "ended: accepted"]);
    let story: Value = serde_json::from_str(&job(&stage, &["b", "--json"]).await.stdout).expect("JSON");
    assert_eq!((&story["JobId"], &story["State"], &story["Run"]), (&"b".into(), &"done".into(), &2.into()));
    assert_eq!((&story["Result"]["Outcome"], &story["Result"]["CodeResult"]), (&"accepted".into(), &"100".into()));
    // It only reads.
    let before = redis.cli(&["HGETALL", &format!("{PREFIX}job:a")]).await;
    job(&stage, &["a"]).await;
    assert_eq!(redis.cli(&["HGETALL", &format!("{PREFIX}job:a")]).await, before);
    running.until_settled(&stage.names).await;
}

#[tokio::test]
async fn a_job_in_hand_is_told_with_its_worker_and_its_lease() {
    let (mut stage, redis) = stage().await;
    stage.set("OTP_RETRY_INITIAL", "1h").set("OTP_RETRY_MAX_INTERVAL", "1h").set("OTP_RETRY_MAX_ELAPSED", "3h");
    stage
        .set("OTP_JOB_TTL", "5h")
        .set("OTP_RESEND_LIMIT", "5")
        .set("ESMS_TIMEOUT", "1m")
        .set("OTP_SHUTDOWN_GRACE", "2m");
    let mut running = stage.worker().await;
    let name = running.process.wait_for_log("recorded under this name", LIMIT).await;
    let name: Value = serde_json::from_str(&name).expect("JSON");
    let name = name["worker"].as_str().expect("a name").to_owned();
    let client = stage.client().await;
    stage.sandbox.script(Some(PHONE), vec![Fault::Hold]);
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "sending")).await;
    timeout(LIMIT, stage.sandbox.wait_until_held(1)).await.expect("the request arrives");
    let told = job(&stage, &["sending"]).await;
    let worker = format!("worker     {name} has it; its log says \"worker\":\"{name}\" at its start");
    assert_told(
        &told,
        &["state      sending: an attempt is under way", &worker, "lease      for ", "attempts   1; the last began "],
    );

    stage.sandbox.script(Some("0901888485"), vec![Fault::Status { code: 500, retry_after: None }]);
    client.publish(&stage.names.jobs, Job::for_phone("0901888485", "waiting")).await;
    until_state(&redis, "waiting", "waiting").await;
    let told = job(&stage, &["waiting"]).await;
    let ambiguous = "attempts   1, 1 of which may have sent an OTP without a usable answer";
    assert_told(
        &told,
        &[
            "state      waiting: the last attempt is over",
            ambiguous,
            "trouble    ",
            "its worker ends it",
            "; if that worker has died, another",
        ],
    );
    let story: Value = serde_json::from_str(&job(&stage, &["waiting", "--json"]).await.stdout).expect("JSON");
    assert_eq!((&story["Worker"], &story["AmbiguousAttempts"]), (&name.into(), &1.into()));
    assert!(story["LeaseSeconds"].as_f64() > Some(60.0) && story["KeptSeconds"].as_f64() > Some(80_000.0), "{story}");

    // What a worker leaves that is killed, once its lease is over, and one that is stopped.
    running.process.signal("KILL");
    assert_eq!(running.process.wait_exit(LIMIT).await, Some(137));
    redis.cli(&["HSET", &format!("{PREFIX}job:sending"), "until", "1"]).await;
    let over = ["how it ended was not written down", "had it last", "lease      over", "OTP_ON_AMBIGUOUS decides"];
    assert_told(&job(&stage, &["sending"]).await, &over);
    redis.cli(&["HSET", &format!("{PREFIX}job:waiting"), "until", "1"]).await;
    assert_told(&job(&stage, &["waiting"]).await, &["its worker made no other", "the next worker goes on with it"]);
}

#[tokio::test]
async fn a_job_that_a_worker_gave_back_is_told_as_such() {
    let (mut stage, redis) = stage().await;
    stage.set("OTP_RETRY_INITIAL", "1h").set("OTP_RETRY_MAX_INTERVAL", "1h").set("OTP_RETRY_MAX_ELAPSED", "3h");
    stage.set("OTP_JOB_TTL", "5h");
    let mut running = stage.worker().await;
    let client = stage.client().await;
    stage.sandbox.script(None, vec![Fault::Status { code: 503, retry_after: None }]);
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a")).await;
    until_state(&redis, "a", "waiting").await;
    assert_eq!(running.stop().await, Some(0));
    let told = job(&stage, &["a"]).await;
    assert_told(
        &told,
        &["state      released: a worker gave it back to the broker", "lease      none: the worker has given"],
    );
    redis.cli(&["HSET", &format!("{PREFIX}job:a"), "state", "claimed", "until", "99999999999999"]).await;
    assert_told(&job(&stage, &["a"]).await, &["state      claimed: a worker has it, and no attempt is under way"]);
}

#[tokio::test]
async fn a_job_that_is_not_known_and_a_record_that_cannot_be_read_are_told_with_the_reasons() {
    let (stage, redis) = stage().await;
    let _running = stage.worker().await;
    for id in ["unheard-of", "", "\u{1b}[2J\u{202e}", "a b\n*", &"x".repeat(200), "*", "../home"] {
        if id.is_empty() {
            continue;
        }
        let ended = job(&stage, &["--", id]).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{id:?}: {ended:?}");
        let (queue, dead) = (&stage.names.jobs, &stage.names.dead);
        for said in [
            "the ledger has no record of the job ",
            &format!("is it still on the queue {queue}, and"),
            &format!("then it is on {dead} (esms-otp-worker dead-letters show ID)"),
            "OTP_LEDGER_TTL",
            "OTP_LEDGER_PREFIX",
        ] {
            assert!(ended.stderr.contains(said), "{said} is not in: {ended:?}");
        }
        assert!(!ended.stderr.contains(['\u{1b}', '\u{202e}']), "{ended:?}");
    }
    for id in ["", &"x".repeat(201)] {
        let ended = job(&stage, &["--", id]).await;
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains("1 to 200 bytes"), "{ended:?}");
    }
    let masked = job(&stage, &[PHONE]).await;
    assert!(masked.stderr.contains("*******484") && !masked.stderr.contains(PHONE), "{masked:?}");

    let key = |id: &str| format!("{PREFIX}job:{id}");
    redis.cli(&["SET", &key("text"), "x"]).await;
    redis.cli(&["HSET", &key("future"), "fingerprint", "f", "state", "teleported"]).await;
    redis.cli(&["HSET", &key("half"), "fingerprint", "f", "state", "done"]).await;
    redis.cli(&["HSET", &key("odd"), "fingerprint", "f", "state", "sending", "until", "9", "progress", "{"]).await;
    for id in ["text", "future", "half", "odd"] {
        let ended = job(&stage, &[id]).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{id}: {ended:?}");
        assert!(ended.stderr.contains("cannot be read") && ended.stderr.contains("delete it"), "{ended:?}");
    }
}

#[tokio::test]
async fn without_a_redis_that_answers_it_says_what_to_do() {
    let (mut stage, redis) = stage().await;
    // No worker was there.
    let ended = job(&stage, &["a"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended.stderr.contains("no worker has kept anything") && ended.stderr.contains("of the workers"),
        "{ended:?}"
    );
    redis.kill().await;
    let ended = job(&stage, &["a"]).await;
    assert!(ended.code == 1 && ended.stderr.contains("check OTP_LEDGER_URL"), "{ended:?}");
    stage.unset("OTP_LEDGER_URL");
    let ended = job(&stage, &["a"]).await;
    assert_eq!(ended.code, 2, "{ended:?}");
    for said in
        ["with memory: only the worker itself knows", "OTP_LEDGER_URL=redis://HOST:6379", "esms-otp-worker job --help"]
    {
        assert!(ended.stderr.contains(said), "{said} is not in: {ended:?}");
    }
    assert_eq!(run(&["job"], &[]).await.code, 2);
}
