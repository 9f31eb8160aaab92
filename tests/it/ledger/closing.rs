//! Connections that end although Redis is well: a server, a proxy or a firewall closes what is idle.

use super::{GIVE_UP, key, shared, state, told};
use crate::stage::{LIMIT, PHONE, ending};
use crate::support::client::Job;
use crate::support::redis::Redis;
use crate::support::wait::until;

/// How many connections of workers the server has.
async fn connections(redis: &Redis) -> usize {
    redis.cli(&["CLIENT", "LIST"]).await.lines().filter(|line| !line.contains("cmd=client")).count()
}

#[tokio::test]
async fn the_first_job_after_a_pause_is_in_the_ledger_although_the_server_closed_the_connection() {
    for settings in [&[] as &[_], GIVE_UP] {
        let (mut stage, redis) = shared().await;
        for (name, value) in settings {
            stage.set(name, value);
        }
        assert_eq!(redis.cli(&["CONFIG", "SET", "timeout", "1"]).await, "OK");
        let running = stage.worker().await;
        let (client, mut results) = stage.audience().await;
        for n in 0..3 {
            until("the server has closed it", LIMIT, async || connections(&redis).await == 0).await;
            let id = format!("job-{n}");
            client.publish(&stage.names.jobs, Job::for_phone(PHONE, &id)).await;
            assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, false));
            assert_eq!(state(&redis, &id).await, "done");
        }
        assert_eq!(running.metric("otp_ledger_errors_total", &[]).await, 0.0);
        assert!(running.process.log_containing("the ledger does not answer").is_empty());
        running.until_settled(&stage.names).await;
    }
}

#[tokio::test]
async fn connections_that_are_killed_between_jobs_cost_nothing() {
    let (stage, redis) = shared().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    for n in 0..20 {
        let id = format!("job-{n}");
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, &id)).await;
        redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, false), "{id}");
        assert_eq!(redis.cli(&["HGET", &key(&id), "state"]).await, "done", "{id}");
    }
    assert_eq!(running.metric("otp_ledger_errors_total", &[]).await, 0.0);
    running.until_settled(&stage.names).await;
}
