//! `dead-letters`: looks at what is kept for people, replays it and removes it. Nothing is lost, whatever happens to the
//! command, and nobody is sent a second OTP unsaid.

mod interrupted;
mod looking;
mod purging;
mod requeueing;

use std::time::{Duration, SystemTime};

use crate::program::{Ended, run};
use crate::stage::{LIMIT, Stage};
use crate::support::broker::Broker;
use crate::support::client::{Client, Job};
use crate::support::redis::Redis;
use crate::support::wait::until;

/// The reason of a job that was certainly not sent.
const REFUSED: &str = "MultiChannelTempId is missing";

/// The reason of a job that may have been sent.
const GIVEN_UP: &str = "the broker gave the job up (delivered over the limit); an attempt may have been made";

/// A stage with a Redis, on which the objects are declared, and that a worker has been on.
async fn stage() -> (Stage, Redis) {
    let redis = Redis::start().await;
    let mut stage = Stage::new().await;
    stage.set("OTP_LEDGER_URL", &redis.url());
    assert_eq!(stage.worker().await.stop().await, Some(0));
    (stage, redis)
}

async fn dead_letters(stage: &Stage, args: &[&str]) -> Ended {
    run(&[&["dead-letters"], args].concat(), &settings(stage)).await
}

/// What the command needs of the worker's settings. It is not given eSMS's keys.
fn settings(stage: &Stage) -> Vec<(&str, &str)> {
    let is_needed = |name: &str| !name.starts_with("ESMS_") || name == "ESMS_TEMPLATE_ID";
    stage.env().into_iter().filter(|(name, _)| is_needed(name)).collect()
}

fn phone(n: usize) -> String {
    format!("09{n:08}")
}

/// A letter as a worker leaves it.
fn letter(n: usize, id: &str, reason: &str) -> Job {
    Job::for_phone(&phone(n), id).header("x-error", reason)
}

fn aged(letter: Job, age: u64) -> Job {
    letter.timestamp(SystemTime::now() - Duration::from_secs(age))
}

async fn kept(stage: &Stage, letters: impl IntoIterator<Item = Job>) {
    stage.client().await.publish_all(&stage.names.dead, letters).await;
}

/// How many letters there are, whoever holds them.
async fn letters_left(stage: &Stage) -> u32 {
    Broker::shared().await.messages(&stage.names.dead).await
}

async fn until_letters(stage: &Stage, count: u32) {
    until("so many letters are left", LIMIT, async || letters_left(stage).await == count).await;
}

async fn jobs_waiting(stage: &Stage) -> u32 {
    Broker::shared().await.messages(&stage.names.jobs).await
}

/// Every message of a queue, taken off it.
async fn emptied(client: &Client, queue: &str) -> Vec<lapin::message::BasicGetMessage> {
    let mut all = Vec::new();
    let options = lapin::options::BasicGetOptions { no_ack: true };
    while let Some(message) = client.channel().basic_get(queue.into(), options).await.expect("get") {
        all.push(message);
    }
    all
}

fn text(value: &Option<lapin::types::ShortString>) -> &str {
    value.as_ref().map_or("", |text| text.as_str())
}

/// Checks that it ended with this code and said all of this.
fn assert_said(ended: &Ended, code: i32, said: &[&str]) {
    let all = format!("{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.code, code, "{all}");
    for said in said {
        assert!(all.contains(said), "{said:?} is not in:\n{all}");
    }
}
