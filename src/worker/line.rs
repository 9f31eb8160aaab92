//! The log line of a job.

use tracing::{info, warn};

use crate::deliveries::job::Job;
use crate::esms::codes;
use crate::job::result::{Ending, Outcome};

/// Says how the job ended.
pub(super) fn log_ending(job: &Job, ending: &Ending) {
    let code = ending.answer.as_ref().map(|answer| answer.code.as_str());
    let hint = code.and_then(|code| codes::documented(code).scope.hint());
    let queued_ms = job.age_at_delivery().map(|age| age.as_millis() as u64);
    let took_ms = job.received.instant.elapsed().as_millis() as u64;
    macro_rules! line {
        ($level:ident) => {
            $level!(
                phone = %job.request.phone,
                outcome = ending.outcome.as_str(),
                code,
                attempts = ending.attempts,
                may_be_duplicate = ending.may_be_duplicate,
                queued_ms,
                took_ms,
                reason = ending.reason,
                retry_after_s = ending.retry_after,
                hint,
                "job ended"
            )
        };
    }
    match ending.outcome {
        Outcome::Accepted | Outcome::Limited => line!(info),
        Outcome::Rejected | Outcome::Failed | Outcome::Unknown | Outcome::Expired | Outcome::Invalid => line!(warn),
    }
}
