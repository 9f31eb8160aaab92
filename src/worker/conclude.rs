//! What is done with the deliveries of a job that was worked: published and acknowledged, put back, or refused.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;
use tracing::{debug, warn};

use super::Worker;
use super::ending::Worked;
use crate::crash::{self, Point};
use crate::deliveries::job::Job;
use crate::deliveries::original::Original;
use crate::deliveries::receipt::Receipt;
use crate::job::result::{Ending, Outcome, ResultEvent};

/// What a producer is told whose `message_id` was another job's.
const ANOTHER_JOB: &str = "message_id was used before, for another job";

/// A result that takes longer than this from the ledger to the broker may be old by then.
const HELD_UP: Duration = Duration::from_millis(500);

/// How long the ledger may take to say whether it is.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

impl Worker {
    /// Deals with every delivery of a job that was worked.
    pub(super) async fn conclude(&self, job: &Job, worked: &Worked) {
        match worked {
            Worked::Ended(event) => {
                if event.outcome.may_be_tried_anew() {
                    self.in_flight.set_ending(&job.id);
                }
                crash::point(Point::BeforePublish);
                self.conclude_all(job, worked).await;
            }
            Worked::AnotherJob => self.conclude_all(job, worked).await,
            // The flight ends before the job goes back. The broker may deliver the job again at once, and this
            // delivery must be worked, not put back like the others.
            Worked::GoesBack | Worked::Failed => {
                if self.in_flight.has_joined(&job.id) {
                    self.release_again(job).await;
                }
                for receipt in self.in_flight.end(&job.id) {
                    self.conclude_one(job, worked, &receipt).await;
                }
            }
        }
    }

    /// Deals with every delivery of the job, also with those that come meanwhile.
    async fn conclude_all(&self, job: &Job, worked: &Worked) {
        let mut is_concluded = false;
        loop {
            for receipt in to_conclude(self.in_flight.take(&job.id), is_concluded) {
                self.conclude_one(job, worked, &receipt).await;
                is_concluded = true;
            }
            if self.in_flight.end_if_all_are_taken(&job.id) {
                return;
            }
        }
    }

    pub(super) async fn settle(&self, job: &Job, worked: &Worked, receipt: &Receipt) {
        match worked {
            Worked::Ended(event) => {
                self.parts.outbox.tell(&job.id, event, receipt).await;
                if let Some(says_more) = self.corrected_meanwhile(job, event).await {
                    self.parts.outbox.tell(&job.id, &says_more, receipt).await;
                }
                self.parts.outbox.acknowledge(event, receipt);
            }
            Worked::AnotherJob => self.refuse_as_another(job, receipt).await,
            Worked::GoesBack => {
                if receipt.give_back().await {
                    debug!("given back");
                }
            }
            Worked::Failed => {
                receipt.reject().await;
            }
        }
    }

    /// The result that says more than this one, if another worker has written it down meanwhile: two workers sent the
    /// job, and this one was held up before it had published. What is published last must say so.
    async fn corrected_meanwhile(&self, job: &Job, published: &ResultEvent) -> Option<ResultEvent> {
        let ledger = &self.parts.ledger;
        if published.may_be_duplicate || ledger.sees_every_attempt() || job.since_ledger() < HELD_UP {
            return None;
        }
        let recorded = timeout(ANSWER_WITHIN, ledger.recorded(self.in_flight.job_ref(job))).await.ok()??;
        (recorded.may_be_duplicate && recorded.run == published.run).then_some(recorded)
    }

    /// Refuses a job whose id belongs to another job.
    pub(super) async fn refuse_as_another(&self, job: &Job, receipt: &Receipt) {
        self.refuse(&job.id, receipt, &job.original, ANOTHER_JOB).await;
    }

    /// Keeps a message that is no job for people, and tells its producer.
    pub(super) async fn refuse(&self, id: &str, receipt: &Receipt, original: &Original, why: &str) {
        warn!(
            outcome = Outcome::Invalid.as_str(),
            reason = why,
            hint = "the producer must mend the job; a copy is on the dead-letter queue",
            "job ended"
        );
        self.parts.outbox.dead_letter(original, why).await;
        self.parts.metrics.job_ended(Outcome::Invalid, false);
        let event = Ending::without_attempt(Outcome::Invalid, why).into_event(id, SystemTime::now());
        self.parts.outbox.publish(id, &event, receipt).await;
    }
}

/// The deliveries to deal with: those that are still live. If none is, one dead delivery stands for them: the
/// worker that gets the job next may not know this result.
fn to_conclude(receipts: Vec<Arc<Receipt>>, is_concluded: bool) -> Vec<Arc<Receipt>> {
    let (live, dead): (Vec<_>, Vec<_>) = receipts.into_iter().partition(|receipt| receipt.is_live());
    let nobody_else = if live.is_empty() && !is_concluded { dead.last().cloned() } else { None };
    live.into_iter().chain(nobody_else).collect()
}
