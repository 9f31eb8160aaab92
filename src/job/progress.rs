//! How far a job has come: its attempts so far, and what they mean for its end.

use serde::{Deserialize, Serialize};

use crate::config::OnAmbiguous;

use super::result::{Answer, Ending, Outcome};

/// What is known of a job's attempts so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Calls of eSMS that were begun.
    pub attempts: u32,
    /// Whether any attempt was ambiguous, one by a worker before this one included.
    pub ambiguous: bool,
    /// Whether an attempt was ambiguous and another was begun after it.
    pub may_be_duplicate: bool,
    /// What eSMS said last.
    pub answer: Option<Answer>,
    /// What went wrong last, for people.
    pub trouble: Option<String>,
}

impl Progress {
    /// Of a job that another worker may have sent meanwhile.
    pub fn after_an_unseen_attempt(self) -> Self {
        Self { ambiguous: true, trouble: Some("a worker that had this job before may have sent it".into()), ..self }
    }

    /// Of a job that another worker had, which may have made any number of attempts unseen.
    pub fn after_unseen_work(mut self, then: OnAmbiguous) -> Self {
        // One that resends may have sent two; one that gives up makes no second after a first.
        self.may_be_duplicate |= then == OnAmbiguous::Resend;
        self.after_an_unseen_attempt()
    }

    /// An attempt begins. From here an earlier ambiguity can mean two OTPs.
    pub fn begin_attempt(&mut self) {
        self.attempts += 1;
        self.may_be_duplicate |= self.ambiguous;
    }

    /// The end of the job with `outcome`.
    pub fn end(self, outcome: Outcome, reason: Option<String>) -> Ending {
        Ending {
            outcome,
            answer: self.answer,
            reason,
            attempts: self.attempts,
            may_be_duplicate: self.may_be_duplicate,
        }
    }

    /// The end where nothing more will be tried: `outcome`, unless an attempt was ambiguous.
    pub fn end_unsettled(mut self, outcome: Outcome, why: &str) -> Ending {
        let reason = match self.trouble.take() {
            Some(trouble) => format!("{why}; last: {trouble}"),
            None => why.to_owned(),
        };
        let outcome = if self.ambiguous { Outcome::Unknown } else { outcome };
        self.end(outcome, Some(reason))
    }
}
