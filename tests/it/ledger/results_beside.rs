//! Results that a worker knows beside its Redis: those that Redis had before it went away, and those that it
//! could not be told.

use super::outage::{Afar, TROUBLES, Trouble};
use super::{HOLD, key, told, until_state};
use crate::stage::{LIMIT, ending};

#[tokio::test]
async fn a_job_done_before_the_store_went_away_is_not_sent_again_when_its_producer_repeats_it() {
    for settings in [&[] as &[_], HOLD] {
        for trouble in TROUBLES {
            let afar = Afar::new(settings).await;
            let running = afar.stage.worker().await;
            let (client, mut results) = afar.stage.audience().await;
            afar.publish(&client, "a-job").await;
            let first = results.next(LIMIT).await;
            assert_eq!(ending(&first), told("accepted", 1, false));
            afar.begin(trouble).await;
            afar.publish(&client, "a-job").await;
            assert_eq!(results.next(LIMIT).await.body, first.body, "{trouble:?} {settings:?}");
            assert_eq!(afar.stage.sandbox.stats().requests, 1, "{trouble:?} {settings:?}");
            running.until_settled(&afar.stage.names).await;
        }
    }
}

#[tokio::test]
async fn a_job_done_while_the_store_was_away_is_written_when_it_is_back_and_known_to_other_workers() {
    for trouble in TROUBLES {
        let afar = Afar::new(&[]).await;
        let mut running = afar.stage.worker().await;
        let (client, mut results) = afar.stage.audience().await;
        afar.begin(trouble).await;
        let mut told_first = Vec::new();
        for id in ["one", "two", "three"] {
            afar.publish(&client, id).await;
            let result = results.next(LIMIT).await;
            assert_eq!(ending(&result), told("accepted", 1, false));
            told_first.push((id, result.body));
        }
        afar.end(trouble).await;
        for (id, body) in &told_first {
            until_state(&afar.redis, id, "done").await;
            assert_eq!(&afar.redis.cli(&["HGET", &key(id), "result"]).await.into_bytes(), body, "{trouble:?}");
        }
        assert_eq!(running.stop().await, Some(0));
        let other = afar.stage.worker().await;
        for (id, body) in &told_first {
            afar.publish(&client, id).await;
            assert_eq!(&results.next(LIMIT).await.body, body, "{trouble:?} {id}");
        }
        assert_eq!(afar.stage.sandbox.stats().requests, 3, "{trouble:?}");
        other.until_settled(&afar.stage.names).await;
    }
}

#[tokio::test]
async fn a_store_that_was_emptied_is_told_again_what_a_worker_knows() {
    let afar = Afar::new(&[]).await;
    let running = afar.stage.worker().await;
    let (client, mut results) = afar.stage.audience().await;
    afar.publish(&client, "a-job").await;
    let first = results.next(LIMIT).await;
    afar.redis.cli(&["FLUSHALL"]).await;
    afar.publish(&client, "a-job").await;
    assert_eq!(results.next(LIMIT).await.body, first.body);
    until_state(&afar.redis, "a-job", "done").await;
    assert_eq!(afar.stage.sandbox.stats().requests, 1);
    running.until_settled(&afar.stage.names).await;
}

#[tokio::test]
async fn a_result_that_comes_late_never_takes_the_place_of_another() {
    let afar = Afar::new(&[]).await;
    let running = afar.stage.worker().await;
    let (client, mut results) = afar.stage.audience().await;
    afar.begin(Trouble::Refused).await;
    for id in ["theirs", "ours"] {
        afar.publish(&client, id).await;
        assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, false));
    }
    // Another worker has ended the job meanwhile.
    let theirs = r#"{"JobId":"theirs","Outcome":"unknown","Attempts":1,"MayBeDuplicate":false}"#;
    let record = ["HSET", &key("theirs"), "fingerprint", "another key", "state", "done", "result", theirs];
    afar.redis.cli(&record).await;
    afar.end(Trouble::Refused).await;
    until_state(&afar.redis, "ours", "done").await;
    assert_eq!(afar.redis.cli(&["HGET", &key("theirs"), "result"]).await, theirs);
    running.until_settled(&afar.stage.names).await;
}

#[tokio::test]
async fn where_two_workers_sent_a_job_while_the_store_was_away_the_last_result_and_every_repeat_say_so() {
    let afar = Afar::new(&[]).await;
    let running = afar.stage.worker().await;
    let (client, mut results) = afar.stage.audience().await;
    afar.begin(Trouble::Refused).await;
    afar.publish(&client, "a-job").await;
    assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, false));
    let theirs = r#"{"JobId":"a-job","Outcome":"accepted","CodeResult":"100","SMSID":"theirs","Attempts":2,"MayBeDuplicate":false,"CompletedAt":"2026-11-26T00:00:00.000Z"}"#;
    let record = ["HSET", &key("a-job"), "fingerprint", "another key", "state", "done", "result", theirs];
    afar.redis.cli(&record).await;
    afar.end(Trouble::Refused).await;
    let correction = results.next(LIMIT).await;
    assert_eq!(ending(&correction), told("accepted", 2, true));
    afar.publish(&client, "a-job").await;
    assert_eq!(results.next(LIMIT).await.body, correction.body);
    assert_eq!(afar.stage.sandbox.stats().requests, 1);
    running.until_settled(&afar.stage.names).await;
}
