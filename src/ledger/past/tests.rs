use std::time::{Duration, SystemTime};

use super::*;
use crate::job::progress::OnAmbiguous;
use crate::job::result::{Ending, Outcome};

/// A first delivery.
fn first() -> JobRef<'static> {
    JobRef {
        id: "a",
        fingerprint: Fingerprint::NONE,
        is_named: true,
        is_dropped: false,
        first_delivered: Some(Instant::now()),
        may_have_been_elsewhere: false,
        delivery_count: None,
        place: None,
    }
}

/// The delivery right after it.
fn second() -> JobRef<'static> {
    JobRef {
        first_delivered: None,
        may_have_been_elsewhere: true,
        delivery_count: Some(DeliveryCount::Returned(1)),
        ..first()
    }
}

fn unnamed() -> JobRef<'static> {
    JobRef { is_named: false, ..second() }
}

fn dropped() -> JobRef<'static> {
    JobRef { is_dropped: true, ..first() }
}

fn tried(attempts: u32) -> Progress {
    Progress { attempts, ..Progress::default() }
}

fn left(left: Left) -> Claim {
    Claim::Left(left, tried(2))
}

fn released(count: Option<u64>) -> Claim {
    left(Left::Released(count.map(DeliveryCount::Returned)))
}

fn event() -> ResultEvent {
    Ending::without_attempt(Outcome::Accepted, "a test").into_event("a", SystemTime::UNIX_EPOCH)
}

fn away<T>() -> Result<T, StoreError> {
    Err(StoreError::Unreachable("a test".into()))
}

fn local(unwritten: Claim) -> Local {
    Local { unwritten, recent: Claim::New }
}

fn recently(outcome: Outcome) -> ResultEvent {
    Ending::without_attempt(outcome, "a test").into_event("a", SystemTime::UNIX_EPOCH)
}

fn with_recent_result(said: Result<Claim, StoreError>, recent: Outcome, job: JobRef<'_>) -> Decision {
    let recent = Claim::Done(recently(recent));
    decide(said, Local { unwritten: Claim::New, recent }, job, false)
}

/// The past, the attempts and the record of a job that may be worked.
fn ours(said: Result<Claim, StoreError>, unwritten: Claim, job: JobRef<'_>, sees: bool) -> (Past, u32, Record) {
    match decide(said, local(unwritten), job, sees) {
        Decision::Ours { past, progress, record } => (past, progress.attempts, record),
        other => panic!("{other:?}"),
    }
}

/// Two columns: what follows where every attempt is written down (`hold`), and where it is not (`send`).
#[test]
fn the_past_is_complete_only_where_the_record_or_the_delivery_count_shows_it() {
    use Past::{AnyUnknown, Complete, OneUnknown};
    for (claim, job, hold, send) in [
        (Claim::New, first(), Complete, Complete),
        // The record says that nothing was sent in the run before.
        (Claim::Anew(1), first(), Complete, Complete),
        (Claim::New, second(), Complete, AnyUnknown),
        // An id made up for one delivery is not that of the record.
        (Claim::New, unnamed(), OneUnknown, AnyUnknown),
        (released(None), second(), Complete, Complete),
        (released(Some(0)), second(), Complete, Complete),
        // Another worker had it in between, and perhaps no ledger.
        (released(Some(2)), second(), Complete, AnyUnknown),
        // The queue does not count.
        (released(None), first(), Complete, AnyUnknown),
        (left(Left::Lapsed), second(), Complete, AnyUnknown),
        (left(Left::Sending), second(), OneUnknown, AnyUnknown),
        // A producer's repeat, after a worker died with the first.
        (left(Left::Sending), first(), OneUnknown, AnyUnknown),
    ] {
        let attempts = if matches!(claim, Claim::New | Claim::Anew(_)) { 0 } else { 2 };
        for (sees, past) in [(true, hold), (false, send)] {
            let decided = ours(Ok(claim.clone()), Claim::New, job, sees);
            assert_eq!(decided, (past, attempts, Record::InStore), "{claim:?} {job:?} sees: {sees}");
        }
    }
}

/// A job to which nothing happened before it was given back.
fn not_begun(count: Option<u64>) -> Claim {
    Claim::Left(Left::Released(count.map(DeliveryCount::Returned)), Progress::default())
}

#[test]
fn a_job_that_was_given_back_before_it_was_begun_is_as_good_as_new_unless_another_had_it_since() {
    use Past::{AnyUnknown, Complete};
    for (claim, job, past) in [
        (not_begun(None), second(), Complete),
        (not_begun(Some(0)), second(), Complete),
        (not_begun(Some(1)), second(), AnyUnknown),
        (not_begun(Some(2)), second(), AnyUnknown),
        // The queue does not count.
        (not_begun(None), JobRef { delivery_count: None, ..second() }, AnyUnknown),
        // A producer's repeat: another message, that nobody had.
        (not_begun(None), first(), Complete),
        (not_begun(Some(3)), first(), Complete),
    ] {
        // The record is in the store; or only here, while the store is away, or knows no more than a new job.
        let decided = [
            ours(Ok(claim.clone()), Claim::New, job, false),
            ours(away(), claim.clone(), job, false),
            ours(Ok(Claim::New), claim.clone(), job, false),
        ];
        assert_eq!(decided.map(|(past, attempts, _)| (past, attempts)), [(past, 0); 3], "{claim:?} {job:?}");
    }
    // The store knows more.
    let decided = ours(Ok(left(Left::Sending)), not_begun(None), second(), false);
    assert_eq!(decided, (AnyUnknown, 2, Record::InStore));
}

#[test]
fn without_the_store_what_this_process_knows_decides() {
    use Past::{AnyUnknown, Complete};
    for (unwritten, job, past, attempts) in [
        (Claim::New, first(), Complete, 0),
        (Claim::New, second(), AnyUnknown, 0),
        // The store may know an attempt that was made before the broker dropped the job.
        (Claim::New, dropped(), AnyUnknown, 0),
        (released(None), second(), Complete, 2),
        (released(Some(5)), second(), AnyUnknown, 2),
    ] {
        let decided = ours(away(), unwritten.clone(), job, false);
        assert_eq!(decided, (past, attempts, Record::InProcess), "{unwritten:?} {job:?}");
    }
}

#[test]
fn a_dropped_job_that_the_store_does_not_know_was_not_sent() {
    assert_eq!(ours(Ok(Claim::New), Claim::New, dropped(), false).0, Past::Complete);
}

#[test]
fn a_record_that_cannot_be_read_may_hold_the_mark_of_an_attempt() {
    for (sees, past) in [(true, Past::OneUnknown), (false, Past::AnyUnknown)] {
        let unreadable = Err(StoreError::Unreadable("a test".into()));
        assert_eq!(ours(unreadable, Claim::New, first(), sees), (past, 0, Record::Unreadable));
    }
}

#[test]
fn what_this_process_could_not_write_corrects_the_store() {
    for said in [Claim::New, Claim::Left(Left::Released(None), tried(3))] {
        let attempts = if matches!(said, Claim::New) { 2 } else { 3 };
        let decided = ours(Ok(said), released(None), second(), false);
        assert_eq!(decided, (Past::AnyUnknown, attempts, Record::InStore));
    }
}

#[test]
fn another_run_that_went_on_here_counts_more_than_what_the_store_knows_of_the_run_before() {
    let failed =
        Claim::Done(Ending::without_attempt(Outcome::Failed, "a test").into_event("a", SystemTime::UNIX_EPOCH));
    for (said, record) in [(failed, Record::InProcess), (Claim::Anew(1), Record::InStore)] {
        let decided = ours(Ok(said), released(None), second(), false);
        assert_eq!(decided, (Past::AnyUnknown, 2, record));
    }
}

#[test]
fn without_the_store_a_result_by_which_nothing_was_sent_proves_nothing_to_a_later_delivery() {
    for outcome in [Outcome::Failed, Outcome::Expired] {
        let decided = with_recent_result(Err(StoreError::Unreachable("a test".into())), outcome, second());
        assert!(matches!(decided, Decision::Ours { past: Past::AnyUnknown, .. }), "{outcome:?} {decided:?}");
    }
}

#[test]
fn what_is_not_to_be_worked_here_is_told_apart() {
    for unwritten in [Claim::New, released(None)] {
        let decide = |claim| decide(Ok(claim), local(unwritten.clone()), second(), true);
        assert!(matches!(decide(Claim::Done(event())), Decision::Done(found) if found == event()));
        assert!(matches!(decide(Claim::HeldByAnother(Duration::ZERO)), Decision::HeldByAnother));
        assert!(matches!(decide(Claim::AnotherJob), Decision::AnotherJob));
    }
}

#[test]
fn without_the_store_a_result_that_it_had_is_the_jobs_result() {
    for outcome in [Outcome::Accepted, Outcome::Rejected, Outcome::Unknown] {
        for job in [first(), second(), dropped()] {
            for error in [StoreError::Unreachable("a test".into()), StoreError::Unreadable("a test".into())] {
                let decided = with_recent_result(Err(error), outcome, job);
                assert!(matches!(decided, Decision::Done(found) if found == recently(outcome)), "{outcome:?}");
            }
        }
    }
    let recent = Claim::AnotherJob;
    let decided = decide(away(), Local { unwritten: Claim::New, recent }, first(), false);
    assert!(matches!(decided, Decision::AnotherJob));
}

#[test]
fn the_number_of_a_run_is_known_also_where_the_store_is_away_or_has_lost_the_job() {
    for (said, unwritten, reruns) in [
        (away(), Claim::New, 2),
        (Ok(Claim::New), Claim::New, 2),
        (away(), Claim::Anew(3), 3),
        (Ok(Claim::New), Claim::Anew(3), 3),
        (Ok(Claim::Anew(4)), Claim::New, 4),
    ] {
        let told = format!("{said:?} {unwritten:?}");
        let decided = decide(said, Local { unwritten, recent: Claim::Anew(2) }, first(), false);
        let Decision::Ours { past, progress, .. } = decided else { panic!("{told}") };
        assert_eq!((past, progress.reruns), (Past::Complete, reruns), "{told}");
    }
}

#[test]
fn a_store_that_lost_a_result_which_may_mean_an_otp_is_corrected() {
    for (outcome, is_corrected) in [
        (Outcome::Accepted, true),
        (Outcome::Rejected, true),
        (Outcome::Unknown, true),
        (Outcome::Failed, false),
        (Outcome::Expired, false),
    ] {
        for claim in [Claim::New, Claim::Anew(1), released(None), left(Left::Sending)] {
            let decided = with_recent_result(Ok(claim), outcome, first());
            assert_eq!(matches!(decided, Decision::Done(_)), is_corrected, "{outcome:?}");
        }
        let theirs = Claim::Done(event());
        assert!(matches!(with_recent_result(Ok(theirs), outcome, first()), Decision::Done(found) if found == event()));
        let held = Claim::HeldByAnother(Duration::ZERO);
        assert!(matches!(with_recent_result(Ok(held), outcome, first()), Decision::HeldByAnother));
        assert!(matches!(with_recent_result(Ok(Claim::AnotherJob), outcome, first()), Decision::AnotherJob));
    }
}

#[test]
fn a_mark_counts_as_an_attempt_that_may_have_sent_beside_those_that_are_known() {
    for (ambiguous, unwritten, expected) in [
        (0, Claim::New, 1),
        // One that was ambiguous, and then a second, during which the worker died: there is no third.
        (1, Claim::New, 2),
        // It was this process's attempt, and what became of it is known here.
        (1, Claim::Left(Left::Released(None), Progress { ambiguous_attempts: 2, ..tried(2) }), 2),
    ] {
        let written = Progress { ambiguous_attempts: ambiguous, ..tried(2) };
        for sees in [true, false] {
            let said = Ok(Claim::Left(Left::Sending, written.clone()));
            let Decision::Ours { past, progress, .. } = decide(said, local(unwritten.clone()), second(), sees) else {
                panic!("a job to be worked");
            };
            if matches!(unwritten, Claim::New) || !sees {
                let known = progress.with_past(past, OnAmbiguous::Resend).ambiguous_attempts;
                assert_eq!(known, expected, "{ambiguous} {unwritten:?} sees: {sees}");
            }
        }
    }
}
