//! Results that the store did not take while it was away. They are written once it answers again, in their order.
//!
//! An earlier result stays, unless this one says more, as with every result. One that does not say that an OTP went
//! out also gives way to another worker that has the job now.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::fingerprint::Fingerprint;
use super::memory::Memory;
use super::store::{End, Finish, Store, StoreError};
use crate::backoff::Policy;
use crate::job::result::{Outcome, ResultEvent};
use crate::limits::Place;

/// The most results that this process keeps because the store did not take them, and the most that it keeps of
/// those that the store took. The oldest are forgotten first. docs/ledger.md says what they cost.
pub(super) const MOST_UNWRITTEN: usize = 50_000;
pub(super) const MOST_RECENT: usize = 20_000;

/// For how long a result that the store took is kept here too: a producer repeats a job soon, or not at all.
pub(super) const RECENT_FOR: Duration = Duration::from_secs(3600);

/// How long a worker that ends tries once more to write what it owes.
const LAST_TRY: Duration = Duration::from_secs(2);

/// A result that the store does not have yet.
#[derive(Clone, Debug)]
pub struct Debt {
    /// The job.
    pub id: String,
    /// What tells it from another under the same id.
    pub fingerprint: Fingerprint,
    /// Who held it here.
    pub owner: String,
    /// The result.
    pub event: ResultEvent,
    /// The place that the job had under the limits.
    pub place: Option<Place>,
    /// When its last attempt began.
    pub attempted: Option<Instant>,
}

impl Debt {
    fn end(&self) -> End<'_> {
        End {
            id: &self.id,
            fingerprint: self.fingerprint,
            owner: Some(&self.owner),
            event: &self.event,
            place: self.place.as_ref(),
            attempted: self.attempted,
        }
    }
}

/// How long publishing a correction may take. Meanwhile nothing more is written.
const CORRECT_WITHIN: Duration = Duration::from_secs(30);

/// What this process knows beside the store, and owes to it.
#[derive(Debug)]
pub struct Beside {
    /// Results and jobs left that the store did not take. They end with this process.
    pub unwritten: Memory,
    /// Results that the store has, or had.
    pub recent: Memory,
    ttl: Duration,
    queue: Mutex<VecDeque<(Instant, Debt)>>,
    added: Notify,
}

impl Beside {
    /// Knows nothing yet. The store forgets a job after `ttl`.
    pub fn new(ttl: Duration) -> Self {
        Self {
            unwritten: Memory::new(ttl, MOST_UNWRITTEN),
            recent: Memory::new(ttl.min(RECENT_FOR), MOST_RECENT),
            ttl,
            queue: Mutex::default(),
            added: Notify::new(),
        }
    }

    /// The store must be told this result.
    pub fn owe(&self, debt: Debt) {
        let mut queue = self.queue();
        queue.push_back((Instant::now() + self.ttl, debt));
        if queue.len() > MOST_UNWRITTEN {
            queue.pop_front();
        }
        drop(queue);
        self.added.notify_one();
    }

    /// The store need not be told the job's result: the job is tried anew.
    pub fn forgive(&self, id: &str) {
        self.queue().retain(|(_, debt)| debt.id != id);
    }

    /// How many results are owed.
    pub fn owed(&self) -> usize {
        self.queue().len()
    }

    /// The debt to pay first. What the store would have forgotten by now is forgotten.
    pub(super) fn first(&self) -> Option<Debt> {
        let mut queue = self.queue();
        while let Some((until, debt)) = queue.front() {
            if *until > Instant::now() {
                return Some(debt.clone());
            }
            queue.pop_front();
        }
        None
    }

    /// The store has this result, or another.
    fn paid(&self, debt: &Debt, recorded: Option<&ResultEvent>) {
        let mut queue = self.queue();
        // Another run of the job may have ended meanwhile.
        let is_first = queue.front().is_some_and(|(_, first)| first.id == debt.id && first.owner == debt.owner);
        if is_first {
            queue.pop_front();
            self.unwritten.forget(&debt.id);
        }
        drop(queue);
        if let Some(event) = recorded {
            self.recent.record_latest(&debt.id, debt.fingerprint, event);
        }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<(Instant, Debt)>> {
        // No code panics while it holds this lock, and the queue is whole even if some did.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes a result that says more than one that was published before.
pub trait Correct: Send + Sync {
    /// Publishes it, and waits until it is confirmed.
    fn correct(&self, id: &str, event: &ResultEvent) -> impl Future<Output = ()> + Send;
}

/// Writes what is owed to the store.
#[derive(Debug)]
pub struct WriteBack {
    store: Arc<dyn Store>,
    beside: Arc<Beside>,
}

impl WriteBack {
    /// Writes to this store what `beside` owes.
    pub fn new(store: Arc<dyn Store>, beside: Arc<Beside>) -> Self {
        Self { store, beside }
    }

    /// Writes until the last job has ended, and then tries once more.
    pub async fn run(self, ended: CancellationToken, results: Arc<impl Correct>) {
        let writing = async {
            loop {
                self.beside.added.notified().await;
                self.write_all(&*results).await;
            }
        };
        tokio::select! {
            () = ended.cancelled() => {}
            () = writing => {}
        }
        let _ = timeout(LAST_TRY, self.write_once(&*results)).await;
        if self.beside.owed() > 0 {
            warn!(
                results = self.beside.owed(),
                hint = "a repeat of these jobs may be sent again; their results were published",
                "the ledger could not be told some results before the end"
            );
        }
    }

    async fn write_all(&self, results: &impl Correct) {
        let mut waits = Policy::POLL.waits();
        let mut written = 0;
        loop {
            match self.write_once(results).await {
                Ok(more) => written += more,
                Err(more) => {
                    written += more;
                    sleep(waits.next_wait()).await;
                    continue;
                }
            }
            if written > 0 {
                info!(results = written, "the ledger was told the results that it had not taken");
            }
            return;
        }
    }

    /// Writes until nothing is owed (`Ok`) or the store does not take it (`Err`). Says how many were written.
    async fn write_once(&self, results: &impl Correct) -> Result<usize, usize> {
        let mut written = 0;
        while let Some(debt) = self.beside.first() {
            let (said, is_second) = self.write(&debt).await;
            match said {
                Ok(Finish::Recorded) if is_second => {
                    written += 1;
                    self.tell_of_second_otp(&debt, &debt.event.clone().as_duplicate(), results).await;
                }
                Ok(Finish::Recorded) => {
                    written += 1;
                    self.beside.paid(&debt, Some(&debt.event));
                }
                Ok(Finish::Already(recorded)) if recorded.hides_a_second_otp_of(&debt.event) => {
                    self.tell_of_second_otp(&debt, &recorded, results).await;
                }
                Ok(Finish::Already(recorded)) => {
                    if debt.event.hides_a_second_otp_of(&recorded) {
                        self.publish(&debt, &recorded, results).await;
                    }
                    self.beside.paid(&debt, Some(&recorded));
                }
                // Nobody can write its record.
                Ok(Finish::HeldByAnother { .. }) | Err(StoreError::Unreadable(_)) => self.beside.paid(&debt, None),
                Err(StoreError::Unreachable(_) | StoreError::Refused { .. } | StoreError::NotOurs(_)) => {
                    return Err(written);
                }
            }
        }
        Ok(written)
    }

    /// Writes a result. That an OTP went out is written whoever has the job now: says whether that one may have sent it,
    /// too, and could not know of this one.
    async fn write(&self, debt: &Debt) -> (Result<Finish, StoreError>, bool) {
        let said = self.store.finish(debt.end()).await.map(|(finish, _)| finish);
        match said {
            Ok(Finish::HeldByAnother { may_have_sent }) if debt.event.outcome == Outcome::Accepted => {
                let is_second = may_have_sent && !debt.event.may_be_duplicate;
                // In one step: this worker may end before it takes another, or not hear the answer.
                let event = if is_second { debt.event.clone().as_duplicate() } else { debt.event.clone() };
                let for_all = End { owner: None, event: &event, ..debt.end() };
                (self.store.finish(for_all).await.map(|(finish, _)| finish), is_second)
            }
            said => (said, false),
        }
    }

    /// Publishes a result that says more behind one that this worker has published.
    async fn publish(&self, debt: &Debt, says_more: &ResultEvent, results: &impl Correct) {
        if timeout(CORRECT_WITHIN, results.correct(&debt.id, says_more)).await.is_err() {
            warn!("a result that says more than the one before could not be published in time");
        }
    }

    /// Another worker sent the job meanwhile, and neither knew of the other. The result that was published last
    /// must say so, and so must the one that a producer's repeat gets.
    async fn tell_of_second_otp(&self, debt: &Debt, recorded: &ResultEvent, results: &impl Correct) {
        // What eSMS took is worth more than what it refused before.
        let says_more = if recorded.outcome == Outcome::Rejected { &debt.event } else { recorded };
        let says_so = says_more.clone().as_duplicate();
        // Before it is published: a repeat that comes right behind it must not be told less.
        self.beside.unwritten.record_latest(&debt.id, debt.fingerprint, &says_so);
        // The id is not logged: some producers take the phone number as the id.
        warn!(
            hint = "one more result of the job says so: MayBeDuplicate",
            "two workers sent a job while the ledger was away: the person may have got two OTPs"
        );
        // Before it is published, too: a worker that was held up, and publishes the other result behind this one, looks
        // here once more. Where this fails, only that worker and a producer's repeat are not told.
        let _ = self.store.correct(&debt.id, recorded, &says_so).await;
        self.publish(debt, &says_so, results).await;
        self.beside.paid(debt, Some(&says_so));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::result::Ending;
    use crate::ledger::store::{Ask, Claim};
    use std::time::SystemTime;

    fn debt(id: &str) -> Debt {
        let event = Ending::without_attempt(Outcome::Accepted, "a test").into_event(id, SystemTime::UNIX_EPOCH);
        Debt { id: id.into(), fingerprint: Fingerprint::NONE, owner: "one".into(), event, place: None, attempted: None }
    }

    #[test]
    fn the_oldest_debts_are_forgotten_when_there_are_too_many() {
        let beside = Beside::new(Duration::from_secs(60));
        for n in 0..MOST_UNWRITTEN + 5 {
            beside.owe(debt(&n.to_string()));
        }
        assert_eq!(beside.owed(), MOST_UNWRITTEN);
        assert_eq!(beside.first().unwrap().id, "5");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_store_would_have_forgotten_is_not_written_any_more() {
        let beside = Beside::new(Duration::from_secs(60));
        beside.owe(debt("old"));
        tokio::time::advance(Duration::from_secs(40)).await;
        beside.owe(debt("new"));
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(beside.first().unwrap().id, "new");
        assert_eq!(beside.owed(), 1);
    }

    #[test]
    fn what_is_paid_is_known_as_recent_and_the_store_is_asked_again() {
        let beside = Beside::new(Duration::from_secs(60));
        let debt = debt("a");
        beside.unwritten.record_done("a", debt.fingerprint, &debt.event);
        beside.owe(debt.clone());
        beside.paid(&debt, Some(&debt.event));
        let ask = Ask { id: "a", fingerprint: debt.fingerprint, owner: "two", first_delivered: None, place: None };
        assert!(matches!(beside.unwritten.look_up(&ask), Claim::New));
        assert!(matches!(beside.recent.look_up(&ask), Claim::Done(found) if found == debt.event));
        assert_eq!(beside.owed(), 0);
    }
}
