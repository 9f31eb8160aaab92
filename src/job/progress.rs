//! How far a job has come: its attempts so far, and what they mean for its end.

use serde::{Deserialize, Serialize};

use super::result::{Answer, Ending, Outcome};

/// What follows an attempt that may have reached eSMS and got no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAmbiguous {
    /// Try again and mark the result `MayBeDuplicate`.
    Resend,
    /// Stop with the outcome `unknown`.
    GiveUp,
}

/// What is known of a job's attempts so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Calls of eSMS that were begun.
    pub attempts: u32,
    /// Attempts that may have reached eSMS and got no usable answer, by this worker or by one before it.
    pub ambiguous_attempts: u32,
    /// Whether an attempt was ambiguous and another was begun after it.
    pub may_be_duplicate: bool,
    /// What eSMS said last.
    pub answer: Option<Answer>,
    /// What went wrong last, for people.
    pub trouble: Option<String>,
    /// How often the code that worked the job has panicked.
    pub panics: u32,
    /// How often the job was tried anew, because its producer published it again.
    pub reruns: u32,
}

/// What is known of the attempts that earlier deliveries of a job led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// Every attempt is known.
    Complete,
    /// One attempt may have reached eSMS, and its answer is not known.
    OneUnknown,
    /// Another worker may have made any number of attempts that nobody could write down.
    AnyUnknown,
}

impl Progress {
    /// The same, with what is known of the past. `then` is what workers do after an ambiguous attempt.
    pub fn with_past(mut self, past: Past, then: OnAmbiguous) -> Self {
        match past {
            Past::Complete => self,
            Past::OneUnknown => self.with_marked_attempt().perhaps_sent_before(),
            Past::AnyUnknown => {
                // A worker that resends may have sent two. One that gives up makes no second attempt.
                self.may_be_duplicate |= then == OnAmbiguous::Resend;
                self.perhaps_sent_before()
            }
        }
    }

    /// The same, of a job that another worker may have sent. Saying so again changes nothing: it is not known that
    /// there was another attempt.
    pub fn perhaps_sent_before(mut self) -> Self {
        self.ambiguous_attempts = self.ambiguous_attempts.max(1);
        self.trouble = Some("a worker that had this job before may have sent it".into());
        self
    }

    /// The same, after the code that worked the job panicked. During an attempt, that attempt is ambiguous.
    pub fn with_panic(mut self, during_attempt: bool) -> Self {
        self.panics = self.panics.saturating_add(1);
        self.ambiguous_attempts = self.ambiguous_attempts.saturating_add(u32::from(during_attempt));
        self.trouble = Some("the worker panicked while it worked this job".into());
        self
    }

    /// Whether any attempt may have reached eSMS without a usable answer.
    pub const fn is_ambiguous(&self) -> bool {
        self.ambiguous_attempts > 0
    }

    /// Whether another attempt is allowed: always after none that may have reached eSMS, else as `then` says, and
    /// at most `resend_limit` times.
    pub fn may_attempt(&self, then: OnAmbiguous, resend_limit: u32) -> bool {
        match (self.ambiguous_attempts, then) {
            (0, _) => true,
            (_, OnAmbiguous::GiveUp) => false,
            (earlier, OnAmbiguous::Resend) => earlier <= resend_limit,
        }
    }

    /// Of a job that is tried anew for so many times.
    pub fn anew(reruns: u32) -> Self {
        Self { reruns, ..Self::default() }
    }

    /// The same, in a run that was preceded by at least so many.
    #[must_use]
    pub fn at_least(self, reruns: u32) -> Self {
        Self { reruns: self.reruns.max(reruns), ..self }
    }

    /// The same, with an attempt of which only the mark is known: it may have reached eSMS, beside those that are known.
    #[must_use]
    pub fn with_marked_attempt(self) -> Self {
        Self { ambiguous_attempts: self.ambiguous_attempts.saturating_add(1), ..self }
    }

    /// The same, of a job that has been through at least this, too.
    #[must_use]
    pub fn at_least_as_far_as(self, other: &Self) -> Self {
        Self {
            attempts: self.attempts.max(other.attempts),
            ambiguous_attempts: self.ambiguous_attempts.max(other.ambiguous_attempts),
            may_be_duplicate: self.may_be_duplicate || other.may_be_duplicate,
            panics: self.panics.max(other.panics),
            reruns: self.reruns.max(other.reruns),
            ..self
        }
    }

    /// Whether nothing has happened to the job yet that is worth remembering.
    pub const fn is_untouched(&self) -> bool {
        self.attempts == 0 && !self.is_ambiguous() && self.panics == 0
    }

    /// An attempt begins. After an earlier ambiguous attempt, the person may now get two OTPs.
    pub fn begin_attempt(&mut self) {
        self.attempts += 1;
        self.may_be_duplicate |= self.is_ambiguous();
    }

    /// The end of the job with `outcome`.
    pub fn end(self, outcome: Outcome, reason: Option<String>) -> Ending {
        Ending {
            outcome,
            answer: self.answer,
            reason,
            attempts: self.attempts,
            may_be_duplicate: self.may_be_duplicate,
            retry_after: None,
            run: self.reruns.saturating_add(1),
        }
    }

    /// The end of a job that is not tried again: `outcome`, or `unknown` if an attempt was ambiguous.
    pub fn end_without_answer(mut self, outcome: Outcome, why: &str) -> Ending {
        let reason = match self.trouble.take() {
            Some(trouble) => format!("{why}; last: {trouble}"),
            None => why.to_owned(),
        };
        let outcome = if self.is_ambiguous() { Outcome::Unknown } else { outcome };
        self.end(outcome, Some(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_of_the_past_makes_a_job_ambiguous_and_perhaps_a_duplicate() {
        use OnAmbiguous::{GiveUp, Resend};
        for (past, then, ambiguous, may_be_duplicate) in [
            (Past::Complete, Resend, false, false),
            (Past::Complete, GiveUp, false, false),
            (Past::OneUnknown, Resend, true, false),
            (Past::OneUnknown, GiveUp, true, false),
            (Past::AnyUnknown, Resend, true, true),
            (Past::AnyUnknown, GiveUp, true, false),
        ] {
            let progress = Progress { attempts: 2, ..Progress::default() }.with_past(past, then);
            assert_eq!(
                (progress.is_ambiguous(), progress.may_be_duplicate),
                (ambiguous, may_be_duplicate),
                "{past:?} {then:?}"
            );
            assert_eq!((progress.attempts, progress.trouble.is_some()), (2, ambiguous));
        }
    }

    #[test]
    fn what_is_said_again_of_the_past_is_no_further_attempt() {
        let once = Progress::default().with_past(Past::AnyUnknown, OnAmbiguous::Resend);
        let again = once.with_past(Past::AnyUnknown, OnAmbiguous::Resend).perhaps_sent_before();
        assert_eq!(again.ambiguous_attempts, 1);
        // The mark of an attempt is one more.
        assert_eq!(again.with_past(Past::OneUnknown, OnAmbiguous::Resend).ambiguous_attempts, 2);
    }

    #[test]
    fn attempts_that_may_have_sent_are_bounded_and_those_that_sent_nothing_are_not() {
        use OnAmbiguous::{GiveUp, Resend};
        for (ambiguous_attempts, then, resend_limit, may) in [
            (0, Resend, 0, true),
            (0, GiveUp, 1, true),
            (1, GiveUp, 5, false),
            (1, Resend, 0, false),
            (1, Resend, 1, true),
            (2, Resend, 1, false),
            (5, Resend, 5, true),
            (6, Resend, 5, false),
        ] {
            let progress = Progress { attempts: 1_000, ambiguous_attempts, ..Progress::default() };
            assert_eq!(progress.may_attempt(then, resend_limit), may, "{ambiguous_attempts} {then:?} {resend_limit}");
        }
    }

    #[test]
    fn a_panic_is_counted_and_only_one_during_an_attempt_is_ambiguous() {
        let once = Progress::default().with_panic(false);
        assert_eq!((once.panics, once.is_ambiguous(), once.is_untouched()), (1, false, false));
        let twice = once.with_panic(true);
        assert_eq!((twice.panics, twice.is_ambiguous()), (2, true));
        assert_eq!(twice.end_without_answer(Outcome::Failed, "a test").outcome, Outcome::Unknown);
    }

    #[test]
    fn what_two_tell_of_a_job_is_put_together_and_neither_is_forgotten() {
        let here = Progress { attempts: 1, ambiguous_attempts: 1, ..Progress::default() };
        let there = Progress { attempts: 2, may_be_duplicate: true, reruns: 3, ..Progress::default() };
        for both in [here.clone().at_least_as_far_as(&there), there.at_least_as_far_as(&here)] {
            assert_eq!((both.attempts, both.ambiguous_attempts, both.reruns), (2, 1, 3));
            assert!(both.may_be_duplicate && !both.may_attempt(OnAmbiguous::GiveUp, 1));
        }
    }
}
