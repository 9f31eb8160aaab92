//! The ledger: what has been sent, or may have been. A job that it knows is not sent as if it were new.
//!
//! A job is *claimed*, marked as *sending* before the first byte of each attempt, and *done* with its whole
//! result. [`store`] says what is kept where, and [`past`] decides what follows from it.

pub mod fingerprint;
mod holding;
pub mod link;
pub mod memory;
pub mod past;
pub mod redis;
pub mod settings;
pub mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::backoff::Policy;
use crate::job::progress::{OnAmbiguous, Progress};
use crate::job::request::OtpRequest;
use crate::job::result::ResultEvent;
use crate::telemetry::metrics::Metrics;
use fingerprint::{Fingerprint, Fingerprints};
pub use holding::Holding;
use memory::Memory;
use past::{Decision, JobRef, Record, decide};
use redis::Redis;
use settings::{LedgerSettings, OnLedgerError, StoreSettings};
use store::{Ask, Claim, Finish, Note, Stage, Store, StoreError};

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
    store: Box<dyn Store>,
    /// Whether the store is another process, and so is still there after the end of this one.
    is_shared: bool,
    on_error: OnLedgerError,
    on_ambiguous: OnAmbiguous,
    /// Results, and jobs that were left, that could not be written to the store. They end with this process.
    unwritten: Memory,
    fingerprints: Fingerprints,
    process: Uuid,
    holdings: AtomicU64,
    reachable: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Ledger {
    /// The ledger of these settings. `secret` makes its fingerprints: all workers of a queue share it.
    pub fn new(settings: &LedgerSettings, on_ambiguous: OnAmbiguous, secret: &str, metrics: Arc<Metrics>) -> Self {
        let LedgerSettings { store, lease, ttl, on_error } = settings;
        let (store, is_shared): (Box<dyn Store>, bool) = match store {
            StoreSettings::Memory => (Box::new(Memory::new(*ttl)), false),
            StoreSettings::Redis(address) => (Box::new(Redis::new(address.clone(), *lease, *ttl)), true),
        };
        Self {
            store,
            is_shared,
            on_error: *on_error,
            on_ambiguous,
            unwritten: Memory::new(*ttl),
            fingerprints: Fingerprints::new(secret),
            process: Uuid::new_v4(),
            holdings: AtomicU64::default(),
            reachable: AtomicBool::new(true),
            metrics,
        }
    }

    /// The fingerprint of a job.
    pub fn fingerprint(&self, request: &OtpRequest) -> Fingerprint {
        self.fingerprints.of(request)
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

    /// Asks for a job. With `hold` it waits for the store.
    pub async fn claim(&self, job: JobRef<'_>) -> Claimed {
        let owner = format!("{}:{}", self.process, self.holdings.fetch_add(1, Ordering::Relaxed));
        let is_first_delivery = job.is_first_delivery;
        let ask = Ask { id: job.id, fingerprint: job.fingerprint, owner: &owner, is_first_delivery };
        let unwritten = self.unwritten.claim_known(&ask);
        match unwritten {
            Claim::Done(event) => return Claimed::Done(event),
            Claim::AnotherJob => return Claimed::AnotherJob,
            Claim::New | Claim::Anew(_) | Claim::Left(..) | Claim::HeldByAnother(_) => {}
        }
        let said = self.until_answered(|| self.store.claim(ask)).await;
        match decide(said, unwritten, job, self.sees_every_attempt()) {
            Decision::Ours { past, progress, record } => {
                Claimed::Ours(Holding::new(owner, record), progress.with_past(past, self.on_ambiguous))
            }
            Decision::HeldByAnother => Claimed::HeldByAnother,
            Decision::Done(event) => Claimed::Done(event),
            Decision::AnotherJob => Claimed::AnotherJob,
        }
    }

    /// Marks an attempt as under way, before its first byte. `begun` counts the attempt. The lease is renewed.
    pub async fn mark(&self, job: JobRef<'_>, holding: &Holding, begun: &Progress) -> Marked {
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
            Err(StoreError::Unreachable(_) | StoreError::Refused(_)) => false,
        }
    }

    /// The job goes back to the broker. Where this cannot be written, the next worker waits for the end of
    /// the lease.
    pub async fn release(&self, job: JobRef<'_>, holding: &Holding, progress: &Progress) {
        if holding.record() == Record::InStore {
            let _ = self.note(job, holding, Stage::Released(job.delivery_count), progress).await;
        } else {
            self.unwritten.record_left(job.id, job.fingerprint, progress, job.delivery_count);
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
        self.observe(self.store.note(note).await)
    }

    /// Writes down how a job ended. The first result stays. With `hold` it waits for the store.
    pub async fn finish(&self, job: JobRef<'_>, holding: &Holding, event: &ResultEvent) -> Finish {
        self.end(job, Some(holding.owner()), event).await
    }

    /// The same, although another worker has the job: eSMS has accepted it from this worker.
    pub async fn finish_for_all(&self, job: JobRef<'_>, event: &ResultEvent) -> Finish {
        self.end(job, None, event).await
    }

    async fn end(&self, job: JobRef<'_>, owner: Option<&str>, event: &ResultEvent) -> Finish {
        let end = || self.store.finish(job.id, job.fingerprint, owner, event);
        match self.until_answered(end).await {
            Ok(finish) => finish,
            Err(_) => self.unwritten.record_done(job.id, job.fingerprint, event),
        }
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
            match self.observe(step().await) {
                Err(StoreError::Unreachable(_) | StoreError::Refused(_)) if self.on_error == OnLedgerError::Hold => {
                    sleep(polls.next_wait()).await;
                }
                answered => return answered,
            }
        }
    }

    /// Counts a step that failed, and logs when the store goes away and comes back.
    fn observe<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if answer.is_err() {
            self.metrics.ledger_error();
        }
        match &answer {
            Ok(_) => {
                if !self.reachable.swap(true, Ordering::Relaxed) {
                    info!("the ledger answers again");
                }
            }
            Err(error @ StoreError::Unreadable(_)) => {
                warn!(%error, hint = UNREADABLE_HINT, "the ledger's record of a job cannot be read");
            }
            Err(error @ (StoreError::Unreachable(_) | StoreError::Refused(_))) => {
                if self.reachable.swap(false, Ordering::Relaxed) {
                    warn!(%error, hint = self.on_error.hint(), "the ledger does not answer");
                } else {
                    debug!(%error, "the ledger does not answer");
                }
            }
        }
        answer
    }
}

fn go_on_without_store(holding: &Holding, may_have_been_sent: bool) -> Marked {
    holding.set_record(Record::InProcess);
    if may_have_been_sent { Marked::PastUnknown } else { Marked::MayBegin }
}

/// What a person is told of a record that cannot be read.
const UNREADABLE_HINT: &str =
    "the job counts as one that may have been sent; find out what wrote the record, and delete it";

#[cfg(test)]
mod tests;
