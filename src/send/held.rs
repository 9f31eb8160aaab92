//! A job that this worker holds, as the sending loop sees it: what is asked before each attempt, and what is
//! written down around it.

use std::sync::Arc;
use std::time::Duration;

use crate::crash::{self, Point};
use crate::deliveries::in_flight::{Custody, InFlight};
use crate::deliveries::job::{Hold, Job};
use crate::job::progress::Progress;
use crate::ledger::{Ledger, Marked};
use crate::stop::Stop;
use crate::telemetry::http::Health;

/// See the module.
#[derive(Clone, Debug)]
pub struct Held<'a> {
    /// The job.
    pub job: &'a Job,
    /// This worker's hold of it.
    pub hold: Arc<Hold>,
    /// Where it is written down.
    pub ledger: &'a Ledger,
    /// The registry of deliveries in this process.
    pub in_flight: &'a InFlight,
    /// Knows whether a result could be published.
    pub health: &'a Health,
    /// Told when the worker stops.
    pub stop: &'a Stop,
}

impl Held<'_> {
    /// In whose hands the job is now.
    pub fn custody(&self) -> Custody {
        match self.in_flight.custody(&self.job.id) {
            // Had the other worker sent it, the ledger would have said so.
            Custody::OursAfterAnother if self.ledger.sees_every_attempt() => Custody::Ours,
            custody => custody,
        }
    }

    /// Writes down that an attempt begins, before its first byte. `begun` counts it.
    pub async fn mark(&self, begun: &Progress) -> Marked {
        let marked = self.ledger.mark(self.in_flight.job_ref(self.job), &self.hold.holding, begun).await;
        if marked == Marked::MayBegin {
            self.hold.attempt_begins(begun);
            crash::point(Point::AfterMarking);
        }
        marked
    }

    /// Writes down that the attempt is over, and that none is under way for `wait`.
    pub async fn pause(&self, progress: &Progress, wait: Duration) {
        crash::point(Point::AfterCall);
        self.hold.attempt_over(progress);
        self.ledger.pause(self.in_flight.job_ref(self.job), &self.hold.holding, progress, wait).await;
    }

    /// Whether the broker still waits for this worker to settle the job.
    pub fn is_ours(&self) -> bool {
        matches!(self.custody(), Custody::Ours | Custody::OursAfterAnother)
    }

    /// Whether the ledger is there again, so that it need not be waited for.
    pub async fn is_ledger_back(&self, progress: &Progress) -> bool {
        self.ledger.renew(self.in_flight.job_ref(self.job), &self.hold.holding, progress).await
    }

    /// Whether what is written down is still there after this process's end.
    pub fn is_kept_after_exit(&self) -> bool {
        self.ledger.is_kept_after_exit(&self.hold.holding)
    }
}
