//! What a claim shows of a job: whether it may be worked here, and what is known of its past. Pure.

use tokio::time::Instant;

use super::fingerprint::Fingerprint;
use super::store::{Claim, Left, StoreError};
use crate::job::envelope::DeliveryCount;
use crate::job::progress::{Past, Progress};
use crate::job::result::ResultEvent;
use crate::limits::{HeldBack, Place};

/// A job as the ledger is asked about it: its id, and how this delivery came here.
#[derive(Clone, Copy, Debug)]
pub struct JobRef<'a> {
    /// Its id.
    pub id: &'a str,
    /// What tells it from another job under the same id.
    pub fingerprint: Fingerprint,
    /// Whether the producer named it. An id made up for one delivery is not that of the next.
    pub is_named: bool,
    /// Whether the broker dropped it, so that it is not to be sent.
    pub is_dropped: bool,
    /// When it came, if this is the first delivery of its message.
    pub first_delivered: Option<Instant>,
    /// Whether another worker may have had it: the broker delivered it before, or the ledger said so.
    pub may_have_been_elsewhere: bool,
    /// How often its queue delivered it before, where it counts.
    pub delivery_count: Option<DeliveryCount>,
    /// The place that it takes under the limits, if it is counted.
    pub place: Option<&'a Place>,
}

/// Where a job that is worked here is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// In the store.
    InStore,
    /// Only in this process, because the store could not be reached.
    InProcess,
    /// Only in this process, because the job's record in the store cannot be read. What the store says of
    /// the job does not count.
    Unreadable,
}

/// What a claim leads to.
#[derive(Debug)]
pub enum Decision {
    /// The job may be worked here.
    Ours {
        /// What is known of its past.
        past: Past,
        /// What it has been through, as far as that was written down.
        progress: Progress,
        /// Where it is written down from now on.
        record: Record,
    },
    /// Another worker has it.
    HeldByAnother,
    /// It has ended; this is its result.
    Done(ResultEvent),
    /// The id belongs to another job.
    AnotherJob,
    /// Nobody has it, and a limit holds it back.
    Limited {
        /// The limit.
        held_back: HeldBack,
        /// What is known of the job's past.
        past: Past,
        /// What it has been through, as far as that was written down.
        progress: Progress,
    },
}

/// What this process knows of a job, beside the store.
#[derive(Debug)]
pub struct Local {
    /// What it could not write to the store.
    pub unwritten: Claim,
    /// The result that the store had a while ago.
    pub recent: Claim,
}

/// Decides what a claim leads to. `said` is the store's answer, `local` what this process knows, and
/// `sees_every_attempt` whether no worker ever sends without the store.
pub fn decide(said: Result<Claim, StoreError>, local: Local, job: JobRef<'_>, sees_every_attempt: bool) -> Decision {
    let Local { unwritten, recent } = local;
    if said.is_err()
        && let Some(decision) = known_here(&recent)
    {
        return decision;
    }
    let (said, held_back) = without_limit(said);
    let is_marked = is_marked_by_another(&said, &unwritten);
    let (claim, record) = match said {
        Ok(claim) => {
            // The store takes no notes of a job that has ended there.
            let record = if matches!(claim, Claim::Done(_)) { Record::InProcess } else { Record::InStore };
            (with_recent(with_unwritten(claim, unwritten), recent), record)
        }
        // What was written there may have been the mark of an attempt.
        Err(StoreError::Unreadable(_)) => (attempt_unknown(), Record::Unreadable),
        // The store may know an attempt that was made before the broker dropped the job.
        Err(_) if job.is_dropped => (attempt_unknown(), Record::InProcess),
        Err(_) => (with_known_run(unwritten, &recent), Record::InProcess),
    };
    // A job that went on here is not held back any more: it has its place.
    let held_back = held_back.filter(|_| matches!(claim, Claim::New | Claim::Anew(_)));
    let (is_complete, progress) = match claim {
        Claim::Done(event) => return Decision::Done(event),
        Claim::HeldByAnother(_) => return Decision::HeldByAnother,
        Claim::AnotherJob => return Decision::AnotherJob,
        Claim::New => (is_new_to_all(job, sees_every_attempt), Progress::default()),
        Claim::Anew(reruns) | Claim::Limited(_, reruns) => (true, Progress::anew(reruns)),
        Claim::Left(left, progress) => (is_told_in_full(left, &progress, job, sees_every_attempt), progress),
    };
    let progress = if is_marked && !sees_every_attempt { progress.with_marked_attempt() } else { progress };
    let past = match (is_complete, sees_every_attempt) {
        (true, _) => Past::Complete,
        // The ledger shows the mark of one attempt, and would show every other.
        (false, true) => Past::OneUnknown,
        // Without a complete ledger there may have been several attempts.
        (false, false) => Past::AnyUnknown,
    };
    match held_back {
        Some(held_back) => Decision::Limited { held_back, past, progress },
        None => Decision::Ours { past, progress, record },
    }
}

/// Whether the store shows the mark of an attempt that this process knows nothing of.
const fn is_marked_by_another(said: &Result<Claim, StoreError>, unwritten: &Claim) -> bool {
    matches!((said, unwritten), (Ok(Claim::Left(Left::Sending, _)), unwritten) if !matches!(unwritten, Claim::Left(..)))
}

/// What this process knows for certain of a job, while the store does not answer.
fn known_here(recent: &Claim) -> Option<Decision> {
    match recent {
        // By the others nothing was sent, and another run may have begun since.
        Claim::Done(event) if !event.outcome.may_be_tried_anew() => Some(Decision::Done(event.clone())),
        Claim::AnotherJob => Some(Decision::AnotherJob),
        Claim::Done(_)
        | Claim::New
        | Claim::Anew(_)
        | Claim::Left(..)
        | Claim::HeldByAnother(_)
        | Claim::Limited(..) => None,
    }
}

/// What the store would have said without the limit that holds the job back.
fn without_limit(said: Result<Claim, StoreError>) -> (Result<Claim, StoreError>, Option<HeldBack>) {
    match said {
        Ok(Claim::Limited(held_back, 0)) => (Ok(Claim::New), Some(held_back)),
        Ok(Claim::Limited(held_back, reruns)) => (Ok(Claim::Anew(reruns)), Some(held_back)),
        said => (said, None),
    }
}

/// Whether a job without a record was never sent. It is so for a first delivery. For a later one only
/// where every attempt is written down, under an id that the next delivery has too.
const fn is_new_to_all(job: JobRef<'_>, sees_every_attempt: bool) -> bool {
    !job.may_have_been_elsewhere || (sees_every_attempt && job.is_named)
}

/// Whether the record of a job that was left shows every attempt.
fn is_told_in_full(left: Left, progress: &Progress, job: JobRef<'_>, sees_every_attempt: bool) -> bool {
    match left {
        // Nothing had happened to it, so the record says no more than none.
        Left::Released(_) if progress.is_untouched() && is_new_to_all(job, sees_every_attempt) => true,
        // The broker counts the deliveries: where the count grew by one, no worker had the job since.
        Left::Released(count) => sees_every_attempt || DeliveryCount::follows(count, job.delivery_count),
        Left::Lapsed => sees_every_attempt,
        Left::Sending => false,
    }
}

fn attempt_unknown() -> Claim {
    Claim::Left(Left::Sending, Progress::default())
}

/// The store's answer, corrected by what this process could not write there: it went on with the job.
fn with_unwritten(claim: Claim, unwritten: Claim) -> Claim {
    match (claim, unwritten) {
        // It has not gone on with it.
        (Claim::New, Claim::Left(left, progress)) if progress.is_untouched() => Claim::Left(left, progress),
        (claim @ Claim::Left(..), Claim::Left(_, progress)) if progress.is_untouched() => claim,
        (Claim::New, Claim::Left(_, progress)) => Claim::Left(Left::Sending, progress),
        (Claim::Left(_, written), Claim::Left(_, here)) => {
            Claim::Left(Left::Sending, written.at_least_as_far_as(&here))
        }
        // It went on here with another run, while the store was away.
        (Claim::Anew(reruns), Claim::Left(_, progress)) if progress.is_untouched() => Claim::Anew(reruns),
        (Claim::Anew(reruns), Claim::Left(_, progress)) => Claim::Left(Left::Sending, progress.at_least(reruns)),
        (Claim::Done(event), Claim::Left(left, progress)) if event.outcome.may_be_tried_anew() => {
            let left = if progress.is_untouched() { left } else { Left::Sending };
            Claim::Left(left, progress.at_least(event.run))
        }
        // It ended here while the store was away, and the store knows nothing of it.
        (Claim::New, Claim::Anew(reruns)) => Claim::Anew(reruns),
        (claim, _) => claim,
    }
}

/// The store's answer, corrected by a result that it had and has lost: with a failover, or when it was emptied.
/// A result that says that nothing was sent is not worth more than what the store says now.
fn with_recent(claim: Claim, recent: Claim) -> Claim {
    match (claim, recent) {
        (Claim::New | Claim::Anew(_) | Claim::Left(..), Claim::Done(event)) if !event.outcome.may_be_tried_anew() => {
            Claim::Done(event)
        }
        (claim, recent) => with_known_run(claim, &recent),
    }
}

/// A job that is not known any more, but is known to have ended without anything sent, is tried anew.
fn with_known_run(claim: Claim, recent: &Claim) -> Claim {
    match (claim, recent) {
        (Claim::New, Claim::Anew(reruns)) => Claim::Anew(*reruns),
        (claim, _) => claim,
    }
}

#[cfg(test)]
mod tests;
