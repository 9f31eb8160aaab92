//! A script asks for thousands of codes for a few numbers, while a worker is killed.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use esms_otp_worker::sandbox::{Fault, Mix};

use crate::stage::{LIMIT, Stage, ending, field};
use crate::support::client::{Job, Received};
use crate::support::redis::Redis;

const NUMBERS: usize = 10;
const JOBS: usize = 10_000;
const MOST: u32 = 20;
const WINDOW: Duration = Duration::from_secs(3600);

fn phone(n: usize) -> String {
    format!("090188848{}", n % NUMBERS)
}

/// The results of a flood over three workers, one of which is killed amid it.
async fn flood(stage: &mut Stage) -> Vec<Received> {
    stage.set("OTP_PHONE_LIMIT", &format!("{MOST}/1h")).set("ESMS_TIMEOUT", "2s").set("ESMS_CONNECT_TIMEOUT", "1s");
    stage.set("OTP_CONCURRENCY", "16");
    let mix = Mix::new([(Fault::ResetAfter, 0.1), (Fault::ResetBefore, 0.05), (Fault::Latency { ms: 100 }, 0.3)]);
    stage.sandbox.set_mix(mix.unwrap());
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(stage.worker().await);
    }
    let (client, mut results) = stage.audience().await;
    let jobs = (0..JOBS).map(|n| Job::for_phone(&phone(n), &format!("job-{n}")));
    let killing = async {
        stage.sandbox.wait_until(|stats| stats.accepted >= 50).await;
        workers[0].process.signal("KILL");
    };
    tokio::join!(client.publish_all(&stage.names.jobs, jobs), killing);
    let mut told = Vec::new();
    let mut ids = HashSet::new();
    while ids.len() < JOBS {
        let result = results.next(LIMIT).await;
        ids.insert(field(&result, "JobId"));
        told.push(result);
    }
    told
}

/// Each job's last result, by its number.
fn by_phone(results: Vec<Received>) -> HashMap<String, Vec<Received>> {
    let last: HashMap<String, Received> = results.into_iter().map(|result| (field(&result, "JobId"), result)).collect();
    let mut by_phone: HashMap<String, Vec<Received>> = HashMap::new();
    for (id, result) in last {
        let n = id.trim_start_matches("job-").parse::<usize>().expect("a number");
        by_phone.entry(phone(n)).or_default().push(result);
    }
    by_phone
}

fn count(results: &[Received], so: impl Fn(&(String, u64, bool)) -> bool) -> u32 {
    results.iter().filter(|result| so(&ending(result))).count().try_into().expect("a count")
}

/// When another try can succeed, by this result.
fn free_at(result: &Received) -> SystemTime {
    let completed = humantime::parse_rfc3339(&field(result, "CompletedAt")).expect("a time");
    completed + Duration::from_secs(field(result, "RetryAfter").parse().expect("RetryAfter"))
}

/// Nobody is told to try again before a place is free: before the first of the OTPs has left the window.
fn never_too_early(stage: &Stage, phone: &str, results: &[Received]) {
    let calls = stage.sandbox.requests(phone);
    let first = calls.iter().map(|call| humantime::parse_rfc3339(&call.at).expect("a time")).min().expect("a call");
    for result in results.iter().filter(|result| ending(result).0 == "limited") {
        // The call was made a moment before it arrived.
        assert!(free_at(result) + Duration::from_millis(100) >= first + WINDOW, "{} {first:?}", result.json());
        assert!(free_at(result) <= SystemTime::now() + WINDOW + Duration::from_secs(300), "{}", result.json());
    }
}

#[tokio::test]
async fn with_give_up_each_number_gets_its_limit_and_no_more_and_every_other_job_is_told() {
    let (mut stage, redis) = (Stage::new().await, Redis::start().await);
    stage.set("OTP_LEDGER_URL", &redis.url()).set("OTP_ON_AMBIGUOUS", "give-up");
    let results = flood(&mut stage).await;
    for (phone, results) in by_phone(results) {
        let (sent, unknown) = (stage.sandbox.accepted(&phone), count(&results, |ending| ending.0 == "unknown"));
        let accepted = count(&results, |ending| ending.0 == "accepted");
        assert!(sent <= MOST && sent >= MOST - unknown, "{sent} sent, {unknown} unknown");
        assert_eq!(accepted + unknown, MOST);
        assert_eq!(count(&results, |ending| ending.0 == "limited") + MOST, (JOBS / NUMBERS) as u32);
        never_too_early(&stage, &phone, &results);
    }
}

#[tokio::test]
async fn with_resend_a_number_gets_more_than_its_limit_only_where_the_results_say_so() {
    let (mut stage, redis) = (Stage::new().await, Redis::start().await);
    stage.set("OTP_LEDGER_URL", &redis.url()).set("OTP_RESEND_LIMIT", "1");
    let results = flood(&mut stage).await;
    for (phone, results) in by_phone(results) {
        let flagged = count(&results, |ending| ending.2);
        let sent = stage.sandbox.accepted(&phone);
        assert!(sent <= MOST + flagged && sent <= 2 * MOST, "{sent} sent, {flagged} flagged");
        // A job that the dead worker held without a record may have been sent, as far as anybody knows.
        let perhaps = count(&results, |ending| ending.0 == "unknown" && ending.1 == 0 && ending.2);
        let counted = count(&results, |ending| ending.2 || ending.0 == "accepted" || ending.0 == "unknown");
        assert_eq!(counted - perhaps, MOST);
        assert_eq!(count(&results, |ending| ending.0 == "limited") + counted, (JOBS / NUMBERS) as u32);
        never_too_early(&stage, &phone, &results);
    }
}
