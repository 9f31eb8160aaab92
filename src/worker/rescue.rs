//! What becomes of a job when the code that works it panics.
//!
//! The first time the job goes back to its queue, and may be worked by another worker. The second time it
//! is kept for people, and its result says what is known: `unknown` where an attempt may have been made, else
//! `failed`. The panics are counted in the ledger, so workers that share one count together. A job without a
//! `message_id` cannot be recognised when it comes again, so it ends after its first panic.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::timeout;
use tracing::{error, warn};

use super::Worker;
use super::ending::Worked;
use crate::deliveries::in_flight::Custody;
use crate::deliveries::job::{Hold, Job};
use crate::deliveries::receipt::Receipt;
use crate::job::dead::PANICKED;
use crate::job::progress::{Past, Progress};
use crate::job::result::Outcome;
use crate::ledger::Claimed;

/// At this number of panics the job is given up.
const MOST_PANICS: u32 = 2;

/// How long the ledger may take to answer. Without an answer the job goes back uncounted.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

impl Worker {
    /// Puts the job back, or ends it.
    pub(super) async fn after_panic(&self, job: &Job) {
        let _counted = self.parts.metrics.in_flight();
        let rescued = AssertUnwindSafe(self.rescue(job)).catch_unwind().await;
        // Whatever happened: no delivery of the job may stay unsettled.
        self.conclude(job, &rescued.unwrap_or(Worked::Failed)).await;
    }

    /// Settles one delivery of a job that was worked. If this panics, the delivery goes back to its queue.
    pub(super) async fn conclude_one(&self, job: &Job, worked: &Worked, receipt: &Receipt) {
        if AssertUnwindSafe(self.settle(job, worked, receipt)).catch_unwind().await.is_err() {
            warn!("settling a delivery panicked; the job goes back to its queue");
            receipt.reject().await;
        }
    }

    async fn rescue(&self, job: &Job) -> Worked {
        let recorded = self.parts.ledger.recorded(self.in_flight.job_ref(job));
        if let Ok(Some(_)) = timeout(ANSWER_WITHIN, recorded).await {
            warn!("the job panicked after its end; it goes back to its queue, and then gets its recorded result");
            return Worked::Failed;
        }
        match self.hold_after_panic(job).await {
            Some((hold, progress)) if progress.panics >= MOST_PANICS || !job.is_named => {
                self.give_up(job, &hold, progress).await
            }
            Some((hold, progress)) => {
                warn!(panics = progress.panics, "working the job panicked; it goes back to its queue once");
                self.parts.ledger.release(self.in_flight.job_ref(job), &hold.holding, &progress).await;
                Worked::Failed
            }
            None => {
                warn!("working the job panicked, and the ledger does not give it; it goes back to its queue");
                Worked::Failed
            }
        }
    }

    /// The hold of the job, and what the job has been through with this panic.
    async fn hold_after_panic(&self, job: &Job) -> Option<(Arc<Hold>, Progress)> {
        let hold = match job.current_hold() {
            Some(hold) => hold,
            None => {
                let claim = self.parts.ledger.claim(self.in_flight.job_ref(job));
                match timeout(ANSWER_WITHIN, claim).await {
                    Ok(Claimed::Ours(holding, progress)) => job.held(holding, progress),
                    Ok(Claimed::HeldByAnother | Claimed::Done(_) | Claimed::AnotherJob | Claimed::Limited(..))
                    | Err(_) => return None,
                }
            }
        };
        let progress = hold.progress_after_panic();
        let unseen = self.in_flight.custody(&job.id) == Custody::OursAfterAnother;
        let past = if unseen && !self.parts.ledger.sees_every_attempt() { Past::AnyUnknown } else { Past::Complete };
        let progress = progress.with_past(past, self.rules.on_ambiguous);
        // Whatever gives the job back writes this down.
        hold.attempt_over(&progress);
        Some((hold, progress))
    }

    async fn give_up(&self, job: &Job, hold: &Hold, progress: Progress) -> Worked {
        error!(
            panics = progress.panics,
            hint = "report the log line `panicked` before this one, with its location; a copy of the job is on the dead-letter queue",
            "working the job panicked; it is given up"
        );
        self.parts.outbox.dead_letter(&job.original, PANICKED).await;
        let ending = match &job.dropped {
            Some(reason) => reason.end(progress),
            None => progress.end_without_answer(Outcome::Failed, PANICKED),
        };
        match self.record(job, hold, ending).await {
            Some(event) => Worked::Ended(event),
            None => Worked::Failed,
        }
    }
}
