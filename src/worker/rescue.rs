//! What becomes of a job when the code that works it panics.
//!
//! The first time the job goes back to its queue, and may be worked by another worker. The second time it
//! is kept for people, and its result says what is known: `unknown` where an attempt may have been made, else
//! `failed`. The ledger counts, so that it does not matter which worker has the job.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{error, warn};

use super::Worker;
use super::ending::Worked;
use crate::deliveries::job::{Hold, Job};
use crate::job::progress::Progress;
use crate::job::result::Outcome;
use crate::ledger::Claimed;

/// At this number of panics the job is given up.
const MOST_PANICS: u32 = 2;

/// How long the ledger may take to give the job. Without it the job goes back uncounted.
const CLAIM_WITHIN: Duration = Duration::from_secs(2);

/// What people are told of it.
const WHY: &str = "the worker panicked twice while it worked this job";

impl Worker {
    /// Puts the job back, or ends it.
    pub(super) async fn after_panic(&self, job: &Job) {
        let worked = match self.hold_after_panic(job).await {
            Some((hold, progress)) if progress.panics >= MOST_PANICS => self.give_up(job, &hold, progress).await,
            Some((hold, progress)) => {
                warn!(panics = progress.panics, "working the job panicked; it goes back to its queue once");
                self.parts.ledger.release(self.in_flight.job_ref(job), &hold.holding, &progress).await;
                Worked::Failed
            }
            None => {
                warn!("working the job panicked, and the ledger does not give it; it goes back to its queue");
                Worked::Failed
            }
        };
        self.conclude(job, &worked).await;
    }

    /// The hold of the job, and what the job has been through with this panic.
    async fn hold_after_panic(&self, job: &Job) -> Option<(Arc<Hold>, Progress)> {
        if let Some(hold) = job.last_hold() {
            let progress = hold.progress_after_panic();
            return Some((hold, progress));
        }
        let claim = self.parts.ledger.claim(self.in_flight.job_ref(job));
        match timeout(CLAIM_WITHIN, claim).await {
            Ok(Claimed::Ours(holding, progress)) => {
                let hold = job.held(holding, progress);
                let progress = hold.progress_after_panic();
                Some((hold, progress))
            }
            Ok(Claimed::HeldByAnother | Claimed::Done(_) | Claimed::AnotherJob) | Err(_) => None,
        }
    }

    async fn give_up(&self, job: &Job, hold: &Hold, progress: Progress) -> Worked {
        error!(
            panics = progress.panics,
            hint = "report the log line `panicked` before this one, with its location; a copy of the job is on the dead-letter queue",
            "working the job panicked again; it is given up"
        );
        self.parts.outbox.dead_letter(&job.original, WHY).await;
        let ending = progress.end_without_answer(Outcome::Failed, WHY);
        match self.record(job, hold, ending).await {
            Some(event) => Worked::Ended(event),
            None => Worked::Failed,
        }
    }
}
