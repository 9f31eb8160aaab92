//! What follows an attempt: another one after a wait, or the end. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::config::OnAmbiguous;
use crate::result::{Answer, Ending, Outcome};
use crate::send::classify::Class;
use crate::send::codes;

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

/// The limits on a job's attempts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From here on the job is not sent.
    pub deadline: Instant,
    /// From here on no further attempt is begun (`OTP_RETRY_MAX_ELAPSED` after the first).
    pub give_up_at: Instant,
    /// What follows an ambiguous attempt.
    pub on_ambiguous: OnAmbiguous,
}

/// What follows an attempt.
#[derive(Debug)]
pub enum Next {
    /// The job has ended.
    End(Ending),
    /// Another attempt at this moment.
    AttemptAt(Instant, Progress),
}

/// Decides what follows an attempt that ended `now` in `class`; `wait` is what the backoff proposes.
pub fn after(class: Class, mut progress: Progress, limits: Limits, now: Instant, wait: Duration) -> Next {
    match class {
        Class::Answered(answer) => Next::End(answered(answer, progress)),
        Class::Refused { why } => {
            progress.trouble = None;
            Next::End(progress.end_unsettled(Outcome::Failed, &format!("refused by {why}")))
        }
        Class::AnsweredTryLater(answer) => {
            progress.trouble = Some(format!("CodeResult {}: {}", answer.code, codes::documented(&answer.code).meaning));
            progress.answer = Some(answer);
            again(progress, limits, now + wait)
        }
        Class::NotSent { why, not_before } => {
            progress.trouble = Some(why);
            again(progress, limits, now + wait.max(not_before.unwrap_or_default()))
        }
        Class::Ambiguous { why } => {
            progress.ambiguous = true;
            progress.trouble = Some(why);
            match limits.on_ambiguous {
                OnAmbiguous::Resend => again(progress, limits, now + wait),
                OnAmbiguous::GiveUp => Next::End(progress.end_unsettled(
                    Outcome::Unknown,
                    "the request may have reached eSMS, and OTP_ON_AMBIGUOUS=give-up",
                )),
            }
        }
    }
}

fn answered(answer: Answer, mut progress: Progress) -> Ending {
    let known = codes::documented(&answer.code);
    let (outcome, reason) = if answer.code == codes::ACCEPTED {
        (Outcome::Accepted, None)
    } else {
        (Outcome::Rejected, Some(format!("eSMS refused it: {}", known.meaning)))
    };
    progress.answer = Some(answer);
    progress.end(outcome, reason)
}

/// Another attempt, if it can begin before both limits; a job that cannot be tried again ends now,
/// rather than hold its place until the limit has passed.
fn again(progress: Progress, limits: Limits, at: Instant) -> Next {
    let first_limit = limits.deadline.min(limits.give_up_at);
    if at < first_limit {
        return Next::AttemptAt(at, progress);
    }
    Next::End(if limits.deadline <= limits.give_up_at {
        progress.end_unsettled(Outcome::Expired, "no further attempt fits before the deadline")
    } else {
        progress.end_unsettled(Outcome::Failed, "retries ran out")
    })
}

#[cfg(test)]
mod tests;
