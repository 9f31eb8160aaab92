//! A job that this worker has attempted, and that another had then: what this worker knows of its own attempts is not
//! in the record that the other leaves.

use super::Worker;
use crate::deliveries::job::Job;
use crate::job::progress::OnAmbiguous;
use crate::ledger::Claimed;

impl Worker {
    /// The claim, with what this worker knows of its own earlier attempts.
    pub(super) async fn with_own_attempts(&self, job: &Job, claimed: Claimed) -> Claimed {
        let Some(own) = job.own_attempts().filter(|own| own.is_ambiguous()) else { return claimed };
        match claimed {
            Claimed::Ours(holding, progress) => Claimed::Ours(holding, progress.at_least_as_far_as(&own)),
            Claimed::Done(event)
                if self.rules.on_ambiguous == OnAmbiguous::Resend
                    && !event.may_be_duplicate
                    && !self.parts.ledger.sees_every_attempt() =>
            {
                // The person may have got an OTP more than the other worker knows of.
                let says_so = event.clone().as_duplicate();
                self.parts.ledger.correct(self.in_flight.job_ref(job), &event, &says_so).await;
                Claimed::Done(says_so)
            }
            claimed @ (Claimed::Done(_) | Claimed::HeldByAnother | Claimed::AnotherJob | Claimed::Limited(..)) => {
                claimed
            }
        }
    }
}
