//! How a job's end is written down: in the store, or in this process while the store is away; and what it means for
//! the job's place under the limits.

use std::time::SystemTime;

use tokio::time::Instant;

use super::Ledger;
use super::debts::Debt;
use super::holding::Holding;
use super::past::{JobRef, Record};
use super::store::{End, Finish};
use super::watch::mends;
use crate::job::progress::Progress;
use crate::job::result::{Outcome, ResultEvent};
use crate::limits::{Place, Seen};

/// When the last attempt of a job began. Where it was another worker's, nobody knows, but not after the deadline.
fn last_attempt(holding: &Holding, place: &Place) -> Instant {
    holding.attempted().unwrap_or_else(|| Instant::now().min(place.until))
}

impl Ledger {
    /// Writes down how a job ended. An earlier result stays, unless this one says more. With `hold` it waits for the store. Where the store
    /// does not take it, this process remembers `alone` as the result.
    pub async fn finish(&self, job: JobRef<'_>, holding: &Holding, event: &ResultEvent, alone: &ResultEvent) -> Finish {
        self.end(job, holding, Some(holding.owner()), event, alone).await
    }

    /// The same, although another worker has the job: eSMS has accepted it from this worker.
    pub async fn finish_for_all(&self, job: JobRef<'_>, holding: &Holding, event: &ResultEvent) -> Finish {
        self.end(job, holding, None, event, event).await
    }

    async fn end(
        &self,
        job: JobRef<'_>,
        holding: &Holding,
        owner: Option<&str>,
        event: &ResultEvent,
        alone: &ResultEvent,
    ) -> Finish {
        let (id, fingerprint, place, attempted) = (job.id, job.fingerprint, job.place, holding.attempted());
        let end = End { id, fingerprint, owner, event, place, attempted };
        let (finish, seen) = match self.until_answered(|| self.store.finish(end)).await {
            Ok((held @ Finish::HeldByAnother { .. }, _)) => return held,
            Ok((finish, seen)) => {
                holding.set_record(Record::InStore);
                self.remember(job, finish.recorded().unwrap_or(event));
                (finish, seen)
            }
            Err(error) => {
                holding.set_record(Record::InProcess);
                let finish = self.beside.unwritten.record_done(id, fingerprint, alone);
                if let (Finish::Recorded, true) = (&finish, mends(&error)) {
                    self.owe(job, holding, alone);
                }
                (finish, None)
            }
        };
        self.settle(job, holding, &finish, event, seen);
        finish
    }

    /// A job without a name goes back. Its next delivery has another id, so this one is closed, and its place counts only
    /// if an OTP may have gone out.
    pub(super) async fn close(&self, job: JobRef<'_>, holding: &Holding, progress: &Progress) {
        let (id, fingerprint, place, attempted) = (job.id, job.fingerprint, job.place, holding.attempted());
        let ending = progress.clone().end_without_answer(Outcome::Failed, "the job went back to its queue");
        let (owner, event) = (Some(holding.owner()), &ending.into_event(id, SystemTime::now()));
        if holding.is_in_store() {
            let end = End { id, fingerprint, owner, event, place, attempted };
            let _ = self.watch.observe(self.store.finish(end).await);
        }
        if let Some(place) = place {
            self.counted.settle(place, event.may_have_sent().then(|| last_attempt(holding, place)));
        }
    }

    /// The job has ended: its place counts from its last attempt on, or is given back.
    fn settle(&self, job: JobRef<'_>, holding: &Holding, finish: &Finish, event: &ResultEvent, seen: Option<Seen>) {
        let Some(place) = job.place else { return };
        let may_have_sent = event.may_have_sent() || finish.recorded().is_some_and(ResultEvent::may_have_sent);
        let sent = may_have_sent.then(|| last_attempt(holding, place));
        let seen_here = self.counted.settle(place, sent);
        if let (Finish::Recorded, true) = (finish, may_have_sent) {
            self.metrics.limits.number(&self.limits.label(&place.phone), seen.unwrap_or(seen_here));
        }
    }

    /// Puts a result that says more in the place of the recorded one. Where this fails, only a repeat is not told.
    pub async fn correct(&self, job: JobRef<'_>, recorded: &ResultEvent, says_more: &ResultEvent) {
        let _ = self.watch.observe(self.store.correct(job.id, recorded, says_more).await);
        self.remember(job, says_more);
    }

    /// The store has this result now. This process knows it too, should the store go away.
    pub(super) fn remember(&self, job: JobRef<'_>, event: &ResultEvent) {
        if self.is_shared {
            self.beside.recent.record_latest(job.id, job.fingerprint, event);
        }
    }

    /// The store must be told this result once it answers.
    pub(super) fn owe(&self, job: JobRef<'_>, holding: &Holding, event: &ResultEvent) {
        self.beside.owe(Debt {
            id: job.id.to_owned(),
            fingerprint: job.fingerprint,
            owner: holding.owner().to_owned(),
            event: event.clone(),
            place: job.place.cloned(),
            attempted: holding.attempted(),
        });
    }
}
