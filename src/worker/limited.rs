//! Jobs that a limit holds back: they are not sent, and their producers are told at once when to try again.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};

use super::Worker;
use super::ending::Worked;
use crate::deliveries::job::{Hold, Job};
use crate::job::progress::Progress;
use crate::job::result::{Ending, Outcome, ResultEvent};
use crate::ledger::{Claimed, Holding};
use crate::limits::HeldBack;

/// How long a job waits for the end of a call to the same number. The call may turn out to have sent nothing; and
/// until it has ended, nobody can say when another try can succeed, but for its deadline.
const CALL_ENDS_WITHIN: Duration = Duration::from_secs(2);

/// How long a job has waited for a call to its number, and how often it was tried anew.
#[derive(Debug)]
pub(super) struct Patience<'a> {
    rooms: &'a Semaphore,
    waits: Option<(Instant, SemaphorePermit<'a>)>,
    reruns: u32,
}

impl<'a> Patience<'a> {
    /// Nobody has waited yet.
    pub(super) const fn new(rooms: &'a Semaphore) -> Self {
        Self { rooms, waits: None, reruns: 0 }
    }

    /// The claim, if it is to be acted on now; nothing if the ledger is to be asked again.
    pub(super) fn judge(&mut self, claimed: Claimed) -> Option<Claimed> {
        match claimed {
            Claimed::Limited(_, progress, held_back) if held_back.is_in_flight && !self.is_over() => {
                self.reruns = self.reruns.max(progress.reruns);
                None
            }
            // A ledger in memory has forgotten by now how often.
            Claimed::Limited(holding, progress, held_back) => {
                Some(Claimed::Limited(holding, progress.at_least(self.reruns), held_back))
            }
            Claimed::Ours(holding, progress) => Some(Claimed::Ours(holding, progress.at_least(self.reruns))),
            claimed @ (Claimed::HeldByAnother | Claimed::Done(_) | Claimed::AnotherJob) => Some(claimed),
        }
    }

    fn is_over(&mut self) -> bool {
        let now = Instant::now();
        if self.waits.is_none() {
            self.waits = self.rooms.try_acquire().ok().map(|room| (now + CALL_ENDS_WITHIN, room));
        }
        self.waits.as_ref().is_none_or(|(ends, _)| now >= *ends)
    }
}

impl Worker {
    /// Waits until the ledger is to be asked again, or until the worker is told to stop.
    pub(super) async fn wait_for_call(&self, wait: Duration) {
        let _ = self.stop.draining().run_until_cancelled(sleep(wait)).await;
    }

    /// Ends a job that the ledger's limits hold back. Nothing if another worker has it by now.
    pub(super) async fn end_limited(
        &self,
        job: &Job,
        holding: Holding,
        progress: Progress,
        held_back: &HeldBack,
    ) -> Option<Worked> {
        let hold = job.held(holding, progress.clone());
        self.record_limited(job, &hold, progress, held_back).await.map(Worked::Ended)
    }

    /// Ends a job that this worker holds, and that a limit holds back. Nothing if another worker has it by now.
    pub(super) async fn record_limited(
        &self,
        job: &Job,
        hold: &Hold,
        progress: Progress,
        held_back: &HeldBack,
    ) -> Option<ResultEvent> {
        let event = self.record(job, hold, ending(progress, held_back)).await?;
        if event.outcome == Outcome::Limited {
            self.parts.metrics.limits.limited(held_back.limit, &self.rules.limits.label(&job.request.phone));
        }
        Some(event)
    }
}

/// A job of which an earlier attempt may have sent an OTP ends `unknown`.
fn ending(progress: Progress, held_back: &HeldBack) -> Ending {
    let ending = progress.end_without_answer(Outcome::Limited, &format!("held back by {}", held_back.reason));
    let retry_after = held_back.retry_after_seconds().filter(|_| ending.outcome == Outcome::Limited);
    Ending { retry_after, ..ending }
}
