//! Why a job is kept for people, as the header `x-error` says it, and what follows from the words.

/// The header of a dead letter that says why it is one.
pub const REASON: &str = "x-error";

/// How the reason begins where the broker gave a job up.
pub const GIVEN_UP: &str = "the broker gave the job up";

/// The reason of a job that made its workers panic.
pub const PANICKED: &str = "the worker panicked while it worked this job, and it is not tried again";

/// Whether an OTP may have gone out for a job with this reason. Without one, the broker has put it there itself, or
/// somebody else has.
pub fn may_have_sent(reason: Option<&str>) -> bool {
    reason.is_none_or(|reason| reason.starts_with(GIVEN_UP) || reason == PANICKED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_job_that_was_refused_was_certainly_not_sent() {
        for (reason, may) in [
            (None, true),
            (Some("the broker gave the job up (delivered over the limit); an attempt may have been made"), true),
            (Some(PANICKED), true),
            (Some("Phone is missing"), false),
            (Some("message_id was used before, for another job"), false),
        ] {
            assert_eq!(may_have_sent(reason), may, "{reason:?}");
        }
    }
}
