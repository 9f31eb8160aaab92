//! The places of the limits in Redis, step by step.

use std::sync::Arc;
use std::time::Duration;

use esms_otp_worker::job::request::decode;
use esms_otp_worker::job::result::{Ending, Outcome, ResultEvent};
use esms_otp_worker::ledger::redis::Redis as RedisStore;
use esms_otp_worker::ledger::store::{Ask, Claim, End, Finish, Note, Stage, Store};
use esms_otp_worker::limits::{Group, HeldBack, Limit, Limits, Place, Rule, Seen};
use futures_util::future::join_all;
use tokio::time::Instant;

use super::{LEASE, fingerprint, settings_of};
use crate::stage::{LIMIT, PHONE};
use crate::support::redis::Redis;
use crate::support::wait::until;

fn rule(limit: Limit, most: u32, window: Duration) -> Rule {
    Rule { limit, most, window }
}

const HOUR: Duration = Duration::from_secs(3600);

fn of_number(most: u32, window: Duration) -> Limits {
    Limits::of(vec![rule(Limit::Phone, most, window)], Vec::new())
}

fn of_all(most: u32, window: Duration) -> Limits {
    let groups = vec![Group { prefix: None, rules: vec![rule(Limit::Total, most, window)] }];
    Limits::of(Vec::new(), groups)
}

/// A store with these limits, and the places of jobs whose deadline is a minute away.
struct Counting {
    store: RedisStore,
    limits: Arc<Limits>,
}

impl Counting {
    fn new(redis: &Redis, limits: Limits) -> Self {
        let limits = Arc::new(limits);
        let store = RedisStore::new(&settings_of(redis, "a-queue"), Arc::clone(&limits), Arc::default(), LEASE, HOUR);
        Self { store, limits }
    }

    fn place(&self, id: &str, phone: &str) -> Place {
        let request =
            decode(format!(r#"{{"Phone":"{phone}","MultiChannelTempId":"1"}}"#).as_bytes(), None).expect("a job");
        self.limits.place(id, &request, Instant::now() + Duration::from_secs(60)).expect("a place")
    }

    async fn claim_for(&self, id: &str, phone: &str, owner: &str) -> Claim {
        let place = self.place(id, phone);
        let ask = Ask { id, fingerprint: fingerprint(), owner, first_delivered: None, place: Some(&place) };
        self.store.claim(ask).await.expect("an answer")
    }

    async fn claim(&self, id: &str) -> Claim {
        self.claim_for(id, PHONE, id).await
    }

    async fn held_back(&self, id: &str) -> HeldBack {
        match self.claim(id).await {
            Claim::Limited(held_back, 0) => held_back,
            other => panic!("{other:?}"),
        }
    }

    async fn end(&self, id: &str, event: &ResultEvent) -> (Finish, Option<Seen>) {
        let place = self.place(id, PHONE);
        let end = End { place: Some(&place), ..End::uncounted(id, fingerprint(), Some(id), event) };
        self.store.finish(end).await.expect("an answer")
    }

    async fn finish(&self, id: &str, outcome: Outcome) -> (Finish, Option<Seen>) {
        self.end(id, &event(id, outcome)).await
    }
}

fn event(id: &str, outcome: Outcome) -> ResultEvent {
    Ending::without_attempt(outcome, "a test").into_event(id, std::time::UNIX_EPOCH)
}

#[tokio::test]
async fn of_many_claims_at_once_as_many_get_a_place_as_the_limit_allows() {
    for limits in [of_number(7, HOUR), of_all(7, HOUR)] {
        let redis = Redis::start().await;
        let stores = [Counting::new(&redis, limits.clone()), Counting::new(&redis, limits)];
        let ids: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let claims = join_all(ids.iter().enumerate().map(|(n, id)| stores[n % 2].claim(id))).await;
        let got = claims.iter().filter(|claim| matches!(claim, Claim::New)).count();
        let held = claims.iter().filter(|claim| matches!(claim, Claim::Limited(..))).count();
        assert_eq!((got, held), (7, 93));
    }
}

#[tokio::test]
async fn a_place_is_taken_once_and_given_back_only_where_nothing_was_sent() {
    let redis = Redis::start().await;
    for limits in [of_number(1, HOUR), of_all(1, HOUR)] {
        let counting = Counting::new(&redis, limits);
        for outcome in [Outcome::Failed, Outcome::Expired, Outcome::Rejected] {
            let id = outcome.as_str();
            // Asked twice, because the answer was lost; and ended twice.
            for _ in 0..2 {
                assert!(matches!(counting.claim(id).await, Claim::New));
            }
            assert!(matches!(counting.claim("other").await, Claim::Limited(..)));
            assert!(matches!(counting.finish(id, outcome).await, (Finish::Recorded, Some(Seen::New))));
            assert!(matches!(counting.finish(id, outcome).await, (Finish::Already(_), None)));
        }
        let perhaps = Ending { may_be_duplicate: true, ..Ending::without_attempt(Outcome::Rejected, "a test") };
        assert!(matches!(counting.claim("perhaps").await, Claim::New));
        counting.end("perhaps", &perhaps.into_event("perhaps", std::time::UNIX_EPOCH)).await;
        let held = counting.held_back("other").await;
        assert!(!held.is_in_flight && held.retry_after.expect("a time") <= HOUR + HOUR / 60, "{held:?}");
        redis.cli(&["FLUSHALL"]).await;
    }
}

#[tokio::test]
async fn what_holds_a_job_back_leaves_no_trace_of_it() {
    let redis = Redis::start().await;
    let counting = Counting::new(&redis, of_number(1, HOUR));
    assert!(matches!(counting.claim("1").await, Claim::New));
    counting.held_back("2").await;
    let keys = redis.cli(&["--scan", "--pattern", "*job:*"]).await;
    assert_eq!(keys.lines().collect::<Vec<_>>(), [super::key("1")]);
    assert!(matches!(counting.finish("2", Outcome::Limited).await, (Finish::Recorded, Some(Seen::Known))));
}

#[tokio::test]
async fn a_job_in_flight_counts_until_its_deadline_and_then_from_its_attempt() {
    let redis = Redis::start().await;
    let counting = Counting::new(&redis, of_number(1, Duration::from_secs(2)));
    assert!(matches!(counting.claim("1").await, Claim::New));
    let held = counting.held_back("2").await;
    let retry_after = held.retry_after.expect("a time");
    assert!(held.is_in_flight && retry_after > Duration::from_secs(55), "{held:?}");
    let progress = &esms_otp_worker::job::progress::Progress::default();
    let note = Note { id: "1", fingerprint: fingerprint(), owner: "1", step: 1, stage: Stage::Sending, progress };
    assert!(counting.store.note(note).await.expect("an answer"));
    counting.finish("1", Outcome::Accepted).await;
    let held = counting.held_back("2").await;
    assert!(!held.is_in_flight && held.retry_after.expect("a time") <= Duration::from_secs(2), "{held:?}");
    until("the window has passed", LIMIT, async || matches!(counting.claim("2").await, Claim::New)).await;
}

#[tokio::test]
async fn the_next_worker_gets_a_dead_ones_job_with_its_place() {
    let redis = Redis::start().await;
    let counting = Counting::new(&redis, of_number(1, HOUR));
    assert!(matches!(counting.claim("1").await, Claim::New));
    let progress = &esms_otp_worker::job::progress::Progress::default();
    let note =
        Note { id: "1", fingerprint: fingerprint(), owner: "1", step: 1, stage: Stage::Released(None), progress };
    assert!(counting.store.note(note).await.expect("an answer"));
    counting.held_back("2").await;
    assert!(matches!(counting.claim_for("1", PHONE, "another").await, Claim::Left(..)));
}

#[tokio::test]
async fn windows_of_a_group_empty_again_and_hold_no_more_than_sixty_parts() {
    let redis = Redis::start().await;
    let counting = Counting::new(&redis, of_all(3, Duration::from_secs(1)));
    let mut sent = 0;
    until("twelve were sent", LIMIT, async || {
        let id = sent.to_string();
        if matches!(counting.claim(&id).await, Claim::New) {
            counting.finish(&id, Outcome::Accepted).await;
            sent += 1;
        }
        sent == 12
    })
    .await;
    let parts: u32 = redis.cli(&["HLEN", "otp-test:limit:total:1000"]).await.parse().expect("a number");
    assert!(parts <= 62, "{parts}");
    let left: u64 = redis.cli(&["PTTL", "otp-test:limit:total:1000"]).await.parse().expect("a time");
    assert!(left <= 1_100, "{left}");
}

#[tokio::test]
async fn another_job_under_the_id_takes_no_place() {
    let redis = Redis::start().await;
    let counting = Counting::new(&redis, of_number(1, HOUR));
    assert!(matches!(counting.claim("1").await, Claim::New));
    let place = counting.place("1", "0901888485");
    let other = super::fingerprint_of("0901888485");
    let ask = Ask { id: "1", fingerprint: other, owner: "two", first_delivered: None, place: Some(&place) };
    assert!(matches!(counting.store.claim(ask).await.expect("an answer"), Claim::AnotherJob));
    assert!(matches!(counting.claim_for("2", "0901888485", "2").await, Claim::New));
}
