//! What has been sent, or may have been: a job known here is not sent as if it were new.
//!
//! A job is claimed, marked as being sent before the first byte of each attempt, and done with its
//! whole result. What is kept where is the [`store`]'s; what follows from it is decided here.

pub mod fingerprint;
pub mod link;
pub mod memory;
pub mod redis;
pub mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::backoff::Policy;
use crate::config::{LedgerConfig, OnLedgerError, StoreConfig};
use crate::job::OtpRequest;
use crate::result::ResultEvent;
use crate::send::retry::Progress;
use crate::telemetry::metrics::Metrics;
pub use fingerprint::{Fingerprint, Fingerprints};
pub use link::Address;
use memory::Memory;
use redis::Redis;
pub use store::Finish;
use store::{Ask, Claim, Left, Note, Stage, Store, StoreError};

/// What a lease lasts longer than an attempt can: two steps of the store, and a pause of the process.
pub const LEASE_MARGIN: Duration = Duration::from_secs(5);

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
    /// Whether the broker had delivered it before.
    pub redelivered: bool,
    /// How often its queue has taken it back, where it counts.
    pub delivery_count: Option<u64>,
}

/// What a delivery meets.
#[derive(Debug)]
pub enum Claimed {
    /// The job is this delivery's to work, and this is what it has been through.
    Ours(Hold, Progress),
    /// Another worker has it, for this long at most unless it goes on with it.
    Elsewhere(Duration),
    /// It has ended; this is its result.
    Done(ResultEvent),
    /// The id belongs to another job.
    AnotherJob,
}

/// One holding of a job, from its claim to its end or its going back.
#[derive(Debug)]
pub struct Hold {
    owner: String,
    steps: AtomicU32,
    /// The store could not be reached, and the job goes on without it.
    apart: AtomicBool,
}

impl Hold {
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
    /// The endings that could not be written to the store, for as long as this process lives.
    apart: Memory,
    fingerprints: Fingerprints,
    process: Uuid,
    holds: AtomicU64,
    reachable: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Ledger {
    /// The ledger of these settings. `attempt` is the limit on one attempt; fingerprints are made with
    /// `secret`.
    pub fn new(config: &LedgerConfig, attempt: Duration, secret: &str, metrics: Arc<Metrics>) -> Self {
        let (store, outlives): (Box<dyn Store>, bool) = match &config.store {
            StoreConfig::Memory => (Box::new(Memory::new(config.ttl)), false),
            StoreConfig::Redis(address) => {
                (Box::new(Redis::new(address.clone(), attempt + LEASE_MARGIN, config.ttl)), true)
            }
        };
        Self {
            store,
            outlives,
            on_error: config.on_error,
            apart: Memory::new(config.ttl),
            fingerprints: Fingerprints::new(secret),
            process: Uuid::new_v4(),
            holds: AtomicU64::default(),
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
        let owner = format!("{}:{}", self.process, self.holds.fetch_add(1, Ordering::Relaxed));
        let ask = Ask { id: job.id, fingerprint: job.fingerprint, owner: &owner, delivery_count: job.delivery_count };
        // What this process could not write to the store.
        let apart = self.apart.look_up(&ask);
        if let Claim::Done(event) = apart {
            return Claimed::Done(event);
        }
        let (claim, unreachable) = match self.insist(|| self.store.claim(ask)).await {
            Some(claim) => (claim, false),
            None => (apart, true),
        };
        self.met(claim, job.redelivered, Hold { owner, steps: AtomicU32::default(), apart: unreachable.into() })
    }

    fn met(&self, claim: Claim, redelivered: bool, hold: Hold) -> Claimed {
        let seen = self.sees_every_attempt();
        match claim {
            Claim::Done(event) => Claimed::Done(event),
            Claim::Elsewhere(left) => Claimed::Elsewhere(left),
            Claim::AnotherJob => Claimed::AnotherJob,
            // That nothing is written shows that nothing was sent only where all that is sent is written.
            Claim::New if redelivered && !seen => Claimed::Ours(hold, Progress::default().after_an_unseen_attempt()),
            Claim::New => Claimed::Ours(hold, Progress::default()),
            Claim::Left(Left::Released, progress) => Claimed::Ours(hold, progress),
            Claim::Left(Left::Lapsed, progress) if seen => Claimed::Ours(hold, progress),
            Claim::Left(Left::Lapsed | Left::Sending, progress) => {
                Claimed::Ours(hold, progress.after_an_unseen_attempt())
            }
        }
    }

    /// Marks an attempt as under way, before its first byte; `begun` counts it. The lease is renewed.
    pub async fn mark(&self, job: Job<'_>, hold: &Hold, begun: &Progress) -> Marked {
        if hold.is_apart() {
            return Marked::Ours;
        }
        match self.note(job, hold, Stage::Sending, begun).await {
            Ok(true) => Marked::Ours,
            Ok(false) => Marked::Elsewhere,
            Err(_) if self.on_error == OnLedgerError::Hold => Marked::NotYet,
            Err(_) => {
                hold.apart.store(true, Ordering::Relaxed);
                if job.redelivered { Marked::Unseen } else { Marked::Ours }
            }
        }
    }

    /// An attempt is over, and the next is `wait` away. That this is not written makes the attempt
    /// count as under way, which is the careful mistake.
    pub async fn pause(&self, job: Job<'_>, hold: &Hold, progress: &Progress, wait: Duration) {
        if !hold.is_apart() {
            let _ = self.note(job, hold, Stage::Waiting(wait), progress).await;
        }
    }

    /// The job goes back to the broker. That this is not written makes the next worker wait for the
    /// lease's end.
    pub async fn release(&self, job: Job<'_>, hold: &Hold, progress: &Progress) {
        if hold.is_apart() {
            self.apart.record_left(job.id, job.fingerprint, progress, job.delivery_count);
        } else {
            let _ = self.note(job, hold, Stage::Released(job.delivery_count), progress).await;
        }
    }

    /// Whether what was noted of a held job is there after this process's end.
    pub fn outlives(&self, hold: &Hold) -> bool {
        self.outlives && !hold.is_apart()
    }

    async fn note(&self, job: Job<'_>, hold: &Hold, stage: Stage, progress: &Progress) -> Result<bool, StoreError> {
        let (id, fingerprint, owner) = (job.id, job.fingerprint, hold.owner.as_str());
        let note = Note { id, fingerprint, owner, step: hold.step(), stage, progress };
        self.heard(self.store.note(note).await)
    }

    /// Writes down how a job ended: the first result stays. With `hold`, for as long as it takes.
    pub async fn finish(&self, job: Job<'_>, hold: &Hold, event: &ResultEvent) -> Finish {
        self.end(job, Some(hold.owner.as_str()), event).await
    }

    /// The same for a job that another worker has, where eSMS has answered this one.
    pub async fn finish_for_all(&self, job: Job<'_>, event: &ResultEvent) -> Finish {
        self.end(job, None, event).await
    }

    async fn end(&self, job: Job<'_>, owner: Option<&str>, event: &ResultEvent) -> Finish {
        let end = || self.store.finish(job.id, job.fingerprint, owner, event);
        match self.insist(end).await {
            Some(finish) => finish,
            None => self.apart.record_done(job.id, job.fingerprint, event),
        }
    }

    /// The result of this very job, if it has ended.
    pub async fn recorded(&self, job: Job<'_>) -> Option<ResultEvent> {
        self.insist(|| self.store.recorded(job.id, job.fingerprint)).await.flatten()
    }

    /// Takes a step until it is taken, or once where jobs go on without the store.
    async fn insist<'a, T>(&self, step: impl Fn() -> store::Reply<'a, T>) -> Option<T> {
        let mut waits = Policy::POLL.waits();
        loop {
            match self.heard(step().await) {
                Ok(done) => return Some(done),
                Err(_) if self.on_error == OnLedgerError::Send => return None,
                Err(_) => sleep(waits.next_wait()).await,
            }
        }
    }

    /// Counts a step that failed, and says when the store goes away and comes back.
    fn heard<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        let was = self.reachable.swap(answer.is_ok(), Ordering::Relaxed);
        match &answer {
            Ok(_) if was => {}
            Ok(_) => info!("the ledger answers again"),
            Err(error) => {
                self.metrics.ledger_error();
                if was {
                    warn!(%error, hint = self.on_error.hint(), "the ledger does not answer");
                } else {
                    debug!(%error, "the ledger does not answer");
                }
            }
        }
        answer
    }
}
