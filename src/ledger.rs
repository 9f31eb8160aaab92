//! The ledger: what has been sent, or may have been. A job that it knows is not sent as if it were new.
//!
//! A job is *claimed*, marked as *sending* before the first byte of each attempt, and *done* with its whole
//! result. [`store`] says what is kept where, and [`past`] decides what follows from it.

pub mod address;
pub mod counts;
mod debts;
mod dial;
mod ending;
pub mod fingerprint;
mod holding;
pub mod home;
pub mod link;
pub mod memory;
pub mod pace;
pub mod past;
mod places;
pub mod records;
pub mod redis;
pub mod refusal;
pub mod settings;
pub mod store;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::info;
use uuid::Uuid;

use crate::backoff::Policy;
use crate::job::progress::{OnAmbiguous, Progress};
use crate::job::request::OtpRequest;
use crate::job::result::ResultEvent;
use crate::limits::counted::Counted;
use crate::limits::{HeldBack, Limits, Place};
use crate::telemetry::metrics::Metrics;
use debts::Beside;
pub use debts::{Correct, WriteBack};
use fingerprint::{Fingerprint, Keyring};
pub use holding::Holding;
use link::Link;
use memory::{MOST_JOBS, Memory};
use pace::Pace;
use past::{Decision, JobRef, Local, Record, decide};
use redis::Redis;
use settings::{LedgerSettings, OnLedgerError, StoreSettings};
use store::{Ask, Claim, Note, Stage, Store, StoreError};
use watch::{Watch, mends, not_ours};

/// What a delivery finds when it claims its job.
#[derive(Debug)]
pub enum Claimed {
    /// The job is this delivery's to work, and this is what it has been through.
    Ours(Holding, Progress),
    /// Another worker has it.
    HeldByAnother,
    /// It has ended; this is its result.
    Done(ResultEvent),
    /// The id belongs to another job.
    AnotherJob,
    /// A limit holds it back. This is what it has been through, and how its end is written down.
    Limited(Holding, Progress, HeldBack),
}

/// Whether an attempt may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// It may.
    MayBegin,
    /// The store cannot be reached, and from here on the job goes on without it. Another worker may have
    /// sent the job: whether an attempt may begin is to be decided again.
    PastUnknown,
    /// Another worker has the job.
    HeldByAnother,
    /// The store cannot be reached, and is to be waited for.
    NotYet,
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    store: Arc<dyn Store>,
    /// Whether the store is another process, and so is still there after the end of this one.
    is_shared: bool,
    /// The connection to that process.
    link: Option<Arc<Link>>,
    on_error: OnLedgerError,
    on_ambiguous: OnAmbiguous,
    /// What this process knows beside a shared store.
    beside: Arc<Beside>,
    /// What this process has counted under the limits. Without a shared store, it decides.
    counted: Counted,
    limits: Arc<Limits>,
    keyring: Arc<Keyring>,
    metrics: Arc<Metrics>,
    process: Uuid,
    holdings: AtomicU64,
    watch: Watch,
}

/// For so long after the store was away, jobs may still be in flight that it knows nothing of.
const CATCHING_UP: Duration = Duration::from_secs(60);

impl Ledger {
    /// The ledger of these settings, and what tells a shared store the results that it did not take.
    pub fn new(
        settings: &LedgerSettings,
        limits: Arc<Limits>,
        on_ambiguous: OnAmbiguous,
        metrics: Arc<Metrics>,
    ) -> (Self, WriteBack) {
        let LedgerSettings { store, lease, ttl, on_error } = settings;
        let keyring = Arc::new(Keyring::default());
        let (store, link): (Arc<dyn Store>, Option<Arc<Link>>) = match store {
            StoreSettings::Memory => (Arc::new(Memory::new(*ttl, MOST_JOBS)), None),
            StoreSettings::Redis(redis) => {
                let redis = Redis::new(redis, Arc::clone(&limits), Arc::clone(&keyring), *lease, *ttl);
                let link = redis.link();
                (Arc::new(redis), Some(link))
            }
        };
        let beside = Arc::new(Beside::new(*ttl));
        let write_back = WriteBack::new(Arc::clone(&store), Arc::clone(&beside));
        let ledger = Self {
            store,
            is_shared: link.is_some(),
            link,
            on_error: *on_error,
            on_ambiguous,
            beside,
            counted: Counted::new(Arc::clone(&limits)),
            limits,
            keyring,
            metrics: Arc::clone(&metrics),
            process: Uuid::new_v4(),
            holdings: AtomicU64::default(),
            watch: Watch::new(*on_error, metrics),
        };
        (ledger, write_back)
    }

    /// What the workers tell each other of their pace, where they share a store.
    pub fn pace(&self) -> Option<Pace> {
        self.link.as_ref().map(|link| Pace::new(Arc::clone(link), self.process))
    }

    /// Reaches the store for the first time, so that the first jobs need not wait for it.
    ///
    /// # Errors
    /// [`StoreError::NotOurs`]. Whatever else is wrong may be mended while the worker runs.
    pub async fn open(&self) -> Result<(), StoreError> {
        if self.is_shared {
            info!(worker = %self.process, "jobs are recorded under this name of the worker");
        }
        not_ours(self.watch.observe(self.store.open().await))
    }

    /// The broker's cluster name is known now: with it, another deployment of the same names is told apart.
    ///
    /// # Errors
    /// [`StoreError::NotOurs`].
    pub async fn belongs_to(&self, broker: &str) -> Result<(), StoreError> {
        not_ours(self.watch.observe(self.store.belongs_to(broker).await))
    }

    /// The fingerprint of a job.
    pub fn fingerprint(&self, request: &OtpRequest) -> Fingerprint {
        self.keyring.fingerprint(request)
    }

    /// Whether every attempt of any worker is written down here: the store is shared, and no worker sends
    /// while it cannot reach the store.
    pub fn sees_every_attempt(&self) -> bool {
        self.is_shared && self.on_error == OnLedgerError::Hold
    }

    /// Whether what is written down of a held job is still there after the end of this process.
    pub fn is_kept_after_exit(&self, holding: &Holding) -> bool {
        self.is_shared && holding.record() == Record::InStore
    }

    /// Asks for a job. With `hold` it waits for the store, unless this process knows the result.
    pub async fn claim(&self, job: JobRef<'_>) -> Claimed {
        let owner = format!("{}:{}", self.process, self.holdings.fetch_add(1, Ordering::Relaxed));
        let (first_delivered, place) = (job.first_delivered, place_to_take(job));
        let ask = Ask { id: job.id, fingerprint: job.fingerprint, owner: &owner, first_delivered, place };
        let unwritten = self.beside.unwritten.claim_known(&ask);
        match unwritten {
            Claim::Done(event) => return Claimed::Done(event),
            Claim::AnotherJob => return Claimed::AnotherJob,
            // The next run's result is the one to tell the store.
            Claim::Anew(_) => self.beside.forgive(job.id),
            Claim::New | Claim::Left(..) | Claim::HeldByAnother(_) | Claim::Limited(..) => {}
        }
        let recent = self.beside.recent.known(&ask);
        let said = match &recent {
            Claim::Done(event) if !event.outcome.may_be_tried_anew() => self.watch.observe(self.store.claim(ask).await),
            Claim::Done(_)
            | Claim::New
            | Claim::Anew(_)
            | Claim::Left(..)
            | Claim::HeldByAnother(_)
            | Claim::Limited(..)
            | Claim::AnotherJob => self.until_answered(|| self.store.claim(ask)).await,
        };
        let is_lost = matches!(said, Ok(Claim::New | Claim::Anew(_) | Claim::Left(..) | Claim::Limited(..)));
        match decide(said, Local { unwritten, recent }, job, self.sees_every_attempt()) {
            Decision::Ours { past, progress, record } => {
                self.place(job, Holding::new(owner, record), progress.with_past(past, self.on_ambiguous))
            }
            Decision::Limited { held_back, past, progress } => {
                let progress = progress.with_past(past, self.on_ambiguous);
                Claimed::Limited(Holding::new(owner, Record::InStore), progress, held_back)
            }
            Decision::HeldByAnother => Claimed::HeldByAnother,
            Decision::Done(event) => {
                if is_lost {
                    self.owe(job, &Holding::new(owner, Record::InProcess), &event);
                }
                self.remember(job, &event);
                Claimed::Done(event)
            }
            Decision::AnotherJob => Claimed::AnotherJob,
        }
    }

    /// The job is to be worked here. It takes its place under the limits, unless one holds it back. Where the shared
    /// store has decided, it has its place; so it has where it may have been sent.
    fn place(&self, job: JobRef<'_>, holding: Holding, progress: Progress) -> Claimed {
        let Some(place) = place_to_take(job) else { return Claimed::Ours(holding, progress) };
        let is_decided = self.is_shared && holding.record() == Record::InStore && !self.store_may_count_less();
        if is_decided || !progress.is_untouched() {
            self.counted.take(place);
            return Claimed::Ours(holding, progress);
        }
        match self.counted.reserve(place) {
            Ok(()) => Claimed::Ours(holding, progress),
            Err(held_back) => Claimed::Limited(holding, progress, held_back),
        }
    }

    /// Whether the store may not have counted yet what this process sent while it was away.
    fn store_may_count_less(&self) -> bool {
        self.beside.owed() > 0 || self.watch.failed_within(CATCHING_UP)
    }

    /// Marks an attempt as under way, before its first byte. `begun` counts the attempt. The lease is renewed.
    pub async fn mark(&self, job: JobRef<'_>, holding: &Holding, begun: &Progress) -> Marked {
        let marked = self.write_mark(job, holding, begun).await;
        if marked == Marked::MayBegin {
            holding.attempt_begins();
        }
        marked
    }

    async fn write_mark(&self, job: JobRef<'_>, holding: &Holding, begun: &Progress) -> Marked {
        if holding.record() == Record::Unreadable {
            return Marked::MayBegin;
        }
        match self.note(job, holding, Stage::Sending, begun).await {
            Ok(true) => {
                holding.set_record(Record::InStore);
                Marked::MayBegin
            }
            Ok(false) => Marked::HeldByAnother,
            Err(_) if holding.record() == Record::InProcess => Marked::MayBegin,
            Err(StoreError::Unreadable(_)) => go_on_without_store(holding, true),
            Err(_) if self.on_error == OnLedgerError::Hold => Marked::NotYet,
            Err(_) => go_on_without_store(holding, job.may_have_been_elsewhere),
        }
    }

    /// An attempt is over, and the next is `wait` away. Where this cannot be written, the attempt counts as
    /// under way: that errs on the safe side.
    pub async fn pause(&self, job: JobRef<'_>, holding: &Holding, progress: &Progress, wait: Duration) {
        if holding.record() == Record::InStore {
            let _ = self.note(job, holding, Stage::Waiting(wait), progress).await;
        }
    }

    /// Renews the lease of a job that waits for the store. False while the store does not answer.
    pub async fn renew(&self, job: JobRef<'_>, holding: &Holding, progress: &Progress) -> bool {
        match self.note(job, holding, Stage::Waiting(Duration::ZERO), progress).await {
            Ok(_) | Err(StoreError::Unreadable(_)) => true,
            Err(StoreError::Unreachable(_) | StoreError::Refused { .. } | StoreError::NotOurs(_)) => false,
        }
    }

    /// The job goes back to the broker. Where this cannot be written, the next worker waits for the end of
    /// the lease.
    pub async fn release(&self, job: JobRef<'_>, holding: &Holding, progress: &Progress) {
        if !job.is_named {
            return self.close(job, holding, progress).await;
        }
        if holding.record() == Record::InStore {
            let _ = self.note(job, holding, Stage::Released(job.delivery_count), progress).await;
        } else {
            self.beside.unwritten.record_left(job.id, job.fingerprint, progress, job.delivery_count);
        }
    }

    async fn note(
        &self,
        job: JobRef<'_>,
        holding: &Holding,
        stage: Stage,
        progress: &Progress,
    ) -> Result<bool, StoreError> {
        let (id, fingerprint, owner) = (job.id, job.fingerprint, holding.owner());
        let note = Note { id, fingerprint, owner, step: holding.next_step(), stage, progress };
        self.watch.observe(self.store.note(note).await)
    }

    /// The result of this very job, if it has ended.
    pub async fn recorded(&self, job: JobRef<'_>) -> Option<ResultEvent> {
        self.until_answered(|| self.store.recorded(job.id, job.fingerprint)).await.ok().flatten()
    }

    /// Repeats a step until the store answers; once only, where jobs go on without the store. A record that
    /// cannot be read is not waited for: only a person can mend it.
    async fn until_answered<'a, T>(&self, step: impl Fn() -> store::Reply<'a, T>) -> Result<T, StoreError> {
        let mut polls = Policy::POLL.waits();
        loop {
            match self.watch.observe(step().await) {
                Err(error) if mends(&error) && self.on_error == OnLedgerError::Hold => {
                    sleep(polls.next_wait()).await;
                }
                answered => return answered,
            }
        }
    }
}

/// The place of a job that is to be sent. One that the broker dropped is not, nor is one past its deadline.
fn place_to_take(job: JobRef<'_>) -> Option<&Place> {
    job.place.filter(|place| !job.is_dropped && place.until > Instant::now())
}

fn go_on_without_store(holding: &Holding, may_have_been_sent: bool) -> Marked {
    holding.set_record(Record::InProcess);
    if may_have_been_sent { Marked::PastUnknown } else { Marked::MayBegin }
}

#[cfg(test)]
mod tests;
