//! What follows an attempt: another one after a wait, or the end. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::esms::classify::Class;
use crate::esms::codes;
use crate::job::progress::{OnAmbiguous, Progress};
use crate::job::result::{Answer, Ending, Outcome};

/// The limits on a job's attempts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The job is not sent after this moment.
    pub deadline: Instant,
    /// No further attempt begins after this moment (`OTP_RETRY_MAX_ELAPSED` after the first).
    pub give_up_at: Instant,
    /// What follows an ambiguous attempt.
    pub on_ambiguous: OnAmbiguous,
    /// How many further attempts may follow ambiguous ones.
    pub resend_limit: u32,
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
            Next::End(progress.end_without_answer(Outcome::Failed, &format!("refused by {why}")))
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
        Class::Ambiguous { why } | Class::Unreadable { why, .. } => {
            progress.ambiguous_attempts = progress.ambiguous_attempts.saturating_add(1);
            progress.trouble = Some(why);
            if progress.may_attempt(limits.on_ambiguous, limits.resend_limit) {
                return again(progress, limits, now + wait);
            }
            Next::End(progress.end_without_answer(Outcome::Unknown, no_resend(limits.on_ambiguous)))
        }
    }
}

/// Why no attempt follows one that may have reached eSMS.
pub const fn no_resend(then: OnAmbiguous) -> &'static str {
    match then {
        OnAmbiguous::GiveUp => "the request may have reached eSMS, and OTP_ON_AMBIGUOUS=give-up",
        OnAmbiguous::Resend => "the request may have reached eSMS, and OTP_RESEND_LIMIT allows no further attempt",
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

/// Another attempt, if it can begin before both limits. Otherwise the job ends now: it need not wait until the
/// limit has passed.
fn again(progress: Progress, limits: Limits, at: Instant) -> Next {
    let first_limit = limits.deadline.min(limits.give_up_at);
    if at < first_limit {
        return Next::AttemptAt(at, progress);
    }
    Next::End(if limits.deadline <= limits.give_up_at {
        progress.end_without_answer(Outcome::Expired, "no further attempt fits before the deadline")
    } else {
        progress.end_without_answer(Outcome::Failed, "retries ran out")
    })
}

#[cfg(test)]
mod tests;
