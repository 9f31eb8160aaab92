//! How working a job ends, and what to publish about it, decided from the ledger's answer. Pure.

use crate::job::progress::OnAmbiguous;
use crate::job::result::{Ending, Outcome, ResultEvent};
use crate::ledger::store::Finish;

/// How a job stopped being worked here.
pub(super) enum Worked {
    /// It has ended; its result is to be published.
    Ended(ResultEvent),
    /// It goes back to the broker, and was not worked to its end.
    GoesBack,
    /// It goes back to the broker, because working it failed.
    Failed,
    /// Its id belongs to another job.
    AnotherJob,
}

/// What follows when the ledger was given an ending.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This is the job's result: publish it, and count and log the ending.
    Publish(ResultEvent),
    /// The same, but the ending must first say that the person may have got another OTP.
    PublishAsDuplicate,
    /// The job has a result already: publish that one.
    PublishRecorded(ResultEvent),
    /// Another worker holds the job, but eSMS accepted it from this one: record that all the same.
    RecordForAll {
        /// Whether the other worker may have sent it, too, so that the person may have got another OTP.
        may_be_duplicate: bool,
    },
    /// Another worker has the job, and its result is waited for.
    WaitForAnother,
}

/// Decides what follows an ending that the ledger was given as `event`. `is_for_all` says whether it was given
/// regardless of which worker holds the job. `on_ambiguous` is the policy of every worker.
pub(super) fn after_finish(
    said: Finish,
    ending: &Ending,
    event: ResultEvent,
    is_for_all: bool,
    on_ambiguous: OnAmbiguous,
) -> Step {
    let is_accepted = ending.outcome == Outcome::Accepted;
    match said {
        Finish::Recorded => Step::Publish(event),
        // An earlier try wrote it, and the store's answer was lost.
        Finish::Already(recorded) if recorded == event => Step::Publish(event),
        // Both workers sent the job, each without seeing the other's attempt, because the store was away for
        // one of them. Nobody has reported the second OTP yet.
        Finish::Already(recorded)
            if is_accepted
                && matches!(recorded.outcome, Outcome::Accepted | Outcome::Rejected)
                && !recorded.may_be_duplicate =>
        {
            Step::PublishAsDuplicate
        }
        // This worker may have sent the job, too, without seeing the other's attempt.
        Finish::Already(recorded) if recorded.hides_a_second_otp_of(&event) => {
            Step::PublishRecorded(recorded.as_duplicate())
        }
        Finish::Already(recorded) => Step::PublishRecorded(recorded),
        // That an OTP went out is worth more than what the other worker may find.
        Finish::HeldByAnother { .. } if is_accepted && !is_for_all => {
            // The other may have sent it, too. It has not where it gives up because of the mark it found.
            Step::RecordForAll { may_be_duplicate: on_ambiguous == OnAmbiguous::Resend }
        }
        Finish::HeldByAnother { .. } => Step::WaitForAnother,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn ending(outcome: Outcome, may_be_duplicate: bool) -> Ending {
        Ending { may_be_duplicate, ..Ending::without_attempt(outcome, "a test") }
    }

    fn event(ending: &Ending) -> ResultEvent {
        ending.clone().into_event("a", SystemTime::UNIX_EPOCH)
    }

    fn step(said: Finish, ending: &Ending, is_for_all: bool, on_ambiguous: OnAmbiguous) -> Step {
        after_finish(said, ending, event(ending), is_for_all, on_ambiguous)
    }

    const POLICIES: [OnAmbiguous; 2] = [OnAmbiguous::Resend, OnAmbiguous::GiveUp];

    #[test]
    fn an_ending_that_is_recorded_now_or_was_by_an_earlier_try_is_published() {
        for ending in [ending(Outcome::Accepted, false), ending(Outcome::Unknown, true)] {
            for on_ambiguous in POLICIES {
                for said in [Finish::Recorded, Finish::Already(event(&ending))] {
                    assert_eq!(step(said, &ending, false, on_ambiguous), Step::Publish(event(&ending)));
                }
            }
        }
    }

    #[test]
    fn an_earlier_result_is_published_unless_a_second_otp_would_go_unreported() {
        for (ours, theirs, theirs_says_so, as_duplicate) in [
            (Outcome::Accepted, Outcome::Accepted, false, true),
            (Outcome::Accepted, Outcome::Accepted, true, false),
            // eSMS refused it first, and then took it.
            (Outcome::Accepted, Outcome::Rejected, false, true),
            (Outcome::Accepted, Outcome::Unknown, false, false),
            (Outcome::Rejected, Outcome::Accepted, false, false),
            (Outcome::Failed, Outcome::Accepted, false, false),
        ] {
            let ours = Ending { attempts: 7, ..ending(ours, false) };
            let theirs = event(&ending(theirs, theirs_says_so));
            let expected = if as_duplicate { Step::PublishAsDuplicate } else { Step::PublishRecorded(theirs.clone()) };
            for is_for_all in [false, true] {
                let said = Finish::Already(theirs.clone());
                assert_eq!(step(said, &ours, is_for_all, OnAmbiguous::Resend), expected, "{ours:?} {theirs:?}");
            }
        }
    }

    #[test]
    fn a_result_of_another_worker_says_so_where_this_one_may_have_sent_the_job_too() {
        let theirs = event(&ending(Outcome::Accepted, false));
        for (ours, says_so) in [
            (ending(Outcome::Unknown, false), true),
            (ending(Outcome::Unknown, true), true),
            (ending(Outcome::Rejected, true), true),
            (ending(Outcome::Failed, false), false),
            (ending(Outcome::Expired, false), false),
            (ending(Outcome::Rejected, false), false),
        ] {
            let Step::PublishRecorded(event) = step(Finish::Already(theirs.clone()), &ours, false, OnAmbiguous::Resend)
            else {
                panic!("{ours:?}")
            };
            assert_eq!((event.may_be_duplicate, event.outcome), (says_so, Outcome::Accepted), "{ours:?}");
            let body = String::from_utf8_lossy(&event.body).into_owned();
            assert_eq!(body.contains("\"MayBeDuplicate\":true"), says_so, "{body}");
            assert_eq!(ResultEvent::read(event.body.clone(), event.run), Some(event));
        }
    }

    #[test]
    fn an_unknown_result_of_another_worker_says_so_where_this_one_knows_of_a_second_otp() {
        let theirs = event(&ending(Outcome::Unknown, false));
        for (ours, says_so) in [
            (ending(Outcome::Accepted, true), true),
            (ending(Outcome::Unknown, true), true),
            (ending(Outcome::Rejected, true), true),
            // Theirs may be this worker's own attempt, whose mark they found.
            (ending(Outcome::Accepted, false), false),
            (ending(Outcome::Unknown, false), false),
            (ending(Outcome::Failed, false), false),
        ] {
            let said = step(Finish::Already(theirs.clone()), &ours, false, OnAmbiguous::Resend);
            assert!(
                matches!(said, Step::PublishRecorded(event) | Step::Publish(event) if event.may_be_duplicate == says_so),
                "{ours:?}"
            );
        }
    }

    #[test]
    fn while_another_has_the_job_only_an_otp_that_went_out_is_written_down_for_all_and_once() {
        let accepted = ending(Outcome::Accepted, false);
        for (on_ambiguous, may_be_duplicate) in [(OnAmbiguous::Resend, true), (OnAmbiguous::GiveUp, false)] {
            let first = step(Finish::HeldByAnother { may_have_sent: false }, &accepted, false, on_ambiguous);
            assert_eq!(first, Step::RecordForAll { may_be_duplicate });
            assert_eq!(
                step(Finish::HeldByAnother { may_have_sent: false }, &accepted, true, on_ambiguous),
                Step::WaitForAnother
            );
            for outcome in [Outcome::Rejected, Outcome::Failed, Outcome::Unknown, Outcome::Expired] {
                let step =
                    step(Finish::HeldByAnother { may_have_sent: false }, &ending(outcome, false), false, on_ambiguous);
                assert_eq!(step, Step::WaitForAnother, "{outcome:?}");
            }
        }
    }
}
