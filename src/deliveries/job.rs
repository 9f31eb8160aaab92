//! A job that is in flight in this process: the first of its deliveries, read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::dropped::DropReason;
use super::original::Original;
use crate::job::envelope::{DeliveryCount, Envelope, Moment};
use crate::job::progress::Progress;
use crate::job::request::OtpRequest;
use crate::ledger::Holding;
use crate::ledger::fingerprint::Fingerprint;
use crate::limits::Place;
use crate::telemetry::traces::Span;

/// See the module.
#[derive(Debug)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// What eSMS is asked.
    pub request: OtpRequest,
    /// What tells it from another job under the same id.
    pub fingerprint: Fingerprint,
    /// The moment from which it is not sent any more.
    pub deadline: Instant,
    /// When it was delivered.
    pub received: Moment,
    /// When the producer created it, where that is known.
    pub created: Option<SystemTime>,
    /// Whether the broker had delivered it before.
    pub redelivered: bool,
    /// How often its queue delivered it before, where it counts.
    pub delivery_count: Option<DeliveryCount>,
    /// Whether the producer gave the id.
    pub is_named: bool,
    /// Why the broker dropped it, for a delivery from the queue of dropped jobs.
    pub dropped: Option<DropReason>,
    /// The message.
    pub original: Original,
    /// The span of the delivery that is worked.
    pub span: Span,
    /// The place that it takes under the limits, if it is counted.
    pub place: Option<Place>,
    was_elsewhere: AtomicBool,
    /// When the ledger was asked last.
    asked: Mutex<Instant>,
    hold: Mutex<Option<Arc<Hold>>>,
    own: Mutex<Option<Progress>>,
}

impl Job {
    /// The job of a delivery.
    pub fn new(envelope: Envelope, request: OtpRequest, fingerprint: Fingerprint, came: Came) -> Self {
        Self {
            id: envelope.id,
            request,
            fingerprint,
            deadline: envelope.deadline,
            received: came.received,
            created: envelope.created,
            redelivered: came.redelivered,
            delivery_count: envelope.delivery_count,
            is_named: envelope.is_named,
            dropped: came.dropped,
            original: came.original,
            span: came.span,
            place: came.place,
            was_elsewhere: AtomicBool::new(false),
            asked: Mutex::new(came.received.instant),
            hold: Mutex::default(),
            own: Mutex::default(),
        }
    }

    /// How long before its delivery the producer created it, where that is known.
    pub fn age_at_delivery(&self) -> Option<Duration> {
        self.created.and_then(|created| self.received.wall.duration_since(created).ok())
    }

    /// Why it is not sent any more once its deadline has passed. A job that was late at its delivery may have a
    /// wrong time: the age helps its producer to find out.
    pub fn why_expired(&self) -> String {
        match self.age_at_delivery() {
            Some(age) if self.deadline <= self.received.instant => {
                let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
                format!(
                    "the deadline had passed at the delivery: by its timestamp the job was {age} old; if it was not, the producer's clock or time zone is wrong"
                )
            }
            Some(_) | None => "the deadline passed".to_owned(),
        }
    }

    /// From now on it is assumed that another worker may have sent it.
    pub fn set_was_elsewhere(&self) {
        self.was_elsewhere.store(true, Ordering::Relaxed);
    }

    /// Whether the ledger showed that another worker had it.
    pub fn was_elsewhere(&self) -> bool {
        self.was_elsewhere.load(Ordering::Relaxed)
    }

    /// The ledger is asked now, for the job or to write down its end.
    pub fn asks_ledger(&self) {
        *lock(&self.asked) = Instant::now();
    }

    /// How long ago the ledger was asked.
    pub fn since_ledger(&self) -> Duration {
        lock(&self.asked).elapsed()
    }

    /// This worker holds the job now.
    pub fn held(&self, holding: Holding, progress: Progress) -> Arc<Hold> {
        let hold = Arc::new(Hold { holding, latest: Mutex::new(Latest { progress, attempt_under_way: false }) });
        *lock(&self.hold) = Some(Arc::clone(&hold));
        hold
    }

    /// Another worker has the job now: what this worker's hold says does not count any more.
    pub fn lost(&self) {
        if let Some(hold) = lock(&self.hold).take() {
            let mut own = lock(&self.own);
            let earlier = own.take().unwrap_or_default();
            *own = Some(hold.progress().at_least_as_far_as(&earlier));
        }
    }

    /// What the job has been through under holds that this worker has lost.
    pub fn own_attempts(&self) -> Option<Progress> {
        lock(&self.own).clone()
    }

    /// The hold that this worker has of the job, if any.
    pub fn current_hold(&self) -> Option<Arc<Hold>> {
        lock(&self.hold).clone()
    }
}

/// How a delivery came.
#[derive(Debug)]
pub struct Came {
    /// When.
    pub received: Moment,
    /// Whether the broker had delivered it before.
    pub redelivered: bool,
    /// Why the broker dropped it, if it did.
    pub dropped: Option<DropReason>,
    /// The message.
    pub original: Original,
    /// The span of the delivery.
    pub span: Span,
    /// The place that it takes under the limits, if it is counted.
    pub place: Option<Place>,
}

/// A job while this worker holds it. It is kept beside the task that works the job, so that it is still
/// known what the job has been through when that task panics.
#[derive(Debug)]
pub struct Hold {
    /// The ledger's part.
    pub holding: Holding,
    latest: Mutex<Latest>,
}

#[derive(Debug)]
struct Latest {
    progress: Progress,
    attempt_under_way: bool,
}

impl Hold {
    /// An attempt begins; `begun` counts it. Until [`Hold::attempt_over`] it may have reached eSMS.
    pub fn attempt_begins(&self, begun: &Progress) {
        *lock(&self.latest) = Latest { progress: begun.clone(), attempt_under_way: true };
    }

    /// The attempt is over, and this is what the job has been through.
    pub fn attempt_over(&self, progress: &Progress) {
        *lock(&self.latest) = Latest { progress: progress.clone(), attempt_under_way: false };
    }

    /// What the job has been through.
    pub fn progress(&self) -> Progress {
        lock(&self.latest).progress.clone()
    }

    /// What the job has been through, where the code that worked it has panicked.
    pub fn progress_after_panic(&self) -> Progress {
        let latest = lock(&self.latest);
        latest.progress.clone().with_panic(latest.attempt_under_way)
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds such a lock, and the value is whole even if some did.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
