//! What the ledger in memory knows, and for how long.

use super::*;
use crate::job::request::decode;
use crate::job::result::{Ending, Outcome};
use crate::ledger::fingerprint::Fingerprints;
use std::time::SystemTime;

fn print(phone: &str) -> Fingerprint {
    let body = format!(r#"{{"Phone":"{phone}","MultiChannelTempId":"1"}}"#);
    Fingerprints::new("secret").of(&decode(body.as_bytes(), None).unwrap())
}

fn job() -> Fingerprint {
    print("0901888484")
}

fn event() -> ResultEvent {
    Ending::without_attempt(Outcome::Expired, "a test").into_event("a", SystemTime::UNIX_EPOCH)
}

fn memory() -> Memory {
    Memory::new(Duration::from_secs(60), MOST_JOBS)
}

fn found(memory: &Memory, id: &str) -> Claim {
    memory.look_up(&Ask { id, fingerprint: job(), owner: "", first_delivered: None, place: None })
}

#[test]
fn a_job_done_is_known_with_its_result_and_another_under_its_id_is_told_apart() {
    let memory = memory();
    assert!(matches!(found(&memory, "a"), Claim::New));
    memory.record_done("a", job(), &event());
    assert!(matches!(found(&memory, "a"), Claim::Done(found) if found == event()));
    let other = Ask { id: "a", fingerprint: print("0901888485"), owner: "", first_delivered: None, place: None };
    assert!(matches!(memory.look_up(&other), Claim::AnotherJob));
}

#[test]
fn the_first_result_stays() {
    let memory = memory();
    assert!(matches!(memory.record_done("a", job(), &event()), Finish::Recorded));
    let other = Ending::without_attempt(Outcome::Failed, "a test").into_event("a", SystemTime::UNIX_EPOCH);
    assert!(matches!(memory.record_done("a", job(), &other), Finish::Already(found) if found == event()));
}

#[test]
fn a_result_by_which_nothing_was_sent_gives_way_to_one_that_says_more() {
    use Outcome::{Accepted, Expired, Failed, Rejected, Unknown};
    for (earlier, later, run, gives_way) in [
        (Failed, Accepted, 1, true),
        (Failed, Unknown, 1, true),
        (Expired, Rejected, 1, true),
        (Failed, Failed, 2, true),
        (Failed, Expired, 1, false),
        (Accepted, Failed, 2, false),
        (Unknown, Accepted, 1, false),
    ] {
        let memory = memory();
        let event = |outcome, run| {
            let ending = Ending { run, ..Ending::without_attempt(outcome, "a test") };
            ending.into_event("a", SystemTime::UNIX_EPOCH)
        };
        memory.record_done("a", job(), &event(earlier, 1));
        let said = memory.record_done("a", job(), &event(later, run));
        assert_eq!(matches!(said, Finish::Recorded), gives_way, "{earlier:?} {later:?}");
    }
}

#[test]
fn only_a_first_delivery_of_a_job_of_which_nothing_was_sent_tries_it_anew() {
    let long_ago = Instant::now() - Duration::from_secs(1);
    let (after, before, later) = (|| Some(Instant::now()), || Some(long_ago), || None);
    for (outcome, came, anew) in [
        (Outcome::Failed, &after as &dyn Fn() -> _, true),
        (Outcome::Expired, &after, true),
        // The job ended elsewhere while this delivery was on its way.
        (Outcome::Failed, &before, false),
        (Outcome::Failed, &later, false),
        (Outcome::Accepted, &after, false),
        (Outcome::Rejected, &after, false),
        (Outcome::Unknown, &after, false),
    ] {
        let memory = memory();
        let ending = Ending { run: 4, ..Ending::without_attempt(outcome, "a test") };
        memory.record_done("a", job(), &ending.into_event("a", SystemTime::UNIX_EPOCH));
        let ask = Ask { id: "a", fingerprint: job(), owner: "", first_delivered: came(), place: None };
        match memory.claim_known(&ask) {
            Claim::Anew(reruns) => assert!(anew && reruns == 4, "{outcome:?}"),
            Claim::Done(_) => assert!(!anew, "{outcome:?}"),
            other => panic!("{other:?}"),
        }
        // It is this asker's now.
        assert_eq!(matches!(found(&memory, "a"), Claim::New), anew, "{outcome:?}");
    }
}

#[test]
fn the_latest_result_takes_the_place_of_an_earlier_one_and_a_job_forgotten_is_new() {
    let memory = memory();
    memory.record_done("a", job(), &event());
    let other = Ending::without_attempt(Outcome::Failed, "a test").into_event("a", SystemTime::UNIX_EPOCH);
    memory.record_latest("a", job(), &other);
    assert!(matches!(found(&memory, "a"), Claim::Done(found) if found == other));
    memory.forget("a");
    assert!(matches!(found(&memory, "a"), Claim::New));
    memory.record_done("a", job(), &event());
    assert!(matches!(found(&memory, "a"), Claim::Done(_)));
}

#[test]
fn a_job_that_is_left_after_its_end_keeps_its_result() {
    let memory = memory();
    memory.record_done("a", job(), &event());
    memory.record_left("a", job(), &Progress { attempts: 1, ..Progress::default() }, None);
    assert!(matches!(found(&memory, "a"), Claim::Done(found) if found == event()));
}

#[test]
fn a_job_left_is_found_with_what_it_went_through_and_its_delivery_count() {
    let progress = Progress { attempts: 2, ..Progress::default() };
    for count in [Some(DeliveryCount::Returned(3)), None] {
        let memory = memory();
        memory.record_left("a", job(), &progress, count);
        let Claim::Left(how, found) = found(&memory, "a") else { panic!("{count:?}") };
        assert_eq!((how, found.attempts), (Left::Released(count), 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_left_is_known_until_its_result_takes_its_place() {
    let memory = memory();
    memory.record_left("a", job(), &Progress { attempts: 1, ..Progress::default() }, Some(DeliveryCount::Returned(4)));
    assert!(matches!(found(&memory, "a"), Claim::Left(Left::Released(Some(DeliveryCount::Returned(4))), _)));
    tokio::time::advance(Duration::from_secs(40)).await;
    memory.record_done("a", job(), &event());
    // The first record's time is up, the second's is not.
    tokio::time::advance(Duration::from_secs(40)).await;
    memory.record_done("b", job(), &event());
    assert!(matches!(found(&memory, "a"), Claim::Done(_)));
    assert_eq!(memory.entries().order.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_job_is_forgotten_after_its_time_and_its_memory_given_back() {
    let memory = memory();
    memory.record_done("a", job(), &event());
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(matches!(found(&memory, "a"), Claim::New));
    memory.record_done("b", job(), &event());
    assert_eq!(memory.entries().jobs.len(), 1);
}

#[test]
fn the_oldest_jobs_are_forgotten_when_there_are_too_many() {
    let memory = Memory { most_jobs: 10, ..memory() };
    for n in 0..100 {
        memory.record_done(&n.to_string(), job(), &event());
    }
    assert!(matches!(found(&memory, "89"), Claim::New));
    assert!(matches!(found(&memory, "90"), Claim::Done(_)));
    assert_eq!(memory.entries().jobs.len(), 10);
    assert_eq!(memory.entries().order.len(), 10);
}
