//! What has been sent, or may have been: a job known here is not sent as if it were new.
//!
//! A job is claimed, marked as being sent before the first byte of each attempt, and done with its
//! whole result. What is kept where is the [`store`]'s; what follows from it is decided here.

pub mod fingerprint;
pub mod link;
pub mod memory;
pub mod redis;
pub mod settings;
pub mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::time::sleep;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::backoff::Policy;
use crate::config::{Config, OnAmbiguous, OnLedgerError, StoreConfig};
use crate::job::progress::Progress;
use crate::job::request::OtpRequest;
use crate::job::result::ResultEvent;
use crate::telemetry::metrics::Metrics;
pub use fingerprint::{Fingerprint, Fingerprints};
pub use link::Address;
use memory::Memory;
use redis::Redis;
pub use store::Finish;
use store::{Ask, Claim, Left, Note, Stage, Store, StoreError};

/// What a lease lasts longer than an attempt can: two steps of the store, and a pause of the process.
pub const LEASE_MARGIN: Duration = Duration::from_secs(5);

/// What a person is told of a record that cannot be read.
const UNREADABLE: &str = "the job is taken for one that may have been sent; find out what wrote esms-otp-worker:job: and its id, and delete it";

/// Whether `later` is the delivery right after `earlier`. RabbitMQ 4 gives no count with a first
/// delivery, where 3.10 gives 0; every later one has a count, unless its queue counts none.
pub fn follows(earlier: Option<u64>, later: Option<u64>) -> bool {
    later.is_some_and(|later| later.checked_sub(1) == Some(earlier.unwrap_or_default()))
}

/// A delivery's job, as the ledger is asked about it.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// Its id.
    pub id: &'a str,
    /// What tells it from another under the same id.
    pub fingerprint: Fingerprint,
    /// Whether the producer named it: an id made up for one delivery is not that of the next.
    pub is_named: bool,
    /// Whether the broker gave it up, so that it is not to be sent.
    pub is_dropped: bool,
    /// Whether another worker may have had it: the broker delivered it before, or the ledger knew of one.
    pub redelivered: bool,
    /// How often its queue has taken it back, where it counts.
    pub delivery_count: Option<u64>,
}

/// What the store says, with what this process could not write there: it went on with the job meanwhile.
fn with_unwritten(claim: Claim, unwritten: Claim) -> Claim {
    match (claim, unwritten) {
        (Claim::New, Claim::Left(_, progress)) | (Claim::Left(_, progress), Claim::Left(..)) => {
            Claim::Left(Left::Sending, progress)
        }
        (claim, _) => claim,
    }
}

/// What a delivery meets.
#[derive(Debug)]
pub enum Claimed {
    /// The job is this delivery's to work, and this is what it has been through.
    Ours(Holding, Progress),
    /// Another worker has it.
    Elsewhere,
    /// It has ended; this is its result.
    Done(ResultEvent),
    /// The id belongs to another job.
    AnotherJob,
}

/// One holding of a job, from its claim to its end or its going back.
#[derive(Debug)]
pub struct Holding {
    owner: String,
    steps: AtomicU32,
    /// The store could not be reached, and the job goes on without it.
    apart: AtomicBool,
    /// The job's record cannot be read: nothing can be told it, and nothing it says counts.
    is_unreadable: bool,
}

impl Holding {
    fn step(&self) -> u32 {
        self.steps.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn is_apart(&self) -> bool {
        self.apart.load(Ordering::Relaxed)
    }
}

/// Whether an attempt may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// It may.
    Ours,
    /// The store cannot be reached, and from here the job goes on without it.
    Unseen,
    /// Another worker has the job.
    Elsewhere,
    /// The store cannot be reached, and is to be waited for.
    NotYet,
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    store: Box<dyn Store>,
    /// Whether the store is another process's, and so outlives this one.
    outlives: bool,
    on_error: OnLedgerError,
    on_ambiguous: OnAmbiguous,
    /// What could not be written to the store, endings and jobs left, for as long as this process lives.
    unwritten: Memory,
    fingerprints: Fingerprints,
    process: Uuid,
    holdings: AtomicU64,
    reachable: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Ledger {
    /// The ledger of these settings.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Self {
        let ttl = config.ledger.ttl;
        let (store, outlives): (Box<dyn Store>, bool) = match &config.ledger.store {
            StoreConfig::Memory => (Box::new(Memory::new(ttl)), false),
            StoreConfig::Redis(address) => {
                (Box::new(Redis::new(address.clone(), config.esms.timeout + LEASE_MARGIN, ttl)), true)
            }
        };
        Self {
            store,
            outlives,
            on_error: config.ledger.on_error,
            on_ambiguous: config.retry.on_ambiguous,
            unwritten: Memory::new(ttl),
            fingerprints: Fingerprints::new(config.esms.secret_key.expose_secret()),
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

    /// Whether every attempt of any worker is known here: the store is shared, and no worker sends
    /// while it cannot reach it.
    pub fn sees_every_attempt(&self) -> bool {
        self.outlives && self.on_error == OnLedgerError::Hold
    }

    /// Asks for a job; with `hold`, for as long as it takes.
    pub async fn claim(&self, job: Job<'_>) -> Claimed {
        let owner = format!("{}:{}", self.process, self.holdings.fetch_add(1, Ordering::Relaxed));
        let ask = Ask { id: job.id, fingerprint: job.fingerprint, owner: &owner };
        // What this process could not write to the store.
        let unwritten = self.unwritten.look_up(&ask);
        match unwritten {
            Claim::Done(event) => return Claimed::Done(event),
            Claim::AnotherJob => return Claimed::AnotherJob,
            Claim::New | Claim::Left(..) | Claim::Elsewhere(_) => {}
        }
        let mut is_unreadable = false;
        let (claim, apart) = match self.insist(job.id, || self.store.claim(ask)).await {
            Ok(claim) => (with_unwritten(claim, unwritten), false),
            // Whatever was written there may have been a mark.
            Err(StoreError::Unreadable(_)) => {
                is_unreadable = true;
                (Claim::Left(Left::Sending, Progress::default()), true)
            }
            // It says nothing now of a job that it may have known before the broker gave it up.
            Err(_) if job.is_dropped => (Claim::Left(Left::Sending, Progress::default()), true),
            Err(_) => (unwritten, true),
        };
        self.met(claim, job, Holding { owner, steps: AtomicU32::default(), apart: apart.into(), is_unreadable })
    }

    fn met(&self, claim: Claim, job: Job<'_>, holding: Holding) -> Claimed {
        let seen = self.sees_every_attempt();
        let (is_all, progress) = match claim {
            Claim::Done(event) => return Claimed::Done(event),
            Claim::Elsewhere(_) => return Claimed::Elsewhere,
            Claim::AnotherJob => return Claimed::AnotherJob,
            // That nothing is written shows that nothing was sent only where all that is sent is
            // written, under an id that a second delivery has, too.
            Claim::New => (!job.redelivered || (seen && job.is_named), Progress::default()),
            // The broker counts every delivery it takes back: a count that grew by one alone shows that
            // no other worker lost the job meanwhile, and so that none sent it unseen.
            Claim::Left(Left::Released(count), progress) => (seen || follows(count, job.delivery_count), progress),
            Claim::Left(Left::Lapsed, progress) => (seen, progress),
            Claim::Left(Left::Sending, progress) => (false, progress),
        };
        if is_all {
            return Claimed::Ours(holding, progress);
        }
        // What is marked is one attempt. What nobody sees may be any number.
        let progress =
            if seen { progress.after_an_unseen_attempt() } else { progress.after_unseen_work(self.on_ambiguous) };
        Claimed::Ours(holding, progress)
    }

    /// Marks an attempt as under way, before its first byte; `begun` counts it. The lease is renewed.
    pub async fn mark(&self, job: Job<'_>, holding: &Holding, begun: &Progress) -> Marked {
        if holding.is_unreadable {
            return Marked::Ours;
        }
        match self.note(job, holding, Stage::Sending, begun).await {
            Ok(true) => {
                holding.apart.store(false, Ordering::Relaxed);
                Marked::Ours
            }
            Ok(false) => Marked::Elsewhere,
            Err(_) if holding.is_apart() => Marked::Ours,
            Err(StoreError::Unreadable(_)) => self.go_on_apart(holding, true),
            Err(_) if self.on_error == OnLedgerError::Hold => Marked::NotYet,
            Err(_) => self.go_on_apart(holding, job.redelivered),
        }
    }

    fn go_on_apart(&self, holding: &Holding, perhaps_sent: bool) -> Marked {
        holding.apart.store(true, Ordering::Relaxed);
        if perhaps_sent { Marked::Unseen } else { Marked::Ours }
    }

    /// An attempt is over, and the next is `wait` away. That this is not written makes the attempt
    /// count as under way, which is the careful mistake.
    pub async fn pause(&self, job: Job<'_>, holding: &Holding, progress: &Progress, wait: Duration) {
        if !holding.is_apart() {
            let _ = self.note(job, holding, Stage::Waiting(wait), progress).await;
        }
    }

    /// The job goes back to the broker. That this is not written makes the next worker wait for the
    /// lease's end.
    pub async fn release(&self, job: Job<'_>, holding: &Holding, progress: &Progress) {
        if holding.is_apart() {
            self.unwritten.record_left(job.id, job.fingerprint, progress, job.delivery_count);
        } else {
            let _ = self.note(job, holding, Stage::Released(job.delivery_count), progress).await;
        }
    }

    /// Whether what was noted of a held job is there after this process's end.
    pub fn outlives(&self, holding: &Holding) -> bool {
        self.outlives && !holding.is_apart()
    }

    async fn note(
        &self,
        job: Job<'_>,
        holding: &Holding,
        stage: Stage,
        progress: &Progress,
    ) -> Result<bool, StoreError> {
        let (id, fingerprint, owner) = (job.id, job.fingerprint, holding.owner.as_str());
        let note = Note { id, fingerprint, owner, step: holding.step(), stage, progress };
        self.heard(id, self.store.note(note).await)
    }

    /// Writes down how a job ended: the first result stays. With `hold`, for as long as it takes.
    pub async fn finish(&self, job: Job<'_>, holding: &Holding, event: &ResultEvent) -> Finish {
        self.end(job, Some(holding.owner.as_str()), event).await
    }

    /// The same for a job that another worker has, where eSMS took it from this one.
    pub async fn finish_for_all(&self, job: Job<'_>, event: &ResultEvent) -> Finish {
        self.end(job, None, event).await
    }

    async fn end(&self, job: Job<'_>, owner: Option<&str>, event: &ResultEvent) -> Finish {
        let end = || self.store.finish(job.id, job.fingerprint, owner, event);
        match self.insist(job.id, end).await {
            Ok(finish) => finish,
            Err(_) => self.unwritten.record_done(job.id, job.fingerprint, event),
        }
    }

    /// The result of this very job, if it has ended.
    pub async fn recorded(&self, job: Job<'_>) -> Option<ResultEvent> {
        self.insist(job.id, || self.store.recorded(job.id, job.fingerprint)).await.ok().flatten()
    }

    /// Takes a step of a job until it is taken, or once where jobs go on without the store. A record
    /// that cannot be read is not waited for: only a person can mend it.
    async fn insist<'a, T>(&self, id: &str, step: impl Fn() -> store::Reply<'a, T>) -> Result<T, StoreError> {
        let mut polls = Policy::POLL.waits();
        loop {
            match self.heard(id, step().await) {
                Err(StoreError::Unreachable(_) | StoreError::Refused(_)) if self.on_error == OnLedgerError::Hold => {
                    sleep(polls.next_wait()).await;
                }
                answered => return answered,
            }
        }
    }

    /// Counts a step that failed, and says when the store goes away and comes back.
    fn heard<T>(&self, id: &str, answer: Result<T, StoreError>) -> Result<T, StoreError> {
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
                warn!(job_id = id, %error, hint = UNREADABLE, "a job is not known to the ledger");
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

#[cfg(test)]
mod tests;
