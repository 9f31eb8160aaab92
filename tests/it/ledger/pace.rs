//! What the workers tell each other of their pace.

use std::time::Duration;

use esms_otp_worker::ledger::pace::{Cut, Heard, Pace, Word};
use futures_util::future::join_all;
use uuid::Uuid;

use super::{LEASE, store_at};
use crate::stage::LIMIT;
use crate::support::redis::Redis;

/// Fifty calls a second, as the workers give them out: 49.
const INTERVAL: Duration = Duration::from_micros(20_408);

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
