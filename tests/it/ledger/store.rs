//! The store itself, asked step by step: what is written, what is not undone, and which owner is believed.

use std::time::{Duration, SystemTime};

use esms_otp_worker::job::progress::Progress;
use esms_otp_worker::job::result::{Ending, Outcome, ResultEvent};
use esms_otp_worker::ledger::fingerprint::Fingerprint;
use esms_otp_worker::ledger::redis::Redis as RedisStore;
use esms_otp_worker::ledger::store::{Ask, Claim, End, Finish, Left, Note, Stage, Store};

use tokio::time::Instant;

use super::{LEASE, fingerprint, fingerprint_of, key, state, store_at};
use crate::stage::LIMIT;
use crate::support::redis::Redis;
use crate::support::wait::until;

async fn claim(store: &RedisStore, owner: &str) -> Claim {
    claim_as(store, owner, fingerprint()).await
}

async fn claim_as(store: &RedisStore, owner: &str, fingerprint: Fingerprint) -> Claim {
    let ask = Ask { id: "a-job", fingerprint, owner, first_delivered: None, place: None };
    store.claim(ask).await.expect("an answer")
}

async fn note(store: &RedisStore, owner: &str, step: u32, stage: Stage, attempts: u32) -> bool {
    let progress = Progress { attempts, ..Progress::default() };
    let note = Note { id: "a-job", fingerprint: fingerprint(), owner, step, stage, progress: &progress };
    store.note(note).await.expect("an answer")
}

fn event(outcome: Outcome) -> ResultEvent {
    Ending::without_attempt(outcome, "a test").into_event("a-job", SystemTime::UNIX_EPOCH)
}

async fn finish(store: &RedisStore, owner: Option<&str>, outcome: Outcome) -> Finish {
    store.finish(End::uncounted("a-job", fingerprint(), owner, &event(outcome))).await.expect("an answer").0
}

/// Claims as soon as the lease of the present owner is over.
async fn claim_after_the_lease(store: &RedisStore, owner: &str) -> (Left, u32) {
    let mut found = None;
    until("the lease is over", LIMIT, async || match claim(store, owner).await {
        Claim::HeldByAnother(_) => false,
        other => {
            found = Some(other);
            true
        }
    })
    .await;
    match found {
        Some(Claim::Left(left, progress)) => (left, progress.attempts),
        other => panic!("{other:?}"),
    }
}

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn one_asker_gets_a_job_and_gets_it_again_when_its_answer_was_lost() {
    let redis = Redis::start().await;
    let store = store_at(&redis, LEASE);
    assert!(matches!(claim(&store, "one").await, Claim::New));
    assert!(matches!(claim(&store, "one").await, Claim::New));
    let Claim::HeldByAnother(left) = claim(&store, "two").await else { panic!("two have it") };
    assert!(left <= LEASE && left > LEASE / 2, "{left:?}");
    assert!(note(&store, "one", 1, Stage::Released(None), 3).await);
    assert!(matches!(claim(&store, "two").await, Claim::Left(Left::Released(_), progress) if progress.attempts == 3));
    assert!(matches!(claim(&store, "two").await, Claim::Left(Left::Released(_), progress) if progress.attempts == 3));
    assert!(matches!(claim(&store, "one").await, Claim::HeldByAnother(_)));
}

#[tokio::test]
async fn what_a_dead_owner_leaves_says_whether_it_was_sending() {
    for (stage, left) in [(Stage::Sending, Left::Sending), (Stage::Waiting(Duration::ZERO), Left::Lapsed)] {
        let redis = Redis::start().await;
        let store = store_at(&redis, SHORT);
        claim(&store, "one").await;
        assert!(note(&store, "one", 1, stage, 2).await);
        assert_eq!(claim_after_the_lease(&store, "two").await, (left, 2), "{stage:?}");
        // The second owner died before it wrote anything. The attempt of the first is still the last thing
        // known.
        assert_eq!(claim_after_the_lease(&store, "three").await, (left, 2), "{stage:?}");
    }
}

#[tokio::test]
async fn a_step_that_is_taken_twice_because_its_answer_was_lost_has_one_effect() {
    let redis = Redis::start().await;
    let store = store_at(&redis, LEASE);
    // What a step leaves, but for the time, which goes on.
    let record = async || {
        let fields = ["HMGET", &key("a-job"), "state", "owner", "step", "progress", "count", "found", "result"];
        redis.cli(&fields).await
    };
    assert!(matches!(claim(&store, "one").await, Claim::New));
    assert!(matches!(claim(&store, "one").await, Claim::New));
    for (step, stage) in [(1, Stage::Sending), (2, Stage::Waiting(LEASE)), (3, Stage::Released(None))] {
        assert!(note(&store, "one", step, stage, step).await);
        let once = record().await;
        assert!(note(&store, "one", step, stage, step).await);
        assert_eq!(record().await, once, "{stage:?}");
    }
    for _ in 0..2 {
        let again = claim(&store, "two").await;
        assert!(matches!(&again, Claim::Left(Left::Released(None), progress) if progress.attempts == 3), "{again:?}");
    }
    assert!(matches!(finish(&store, Some("two"), Outcome::Accepted).await, Finish::Recorded));
    let once = record().await;
    for owner in [Some("two"), None] {
        let again = finish(&store, owner, Outcome::Accepted).await;
        assert!(matches!(again, Finish::Already(found) if found == event(Outcome::Accepted)));
    }
    assert_eq!(record().await, once);
}

#[tokio::test]
async fn a_note_that_was_held_up_does_not_undo_a_later_one() {
    let redis = Redis::start().await;
    let store = store_at(&redis, LEASE);
    claim(&store, "one").await;
    assert!(note(&store, "one", 3, Stage::Sending, 2).await);
    assert!(note(&store, "one", 2, Stage::Waiting(Duration::ZERO), 1).await, "it is no loss of the hold");
    assert_eq!(state(&redis, "a-job").await, "sending");
    assert!(note(&store, "one", 4, Stage::Released(None), 2).await);
    assert!(note(&store, "one", 3, Stage::Sending, 2).await);
    assert_eq!(state(&redis, "a-job").await, "released");
    // For the next owner the step count begins again, and the first owner's notes are refused.
    assert!(matches!(claim(&store, "two").await, Claim::Left(Left::Released(_), progress) if progress.attempts == 2));
    assert!(!note(&store, "one", 9, Stage::Sending, 9).await);
    assert!(note(&store, "two", 1, Stage::Sending, 3).await);
    assert_eq!(state(&redis, "a-job").await, "sending");
}

#[tokio::test]
async fn a_mark_renews_the_lease_and_a_wait_adds_to_it() {
    let redis = Redis::start().await;
    let store = store_at(&redis, SHORT);
    claim(&store, "one").await;
    assert!(note(&store, "one", 1, Stage::Waiting(LEASE), 1).await);
    let Claim::HeldByAnother(left) = claim(&store, "two").await else { panic!("two have it") };
    assert!(left > LEASE / 2 && left <= LEASE + SHORT, "{left:?}");
    assert!(note(&store, "one", 2, Stage::Sending, 2).await);
    assert_eq!(claim_after_the_lease(&store, "two").await, (Left::Sending, 2));
}

/// What the record of another worker shows: an attempt of its own, or one that it knows of.
#[tokio::test]
async fn whoever_ends_a_job_that_another_has_is_told_whether_that_one_may_have_sent_it() {
    let redis = Redis::start().await;
    let store = store_at(&redis, SHORT);
    let held = async || match finish(&store, Some("one"), Outcome::Accepted).await {
        Finish::HeldByAnother { may_have_sent } => may_have_sent,
        other => panic!("{other:?}"),
    };
    claim(&store, "one").await;
    assert!(note(&store, "one", 1, Stage::Sending, 1).await);
    // The mark that another finds is not its own.
    assert_eq!(claim_after_the_lease(&store, "two").await, (Left::Sending, 1));
    assert!(!held().await);
    assert!(note(&store, "two", 1, Stage::Waiting(LEASE), 1).await);
    assert!(!held().await);
    assert!(note(&store, "two", 2, Stage::Sending, 2).await);
    assert!(held().await);
}

#[tokio::test]
async fn the_first_result_stays_whoever_comes_after_it() {
    let redis = Redis::start().await;
    let store = store_at(&redis, LEASE);
    claim(&store, "one").await;
    assert!(matches!(
        finish(&store, Some("two"), Outcome::Failed).await,
        Finish::HeldByAnother { may_have_sent: false }
    ));
    assert!(matches!(finish(&store, Some("one"), Outcome::Accepted).await, Finish::Recorded));
    for owner in [Some("one"), Some("two"), None] {
        let finish = finish(&store, owner, Outcome::Unknown).await;
        assert!(matches!(finish, Finish::Already(found) if found == event(Outcome::Accepted)), "{owner:?}");
    }
    assert!(!note(&store, "one", 9, Stage::Sending, 9).await, "nothing begins after the end");
    assert!(matches!(claim(&store, "two").await, Claim::Done(found) if found == event(Outcome::Accepted)));
    let recorded = store.recorded("a-job", fingerprint()).await.expect("an answer");
    assert_eq!(recorded, Some(event(Outcome::Accepted)));
}

#[tokio::test]
async fn an_answer_for_all_ends_a_job_that_somebody_else_holds() {
    let redis = Redis::start().await;
    let store = store_at(&redis, LEASE);
    claim(&store, "one").await;
    assert!(matches!(finish(&store, None, Outcome::Accepted).await, Finish::Recorded));
    let late = finish(&store, Some("one"), Outcome::Unknown).await;
    assert!(matches!(late, Finish::Already(found) if found == event(Outcome::Accepted)));
}

#[tokio::test]
async fn another_job_under_the_id_is_told_apart_and_touches_nothing() {
    let redis = Redis::start().await;
    let store = store_at(&redis, LEASE);
    claim(&store, "one").await;
    let other = fingerprint_of("0901888485");
    let before = redis.cli(&["HGETALL", &key("a-job")]).await;
    assert!(matches!(claim_as(&store, "two", other).await, Claim::AnotherJob));
    let finish = store.finish(End::uncounted("a-job", other, Some("two"), &event(Outcome::Failed))).await;
    assert!(matches!(finish, Ok((Finish::Recorded, None))), "its own result, which nobody else is given");
    assert_eq!(redis.cli(&["HGETALL", &key("a-job")]).await, before);
    assert_eq!(store.recorded("a-job", other).await.expect("an answer"), None);
}

#[tokio::test]
async fn a_job_the_store_has_lost_is_written_again_by_whoever_works_it() {
    let redis = Redis::start().await;
    let store = store_at(&redis, LEASE);
    claim(&store, "one").await;
    redis.cli(&["FLUSHALL"]).await;
    assert!(note(&store, "one", 1, Stage::Sending, 1).await);
    assert!(matches!(claim(&store, "two").await, Claim::HeldByAnother(_)));
    redis.cli(&["FLUSHALL"]).await;
    // A restart loses the scripts, too.
    redis.cli(&["SCRIPT", "FLUSH"]).await;
    assert!(matches!(finish(&store, Some("one"), Outcome::Accepted).await, Finish::Recorded));
    assert!(matches!(claim(&store, "two").await, Claim::Done(_)));
}

#[tokio::test]
async fn of_many_who_ask_at_once_one_gets_the_job() {
    let redis = Redis::start().await;
    let stores: Vec<RedisStore> = (0..4).map(|_| store_at(&redis, LEASE)).collect();
    let owners: Vec<String> = (0..100).map(|n| format!("owner-{n}")).collect();
    let asks = owners.iter().enumerate().map(|(n, owner)| claim(&stores[n % 4], owner));
    let claims = futures_util::future::join_all(asks).await;
    assert_eq!(claims.iter().filter(|claim| matches!(claim, Claim::New)).count(), 1);
    assert_eq!(claims.iter().filter(|claim| matches!(claim, Claim::HeldByAnother(_))).count(), 99);
}

#[tokio::test]
async fn a_failed_job_is_tried_anew_only_by_a_delivery_that_came_after_its_end() {
    let redis = Redis::start().await;
    let store = store_at(&redis, LEASE);
    // Redis counts whole milliseconds, so the delivery came well before.
    let before = Instant::now() - Duration::from_secs(10);
    assert!(matches!(claim(&store, "one").await, Claim::New));
    assert!(matches!(finish(&store, Some("one"), Outcome::Failed).await, Finish::Recorded));
    let ask =
        |owner, first_delivered| Ask { id: "a-job", fingerprint: fingerprint(), owner, first_delivered, place: None };
    for first_delivered in [None, Some(before)] {
        let said = store.claim(ask("two", first_delivered)).await.expect("an answer");
        assert!(matches!(said, Claim::Done(_)), "{said:?}");
    }
    let said = store.claim(ask("three", Some(Instant::now()))).await.expect("an answer");
    assert!(matches!(said, Claim::Anew(1)), "{said:?}");
}

#[tokio::test]
async fn a_result_by_which_nothing_was_sent_gives_way_to_one_that_says_more() {
    let redis = Redis::start().await;
    let store = store_at(&redis, LEASE);
    assert!(matches!(claim(&store, "one").await, Claim::New));
    assert!(matches!(finish(&store, Some("one"), Outcome::Failed).await, Finish::Recorded));
    assert!(matches!(finish(&store, Some("two"), Outcome::Expired).await, Finish::Already(_)), "it says no more");
    assert!(matches!(finish(&store, None, Outcome::Accepted).await, Finish::Recorded));
    for outcome in [Outcome::Failed, Outcome::Unknown] {
        let said = finish(&store, None, outcome).await;
        assert!(matches!(&said, Finish::Already(found) if found.outcome == Outcome::Accepted), "{said:?}");
    }
}
