//! What follows from what a store says, with a store that says what a test wants.

mod beside;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::SystemTime;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::store::{End, Finish};
use super::watch::Trouble;
use super::*;
use crate::job::envelope::DeliveryCount;
use crate::job::request::decode;
use crate::job::result::{Ending, Outcome};
use crate::ledger::fingerprint::Fingerprints;

/// Says what it is told to, in order, and after that that it cannot be reached; notes what it is asked.
#[derive(Debug, Default)]
struct Scripted {
    claims: Mutex<VecDeque<Result<Claim, StoreError>>>,
    notes: Mutex<VecDeque<Result<bool, StoreError>>>,
    finishes: Mutex<VecDeque<Result<Finish, StoreError>>>,
    asked: Mutex<Vec<String>>,
}

fn away() -> StoreError {
    StoreError::Unreachable("a test".into())
}

impl Scripted {
    fn say<T: Send + 'static>(
        &self,
        asked: String,
        answers: &Mutex<VecDeque<Result<T, StoreError>>>,
    ) -> Reply<'static, T> {
        self.asked.lock().unwrap().push(asked);
        let answer = answers.lock().unwrap().pop_front().unwrap_or_else(|| Err(away()));
        std::future::ready(answer).boxed()
    }
}

use store::Reply;

/// The ledger owns its store; the test keeps a hand on it.
#[derive(Clone, Debug, Default)]
struct Handle(Arc<Scripted>);

impl Store for Handle {
    fn open(&self) -> Reply<'_, ()> {
        std::future::ready(Err(away())).boxed()
    }

    fn belongs_to<'a>(&'a self, _broker: &'a str) -> Reply<'a, ()> {
        std::future::ready(Err(StoreError::NotOurs("a test".into()))).boxed()
    }

    fn claim<'a>(&'a self, ask: Ask<'a>) -> Reply<'a, Claim> {
        self.0.say(format!("claim {} {}", ask.id, ask.owner), &self.0.claims)
    }

    fn note<'a>(&'a self, note: Note<'a>) -> Reply<'a, bool> {
        self.0.say(format!("note {} {} {:?}", note.owner, note.step, note.stage), &self.0.notes)
    }

    fn finish<'a>(&'a self, end: End<'a>) -> Reply<'a, store::Finished> {
        let said = self.0.say(format!("finish {} {}", end.id, end.owner.is_some()), &self.0.finishes);
        said.map(|said| said.map(|finish| (finish, None))).boxed()
    }

    fn correct<'a>(&'a self, id: &'a str, _recorded: &'a ResultEvent, _says_more: &'a ResultEvent) -> Reply<'a, ()> {
        self.0.asked.lock().unwrap().push(format!("correct {id}"));
        std::future::ready(Ok(())).boxed()
    }

    fn recorded<'a>(&'a self, _id: &'a str, _fingerprint: Fingerprint) -> Reply<'a, Option<ResultEvent>> {
        std::future::ready(Err(away())).boxed()
    }
}

fn ledger(on_error: OnLedgerError) -> (Ledger, Arc<Scripted>) {
    ledger_with(on_error, Limits::default())
}

fn ledger_with(on_error: OnLedgerError, limits: Limits) -> (Ledger, Arc<Scripted>) {
    let (store, limits) = (Handle::default(), Arc::new(limits));
    let metrics = Arc::new(Metrics::new().unwrap());
    let ttl = Duration::from_secs(3600);
    let ledger = Ledger {
        store: Arc::new(store.clone()),
        is_shared: true,
        link: None,
        on_error,
        on_ambiguous: OnAmbiguous::Resend,
        beside: Arc::new(Beside::new(ttl)),
        counted: Counted::new(Arc::clone(&limits)),
        limits,
        keyring: Arc::default(),
        metrics: Arc::clone(&metrics),
        process: Uuid::new_v4(),
        holdings: AtomicU64::default(),
        watch: Watch::new(on_error, metrics),
    };
    (ledger, store.0)
}

const BODY: &str = r#"{"Phone":"0901888484","MultiChannelTempId":"1"}"#;

fn job(body: &str) -> JobRef<'static> {
    let fingerprint = Fingerprints::new("secret").of(&decode(body.as_bytes(), None).unwrap());
    JobRef {
        id: "a",
        fingerprint,
        is_named: true,
        is_dropped: false,
        first_delivered: Some(Instant::now()),
        may_have_been_elsewhere: false,
        delivery_count: None,
        place: None,
    }
}

fn first() -> JobRef<'static> {
    job(BODY)
}

fn again() -> JobRef<'static> {
    JobRef {
        first_delivered: None,
        may_have_been_elsewhere: true,
        delivery_count: Some(DeliveryCount::Returned(1)),
        ..first()
    }
}

fn event() -> ResultEvent {
    Ending::without_attempt(Outcome::Expired, "a test").into_event("a", SystemTime::UNIX_EPOCH)
}

fn tried() -> Progress {
    Progress { attempts: 2, ..Progress::default() }
}

async fn held(ledger: &Ledger, job: JobRef<'_>) -> (Holding, Progress) {
    match ledger.claim(job).await {
        Claimed::Ours(hold, progress) => (hold, progress),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn without_the_store_a_first_delivery_is_as_new_and_a_redelivered_one_perhaps_sent() {
    for (job, ambiguous) in [(first(), false), (again(), true)] {
        let (ledger, store) = ledger(OnLedgerError::Send);
        let (hold, progress) = held(&ledger, job).await;
        assert_eq!(progress.is_ambiguous(), ambiguous);
        assert_eq!(ledger.mark(job, &hold, &progress).await, Marked::MayBegin);
        ledger.pause(job, &hold, &progress, Duration::ZERO).await;
        assert_eq!(store.asked.lock().unwrap().len(), 2, "asked again only before an attempt");
        assert!(!ledger.is_kept_after_exit(&hold));
    }
}

#[tokio::test]
async fn a_store_lost_before_an_attempt_is_waited_for_or_done_without() {
    for (on_error, job, marked) in [
        (OnLedgerError::Hold, first(), Marked::NotYet),
        (OnLedgerError::Hold, again(), Marked::NotYet),
        (OnLedgerError::Send, first(), Marked::MayBegin),
        (OnLedgerError::Send, again(), Marked::PastUnknown),
    ] {
        let (ledger, store) = ledger(on_error);
        store.claims.lock().unwrap().push_back(Ok(Claim::New));
        let (hold, progress) = held(&ledger, job).await;
        assert!(ledger.is_kept_after_exit(&hold));
        assert_eq!(ledger.mark(job, &hold, &progress).await, marked, "{on_error:?} {}", job.may_have_been_elsewhere);
        assert_eq!(ledger.is_kept_after_exit(&hold), on_error == OnLedgerError::Hold);
    }
}

#[tokio::test]
async fn a_record_nobody_can_read_may_hold_a_mark_and_is_not_waited_for() {
    for on_error in [OnLedgerError::Send, OnLedgerError::Hold] {
        let (ledger, store) = ledger(on_error);
        let unreadable = || StoreError::Unreadable("a test".into());
        store.claims.lock().unwrap().push_back(Err(unreadable()));
        // As a record of a job done says, whose result cannot be read.
        store.notes.lock().unwrap().push_back(Ok(false));
        store.finishes.lock().unwrap().push_back(Err(unreadable()));
        let (holding, progress) = held(&ledger, first()).await;
        assert!(progress.is_ambiguous());
        assert_eq!(ledger.mark(first(), &holding, &progress).await, Marked::MayBegin);
        assert!(matches!(ledger.finish(first(), &holding, &event(), &event()).await, Finish::Recorded));
        assert!(matches!(ledger.claim(again()).await, Claimed::Done(found) if found == event()));
    }
}

#[tokio::test]
async fn a_dropped_job_that_the_store_cannot_be_asked_about_may_have_been_sent() {
    let (ledger, store) = ledger(OnLedgerError::Send);
    let dropped = JobRef { is_dropped: true, ..first() };
    assert!(held(&ledger, dropped).await.1.is_ambiguous());
    store.claims.lock().unwrap().push_back(Ok(Claim::New));
    assert!(!held(&ledger, dropped).await.1.is_ambiguous(), "and has not where it says that it knows nothing of it");
}

#[tokio::test]
async fn what_happened_without_the_store_counts_when_it_is_back() {
    let (ledger, store) = ledger(OnLedgerError::Send);
    let (holding, _) = held(&ledger, first()).await;
    ledger.release(first(), &holding, &tried()).await;
    store.claims.lock().unwrap().push_back(Ok(Claim::New));
    // A producer's repeat, before the job itself comes again.
    let (_, progress) = held(&ledger, first()).await;
    assert_eq!((progress.attempts, progress.is_ambiguous()), (2, true));
}

#[tokio::test]
async fn a_job_worked_without_the_store_is_marked_as_soon_as_it_is_back() {
    let (ledger, store) = ledger(OnLedgerError::Send);
    let (holding, progress) = held(&ledger, first()).await;
    assert!(!ledger.is_kept_after_exit(&holding));
    store.notes.lock().unwrap().extend([Ok(true), Ok(false)]);
    assert_eq!(ledger.mark(first(), &holding, &progress).await, Marked::MayBegin);
    assert!(ledger.is_kept_after_exit(&holding));
    assert_eq!(ledger.mark(first(), &holding, &progress).await, Marked::HeldByAnother);
}

#[tokio::test]
async fn a_mark_that_is_refused_shows_that_another_has_the_job() {
    for on_error in [OnLedgerError::Send, OnLedgerError::Hold] {
        let (ledger, store) = ledger(on_error);
        store.claims.lock().unwrap().push_back(Ok(Claim::New));
        store.notes.lock().unwrap().push_back(Ok(false));
        let (hold, progress) = held(&ledger, first()).await;
        assert_eq!(ledger.mark(first(), &hold, &progress).await, Marked::HeldByAnother);
    }
}

#[tokio::test]
async fn the_notes_of_one_hold_are_numbered_in_their_order() {
    let (ledger, store) = ledger(OnLedgerError::Hold);
    store.claims.lock().unwrap().push_back(Ok(Claim::New));
    store.notes.lock().unwrap().extend([Ok(true), Err(away()), Ok(true)]);
    let (hold, progress) = held(&ledger, first()).await;
    assert_eq!(ledger.mark(first(), &hold, &progress).await, Marked::MayBegin);
    ledger.pause(first(), &hold, &progress, Duration::ZERO).await;
    ledger.release(first(), &hold, &progress).await;
    let asked = store.asked.lock().unwrap().clone();
    for (n, stage) in ["Sending", "Waiting(0ns)", "Released(None)"].into_iter().enumerate() {
        assert!(asked[n + 1].ends_with(&format!(" {} {stage}", n + 1)), "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_hold_a_claim_is_repeated_under_one_name_until_it_is_answered() {
    let (ledger, store) = ledger(OnLedgerError::Hold);
    let refused = StoreError::Refused { why: "a test".into(), hint: "a hint" };
    store.claims.lock().unwrap().extend([Err(away()), Err(refused), Ok(Claim::New), Ok(Claim::New)]);
    held(&ledger, first()).await;
    held(&ledger, first()).await;
    let asked = store.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 4);
    assert!(asked[..3].iter().all(|ask| *ask == asked[0]), "{asked:?}");
    assert_ne!(asked[3], asked[0], "another holding has another name");
}

#[tokio::test(start_paused = true)]
async fn with_hold_an_ending_is_written_however_long_it_takes_and_the_first_stays() {
    let (ledger, store) = ledger(OnLedgerError::Hold);
    store.claims.lock().unwrap().push_back(Ok(Claim::New));
    let (hold, _) = held(&ledger, first()).await;
    let theirs = Ending::without_attempt(Outcome::Failed, "another's").into_event("a", SystemTime::UNIX_EPOCH);
    let mut answers: VecDeque<_> = (0..50).map(|_| Err(away())).collect();
    answers.push_back(Ok(Finish::Already(theirs.clone())));
    *store.finishes.lock().unwrap() = answers;
    let finish = ledger.finish(first(), &hold, &event(), &event()).await;
    assert!(matches!(finish, Finish::Already(found) if found == theirs));
}

#[tokio::test]
async fn with_send_an_ending_the_store_did_not_take_is_known_to_this_process() {
    let (ledger, store) = ledger(OnLedgerError::Send);
    let (hold, _) = held(&ledger, first()).await;
    assert!(matches!(ledger.finish(first(), &hold, &event(), &event()).await, Finish::Recorded));
    let before = store.asked.lock().unwrap().len();
    assert!(matches!(ledger.claim(again()).await, Claimed::Done(found) if found == event()));
    assert_eq!(store.asked.lock().unwrap().len(), before, "the store is not asked for what it has not");
    let other = job(r#"{"Phone":"0901888485","MultiChannelTempId":"1"}"#);
    assert!(matches!(ledger.claim(other).await, Claimed::AnotherJob));
}

#[tokio::test]
async fn with_send_a_job_given_back_without_the_store_is_gone_on_with_by_this_process() {
    let (ledger, _store) = ledger(OnLedgerError::Send);
    let (hold, _) = held(&ledger, first()).await;
    ledger.release(first(), &hold, &tried()).await;
    let (_, progress) = held(&ledger, again()).await;
    assert_eq!((progress.attempts, progress.is_ambiguous()), (2, false));
}

#[tokio::test]
async fn an_answer_for_all_is_written_whoever_holds_the_job() {
    let (ledger, store) = ledger(OnLedgerError::Hold);
    store.claims.lock().unwrap().push_back(Ok(Claim::New));
    store.finishes.lock().unwrap().extend([Ok(Finish::HeldByAnother { may_have_sent: true }), Ok(Finish::Recorded)]);
    let (hold, _) = held(&ledger, first()).await;
    assert!(matches!(ledger.finish(first(), &hold, &event(), &event()).await, Finish::HeldByAnother { .. }));
    assert!(matches!(ledger.finish_for_all(first(), &hold, &event()).await, Finish::Recorded));
    assert_eq!(store.asked.lock().unwrap()[1..], ["finish a true".to_owned(), "finish a false".to_owned()]);
}

#[tokio::test]
async fn one_record_that_cannot_be_read_does_not_mean_that_the_store_is_away() {
    let (ledger, store) = ledger(OnLedgerError::Send);
    store.claims.lock().unwrap().push_back(Err(StoreError::Unreadable("a test".into())));
    held(&ledger, first()).await;
    assert_eq!(ledger.watch.now(Trouble::None), Trouble::None);
    held(&ledger, first()).await;
    assert_eq!(ledger.watch.now(Trouble::None), Trouble::Away(None));
}

#[test]
fn only_a_shared_ledger_that_is_always_asked_sees_every_attempt() {
    for (is_shared, on_error, sees) in [
        (true, OnLedgerError::Hold, true),
        (true, OnLedgerError::Send, false),
        (false, OnLedgerError::Hold, false),
        (false, OnLedgerError::Send, false),
    ] {
        let ledger = Ledger { is_shared, ..ledger(on_error).0 };
        assert_eq!(ledger.sees_every_attempt(), sees);
    }
}

#[tokio::test]
async fn a_job_without_a_name_that_goes_back_is_closed_because_its_next_delivery_has_another_id() {
    let (ledger, store) = ledger(OnLedgerError::Send);
    store.claims.lock().unwrap().push_back(Ok(Claim::New));
    store.finishes.lock().unwrap().push_back(Ok(Finish::Recorded));
    let unnamed = JobRef { is_named: false, ..first() };
    let (holding, progress) = held(&ledger, unnamed).await;
    ledger.release(unnamed, &holding, &progress).await;
    assert_eq!(store.asked.lock().unwrap().last().map(String::as_str), Some("finish a true"));
}
