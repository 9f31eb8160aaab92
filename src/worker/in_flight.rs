//! Jobs being worked in this process, and every delivery of each.
//!
//! After a lost connection the broker delivers an unsettled job again while its first delivery is
//! still being worked. The new delivery joins the running job: one call, one result, and the
//! acknowledgement goes to whichever delivery is alive.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ledger::{Fingerprint, follows};
use crate::send::Custody;
use crate::telemetry::traces::Span;

use super::receipt::Receipt;

/// What became of a delivery that asked to be worked.
#[derive(Debug)]
pub enum Entered {
    /// The job was not in flight; the caller works it now.
    Started,
    /// The job is in flight; this delivery gets its result.
    Joined,
    /// The id belongs to another job that is in flight.
    AnotherJob(Receipt),
}

#[derive(Debug)]
struct Flight {
    fingerprint: Fingerprint,
    receipts: Vec<Receipt>,
    delivery_count: Option<u64>,
    /// Another worker had the job between two of the deliveries here.
    was_elsewhere: bool,
    /// The broker gave the job up meanwhile.
    given_up: bool,
    /// The span of the delivery that is worked.
    span: Span,
}

impl Flight {
    fn of(fingerprint: Fingerprint, receipt: Receipt) -> Self {
        Self {
            fingerprint,
            delivery_count: receipt.delivery_count,
            span: receipt.span.clone(),
            receipts: vec![receipt],
            was_elsewhere: false,
            given_up: false,
        }
    }

    /// A producer's repeat is another message; only the same message delivered again tells where it
    /// has been.
    fn join(&mut self, receipt: Receipt) {
        receipt.span.joins(&self.span);
        self.given_up |= receipt.given_up;
        if receipt.redelivered && !receipt.given_up {
            self.was_elsewhere |= !follows(self.delivery_count, receipt.delivery_count);
            self.delivery_count = receipt.delivery_count;
        }
        self.receipts.push(receipt);
    }
}

/// The jobs in flight, by id.
#[derive(Debug, Default)]
pub struct InFlight(Mutex<HashMap<String, Flight>>);

impl InFlight {
    /// A delivery of the job `id` came.
    pub fn enter(&self, id: &str, fingerprint: Fingerprint, receipt: Receipt) -> Entered {
        let mut flights = self.flights();
        match flights.get_mut(id) {
            Some(flight) if flight.fingerprint.differs(&fingerprint) => Entered::AnotherJob(receipt),
            Some(flight) => {
                flight.join(receipt);
                Entered::Joined
            }
            None => {
                flights.insert(id.to_owned(), Flight::of(fingerprint, receipt));
                Entered::Started
            }
        }
    }

    /// In whose hands the job is.
    pub fn custody(&self, id: &str) -> Custody {
        match self.flights().get(id) {
            Some(flight) if !flight.receipts.iter().any(Receipt::is_live) => Custody::Lost,
            Some(flight) if flight.given_up => Custody::GivenUp,
            Some(flight) if flight.was_elsewhere => Custody::OursAfterAnother,
            Some(_) => Custody::Ours,
            None => Custody::Lost,
        }
    }

    /// The latest delivery's count, where its queue counts.
    pub fn delivery_count(&self, id: &str) -> Option<u64> {
        self.flights().get(id).and_then(|flight| flight.delivery_count)
    }

    /// The deliveries that came so far. The job stays in flight, so that later ones still join.
    pub fn take(&self, id: &str) -> Vec<Receipt> {
        self.flights().get_mut(id).map(|flight| std::mem::take(&mut flight.receipts)).unwrap_or_default()
    }

    /// Ends the flight, unless another delivery has come since the last [`InFlight::take`].
    pub fn land(&self, id: &str) -> bool {
        let mut flights = self.flights();
        let waiting = flights.get(id).is_some_and(|flight| !flight.receipts.is_empty());
        if !waiting {
            flights.remove(id);
        }
        !waiting
    }

    /// Ends the flight of the job if the task that holds the returned value panics: later deliveries
    /// would otherwise join a job that nobody works any more, and never be answered.
    pub fn end_on_panic(&self, id: &str) -> EndOnPanic<'_> {
        EndOnPanic { in_flight: self, id: id.to_owned() }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<String, Flight>> {
        // No code panics while it holds this lock, and the map is whole even if some did.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`InFlight::end_on_panic`].
#[derive(Debug)]
pub struct EndOnPanic<'a> {
    in_flight: &'a InFlight,
    id: String,
}

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        // Otherwise the flight has landed, and another of the same id may have begun.
        if std::thread::panicking() {
            self.in_flight.flights().remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests;
