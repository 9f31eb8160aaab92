//! A rolling restart, as a Deployment does it: each worker is told to stop when its successor is ready. Also what is left
//! in Redis by the version before.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::stage::{LIMIT, PHONE, Running, Stage, ending, field};
use crate::support::client::Job;
use crate::support::redis::Redis;

const WORKERS: usize = 3;
const JOBS: usize = 1_200;

fn errors(running: &Running) -> Vec<String> {
    running.process.log_containing("\"ERROR\"")
}

#[tokio::test]
async fn a_rolling_restart_under_load_loses_nothing_repeats_nothing_and_logs_no_error() {
    let (mut stage, redis) = (Stage::new().await, Redis::start().await);
    stage.set("OTP_LEDGER_URL", &redis.url()).set("OTP_CONCURRENCY", "16").set("OTP_SHUTDOWN_GRACE", "1m");
    // On a very busy machine a step of the ledger may take too long. Then the jobs wait for it.
    stage.set("OTP_LEDGER_ON_ERROR", "hold");
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(stage.worker().await);
    }
    let (client, mut results) = stage.audience().await;
    let jobs = (0..JOBS).map(|n| Job::for_phone(&format!("0901{n:06}"), &format!("job-{n}")));
    let publishing = join_all(jobs.map(|job| client.publish(&stage.names.jobs, job)));
    let restarting = async {
        for worker in &mut workers {
            // Restart in the middle of the load, and only when the last successor has had its share of the
            // jobs.
            let so_far = stage.sandbox.accepted_total() + 100;
            let amid = stage.sandbox.wait_until(|stats| stats.accepted >= so_far.min(1_000));
            timeout(LIMIT, amid).await.expect("a load");
            let successor = stage.worker().await;
            let mut old = std::mem::replace(worker, successor);
            assert_eq!(old.stop().await, Some(0));
            assert_eq!(errors(&old), Vec::<String>::new());
        }
    };
    tokio::join!(publishing, restarting);
    let found = results.collect(JOBS, LIMIT).await;
    let ids: BTreeSet<String> = found.iter().map(|result| field(result, "JobId")).collect();
    assert_eq!((found.len(), ids.len()), (JOBS, JOBS), "each job has one result");
    for result in &found {
        assert_eq!(ending(result), ("accepted".to_owned(), 1, false), "{}", field(result, "JobId"));
    }
    for running in &workers {
        running.until_settled(&stage.names).await;
        assert_eq!(errors(running), Vec::<String>::new());
    }
    assert!(results.collect(1, std::time::Duration::from_millis(200)).await.is_empty(), "and no second");
    assert_eq!((stage.sandbox.accepted_total(), stage.sandbox.duplicates()), (JOBS as u64, vec![]));
}

/// The prefix of version 0.1.0, which could not be set.
const PREFIX_OF_0_1_0: &str = "esms-otp-worker:";

/// As version 0.1.0 wrote them: a job that was accepted, and one whose worker was killed during its attempt.
const DONE: &str = r#"{"JobId":"done","Outcome":"accepted","CodeResult":"100","SMSID":"8644d15c11d5a0aa212a55f28121b3ed","CountRegenerate":0,"Attempts":1,"MayBeDuplicate":false,"CompletedAt":"2026-11-26T03:50:07.438Z"}"#;
const SENDING: &str =
    r#"{"attempts":1,"ambiguous":false,"may_be_duplicate":false,"answer":null,"trouble":null,"panics":0}"#;

async fn left_by_0_1_0(redis: &Redis) {
    let fingerprint = "92448158c62fb696e8c356e4606f4a90274359a5";
    redis.cli(&["HSET", "esms-otp-worker:job:done", "state", "done", "fingerprint", fingerprint, "result", DONE]).await;
    let sending = ["state", "sending", "until", "1", "owner", "a-worker:1", "step", "1", "found", "new", "count", ""];
    let key = ["HSET", "esms-otp-worker:job:killed", "fingerprint", fingerprint, "progress", SENDING];
    redis.cli(&[&key[..], &sending[..]].concat()).await;
}

/// docs/operating.md says why this must be set for an update from version 0.1.0.
#[tokio::test]
async fn with_the_prefix_of_version_0_1_0_what_its_workers_sent_is_not_sent_as_if_it_were_new() {
    for (on_ambiguous, killed, otps) in [("give-up", ("unknown", 0, false), 0), ("resend", ("accepted", 1, true), 1)] {
        let (mut stage, redis) = (Stage::new().await, Redis::start().await);
        stage.set("OTP_LEDGER_URL", &redis.url()).set("OTP_LEDGER_PREFIX", PREFIX_OF_0_1_0);
        stage.set("OTP_ON_AMBIGUOUS", on_ambiguous);
        left_by_0_1_0(&redis).await;
        let running = stage.worker().await;
        let (client, mut results) = stage.audience().await;
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, "done")).await;
        assert_eq!(results.next(LIMIT).await.body, DONE.as_bytes());
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, "killed")).await;
        let (outcome, attempts, may_be_duplicate) = killed;
        assert_eq!(ending(&results.next(LIMIT).await), (outcome.into(), attempts, may_be_duplicate));
        assert_eq!(stage.sandbox.accepted_total(), otps, "{on_ambiguous}");
        running.until_settled(&stage.names).await;
    }
}
