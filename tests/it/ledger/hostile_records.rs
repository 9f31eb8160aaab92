//! Records that no worker wrote. They may mean that the job was sent.

use super::{fingerprint, key, shared, told};
use crate::stage::{LIMIT, PHONE, Stage, ending, field};
use crate::support::client::{Job, Results};
use crate::support::redis::Redis;

/// Replaces each job's record by something else. Returns the ids.
async fn poisoned(redis: &Redis) -> Vec<String> {
    let print = fingerprint().text();
    let print = print.as_str();
    let records: &[&[&str]] = &[
        &["SET", "", "not a hash"],
        &["RPUSH", "", "a", "list"],
        &["HSET", "", "state", "done"],
        &["HSET", "", "state", "done", "fingerprint", print],
        &["HSET", "", "state", "done", "fingerprint", print, "result", "{\"Outcome\":\"perhaps\"}"],
        &["HSET", "", "state", "done", "fingerprint", "0", "result", "\u{1}"],
        &["HSET", "", "state", "sending", "fingerprint", print, "until", "soon"],
        &["HSET", "", "state", "sending", "fingerprint", print],
        &["HSET", "", "state", "sending", "fingerprint", print, "until", "1", "progress", "[]"],
        &["HSET", "", "state", "asleep", "fingerprint", print, "until", "1"],
    ];
    let mut ids = Vec::new();
    for (n, record) in records.iter().enumerate() {
        let id = format!("poisoned-{n}");
        let key = key(&id);
        let command: Vec<&str> = record.iter().map(|word| if word.is_empty() { key.as_str() } else { word }).collect();
        redis.cli(&command).await;
        ids.push(id);
    }
    ids
}

async fn publish(stage: &Stage, id: &str) {
    stage.client().await.publish(&stage.names.jobs, Job::for_phone(PHONE, id)).await;
}

async fn next(results: &mut Results) -> (String, (String, u64, bool)) {
    let result = results.next(LIMIT).await;
    (field(&result, "JobId"), ending(&result))
}

#[tokio::test]
async fn a_job_whose_record_cannot_be_read_is_sent_saying_so_and_counted() {
    let (stage, redis) = shared().await;
    let ids = poisoned(&redis).await;
    let running = stage.worker().await;
    let (_client, mut results) = stage.audience().await;
    for id in &ids {
        let before = running.metric("otp_ledger_errors_total", &[]).await;
        publish(&stage, id).await;
        assert_eq!(next(&mut results).await, (id.clone(), told("accepted", 1, true)));
        assert!(running.metric("otp_ledger_errors_total", &[]).await > before, "{id}");
        publish(&stage, &format!("good-{id}")).await;
        assert_eq!(next(&mut results).await, (format!("good-{id}"), told("accepted", 1, false)));
    }
    running.until_settled(&stage.names).await;
}

#[tokio::test]
async fn with_give_up_a_job_whose_record_cannot_be_read_is_unknown_and_never_sent() {
    let (mut stage, redis) = shared().await;
    stage.set("OTP_ON_AMBIGUOUS", "give-up");
    let ids = poisoned(&redis).await;
    let running = stage.worker().await;
    let (_client, mut results) = stage.audience().await;
    for id in &ids {
        publish(&stage, id).await;
        assert_eq!(next(&mut results).await, (id.clone(), told("unknown", 0, false)));
        let line = running.process.wait_for_log(&format!("\"job_id\":\"{id}\""), LIMIT).await;
        assert!(line.contains("WARN") && line.contains("delete"), "{line}");
        publish(&stage, &format!("good-{id}")).await;
        assert_eq!(next(&mut results).await, (format!("good-{id}"), told("accepted", 1, false)));
    }
    assert_eq!(stage.sandbox.stats().requests, ids.len() as u64, "only the good ones");
    running.until_settled(&stage.names).await;
}
