//! From a job to its result: asked of the ledger, sent, recorded, or left to another worker.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::SemaphorePermit;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::dead_letter::Death;
use super::{Job, Settled, Worker, given_up};
use crate::backoff::Policy;
use crate::config::OnAmbiguous;
use crate::crash::{self, Point};
use crate::esms::codes;
use crate::job::progress::Progress;
use crate::job::result::{Ending, Outcome, ResultEvent};
use crate::ledger::{self, Claimed, Finish, Holding, Marked};
use crate::send::{Custody, Errand, Holder, Sent};
use crate::telemetry::metrics::Found;

/// How long a worker that stops waits for the ledger's answer to a question it has asked: one step.
const LAST_ANSWER: Duration = Duration::from_secs(2);

impl Worker {
    /// From a job to its result: recorded, sent, or found not to be this worker's any more.
    pub(super) async fn settle(&self, job: &Job) -> Settled {
        let (mut polls, mut counted) = (Policy::POLL.waits(), false);
        loop {
            let Some(place) = self.place(job).await else {
                self.leave_unstarted(job).await;
                return Settled::GoesBack;
            };
            let Some(met) = self.claim(job).await else { return Settled::GoesBack };
            if !std::mem::replace(&mut counted, true) {
                self.count_redelivery(job, &met);
            }
            let settled = match met {
                Claimed::Done(event) => Some(Settled::Ended(event)),
                Claimed::AnotherJob => Some(Settled::AnotherJob),
                Claimed::Ours(holding, progress) => self.settle_held(job, &holding, progress).await,
                Claimed::Elsewhere => None,
            };
            drop(place);
            if let Some(settled) = settled {
                return settled;
            }
            // Whatever the ledger says, or does not say, from here on.
            job.was_elsewhere.store(true, Ordering::Relaxed);
            if let Some(settled) = self.wait_for_another(job, polls.next_wait()).await {
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
        let mut claim = pin!(self.parts.ledger.claim(self.ledgers(job)));
        tokio::select! {
            biased;
            claimed = &mut claim => return Some(claimed),
            () = self.stopping.cancelled() => {}
        }
        // The question may have been asked: without an answer the next worker would wait for the lease.
        self.release_what_comes(job, claim).await;
        None
    }

    /// Writes down that nothing was done with a job: the next worker could not tell, for it sees only
    /// that the broker had delivered it before.
    async fn leave_unstarted(&self, job: &Job) {
        if job.death.is_none() && !job.was_elsewhere.load(Ordering::Relaxed) {
            self.release_what_comes(job, self.parts.ledger.claim(self.ledgers(job))).await;
        }
    }

    async fn release_what_comes(&self, job: &Job, claim: impl Future<Output = Claimed>) {
        if let Ok(Claimed::Ours(holding, progress)) = timeout(LAST_ANSWER, claim).await {
            self.parts.ledger.release(self.ledgers(job), &holding, &progress).await;
        }
    }

    fn count_redelivery(&self, job: &Job, met: &Claimed) {
        let found = match met {
            Claimed::Done(_) => Found::Done,
            Claimed::Elsewhere => Found::InFlight,
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
    async fn settle_held(&self, job: &Job, holding: &Holding, progress: Progress) -> Option<Settled> {
        crash::point(Point::AfterClaim);
        let attempts_before = progress.attempts;
        let ending = match &job.death {
            Some(death) => end_of_dropped(death, progress),
            None => match self.send(job, holding, progress).await {
                Sent::Ended(ending) => ending,
                Sent::LeftToAnother(progress) => return Some(self.leave(job, holding, &progress).await),
                Sent::TakenOver => return None,
            },
        };
        if ending.attempts > attempts_before {
            crash::point(Point::AfterCall);
        }
        self.record(job, holding, ending).await.map(Settled::Ended)
    }

    async fn send(&self, job: &Job, holding: &Holding, progress: Progress) -> Sent {
        let errand = Errand { id: &job.id, request: &job.request, deadline: job.deadline, span: &job.span };
        self.parts.sender.send(errand, progress, &Held { worker: self, job, holding }).await
    }

    /// Remembers what a job that is left behind has been through, for its next delivery.
    async fn leave(&self, job: &Job, holding: &Holding, progress: &Progress) -> Settled {
        self.parts.ledger.release(self.ledgers(job), holding, progress).await;
        Settled::GoesBack
    }

    /// The ending becomes the result, once: every copy published from here on is this one. Nothing if
    /// another worker has the job, and its result is to be waited for.
    async fn record(&self, job: &Job, holding: &Holding, mut ending: Ending) -> Option<ResultEvent> {
        let now = SystemTime::now();
        let mut event = ending.clone().into_event(&job.id, now);
        let mut finish = self.parts.ledger.finish(self.ledgers(job), holding, &event).await;
        if matches!(finish, Finish::Elsewhere) && ending.outcome == Outcome::Accepted {
            // An OTP that went out is worth more than what the other may find; and it may have sent, too,
            // unless it gives up over the mark that it found.
            ending.may_be_duplicate |= self.config.retry.on_ambiguous == OnAmbiguous::Resend;
            event = ending.clone().into_event(&job.id, now);
            finish = self.parts.ledger.finish_for_all(self.ledgers(job), &event).await;
        }
        match finish {
            Finish::Elsewhere => return None,
            // Written by an earlier try whose answer was lost.
            Finish::Already(other) if other == event => {}
            Finish::Already(other) if is_second_otp_unsaid(&other, &ending) => {
                ending.may_be_duplicate = true;
                event = ending.clone().into_event(&job.id, now);
            }
            Finish::Already(other) => return Some(other),
            Finish::Recorded => {}
        }
        log_ending(job, &ending);
        self.parts.metrics.job_ended(ending.outcome, ending.may_be_duplicate);
        Some(event)
    }

    /// The job as the ledger is asked about it. The count is the latest delivery's.
    pub(super) fn ledgers<'a>(&self, job: &'a Job) -> ledger::Job<'a> {
        ledger::Job {
            id: &job.id,
            fingerprint: job.fingerprint,
            is_named: job.is_named,
            is_dropped: job.death.is_some(),
            redelivered: (job.redelivered && job.death.is_none()) || job.was_elsewhere.load(Ordering::Relaxed),
            delivery_count: self.in_flight.delivery_count(&job.id).or(job.delivery_count),
        }
    }
}

/// Whether this worker and another both sent the job, each without the ledger's showing it the other's
/// attempt, and nobody has said so yet: the store was away for one of them.
fn is_second_otp_unsaid(recorded: &ResultEvent, ending: &Ending) -> bool {
    let both = recorded.outcome == Outcome::Accepted && ending.outcome == Outcome::Accepted;
    both && !recorded.may_be_duplicate
}

/// A held job, while it is sent.
struct Held<'a> {
    worker: &'a Worker,
    job: &'a Job,
    holding: &'a Holding,
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
        let marked = self.worker.parts.ledger.mark(self.worker.ledgers(self.job), self.holding, begun).await;
        if marked == Marked::Ours {
            crash::point(Point::AfterMarking);
        }
        marked
    }

    async fn pause(&self, progress: &Progress, wait: Duration) {
        crash::point(Point::AfterCall);
        self.worker.parts.ledger.pause(self.worker.ledgers(self.job), self.holding, progress, wait).await;
    }

    fn is_remembered(&self) -> bool {
        self.worker.parts.ledger.outlives(self.holding)
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
