//! A rolling restart, as a Deployment does it: each worker is told to stop when its successor is ready.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::stage::{LIMIT, Running, Stage, ending, field};
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
