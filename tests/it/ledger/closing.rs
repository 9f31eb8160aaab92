//! Connections that end although Redis is well: a server, a proxy or a firewall closes what is idle.
//!
//! That no error is counted is tested with a server that is played (`src/ledger/link/tests.rs`): here a machine that
//! is busy may take longer to connect than a step waits.

use super::{GIVE_UP, shared, steps, told, until_state};
use crate::stage::{LIMIT, PHONE, ending};
use crate::support::client::Job;
use crate::support::wait::until;

#[tokio::test]
async fn jobs_are_in_the_ledger_although_the_server_closes_what_is_idle_for_a_second() {
    for settings in [&[] as &[_], GIVE_UP] {
        let (mut stage, redis) = shared().await;
        for (name, value) in settings {
            stage.set(name, value);
        }
        assert_eq!(redis.cli(&["CONFIG", "SET", "timeout", "1"]).await, "OK");
        let running = stage.worker().await;
        let (client, mut results) = stage.audience().await;
        for n in 0..3 {
            // The worker itself says something once a second, so that it is for the server to say which comes first.
            let before = steps(&redis).await;
            until("the worker has said something", LIMIT, async || steps(&redis).await >= before + 3).await;
            let id = format!("job-{n}");
            client.publish(&stage.names.jobs, Job::for_phone(PHONE, &id)).await;
            assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, false));
            until_state(&redis, &id, "done").await;
        }
        running.until_settled(&stage.names).await;
    }
}

#[tokio::test]
async fn connections_that_are_killed_between_jobs_are_made_again() {
    let (stage, redis) = shared().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    for n in 0..20 {
        let id = format!("job-{n}");
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, &id)).await;
        redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, false), "{id}");
        until_state(&redis, &id, "done").await;
    }
    running.until_settled(&stage.names).await;
}
