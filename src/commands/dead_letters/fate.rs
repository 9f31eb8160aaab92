//! What becomes of a letter that is requeued. Pure.

use ring::digest;

use super::letter::Letter;
use crate::job::envelope::LONGEST_ID;
use crate::job::result::Outcome;
use crate::job::state::State;
use crate::ledger::records::{Found, Record, Stage};

/// What the ledger says of a letter's job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It was not asked: it is in the workers' memory.
    NotAsked,
    /// It has no record.
    Nothing,
    /// The job has ended so.
    Ended(Outcome),
    /// The job has not ended.
    NotEnded(State),
    /// Its id is that of another job.
    AnotherJob,
    /// Its record cannot be read.
    Unreadable,
}

impl Known {
    /// What a record says. `is_of_another` tells whether it is that of another job.
    pub(super) fn of(found: &Found, is_of_another: impl Fn(&Record) -> bool) -> Self {
        match found {
            Found::Nothing => Self::Nothing,
            Found::Unreadable => Self::Unreadable,
            Found::Job(record) if is_of_another(record) => Self::AnotherJob,
            Found::Job(record) => match &record.stage {
                Stage::Ended(event) => Self::Ended(event.outcome),
                Stage::Held(held) => Self::NotEnded(held.state),
            },
        }
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// `--fresh`.
    pub(super) is_fresh: bool,
    /// `--new-id`.
    pub(super) is_sent_again: bool,
}

/// What becomes of a letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// It is sent.
    Sent,
    /// Nothing was sent at the end that is recorded, and it is tried anew.
    TriedAnew(&'static str),
    /// It is sent, and perhaps not for the first time.
    SentAgain,
    /// The same, under this id: under its own, the recorded result would be given.
    NewId(String),
    /// The recorded result is given again, and nothing is sent.
    Answered(&'static str),
    /// A worker has begun it, and it goes on from there.
    GoesOn,
    /// Its deadline has passed: it ends as expired.
    Expired,
    /// It is sent, unless the memory of a worker knows better.
    NotTold,
    /// It stays where it is.
    Stays(String),
}

/// What a person is told who may want `--new-id`.
const PERHAPS_SENT: &str =
    "an OTP may have gone out for it, and the ledger knows nothing of it (any more): --new-id sends it all the same";

const UNKNOWN: &str = "it ended unknown: --new-id sends it again";

const UNKNOWN_AND_LATE: &str = "it ended unknown, and its deadline has passed: --fresh --new-id sends it again";

const ANOTHER_JOB: &str = "its message_id is that of another job, which the ledger knows";

const UNREADABLE: &str = "its record in the ledger cannot be read: another program, or another version of this one, wrote it; find out which, and delete it";

/// Decides what becomes of a letter.
pub(super) fn fate(letter: &Letter, known: Known, wanted: Wanted) -> Fate {
    let is_expired = letter.is_expired && !wanted.is_fresh;
    if let Err(why) = &letter.job {
        return Fate::Stays(why.clone());
    }
    match known {
        Known::AnotherJob => Fate::Stays(ANOTHER_JOB.into()),
        Known::Unreadable => Fate::Stays(UNREADABLE.into()),
        Known::Ended(Outcome::Unknown) if wanted.is_sent_again && !is_expired => Fate::NewId(next_id(&letter.id)),
        // It stays, whatever is left out: once its letter has gone, nobody could ask for it.
        Known::Ended(Outcome::Unknown) if is_expired => Fate::Stays(UNKNOWN_AND_LATE.into()),
        Known::Ended(Outcome::Unknown) => Fate::Stays(UNKNOWN.into()),
        Known::Ended(outcome) if !outcome.may_be_tried_anew() => Fate::Answered(outcome.as_str()),
        Known::NotEnded(_) => Fate::GoesOn,
        Known::Ended(_) | Known::Nothing | Known::NotAsked if is_expired => Fate::Expired,
        Known::Ended(outcome) => Fate::TriedAnew(outcome.as_str()),
        Known::NotAsked => Fate::NotTold,
        Known::Nothing if !letter.may_have_sent() => Fate::Sent,
        Known::Nothing if wanted.is_sent_again => Fate::SentAgain,
        Known::Nothing => Fate::Stays(PERHAPS_SENT.into()),
    }
}

/// Added to the id of a job that is sent once more.
const AGAIN: &str = ":again";

/// The id under which a job is sent once more. It is the same each time that it is asked for: a requeue that is
/// interrupted and repeated sends nothing twice.
fn next_id(id: &str) -> String {
    if id.len() + AGAIN.len() <= LONGEST_ID {
        return format!("{id}{AGAIN}");
    }
    let whole = digest::digest(&digest::SHA256, id.as_bytes());
    let digits: String = whole.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits}{AGAIN}")
}

#[cfg(test)]
mod tests {
    use super::super::letter::Rules;
    use super::*;
    use crate::job::dead::PANICKED;
    use crate::job::envelope::Moment;
    use lapin::BasicProperties;
    use lapin::types::{AMQPValue, FieldTable};
    use std::time::Duration;

    const JOB: &str = r#"{"Phone":"0901888484","MultiChannelTempId":"1"}"#;
    const REFUSED: &str = "Phone is missing";

    fn letter(body: &str, reason: &str, made: u64) -> Letter {
        let mut headers = FieldTable::default();
        headers.insert("x-error".into(), AMQPValue::LongString(reason.into()));
        let properties = BasicProperties::default().with_headers(headers).with_message_id("a".into());
        let rules = Rules { job_ttl: Duration::from_secs(300), template_id: None };
        Letter::read(properties.with_timestamp(made), body.into(), Moment::now(), &rules)
    }

    /// A letter that a worker would send, and one whose deadline has passed. A timestamp of 0 is none.
    fn both(reason: &str) -> [Letter; 2] {
        [letter(JOB, reason, 0), letter(JOB, reason, 1)]
    }

    const PLAIN: Wanted = Wanted { is_fresh: false, is_sent_again: false };
    const FRESH: Wanted = Wanted { is_fresh: true, is_sent_again: false };
    const AGAIN: Wanted = Wanted { is_fresh: false, is_sent_again: true };
    const BOTH: Wanted = Wanted { is_fresh: true, is_sent_again: true };

    #[test]
    fn each_letter_has_its_fate() {
        let (again, stays) = (|| Fate::NewId("a:again".into()), |why: &str| Fate::Stays(why.to_owned()));
        use Known::{AnotherJob, Ended, NotAsked, NotEnded, Nothing, Unreadable};
        use Outcome::{Accepted, Expired, Failed, Limited, Rejected, Unknown};
        for (known, wanted, in_time, late) in [
            (Nothing, PLAIN, Fate::Sent, Fate::Expired),
            (Nothing, FRESH, Fate::Sent, Fate::Sent),
            (NotAsked, PLAIN, Fate::NotTold, Fate::Expired),
            (NotAsked, FRESH, Fate::NotTold, Fate::NotTold),
            (Ended(Accepted), BOTH, Fate::Answered("accepted"), Fate::Answered("accepted")),
            (Ended(Rejected), BOTH, Fate::Answered("rejected"), Fate::Answered("rejected")),
            (Ended(Unknown), PLAIN, stays(UNKNOWN), stays(UNKNOWN_AND_LATE)),
            (Ended(Unknown), FRESH, stays(UNKNOWN), stays(UNKNOWN)),
            // A new id would only get an `expired` beside the `unknown`.
            (Ended(Unknown), AGAIN, again(), stays(UNKNOWN_AND_LATE)),
            (Ended(Unknown), BOTH, again(), again()),
            (Ended(Failed), PLAIN, Fate::TriedAnew("failed"), Fate::Expired),
            (Ended(Expired), FRESH, Fate::TriedAnew("expired"), Fate::TriedAnew("expired")),
            (Ended(Limited), AGAIN, Fate::TriedAnew("limited"), Fate::Expired),
            (NotEnded(State::Sending), BOTH, Fate::GoesOn, Fate::GoesOn),
            (AnotherJob, BOTH, stays(ANOTHER_JOB), stays(ANOTHER_JOB)),
            (Unreadable, BOTH, stays(UNREADABLE), stays(UNREADABLE)),
        ] {
            let [first, second] = both(REFUSED);
            assert_eq!(fate(&first, known, wanted), in_time, "{known:?} {wanted:?}");
            assert_eq!(fate(&second, known, wanted), late, "{known:?} {wanted:?}");
        }
    }

    #[test]
    fn what_may_have_been_sent_and_is_forgotten_is_sent_only_if_that_is_asked_for() {
        for reason in [PANICKED, "the broker gave the job up (rejected); an attempt may have been made"] {
            for (known, wanted, expected) in [
                (Known::Nothing, FRESH, Fate::Stays(PERHAPS_SENT.into())),
                (Known::Nothing, BOTH, Fate::SentAgain),
                (Known::Ended(Outcome::Failed), FRESH, Fate::TriedAnew("failed")),
                (Known::NotAsked, FRESH, Fate::NotTold),
            ] {
                for letter in both(reason) {
                    assert_eq!(fate(&letter, known, wanted), expected, "{reason} {known:?} {wanted:?}");
                }
            }
            let [_, late] = both(reason);
            assert_eq!(fate(&late, Known::Nothing, PLAIN), Fate::Expired);
        }
    }

    #[test]
    fn what_is_no_job_stays_whatever_is_asked_for() {
        for body in ["{}", "no JSON", r#"{"Phone":"0901888484"}"#] {
            let Fate::Stays(why) = fate(&letter(body, REFUSED, 0), Known::Nothing, BOTH) else { panic!("{body}") };
            assert!(!why.is_empty());
        }
    }

    #[test]
    fn a_new_id_is_the_same_each_time_and_fits() {
        for id in ["a", "a:again", &"x".repeat(LONGEST_ID - 6), &"x".repeat(LONGEST_ID), &"y".repeat(LONGEST_ID)] {
            let next = next_id(id);
            assert!(next.len() <= LONGEST_ID && next != id && next == next_id(id), "{next}");
        }
        assert_eq!(next_id("5f0c"), "5f0c:again");
        assert_ne!(next_id(&"x".repeat(LONGEST_ID)), next_id(&"y".repeat(LONGEST_ID)));
    }
}
