//! From a job to its result: claimed, sent, and written down, or left to another worker.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use super::Worker;
use super::ending::{Step, Worked, after_finish};
use super::limited::Patience;
use super::line::log_ending;
use crate::backoff::Policy;
use crate::crash::{self, Point};
use crate::deliveries::in_flight::Custody;
use crate::deliveries::job::{Hold, Job};
use crate::job::progress::{OnAmbiguous, Past, Progress};
use crate::job::result::{Ending, ResultEvent};
use crate::ledger::past::JobRef;
use crate::ledger::store::Finish;
use crate::ledger::{Claimed, Holding};
use crate::send::Sent;
use crate::send::held::Held;
use crate::send::slots::Slot;
use crate::telemetry::labels::Found;

/// How long a worker that stops waits for the ledger's answer to a question it has asked: one step.
const LAST_ANSWER: Duration = Duration::from_secs(2);

/// Whether a job may be claimed now.
enum Turn<'a> {
    /// It may, with a slot for its first attempt if it needs one.
    Now(Option<Slot<'a>>),
    /// The worker stops.
    Stopping,
}

impl Worker {
    /// Works a job until it has ended, or must be left.
    ///
    /// A worker holds many jobs that only wait for eSMS. What few jobs need is on the heap, so that the others need
    /// not have room for it.
    pub(super) async fn work_on(&self, job: &Job) -> Worked {
        let mut polls = Policy::POLL.waits();
        let mut is_first_claim = true;
        let mut patience = Patience::new(&self.waiting_for_calls);
        loop {
            let Turn::Now(slot) = self.turn(job).await else {
                return Box::pin(self.leave_unstarted(job)).await;
            };
            let Some(claimed) = self.claim(job).await else { return Worked::GoesBack };
            if is_first_claim {
                self.count_redelivery(job, &claimed);
                is_first_claim = false;
            }
            let Some(claimed) = patience.judge(claimed) else {
                drop(slot);
                self.wait_for_call(polls.next_wait()).await;
                continue;
            };
            if let Some(worked) = self.work_claimed(job, claimed, slot).await {
                return worked;
            }
            // Whatever the ledger says from now on, another worker may have sent the job.
            job.lost();
            job.set_was_elsewhere();
            if let Some(worked) = self.wait_for_another(job, polls.next_wait()).await {
                return worked;
            }
        }
    }

    /// Waits for a slot. A job that waits is not claimed, so that another worker may have it, and its lease cannot
    /// run out. Past its deadline it needs no slot: it is not sent, only recorded.
    async fn turn<'a>(&'a self, job: &'a Job) -> Turn<'a> {
        if job.dropped.is_some() || self.rules.limits.denied(&job.request).is_some() {
            return Turn::Now(None);
        }
        if let Some(slot) = self.free_slot(job) {
            return Turn::Now(Some(slot));
        }
        let slot = async {
            self.parts.health.until_publishing().await;
            tokio::select! {
                biased;
                () = sleep_until(job.deadline) => None,
                slot = self.parts.sender.slot(job) => Some(slot),
            }
        };
        tokio::select! {
            biased;
            () = self.stop.draining().cancelled() => Turn::Stopping,
            slot = slot => Turn::Now(slot),
        }
    }

    /// A slot without waiting. Mostly there is one, and then nothing needs to be waited for beside it.
    fn free_slot<'a>(&'a self, job: &'a Job) -> Option<Slot<'a>> {
        let is_due = !self.stop.draining().is_cancelled() && Instant::now() < job.deadline;
        if is_due && self.parts.health.is_publishing() { self.parts.sender.slot(job).now_or_never() } else { None }
    }

    /// Asks the ledger for the job; nothing if the worker stops first.
    async fn claim(&self, job: &Job) -> Option<Claimed> {
        job.asks_ledger();
        let mut claim = pin!(self.parts.ledger.claim(self.in_flight.job_ref(job)));
        tokio::select! {
            biased;
            claimed = &mut claim => return Some(claimed),
            () = self.stop.draining().cancelled() => {}
        }
        // The question may have reached the ledger. Unless its answer is heard, the next worker must wait for
        // the end of the lease.
        Box::pin(self.leave_when_claimed(job, claim)).await
    }

    /// Writes down that nothing was done with a job. The next worker could not know, for it sees only that
    /// the broker had delivered the job before.
    async fn leave_unstarted(&self, job: &Job) -> Worked {
        // The next delivery of a job without a name has another id.
        if job.dropped.is_some() || job.was_elsewhere() || !job.is_named {
            return Worked::GoesBack;
        }
        // Of a job that has ended nothing must change: this delivery is not worked, whether it is a repeat or not.
        let asked = JobRef { first_delivered: None, ..self.in_flight.job_ref(job) };
        let claim = self.parts.ledger.claim(asked);
        match self.leave_when_claimed(job, claim).await {
            Some(Claimed::Limited(holding, progress, held_back)) => {
                let ended = self.end_limited(job, holding, progress, &held_back).await;
                ended.unwrap_or(Worked::GoesBack)
            }
            Some(_) | None => Worked::GoesBack,
        }
    }

    /// Gives back a job that is this worker's, once the ledger says so. One that a limit holds back ends all the same:
    /// the ledger has no record of it, and the next worker would have to take it for one that may have been sent.
    async fn leave_when_claimed(&self, job: &Job, claim: impl Future<Output = Claimed>) -> Option<Claimed> {
        match timeout(LAST_ANSWER, claim).await {
            Ok(Claimed::Ours(holding, progress)) => {
                let hold = job.held(holding, progress.clone());
                self.release(job, &hold.holding, &progress).await;
                None
            }
            Ok(limited @ Claimed::Limited(..)) => Some(limited),
            Ok(Claimed::HeldByAnother | Claimed::Done(_) | Claimed::AnotherJob) | Err(_) => None,
        }
    }

    fn count_redelivery(&self, job: &Job, claimed: &Claimed) {
        let found = match claimed {
            Claimed::Done(_) => Found::Done,
            Claimed::HeldByAnother => Found::InFlight,
            Claimed::Ours(..) | Claimed::Limited(..) | Claimed::AnotherJob if job.redelivered => Found::New,
            Claimed::Ours(..) | Claimed::Limited(..) | Claimed::AnotherJob => return,
        };
        self.parts.metrics.redelivered(found);
    }

    /// Works a job that the ledger was asked for; nothing if another worker has it.
    async fn work_claimed(&self, job: &Job, claimed: Claimed, slot: Option<Slot<'_>>) -> Option<Worked> {
        let hold = match self.with_own_attempts(job, claimed).await {
            Claimed::Ours(holding, progress) => job.held(holding, progress),
            Claimed::Done(event) => return Some(Worked::Ended(event)),
            Claimed::AnotherJob => return Some(Worked::AnotherJob),
            Claimed::Limited(holding, progress, held_back) => {
                return Box::pin(self.end_limited(job, holding, progress, &held_back)).await;
            }
            Claimed::HeldByAnother => return None,
        };
        self.work_held(job, hold, slot).await
    }

    /// Another worker has the job: the ledger is asked again later, unless the job is to go back.
    async fn wait_for_another(&self, job: &Job, wait: Duration) -> Option<Worked> {
        debug!("another worker has the job; its result is waited for");
        tokio::select! {
            () = sleep(wait) => {}
            () = self.stop.draining().cancelled() => return Some(Worked::GoesBack),
        }
        (self.in_flight.custody(&job.id) == Custody::Lost).then_some(Worked::GoesBack)
    }

    /// Works a job that is held; nothing if it is not held any more.
    async fn work_held(&self, job: &Job, hold: Arc<Hold>, slot: Option<Slot<'_>>) -> Option<Worked> {
        let progress = hold.progress();
        let attempts_before = progress.attempts;
        crash::point(Point::AfterClaim);
        if job.dropped.is_none()
            && let Some(held_back) = self.rules.limits.denied(&job.request)
        {
            return Box::pin(self.record_limited(job, &hold, progress, &held_back)).await.map(Worked::Ended);
        }
        let ending = match &job.dropped {
            Some(reason) => reason.end(progress),
            None => match self.parts.sender.send(&self.held(job, &hold), progress, slot).await {
                Sent::Ended(ending) => ending,
                Sent::LeftToAnother(progress) => return Some(self.leave(job, &hold, &progress).await),
                Sent::TakenOver => return None,
            },
        };
        if ending.attempts > attempts_before {
            crash::point(Point::AfterCall);
        }
        self.record(job, &hold, ending).await.map(Worked::Ended)
    }

    fn held<'a>(&'a self, job: &'a Job, hold: &Arc<Hold>) -> Held<'a> {
        Held {
            job,
            hold: Arc::clone(hold),
            ledger: &self.parts.ledger,
            in_flight: &self.in_flight,
            health: &self.parts.health,
            stop: &self.stop,
        }
    }

    /// Writes down what a job that is left behind has been through, for its next delivery.
    async fn leave(&self, job: &Job, hold: &Hold, progress: &Progress) -> Worked {
        hold.attempt_over(progress);
        self.release(job, &hold.holding, progress).await;
        Worked::GoesBack
    }

    /// Gives a job back in the ledger, with the count of its latest delivery here. Where the next delivery's
    /// count is one more, nobody else had the job.
    async fn release(&self, job: &Job, holding: &Holding, progress: &Progress) {
        let ledger = &self.parts.ledger;
        let is_told = ledger.sees_every_attempt() || !self.in_flight.was_elsewhere(&job.id);
        let past = if is_told { Past::Complete } else { Past::AnyUnknown };
        let progress = progress.clone().with_past(past, self.rules.on_ambiguous);
        ledger.release(self.in_flight.job_ref(job), holding, &progress).await;
    }

    /// Gives a job back once more. Another delivery of it came meanwhile, and its count is the latest.
    pub(super) async fn release_again(&self, job: &Job) {
        if let Some(hold) = job.current_hold() {
            self.release(job, &hold.holding, &hold.progress()).await;
        }
    }

    /// Records the ending. Every copy that is published later is identical. Nothing if another worker has the
    /// job: its result is waited for.
    pub(super) async fn record(&self, job: &Job, hold: &Hold, mut ending: Ending) -> Option<ResultEvent> {
        job.asks_ledger();
        let now = SystemTime::now();
        let is_elsewhere = self.may_be_sent_elsewhere(job, &ending);
        let mut is_for_all = false;
        loop {
            let event = ending.clone().into_event(&job.id, now);
            let alone = if is_elsewhere {
                Ending { may_be_duplicate: true, ..ending.clone() }.into_event(&job.id, now)
            } else {
                event.clone()
            };
            let said = self.finish(job, hold, [&event, &alone], is_for_all).await;
            let is_alone = is_elsewhere && !hold.holding.is_in_store();
            ending.may_be_duplicate |= is_alone;
            let event = if is_alone { alone } else { event };
            let recorded = match &said {
                Finish::Already(recorded) => Some(recorded.clone()),
                Finish::Recorded | Finish::HeldByAnother { .. } => None,
            };
            match after_finish(said, &ending, event, is_for_all, self.rules.on_ambiguous) {
                Step::Publish(event) => return Some(self.ended(job, &ending, event)),
                Step::PublishAsDuplicate => {
                    ending.may_be_duplicate = true;
                    let event = ending.clone().into_event(&job.id, now);
                    self.correct(job, recorded.as_ref(), &event).await;
                    return Some(self.ended(job, &ending, event));
                }
                Step::PublishRecorded(event) => {
                    self.correct(job, recorded.as_ref(), &event).await;
                    return Some(event);
                }
                Step::RecordForAll { may_be_duplicate } => {
                    ending.may_be_duplicate |= may_be_duplicate;
                    is_for_all = true;
                }
                Step::WaitForAnother => return None,
            }
        }
    }

    /// Writes down the end: the first event, or the second where it is known to this process alone.
    async fn finish(&self, job: &Job, hold: &Hold, [event, alone]: [&ResultEvent; 2], is_for_all: bool) -> Finish {
        let (ledger, job_ref) = (&self.parts.ledger, self.in_flight.job_ref(job));
        if is_for_all {
            ledger.finish_for_all(job_ref, &hold.holding, event).await
        } else {
            ledger.finish(job_ref, &hold.holding, event, alone).await
        }
    }

    /// What is published is what the ledger shows to whoever asks later.
    async fn correct(&self, job: &Job, recorded: Option<&ResultEvent>, published: &ResultEvent) {
        if let Some(recorded) = recorded
            && recorded != published
        {
            self.parts.ledger.correct(self.in_flight.job_ref(job), recorded, published).await;
        }
    }

    /// Whether another worker may be sending a job that this one has sent, or may have: the broker has put it back
    /// on the queue meanwhile. Where the store has the result, the other worker finds it, or says so itself.
    fn may_be_sent_elsewhere(&self, job: &Job, ending: &Ending) -> bool {
        let would_send = self.rules.on_ambiguous == OnAmbiguous::Resend && !self.parts.ledger.sees_every_attempt();
        ending.outcome.may_have_sent() && would_send && self.in_flight.custody(&job.id) != Custody::Ours
    }

    fn ended(&self, job: &Job, ending: &Ending, event: ResultEvent) -> ResultEvent {
        log_ending(job, ending);
        self.parts.metrics.job_ended(ending.outcome, ending.may_be_duplicate);
        event
    }
}
