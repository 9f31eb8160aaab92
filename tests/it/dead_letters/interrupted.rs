//! A requeue that is killed, stopped, cut off or not alone: no letter is lost, and each person gets one OTP.

use std::collections::{BTreeMap, BTreeSet};

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use super::{
    REFUSED, assert_said, dead_letters, emptied, kept, letter, letters_left, phone, settings, stage, text,
    until_letters,
};
use crate::stage::{LIMIT, PROGRAM, Stage, ending, field};
use crate::support::broker::Broker;
use crate::support::client::{Client, Results};
use crate::support::proxy::{Direction, Proxy};
use crate::support::redis::Redis;
use crate::support::wait::{eventually, until};
use crate::support::worker::Worker;

const LETTERS: u32 = 4_000;

/// The name by which the proxy knows the connection that publishes.
const PUBLISHER: &str = "esms-otp-worker dead-letters publisher";

async fn many(stage: &Stage, letters: u32) {
    kept(stage, (0..letters as usize).map(|n| letter(n, &format!("id-{n}"), REFUSED))).await;
}

/// How many messages of a queue nobody holds, asked in a millisecond.
async fn ready(client: &Client, queue: &str) -> u32 {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    client.channel().queue_declare(queue.into(), passive, FieldTable::default()).await.expect("a queue").message_count()
}

/// Checks that each letter's job gets its result, and each phone one OTP.
async fn assert_each_gets_one(stage: &Stage, results: &mut Results) {
    let mut told: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    while told.len() < LETTERS as usize {
        let result = results.next(LIMIT).await;
        assert_eq!(ending(&result).0, "accepted");
        // Of a job that was moved twice there are two results, and they are the same.
        let first = told.entry(field(&result, "JobId")).or_insert_with(|| result.body.clone());
        assert_eq!(*first, result.body);
    }
    assert_eq!(stage.sandbox.accepted_total(), u64::from(LETTERS), "{:?}", stage.sandbox.duplicates());
    assert!((0..LETTERS as usize).all(|n| stage.sandbox.accepted(&phone(n)) == 1));
}

/// A requeue of all letters that is in the middle: jobs are on the queue whose confirms do not come, so that their letters are not
/// acknowledged. It goes on once the proxy resumes.
async fn in_the_middle(stage: &Stage, client: &Client) -> (Worker, Proxy) {
    let broker = Broker::shared().await;
    let proxy = Proxy::start(broker.port()).await;
    let url = broker.url_through(proxy.port());
    let mut env = settings(stage);
    env.retain(|(name, _)| *name != "AMQP_URL");
    env.push(("AMQP_URL", &url));
    let requeue = Worker::spawn_command(PROGRAM, &["dead-letters", "requeue", "--all"], &env);
    until("it is in the middle", LIMIT, async || ready(client, &stage.names.jobs).await > LETTERS / 8).await;
    proxy.stall_named(PUBLISHER, Direction::ToClient);
    let is_held_up = async || letters_left(stage).await + ready(client, &stage.names.jobs).await > LETTERS;
    until("jobs wait for their confirms", LIMIT, is_held_up).await;
    (requeue, proxy)
}

async fn until_given_back(stage: &Stage) {
    let broker = Broker::shared().await;
    until("the letters are back", LIMIT, async || broker.unacked(&stage.names.dead).await == 0).await;
}

/// Requeues again, works all jobs and checks them.
async fn assert_again_makes_it_whole(stage: &Stage, client: &Client) {
    let (jobs, left) = (ready(client, &stage.names.jobs).await, letters_left(stage).await);
    println!("interrupted with {jobs} jobs on the queue and {left} letters left, of {LETTERS}");
    assert!(jobs > 0 && left > 0 && jobs + left > LETTERS, "{jobs} jobs, {left} letters");
    let (_client, mut results) = stage.audience().await;
    let _running = stage.worker().await;
    let again = dead_letters(stage, &["requeue", "--all"]).await;
    assert_said(&again, 0, &[&format!("requeued {left}")]);
    until_letters(stage, 0).await;
    assert_each_gets_one(stage, &mut results).await;
}

#[tokio::test]
async fn killed_in_the_middle_and_repeated_no_letter_is_lost_and_each_person_gets_one_otp() {
    let (stage, _redis) = stage().await;
    let client = stage.client().await;
    many(&stage, LETTERS).await;
    let (mut requeue, _proxy) = in_the_middle(&stage, &client).await;
    requeue.signal("KILL");
    assert_eq!(requeue.wait_exit(LIMIT).await, Some(137));
    until_given_back(&stage).await;
    assert_again_makes_it_whole(&stage, &client).await;
}

#[tokio::test]
async fn stopped_by_ctrl_c_it_says_what_was_done_and_gives_the_rest_back() {
    let (stage, _redis) = stage().await;
    let client = stage.client().await;
    many(&stage, LETTERS).await;
    let (mut requeue, _proxy) = in_the_middle(&stage, &client).await;
    requeue.signal("INT");
    assert_eq!(requeue.wait_exit(LIMIT).await, Some(1));
    requeue.wait_for_log("interrupted", LIMIT).await;
    assert_eq!(requeue.log_containing("give the command again").len(), 1, "{:?}", requeue.log());
    until_given_back(&stage).await;
    assert_again_makes_it_whole(&stage, &client).await;
}

#[tokio::test]
async fn two_operators_at_once_move_each_letter_once() {
    // More than one command holds at a time.
    const MORE: u32 = 7_000;
    let (stage, _redis) = stage().await;
    many(&stage, MORE).await;
    let one = async || dead_letters(&stage, &["requeue", "--all"]).await;
    let (first, second) = tokio::join!(one(), one());
    // Which of them did not get all that it saw at its beginning says so.
    for ended in [&first, &second] {
        let is_beside_the_other = ended.stdout.contains("another command holds them");
        assert_said(ended, i32::from(is_beside_the_other), &["requeued "]);
    }
    until_letters(&stage, 0).await;
    let client = stage.client().await;
    let jobs = emptied(&client, &stage.names.jobs).await;
    let ids: BTreeSet<&str> = jobs.iter().map(|job| text(job.properties.message_id())).collect();
    assert_eq!((jobs.len(), ids.len()), (MORE as usize, MORE as usize), "{first:?}\n{second:?}");
}

/// The jobs and the letters, once the two queues have recovered. Until then they tell what they had some time before.
async fn until_recovered(broker: &Broker, stage: &Stage) -> (u32, u32) {
    let mut before = (0, 0);
    let look = async || {
        let now = (broker.messages(&stage.names.jobs).await, broker.messages(&stage.names.dead).await);
        let is_settled = now == std::mem::replace(&mut before, now) && now.0 + now.1 >= LETTERS;
        is_settled.then_some(now)
    };
    eventually("the queues have recovered", LIMIT, look).await
}

/// A node of its own: it is killed.
#[tokio::test]
async fn a_broker_that_takes_nothing_is_waited_for_and_one_that_is_killed_has_lost_nothing() {
    let (broker, redis) = (Broker::start().await, Redis::start().await);
    let mut stage = Stage::on(&broker.url()).await;
    stage.set("OTP_LEDGER_URL", &redis.url());
    assert_eq!(stage.worker().await.stop().await, Some(0));
    // RabbitMQ 3.10 forgets the newest queue where it is killed some seconds after the queue was made.
    broker.stop().await;
    broker.start_again().await;
    many(&stage, LETTERS).await;
    let requeue = || Worker::spawn_command(PROGRAM, &["dead-letters", "requeue", "--all"], &settings(&stage));
    let watermark = async |share: &str| {
        broker.eval(&format!("vm_memory_monitor:set_vm_memory_high_watermark({share}).")).await;
    };
    watermark("0.0").await;
    until("the alarm", LIMIT, async || broker.eval("rabbit_alarm:get_alarms().").await.contains("memory")).await;
    let mut blocked = requeue();
    blocked.wait_for_log("the broker takes no messages now", LIMIT).await;
    assert_eq!(broker.messages(&stage.names.dead).await, LETTERS);
    watermark("0.4").await;
    blocked.wait_for_log("the broker takes messages again", LIMIT).await;

    // It goes on, and then the node is gone.
    let some_are_moved = async || broker.messages(&stage.names.dead).await < LETTERS - 300;
    until("it is in the middle", LIMIT, some_are_moved).await;
    broker.kill().await;
    assert_eq!(blocked.wait_exit(LIMIT).await, Some(1));
    blocked.wait_for_log("the connection to the broker was lost", LIMIT).await;
    broker.start_again().await;
    let (jobs, left) = until_recovered(&broker, &stage).await;
    println!("killed with {jobs} jobs on the queue and {left} letters left, of {LETTERS}");
    assert!(jobs > 0 && left > 0 && jobs + left >= LETTERS, "{jobs} jobs, {left} letters");

    let (_client, mut results) = stage.audience().await;
    let _running = stage.worker().await;
    assert_said(&dead_letters(&stage, &["requeue", "--all"]).await, 0, &[&format!("requeued {left}")]);
    until("no letter is left", LIMIT, async || broker.messages(&stage.names.dead).await == 0).await;
    assert_each_gets_one(&stage, &mut results).await;
}
