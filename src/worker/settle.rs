//! From a job to its result: asked of the ledger, sent, recorded, or left to another worker.

use std::time::{Duration, SystemTime};

use tokio::sync::SemaphorePermit;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::dead_letter::Death;
use super::{Job, Settled, Worker, given_up};
use crate::backoff::Policy;
use crate::crash::{self, Point};
use crate::ledger::{self, Claimed, Finish, Hold, Marked};
use crate::result::{Ending, Outcome, ResultEvent};
use crate::send::codes;
use crate::send::retry::Progress;
use crate::send::{Custody, Errand, Holder, Sent};
use crate::telemetry::metrics::Found;

impl Worker {
    /// From a job to its result: recorded, sent, or found not to be this worker's any more.
    pub(super) async fn settle(&self, job: &Job) -> Settled {
        let (mut polls, mut counted) = (Policy::POLL.waits(), false);
        loop {
            let Some(place) = self.place(job).await else { return Settled::GoesBack };
            let Some(met) = self.claim(job).await else { return Settled::GoesBack };
            if !std::mem::replace(&mut counted, true) {
                self.count_redelivery(job, &met);
            }
            let settled = match met {
                Claimed::Done(event) => Some(Settled::Ended(event)),
                Claimed::AnotherJob => Some(Settled::AnotherJob),
                Claimed::Ours(hold, progress) => self.settle_held(job, &hold, progress).await,
                Claimed::Elsewhere(lease) => {
                    // Others may be worked meanwhile.
                    drop(place);
                    self.wait_for_another(job, lease.min(polls.next_wait())).await
                }
            };
            if let Some(settled) = settled {
                return settled;
            }
        }
    }

    /// A place among the jobs in flight, or none if the worker stops first. A job that is not to be
    /// sent needs none.
    async fn place(&self, job: &Job) -> Option<Option<SemaphorePermit<'_>>> {
        if job.death.is_some() {
            return Some(None);
        }
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => None,
            place = self.permits.acquire() => place.ok().map(Some),
        }
    }

    /// Asks the ledger for the job; nothing if the worker stops first.
    async fn claim(&self, job: &Job) -> Option<Claimed> {
        tokio::select! {
            claimed = self.parts.ledger.claim(self.ledgers(job)) => Some(claimed),
            () = self.stopping.cancelled() => None,
        }
    }

    fn count_redelivery(&self, job: &Job, met: &Claimed) {
        let found = match met {
            Claimed::Done(_) => Found::Done,
            Claimed::Elsewhere(_) => Found::InFlight,
            Claimed::Ours(..) | Claimed::AnotherJob if job.redelivered => Found::New,
            Claimed::Ours(..) | Claimed::AnotherJob => return,
        };
        self.parts.metrics.redelivered(found);
    }

    /// Another worker has the job: it is asked for again later, unless it is to go back.
    async fn wait_for_another(&self, job: &Job, wait: Duration) -> Option<Settled> {
        debug!(job_id = job.id, "another worker has the job; its result is waited for");
        tokio::select! {
            () = sleep(wait) => {}
            () = self.stopping.cancelled() => return Some(Settled::GoesBack),
        }
        (self.in_flight.custody(&job.id) == Custody::Lost).then_some(Settled::GoesBack)
    }

    /// Works a job that is held; nothing if it is not held any more.
    async fn settle_held(&self, job: &Job, hold: &Hold, progress: Progress) -> Option<Settled> {
        crash::point(Point::AfterClaim);
        let ending = match &job.death {
            Some(death) => end_of_dropped(death, progress),
            None => match self.send(job, hold, progress).await {
                Sent::Ended(ending) => ending,
                Sent::LeftToAnother(progress) => return Some(self.leave(job, hold, &progress).await),
                Sent::TakenOver => return None,
            },
        };
        self.record(job, hold, ending).await.map(Settled::Ended)
    }

    async fn send(&self, job: &Job, hold: &Hold, progress: Progress) -> Sent {
        let errand = Errand { id: &job.id, request: &job.request, deadline: job.deadline };
        self.parts.sender.send(errand, progress, &Held { worker: self, job, hold }).await
    }

    /// Remembers what a job that is left behind has been through, for its next delivery.
    async fn leave(&self, job: &Job, hold: &Hold, progress: &Progress) -> Settled {
        self.parts.ledger.release(self.ledgers(job), hold, progress).await;
        Settled::GoesBack
    }

    /// The ending becomes the result, once: every copy published from here on is this one. Nothing if
    /// another worker has the job, and its result is to be waited for.
    async fn record(&self, job: &Job, hold: &Hold, mut ending: Ending) -> Option<ResultEvent> {
        if ending.attempts > 0 {
            crash::point(Point::AfterCall);
        }
        let now = SystemTime::now();
        let mut event = ending.clone().into_event(&job.id, now);
        let mut finish = self.parts.ledger.finish(self.ledgers(job), hold, &event).await;
        if matches!(finish, Finish::Elsewhere) && ending.is_answered() {
            // What eSMS said is worth more than what the other may find, but it may have sent, too.
            ending.may_be_duplicate = true;
            event = ending.clone().into_event(&job.id, now);
            finish = self.parts.ledger.finish_for_all(self.ledgers(job), &event).await;
        }
        match finish {
            Finish::Recorded => {
                log_ending(job, &ending);
                self.parts.metrics.job_ended(ending.outcome, ending.may_be_duplicate);
                Some(event)
            }
            Finish::Already(event) => Some(event),
            Finish::Elsewhere => None,
        }
    }

    /// The job as the ledger is asked about it. The count is the latest delivery's.
    pub(super) fn ledgers<'a>(&self, job: &'a Job) -> ledger::Job<'a> {
        ledger::Job {
            id: &job.id,
            fingerprint: job.fingerprint,
            redelivered: job.redelivered && job.death.is_none(),
            delivery_count: self.in_flight.delivery_count(&job.id).or(job.delivery_count),
        }
    }
}

/// A held job, while it is sent.
struct Held<'a> {
    worker: &'a Worker,
    job: &'a Job,
    hold: &'a Hold,
}

impl Holder for Held<'_> {
    fn stopping(&self) -> &CancellationToken {
        &self.worker.stopping
    }

    fn custody(&self) -> Custody {
        match self.worker.in_flight.custody(&self.job.id) {
            // Had another sent it, the ledger would have said so.
            Custody::OursAfterAnother if self.worker.parts.ledger.sees_every_attempt() => Custody::Ours,
            custody => custody,
        }
    }

    async fn mark(&self, begun: &Progress) -> Marked {
        let marked = self.worker.parts.ledger.mark(self.worker.ledgers(self.job), self.hold, begun).await;
        if marked == Marked::Ours {
            crash::point(Point::AfterMarking);
        }
        marked
    }

    async fn pause(&self, progress: &Progress, wait: Duration) {
        crash::point(Point::AfterCall);
        self.worker.parts.ledger.pause(self.worker.ledgers(self.job), self.hold, progress, wait).await;
    }

    fn is_remembered(&self) -> bool {
        self.worker.parts.ledger.outlives(self.hold)
    }
}

/// A job the broker gave up is never sent; what is known of it is said.
fn end_of_dropped(death: &Death, progress: Progress) -> Ending {
    match death {
        Death::Expired => progress.end_unsettled(Outcome::Expired, "its expiration passed in the queue"),
        Death::Other(why) => progress.end_unsettled(Outcome::Unknown, &given_up(why)),
    }
}

fn log_ending(job: &Job, ending: &Ending) {
    let code = ending.answer.as_ref().map(|answer| answer.code.as_str());
    let hint = code.and_then(|code| codes::documented(code).scope.hint());
    let queued_ms =
        job.made.and_then(|made| job.delivered.wall.duration_since(made).ok()).map(|age| age.as_millis() as u64);
    let took_ms = job.delivered.instant.elapsed().as_millis() as u64;
    macro_rules! line {
        ($level:ident) => {
            $level!(
                job_id = job.id,
                phone = %job.request.phone,
                outcome = ending.outcome.as_str(),
                code,
                attempts = ending.attempts,
                may_be_duplicate = ending.may_be_duplicate,
                queued_ms,
                took_ms,
                reason = ending.reason,
                hint,
                "job ended"
            )
        };
    }
    if ending.outcome == Outcome::Accepted { line!(info) } else { line!(warn) }
}
