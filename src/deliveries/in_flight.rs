//! Jobs being worked in this process, and every delivery of each.
//!
//! After a lost connection the broker delivers an unsettled job again while its first delivery is
//! still being worked. The new delivery joins the running job: one call, one result, and the
//! acknowledgement goes to whichever delivery is alive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::job::Job;
use super::receipt::Receipt;
use crate::job::envelope::DeliveryCount;
use crate::ledger::fingerprint::Fingerprint;
use crate::ledger::past::JobRef;
use crate::telemetry::traces::Span;

/// What became of a delivery that asked to be worked.
#[derive(Debug)]
pub enum Entered {
    /// The job was not in flight; the caller works it now.
    Started,
    /// The job is in flight; this delivery gets its result.
    Joined,
    /// The id belongs to another job that is in flight.
    AnotherJob,
    /// The job has just ended without anything sent, and its producer publishes it again. It is to be worked anew once
    /// the flight is over.
    Repeated(CancellationToken),
}

/// In whose hands a job is, asked before each attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Custody {
    /// The broker waits for this worker to settle it.
    Ours,
    /// The same, but another worker had it in between, and may have sent it.
    OursAfterAnother,
    /// The broker has put it back on the queue.
    Lost,
    /// The broker dropped it, after whatever another worker did with it.
    Dropped,
}

#[derive(Debug)]
struct Flight {
    fingerprint: Fingerprint,
    receipts: Vec<Arc<Receipt>>,
    delivery_count: Option<DeliveryCount>,
    /// Another worker had the job between two of the deliveries here.
    was_elsewhere: bool,
    /// The broker dropped the job meanwhile.
    is_dropped: bool,
    /// The span of the delivery that is worked.
    span: Span,
    /// Whether the job has ended, and a repeat of it is tried anew.
    is_ending: bool,
    /// Cancelled when the flight is over.
    over: CancellationToken,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

impl Flight {
    fn of(fingerprint: Fingerprint, receipt: Arc<Receipt>) -> Self {
        Self {
            fingerprint,
            delivery_count: receipt.delivery_count,
            span: receipt.span.clone(),
            receipts: vec![receipt],
            was_elsewhere: false,
            is_dropped: false,
            is_ending: false,
            over: CancellationToken::new(),
        }
    }

    /// A producer's repeat is another message. Only the same message, delivered again, tells where it has
    /// been.
    fn join(&mut self, receipt: Arc<Receipt>) {
        receipt.span.joins(&self.span);
        self.is_dropped |= receipt.is_dropped;
        if receipt.redelivered && !receipt.is_dropped {
            self.was_elsewhere |= !DeliveryCount::follows(self.delivery_count, receipt.delivery_count);
            self.delivery_count = receipt.delivery_count;
        }
        self.receipts.push(receipt);
    }

    fn custody(&self) -> Custody {
        if !self.receipts.iter().any(|receipt| receipt.is_live()) {
            Custody::Lost
        } else if self.is_dropped {
            Custody::Dropped
        } else if self.was_elsewhere {
            Custody::OursAfterAnother
        } else {
            Custody::Ours
        }
    }
}

/// The jobs in flight, by id.
#[derive(Debug, Default)]
pub struct InFlight(Mutex<HashMap<String, Flight>>);

impl InFlight {
    /// A delivery of the job `id` came.
    pub fn enter(&self, id: &str, fingerprint: Fingerprint, receipt: &Arc<Receipt>) -> Entered {
        let mut flights = self.flights();
        match flights.get_mut(id) {
            Some(flight) if flight.fingerprint.differs(&fingerprint) => Entered::AnotherJob,
            Some(flight) if flight.is_ending && !receipt.redelivered && !receipt.is_dropped => {
                Entered::Repeated(flight.over.clone())
            }
            Some(flight) => {
                flight.join(Arc::clone(receipt));
                Entered::Joined
            }
            None => {
                flights.insert(id.to_owned(), Flight::of(fingerprint, Arc::clone(receipt)));
                Entered::Started
            }
        }
    }

    /// The job has ended, and its result is about to be published: who knows it may publish the job again. Where
    /// nothing was sent, that repeat is tried anew.
    pub fn set_ending(&self, id: &str) {
        if let Some(flight) = self.flights().get_mut(id) {
            flight.is_ending = true;
        }
    }

    /// In whose hands the job is.
    pub fn custody(&self, id: &str) -> Custody {
        self.flights().get(id).map_or(Custody::Lost, Flight::custody)
    }

    /// Whether another worker had the job between two of its deliveries here.
    pub fn was_elsewhere(&self, id: &str) -> bool {
        self.flights().get(id).is_some_and(|flight| flight.was_elsewhere)
    }

    /// Whether the job was delivered again while it was worked.
    pub fn has_joined(&self, id: &str) -> bool {
        self.flights().get(id).is_some_and(|flight| flight.receipts.len() > 1)
    }

    /// The job as the ledger is asked about it, with the latest delivery's count.
    pub fn job_ref<'a>(&self, job: &'a Job) -> JobRef<'a> {
        let latest = self.flights().get(&job.id).and_then(|flight| flight.delivery_count);
        let is_first = !job.redelivered && job.dropped.is_none() && !job.was_elsewhere();
        JobRef {
            id: &job.id,
            fingerprint: job.fingerprint,
            is_named: job.is_named,
            is_dropped: job.dropped.is_some(),
            first_delivered: is_first.then_some(job.received.instant),
            may_have_been_elsewhere: (job.redelivered && job.dropped.is_none()) || job.was_elsewhere(),
            place: job.place.as_ref(),
            delivery_count: latest.or(job.delivery_count),
        }
    }

    /// The deliveries that came so far. The job stays in flight, so that later ones still join.
    pub fn take(&self, id: &str) -> Vec<Arc<Receipt>> {
        self.flights().get_mut(id).map(|flight| std::mem::take(&mut flight.receipts)).unwrap_or_default()
    }

    /// Ends the flight. The deliveries that came so far; a later one starts a flight of its own.
    pub fn end(&self, id: &str) -> Vec<Arc<Receipt>> {
        self.flights().remove(id).map(|mut flight| std::mem::take(&mut flight.receipts)).unwrap_or_default()
    }

    /// Ends the flight, unless another delivery has come since the last [`InFlight::take`]. True if it ended.
    pub fn end_if_all_are_taken(&self, id: &str) -> bool {
        let mut flights = self.flights();
        let one_has_come = flights.get(id).is_some_and(|flight| !flight.receipts.is_empty());
        if !one_has_come {
            flights.remove(id);
        }
        !one_has_come
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<String, Flight>> {
        // No code panics while it holds this lock, and the map is whole even if some did.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
