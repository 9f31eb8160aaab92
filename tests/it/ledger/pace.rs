//! The rate that all workers share, and the pause that one of them causes.

use std::time::{Duration, Instant};

use esms_otp_worker::ledger::pace::{Cut, Heard, Pace, Word};
use esms_otp_worker::sandbox::{Fault, Sandbox};
use futures_util::future::join_all;
use tokio::time::timeout;
use uuid::Uuid;

use super::outage::{Afar, Trouble};
use super::{LEASE, shared, store_at};
use crate::stage::{LIMIT, Running, Stage, ending};
use crate::support::client::Job;
use crate::support::metrics::wait_for;
use crate::support::redis::Redis;

/// Fifty calls a second, as the workers give them out: 49.
const INTERVAL: Duration = Duration::from_micros(20_408);

/// What no second may have more of, for a limit of 50.
const MOST: usize = 55;

fn pace(redis: &Redis) -> Pace {
    Pace::new(store_at(redis, LEASE).link(), Uuid::new_v4())
}

fn asking(turns: u32) -> Word {
    Word { interval: INTERVAL, turns, ..Word::default() }
}

async fn say(pace: &Pace, word: &Word) -> Heard {
    pace.say(word).await.expect("an answer")
}

fn turns(heard: &Heard) -> impl Iterator<Item = u64> {
    let (first, interval) = (heard.first, u64::try_from(INTERVAL.as_micros()).expect("a short time"));
    (0..u64::from(heard.turns)).map(move |n| first + n * interval)
}

#[tokio::test]
async fn turns_of_all_workers_are_an_interval_apart_and_none_is_saved_up() {
    let redis = Redis::start().await;
    let workers = [pace(&redis), pace(&redis), pace(&redis)];
    let (mut all, mut at_once) = (Vec::new(), Vec::new());
    for round in 0..20 {
        let asks = workers.iter().map(|worker| async { say(worker, &asking(round % 4 + 1)).await });
        at_once.extend(join_all(asks).await);
    }
    for heard in &at_once {
        assert!(heard.first >= heard.clock, "{heard:?}");
        all.extend(turns(heard));
    }
    assert_eq!(all.len(), 3 * 5 * (1 + 2 + 3 + 4));
    all.sort_unstable();
    let interval = u64::try_from(INTERVAL.as_micros()).expect("a short time");
    assert!(all.windows(2).all(|two| two[1] - two[0] >= interval), "{all:?}");
    // They were asked for faster than they come, so none was left out.
    assert_eq!(all[all.len() - 1] - all[0], interval * (all.len() as u64 - 1));
    let later = say(&workers[0], &Word { not_before: Duration::from_secs(60), ..asking(1) }).await;
    assert!(later.first >= later.clock + 60_000_000, "{later:?}");
}

#[tokio::test]
async fn a_worker_counts_from_its_first_word_until_it_leaves() {
    let redis = Redis::start().await;
    let workers = [pace(&redis), pace(&redis), pace(&redis)];
    let mut found = Vec::new();
    for worker in &workers {
        found.push(say(worker, &Word::default()).await.workers);
    }
    assert_eq!(found, [1, 2, 3]);
    let mut ranks = Vec::new();
    for worker in &workers {
        ranks.push(say(worker, &Word::default()).await.rank);
    }
    ranks.sort_unstable();
    assert_eq!(ranks, [0, 1, 2]);
    workers[1].leave().await.expect("an answer");
    assert_eq!(say(&workers[0], &Word::default()).await.workers, 2);
}

#[tokio::test]
async fn after_a_worker_was_alone_all_go_on_alone_for_a_while_and_then_take_turns_again() {
    let redis = Redis::start().await;
    let (one, other) = (pace(&redis), pace(&redis));
    assert_eq!(say(&one, &asking(2)).await.turns, 2);
    let back = say(&other, &Word { was_alone: true, ..asking(2) }).await;
    assert!(back.turns == 0 && !back.alone_for.is_zero(), "{back:?}");
    let told = say(&one, &asking(2)).await;
    assert!(told.turns == 0 && !told.alone_for.is_zero() && told.alone_for <= back.alone_for, "{told:?}");
    // Another one that comes back does not make it longer.
    let again = say(&other, &Word { was_alone: true, ..asking(2) }).await;
    assert!(again.alone_for <= told.alone_for, "{again:?}");
    let together = crate::support::wait::eventually("they take turns again", LIMIT, async || {
        Some(say(&one, &asking(2)).await).filter(|heard| heard.turns == 2)
    })
    .await;
    assert!(together.first >= back.clock + 5_000_000, "{together:?}");
}

#[tokio::test]
async fn a_cut_is_told_to_all_and_those_of_one_burst_are_one() {
    let redis = Redis::start().await;
    let (one, other) = (pace(&redis), pace(&redis));
    let second = Duration::from_secs(1);
    let cut =
        |name: &str, began_ago, hold| Word { cut: Some(Cut { name: name.into(), began_ago, hold }), ..Word::default() };
    assert_eq!(say(&one, &Word::default()).await.cut, "");
    let first = say(&one, &cut("first", second, 2 * second)).await;
    assert_eq!((first.cut.as_str(), first.held_for), ("first", 2 * second));
    let heard = say(&other, &Word::default()).await;
    assert!(heard.cut == "first" && heard.held_for <= 2 * second && !heard.held_for.is_zero(), "{heard:?}");
    // Its call began before the cut, so nothing is new but how long calls are held.
    let same = say(&other, &cut("same burst", LIMIT, 9 * second)).await;
    assert_eq!((same.cut.as_str(), same.held_for), ("first", 9 * second));
    assert!(same.cut_ago >= heard.cut_ago);
    let another = say(&other, &cut("another", Duration::ZERO, second)).await;
    assert_eq!(another.cut, "another");
    assert!(another.held_for > 8 * second, "a longer hold stays: {another:?}");
}

/// The most requests that any second had, and after how many others it began.
fn most_in_a_second(sandbox: &Sandbox) -> (usize, usize) {
    let times = sandbox.request_times();
    let within = |(n, first): (usize, &Instant)| {
        (times[n..].iter().take_while(|time| **time < *first + Duration::from_secs(1)).count(), n)
    };
    times.iter().enumerate().map(within).max().unwrap_or_default()
}

/// Requests a second, on the mean.
fn mean(sandbox: &Sandbox) -> f64 {
    let times = sandbox.request_times();
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return 0.0 };
    (times.len() - 1) as f64 / (*last - *first).as_secs_f64()
}

fn jobs(count: usize) -> impl Iterator<Item = Job> {
    (0..count).map(|n| Job::for_phone(&format!("0901{n:06}"), &format!("job-{n}")))
}

async fn three_workers(stage: &Stage) -> [Running; 3] {
    [stage.worker().await, stage.worker().await, stage.worker().await]
}

async fn accepted(running: &Running) -> f64 {
    running.metric("otp_jobs_total", &[("outcome", "accepted")]).await
}

#[tokio::test]
async fn three_workers_share_a_limit_and_each_has_its_part() {
    const JOBS: usize = 300;
    let (mut stage, _redis) = shared().await;
    stage.set("OTP_SHARED_RATE_LIMIT", "50");
    let workers = three_workers(&stage).await;
    let (client, mut results) = stage.audience().await;
    client.publish_all(&stage.names.jobs, jobs(JOBS)).await;
    let results = results.collect(JOBS, LIMIT).await;
    assert!(results.len() == JOBS && results.iter().all(|result| ending(result).0 == "accepted"));
    let (most, after) = most_in_a_second(&stage.sandbox);
    println!("at most {most} calls in a second (after {after} others), {:.1} on the mean", mean(&stage.sandbox));
    assert!(most <= MOST, "{most} calls in a second");
    for worker in &workers {
        let share = accepted(worker).await;
        println!("{share} of {JOBS}");
        assert!(share >= JOBS as f64 / 6.0, "{share} of {JOBS}");
        assert!(worker.metric("otp_rate_limited_seconds_total", &[]).await > 0.0);
    }
}

#[tokio::test]
async fn while_redis_is_away_each_worker_keeps_to_its_part_and_the_sum_stays_below_the_limit() {
    const JOBS: usize = 700;
    let mut afar = Afar::new(&[("OTP_SHARED_RATE_LIMIT", "50"), ("OTP_JOB_TTL", "10m")]).await;
    afar.stage.set("ESMS_TIMEOUT", "2s").set("OTP_SHUTDOWN_GRACE", "25s");
    let workers = three_workers(&afar.stage).await;
    let (client, mut results) = afar.stage.audience().await;
    client.publish_all(&afar.stage.names.jobs, jobs(JOBS)).await;
    let requests = async |n: u64| {
        timeout(LIMIT, afar.stage.sandbox.wait_until(|stats| stats.requests >= n)).await.expect("requests");
    };
    requests(120).await;
    afar.begin(Trouble::Killed).await;
    for worker in &workers {
        worker.process.wait_for_log("the workers cannot share the rate limit", LIMIT).await;
    }
    let gone = afar.stage.sandbox.stats().requests;
    requests(300).await;
    afar.end(Trouble::Killed).await;
    for worker in &workers {
        worker.process.wait_for_log("the workers soon share OTP_SHARED_RATE_LIMIT", LIMIT).await;
    }
    println!("alone from the {gone}th call on, told of the ledger by the {}th", afar.stage.sandbox.stats().requests);
    let results = results.collect(JOBS, LIMIT).await;
    assert!(results.len() == JOBS && results.iter().all(|result| ending(result).0 == "accepted"));
    let (most, after) = most_in_a_second(&afar.stage.sandbox);
    println!("at most {most} calls in a second (after {after} others), {:.1} on the mean", mean(&afar.stage.sandbox));
    // Printed, not asserted: a machine that holds a worker up amid all this also holds up calls whose turn it was. The turns
    // themselves are asserted above, by Redis's clock.
    for worker in &workers {
        for line in ["the workers cannot share the rate limit", "the workers soon share OTP_SHARED_RATE_LIMIT"] {
            assert_eq!(worker.process.log_containing(line).len(), 1, "{line}");
        }
    }
}

#[tokio::test]
async fn when_esms_throttles_one_worker_the_other_pauses_too_and_no_job_fails() {
    const JOBS: usize = 80;
    let (mut stage, _redis) = shared().await;
    // Both are slow enough to have jobs left when the pause comes, and each has but one call under way.
    stage.set("OTP_RATE_LIMIT", "10").set("OTP_CONCURRENCY", "4");
    let (one, other) = (stage.worker().await, stage.worker().await);
    let (client, mut results) = stage.audience().await;
    let pause = Duration::from_secs(6);
    client.publish_all(&stage.names.jobs, jobs(JOBS)).await;
    timeout(LIMIT, stage.sandbox.wait_until(|stats| stats.requests >= 20)).await.expect("requests");
    stage.sandbox.script(None, vec![Fault::Status { code: 429, retry_after: Some(pause.as_secs().to_string()) }]);
    let throttled = |stats: &esms_otp_worker::sandbox::Stats| stats.faults.get("status").is_some_and(|n| *n > 0);
    timeout(LIMIT, stage.sandbox.wait_until(throttled)).await.expect("a call that is throttled");
    for worker in [&one, &other] {
        wait_for(worker.http, "otp_rate_found", &[], |rate| rate >= 1.0, LIMIT).await;
    }
    let both_know = Instant::now();
    for worker in [&one, &other] {
        worker.process.wait_for_log("eSMS throttles", LIMIT).await;
        assert_eq!(worker.process.log_containing("eSMS throttles").len(), 1);
    }

    let results = results.collect(JOBS, LIMIT).await;
    assert!(results.len() == JOBS && results.iter().all(|result| ending(result).0 == "accepted"));
    let times = stage.sandbox.request_times();
    let before = times.iter().take_while(|time| **time <= both_know).count();
    assert!((21..JOBS).contains(&before), "{before}");
    // The throttled call was one of these, and the pause is counted from its answer.
    let resumed = times[before] - times[20];
    assert!(resumed >= pause, "{resumed:?}");
    for worker in [&one, &other] {
        worker.until_metric("otp_rate_found", &[], 0.0).await;
        worker.process.wait_for_log("calls are not slowed any more", LIMIT).await;
        assert!(worker.metric("otp_rate_limited_seconds_total", &[]).await > 0.0);
    }
}
