//! What a process knows beside its store, and tells it later.

use super::*;
use tokio_util::sync::CancellationToken;

fn accepted() -> ResultEvent {
    Ending::without_attempt(Outcome::Accepted, "a test").into_event("a", SystemTime::UNIX_EPOCH)
}

fn accepted_with_attempts(attempts: u32) -> ResultEvent {
    let ending = Ending { attempts, ..Ending::without_attempt(Outcome::Accepted, "a test") };
    ending.into_event("a", SystemTime::UNIX_EPOCH)
}

fn write_back(ledger: &Ledger) -> WriteBack {
    WriteBack::new(Arc::clone(&ledger.store), Arc::clone(&ledger.beside))
}

/// The corrections that were published.
#[derive(Default)]
struct Corrected(Mutex<Vec<ResultEvent>>);

impl Correct for Corrected {
    async fn correct(&self, _id: &str, event: &ResultEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

#[tokio::test]
async fn a_result_that_the_store_had_answers_a_repeat_when_the_store_is_away_with_hold_too() {
    for on_error in [OnLedgerError::Send, OnLedgerError::Hold] {
        let (ledger, store) = ledger(on_error);
        store.claims.lock().unwrap().push_back(Ok(Claim::New));
        store.finishes.lock().unwrap().push_back(Ok(Finish::Recorded));
        let (holding, _) = held(&ledger, first()).await;
        ledger.finish(first(), &holding, &accepted(), &accepted()).await;
        for job in [first(), again()] {
            assert!(matches!(ledger.claim(job).await, Claimed::Done(found) if found == accepted()), "{on_error:?}");
        }
        assert_eq!(ledger.beside.owed(), 0, "the store has it");
    }
}

#[tokio::test]
async fn what_is_said_alone_is_remembered_and_owed_only_where_the_store_did_not_take_the_result() {
    let alone = accepted().as_duplicate();
    for (said, expected, in_store) in [
        (Ok(Finish::Recorded), accepted(), true),
        // An earlier try wrote it, and its answer was lost.
        (Ok(Finish::Already(accepted())), accepted(), true),
        (Err(away()), alone.clone(), false),
    ] {
        let (ledger, store) = ledger(OnLedgerError::Send);
        // The store was away at the claim.
        let (holding, _) = held(&ledger, first()).await;
        assert!(!holding.is_in_store());
        store.finishes.lock().unwrap().push_back(said);
        ledger.finish(first(), &holding, &accepted(), &alone).await;
        assert_eq!(holding.is_in_store(), in_store);
        assert!(matches!(ledger.claim(again()).await, Claimed::Done(found) if found == expected));
        assert_eq!(ledger.beside.first().map(|debt| debt.event), (!in_store).then_some(expected));
    }
}

#[tokio::test]
async fn a_store_that_has_lost_a_result_is_owed_it() {
    let (ledger, store) = ledger(OnLedgerError::Send);
    store.claims.lock().unwrap().extend([Ok(Claim::Done(accepted())), Ok(Claim::New)]);
    for owed in [0, 1] {
        assert!(matches!(ledger.claim(first()).await, Claimed::Done(found) if found == accepted()));
        assert_eq!(ledger.beside.owed(), owed);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_store_did_not_take_is_written_in_order_once_it_answers_and_then_forgotten_here() {
    let (ledger, store) = ledger(OnLedgerError::Send);
    for id in ["one", "two"] {
        let job = JobRef { id, ..first() };
        let (holding, _) = held(&ledger, job).await;
        assert!(matches!(ledger.finish(job, &holding, &accepted(), &accepted()).await, Finish::Recorded));
    }
    assert_eq!(ledger.beside.owed(), 2);
    store.asked.lock().unwrap().clear();
    let theirs = event();
    let answers = [Err(away()), Err(away()), Ok(Finish::Recorded), Ok(Finish::Already(theirs.clone()))];
    store.finishes.lock().unwrap().extend(answers);
    let (ended, results) = (CancellationToken::new(), Arc::new(Corrected::default()));
    let writing = tokio::spawn(write_back(&ledger).run(ended.clone(), Arc::clone(&results)));
    while ledger.beside.owed() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let asked = store.asked.lock().unwrap().clone();
    assert_eq!(asked, ["finish one true", "finish one true", "finish one true", "finish two true"]);
    // The store is asked again, and its result counts.
    store.claims.lock().unwrap().push_back(Ok(Claim::Done(theirs.clone())));
    let found = ledger.claim(JobRef { id: "two", ..first() }).await;
    assert!(matches!(found, Claimed::Done(found) if found == theirs));
    ended.cancel();
    writing.await.unwrap();
    assert!(results.0.lock().unwrap().is_empty(), "theirs says that nothing was sent");
}

#[tokio::test(start_paused = true)]
async fn what_is_still_owed_when_the_worker_ends_is_tried_once_more() {
    let (ledger, store) = ledger(OnLedgerError::Send);
    let (holding, _) = held(&ledger, first()).await;
    ledger.finish(first(), &holding, &accepted(), &accepted()).await;
    let ended = CancellationToken::new();
    ended.cancel();
    store.finishes.lock().unwrap().push_back(Ok(Finish::Recorded));
    write_back(&ledger).run(ended, Arc::new(Corrected::default())).await;
    assert_eq!(ledger.beside.owed(), 0);
}

#[tokio::test]
async fn where_another_worker_sent_the_job_too_its_result_is_corrected_everywhere() {
    let theirs = accepted_with_attempts(3);
    let rejected = || Ending::without_attempt(Outcome::Rejected, "a test").into_event("a", SystemTime::UNIX_EPOCH);
    for (recorded, published, is_told_store) in [
        (theirs.clone(), Some(theirs.clone().as_duplicate()), true),
        // It says so already, and this worker has published behind it one that does not.
        (theirs.clone().as_duplicate(), Some(theirs.clone().as_duplicate()), false),
        // eSMS refused it first, and then took it.
        (rejected(), Some(accepted().as_duplicate()), true),
        // It is ours; it says that nothing was sent.
        (accepted(), None, false),
        (event(), None, false),
    ] {
        let (ledger, store) = ledger(OnLedgerError::Send);
        let (holding, _) = held(&ledger, first()).await;
        ledger.finish(first(), &holding, &accepted(), &accepted()).await;
        store.asked.lock().unwrap().clear();
        store.finishes.lock().unwrap().push_back(Ok(Finish::Already(recorded.clone())));
        let (ended, results) = (CancellationToken::new(), Arc::new(Corrected::default()));
        ended.cancel();
        write_back(&ledger).run(ended, Arc::clone(&results)).await;
        assert_eq!(results.0.lock().unwrap().clone(), published.into_iter().collect::<Vec<_>>());
        let told_store = store.asked.lock().unwrap().iter().any(|asked| asked.starts_with("correct"));
        assert_eq!(told_store, is_told_store);
        assert_eq!(ledger.beside.owed(), 0);
    }
}

/// The worker that has the job now may have sent it before it died.
#[tokio::test]
async fn that_an_otp_went_out_is_written_whoever_has_the_job_and_says_what_the_other_may_have_sent() {
    let ended_as = |outcome| Ending::without_attempt(outcome, "a test").into_event("a", SystemTime::UNIX_EPOCH);
    for (ours, may_have_sent, published) in [
        (accepted(), true, Some(accepted().as_duplicate())),
        (accepted(), false, None),
        // It says so already.
        (accepted().as_duplicate(), true, None),
        (ended_as(Outcome::Rejected), true, None),
        (ended_as(Outcome::Failed), true, None),
    ] {
        let (ledger, store) = ledger(OnLedgerError::Send);
        let (holding, _) = held(&ledger, first()).await;
        ledger.finish(first(), &holding, &ours, &ours).await;
        store.asked.lock().unwrap().clear();
        store.finishes.lock().unwrap().extend([Ok(Finish::HeldByAnother { may_have_sent }), Ok(Finish::Recorded)]);
        let (ended, results) = (CancellationToken::new(), Arc::new(Corrected::default()));
        ended.cancel();
        write_back(&ledger).run(ended, Arc::clone(&results)).await;
        assert_eq!(results.0.lock().unwrap().clone(), published.clone().into_iter().collect::<Vec<_>>());
        let asked = store.asked.lock().unwrap().clone();
        let is_written = asked.iter().filter(|asked| asked.starts_with("finish")).count() == 2;
        assert_eq!(is_written, ours.outcome == Outcome::Accepted, "{asked:?}");
        assert_eq!(asked.iter().any(|asked| asked.starts_with("correct")), published.is_some(), "{asked:?}");
        assert_eq!(ledger.beside.owed(), 0);
    }
}

/// The record says so from its first moment on: it is found, although the answer to its writing was lost.
#[tokio::test(start_paused = true)]
async fn a_second_otp_is_told_although_the_answer_to_its_writing_was_lost() {
    let (ledger, store) = ledger(OnLedgerError::Send);
    let (holding, _) = held(&ledger, first()).await;
    ledger.finish(first(), &holding, &accepted(), &accepted()).await;
    let says_so = accepted().as_duplicate();
    let answers =
        [Ok(Finish::HeldByAnother { may_have_sent: true }), Err(away()), Ok(Finish::Already(says_so.clone()))];
    store.finishes.lock().unwrap().extend(answers);
    let (ended, results) = (CancellationToken::new(), Arc::new(Corrected::default()));
    let writing = tokio::spawn(write_back(&ledger).run(ended.clone(), Arc::clone(&results)));
    while ledger.beside.owed() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ended.cancel();
    writing.await.unwrap();
    assert_eq!(results.0.lock().unwrap().clone(), [says_so]);
}

/// Asks for the job while its correction is published, as a producer's repeat would.
struct RepeatMeanwhile(Ledger, Mutex<Vec<ResultEvent>>);

impl Correct for RepeatMeanwhile {
    async fn correct(&self, _id: &str, event: &ResultEvent) {
        let Claimed::Done(told) = self.0.claim(first()).await else { panic!("the job has ended") };
        self.1.lock().unwrap().extend([event.clone(), told]);
    }
}

#[tokio::test]
async fn a_repeat_that_comes_while_a_correction_is_published_is_told_the_same() {
    let (ledger, store) = ledger(OnLedgerError::Send);
    let (holding, _) = held(&ledger, first()).await;
    ledger.finish(first(), &holding, &accepted(), &accepted()).await;
    store.finishes.lock().unwrap().push_back(Ok(Finish::Already(accepted_with_attempts(3))));
    let (ended, writing) = (CancellationToken::new(), write_back(&ledger));
    ended.cancel();
    let results = Arc::new(RepeatMeanwhile(ledger, Mutex::default()));
    writing.run(ended, Arc::clone(&results)).await;
    let corrected = accepted_with_attempts(3).as_duplicate();
    assert_eq!(results.1.lock().unwrap().clone(), [corrected.clone(), corrected]);
}

#[tokio::test]
async fn only_a_store_that_is_anothers_keeps_a_worker_from_starting() {
    let (ledger, _store) = ledger(OnLedgerError::Send);
    assert_eq!(ledger.open().await, Ok(()));
    assert!(matches!(ledger.belongs_to("rabbit").await, Err(StoreError::NotOurs(_))));
}
