//! Why the broker dropped a job: its `expiration` passed, or it was delivered too often.

use lapin::BasicProperties;
use lapin::types::AMQPValue;

use crate::job::dead;
use crate::job::progress::Progress;
use crate::job::result::{Ending, Outcome};

/// Why the broker dropped a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Its `expiration` passed in the queue.
    Expired,
    /// It was delivered too often, or for another reason, in the broker's own word. Work on it may have
    /// begun, and may have failed each time.
    Failed(&'static str),
}

impl DropReason {
    /// Reads the first entry of the header `x-death`, which is the latest.
    pub fn read(properties: &BasicProperties) -> Self {
        match reason(properties).as_deref() {
            Some("expired") => Self::Expired,
            Some("delivery_limit") => Self::Failed("delivered over the limit"),
            // Only the broker's own short words are repeated: a producer can write this header too.
            Some("rejected") => Self::Failed("rejected"),
            Some("maxlen") => Self::Failed("maxlen"),
            _ => Self::Failed("for a reason it did not say"),
        }
    }

    /// What people are told of it, where the job must be kept for them.
    pub fn for_people(&self) -> Option<String> {
        match self {
            Self::Expired => None,
            Self::Failed(why) => Some(format!("{} ({why}); an attempt may have been made", dead::GIVEN_UP)),
        }
    }

    /// How the job ends: it is never sent, and what is known of it is said.
    pub fn end(&self, progress: Progress) -> Ending {
        match self.for_people() {
            None => progress.end_without_answer(Outcome::Expired, "its expiration passed in the queue"),
            Some(why) => progress.end_without_answer(Outcome::Unknown, &why),
        }
    }
}

fn reason(properties: &BasicProperties) -> Option<String> {
    let AMQPValue::FieldArray(deaths) = properties.headers().as_ref()?.inner().get("x-death")? else { return None };
    let AMQPValue::FieldTable(death) = deaths.as_slice().first()? else { return None };
    let AMQPValue::LongString(reason) = death.inner().get("reason")? else { return None };
    Some(String::from_utf8_lossy(reason.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_job_says_what_is_known_of_it() {
        let unsent = Progress::default;
        let perhaps_sent = || Progress { attempts: 1, ambiguous_attempts: 1, ..Progress::default() };
        let failed = DropReason::Failed("delivered over the limit");
        for (reason, progress, outcome) in [
            (DropReason::Expired, unsent(), Outcome::Expired),
            (DropReason::Expired, perhaps_sent(), Outcome::Unknown),
            (failed.clone(), unsent(), Outcome::Unknown),
            (failed, perhaps_sent(), Outcome::Unknown),
        ] {
            assert_eq!(reason.end(progress).outcome, outcome, "{reason:?}");
        }
    }
}
