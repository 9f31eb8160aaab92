//! Checks whether every job was treated as promised. Pure functions.

use std::collections::BTreeSet;

use esms_otp_worker::sandbox::Recorded;
use serde_json::Value;

use crate::job::{API_KEY, Job, SECRET_KEY};
use crate::settings::{Ledger, OnAmbiguous, OnError, Settings};

/// The claims that are checked for every job, in the order of the table.
pub(crate) const CLAIMS: [&str; 10] = [
    ONE_RESULT,
    ALIKE,
    NO_SILENT_SECOND,
    AT_MOST_TWO,
    AT_MOST_ONE,
    SENT_AS_SAID,
    UNCLEAR_IS_UNKNOWN,
    INVALID,
    RECORDED,
    SECRECY,
];

pub(crate) const ONE_RESULT: &str = "every job that the broker had has a result";
pub(crate) const ALIKE: &str = "all results of a job are alike";
pub(crate) const NO_SILENT_SECOND: &str = "a second send is told: MayBeDuplicate";
pub(crate) const AT_MOST_TWO: &str = "nobody got more than two OTPs for one job, where the ledger saw all attempts";
pub(crate) const AT_MOST_ONE: &str = "with give-up nobody got two, and nothing may be a duplicate";
pub(crate) const SENT_AS_SAID: &str = "accepted was sent; rejected, failed, expired, limited and invalid were not";
pub(crate) const UNCLEAR_IS_UNKNOWN: &str = "with give-up an unclear attempt is the last, and unknown";
pub(crate) const INVALID: &str = "what cannot be understood is invalid and kept on otp.dead, and nothing else";
pub(crate) const RECORDED: &str = "the ledger holds the result that was published, and no job half done";
pub(crate) const SECRECY: &str = "no result holds a phone number or a key";

/// The worker's reason when the broker gave a job up because the job expired in the queue.
const EXPIRED_IN_QUEUE: &str = "its expiration passed in the queue";

/// The facts that decide what must hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) give_up: bool,
    /// A job may have been sent by a worker that the others could not know of. Then a second result may
    /// differ, if it says what may have happened.
    pub(crate) unseen: bool,
    /// Every final result is in Redis.
    pub(crate) recorded: bool,
    /// The workers share a ledger, so that the last result of a job that was sent twice says so. Otherwise one of
    /// its results does.
    pub(crate) shared: bool,
}

impl Rules {
    /// The rules for these settings. `ledger_errors` tells whether any worker ever failed to reach its
    /// ledger.
    pub(crate) fn new(settings: &Settings, ledger_errors: bool) -> Self {
        let redis = settings.ledger == Ledger::Redis;
        let apart = settings.on_error == OnError::Send && ledger_errors;
        Self {
            give_up: settings.on_ambiguous == OnAmbiguous::GiveUp,
            unseen: if redis { apart } else { !settings.is_one_process() },
            recorded: redis && !apart,
            shared: redis,
        }
    }
}

/// The parts of a result that the audit reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ended {
    pub(crate) outcome: String,
    pub(crate) may_be_duplicate: bool,
    pub(crate) body: String,
}

impl Ended {
    /// Reads a body. If it cannot be read, only the body itself is kept.
    pub(crate) fn read(body: &str) -> Self {
        let json: Value = serde_json::from_str(body).unwrap_or_default();
        let outcome = json["Outcome"].as_str().unwrap_or("unreadable").to_owned();
        Self { outcome, may_be_duplicate: json["MayBeDuplicate"] == Value::Bool(true), body: body.to_owned() }
    }

    /// As text, times are in their order.
    fn completed_at(&self) -> String {
        let json: Value = serde_json::from_str(&self.body).unwrap_or_default();
        json["CompletedAt"].as_str().unwrap_or_default().to_owned()
    }

    /// The part that all results of the job share. No ledger knows a job that cannot be understood, so each
    /// result of such a job has its own time.
    fn essence(&self) -> String {
        let Ok(mut json) = serde_json::from_str::<Value>(&self.body) else { return self.body.clone() };
        match json.as_object_mut() {
            Some(fields) if self.outcome == "invalid" => {
                fields.remove("CompletedAt");
                json.to_string()
            }
            _ => self.body.clone(),
        }
    }
}

/// What the ledger holds of a job.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) state: String,
    pub(crate) result: String,
}

/// All that is known of a job.
pub(crate) struct Case {
    pub(crate) job: Job,
    /// Whether the broker confirmed it. Then a result is owed.
    pub(crate) owed: bool,
    /// Whether its producer published it more than once, because it has copies or because the broker did not confirm it.
    pub(crate) is_repeated: bool,
    pub(crate) results: Vec<Ended>,
    /// How many requests eSMS took.
    pub(crate) sends: u32,
    pub(crate) calls: Vec<Recorded>,
    pub(crate) record: Option<Record>,
    /// For each copy on `otp.dead`, why it is there.
    pub(crate) dead: Vec<String>,
    /// A worker that attempted it ended while it could not reach the ledger.
    pub(crate) is_unwitnessed: bool,
}

/// A broken promise.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) claim: &'static str,
    /// The job, if the violation is about one job.
    pub(crate) id: Option<String>,
    pub(crate) what: String,
}

impl Case {
    pub(crate) fn is_flagged(&self) -> bool {
        self.results.iter().any(|result| result.may_be_duplicate)
    }

    /// Its distinct results.
    pub(crate) fn essences(&self) -> BTreeSet<String> {
        self.last_run().into_iter().map(Ended::essence).collect()
    }

    /// The results of its last run. A second copy that comes after the job has ended without anything sent is its
    /// producer's repeat, and is tried anew.
    fn last_run(&self) -> Vec<&Ended> {
        let nothing_sent = |result: &&Ended| matches!(result.outcome.as_str(), "failed" | "expired" | "limited");
        let all: Vec<_> = self.results.iter().collect();
        // Two workers may publish the results of two runs the other way round.
        match all.iter().copied().max_by(|one, other| one.completed_at().cmp(&other.completed_at())) {
            // A delivery that a stalled connection or a paused worker has held up looks like a repeat, too.
            Some(last) if all.iter().all(&nothing_sent) => all.into_iter().filter(|result| *result == last).collect(),
            Some(_) if self.is_repeated => all.into_iter().filter(|result| !nothing_sent(result)).collect(),
            Some(_) | None => all,
        }
    }

    /// Everything that is wrong with it.
    pub(crate) fn violations(&self, rules: Rules) -> Vec<Violation> {
        let checks = [
            (ONE_RESULT, self.without_result()),
            (ALIKE, self.differing(rules)),
            (NO_SILENT_SECOND, self.silent_second(rules)),
            (AT_MOST_TWO, self.flood(rules)),
            (AT_MOST_ONE, self.second_in_spite_of_give_up(rules)),
            (SENT_AS_SAID, self.sent_otherwise(rules)),
            (UNCLEAR_IS_UNKNOWN, self.unclear(rules)),
            (INVALID, self.misunderstood()),
            (RECORDED, self.unrecorded(rules)),
            (SECRECY, self.secrets()),
        ];
        let wrong = checks.into_iter().filter_map(|(claim, what)| Some((claim, what?)));
        wrong.map(|(claim, what)| Violation { claim, id: Some(self.job.id.clone()), what }).collect()
    }

    fn without_result(&self) -> Option<String> {
        (self.owed && self.results.is_empty()).then(|| "no result".to_owned())
    }

    fn differing(&self, rules: Rules) -> Option<String> {
        let told = self.is_flagged() || self.results.iter().any(|result| result.outcome == "unknown");
        let different = self.essences().len();
        let excused = rules.unseen && (told || self.sends == 0 || self.is_dropped());
        (different > 1 && !excused).then(|| format!("{different} different results"))
    }

    /// Whether its last result says that an OTP went out, or may have.
    pub(crate) fn keeps_its_place(&self) -> bool {
        let may_have_sent =
            |result: &&Ended| result.may_be_duplicate || matches!(result.outcome.as_str(), "accepted" | "unknown");
        self.last_run().last().is_some_and(may_have_sent)
    }

    /// The broker gave the job up, and a worker reported that. This worker cannot know what another worker
    /// sent unseen, because RabbitMQ does not tell whether an expired job was delivered before.
    fn is_dropped(&self) -> bool {
        self.results.iter().any(|result| result.outcome == "expired" && result.body.contains(EXPIRED_IN_QUEUE))
    }

    /// One worker sent it, and the worker that reported `expired` could not know of that.
    pub(crate) fn is_sent_and_dropped(&self) -> bool {
        self.sends > 0 && self.is_dropped() && !self.is_flagged()
    }

    /// The last result must say so: consumers may have acted on those before.
    fn silent_second(&self, rules: Rules) -> Option<String> {
        let last = self.results.last().is_some_and(|result| result.may_be_duplicate);
        let is_told = if rules.shared { last } else { self.is_flagged() };
        let excused = rules.unseen && self.is_unwitnessed;
        (self.sends > 1 && !is_told && !excused).then(|| format!("sent {} times, unsaid", self.sends))
    }

    /// Sent twice, which nobody alive could know: counted apart.
    pub(crate) fn is_silent_for_want_of_a_witness(&self) -> bool {
        let is_told = self.results.last().is_some_and(|result| result.may_be_duplicate);
        self.sends > 1 && !is_told && self.is_unwitnessed
    }

    /// `OTP_RESEND_LIMIT` is at its default, 1.
    fn flood(&self, rules: Rules) -> Option<String> {
        (self.sends > 2 && !rules.unseen).then(|| format!("sent {} times", self.sends))
    }

    fn second_in_spite_of_give_up(&self, rules: Rules) -> Option<String> {
        let wrong = rules.give_up && (self.sends > 1 || self.is_flagged());
        wrong.then(|| format!("sent {} times; MayBeDuplicate {}", self.sends, self.is_flagged()))
    }

    fn sent_otherwise(&self, rules: Rules) -> Option<String> {
        if rules.unseen && (self.is_sent_and_dropped() || self.is_unwitnessed) {
            return None;
        }
        let accepted = self.results.iter().any(|result| result.outcome == "accepted");
        let may_be = accepted || self.is_flagged() || self.results.iter().any(|result| result.outcome == "unknown");
        match self.sends {
            0 if accepted => Some("accepted, and never sent".to_owned()),
            1.. if !may_be && !self.results.is_empty() => Some(format!("sent, and {}", self.results[0].outcome)),
            _ => None,
        }
    }

    fn unclear(&self, rules: Rules) -> Option<String> {
        let unclear = self.calls.iter().position(|call| is_unclear(&call.fault))?;
        let unknown = self.last_run().iter().all(|result| result.outcome == "unknown");
        let last = unclear + 1 == self.calls.len();
        (rules.give_up && !(unknown && last)).then(|| format!("call {} was unclear", unclear + 1))
    }

    fn misunderstood(&self) -> Option<String> {
        let invalid = self.results.iter().filter(|result| result.outcome == "invalid").count();
        let given_up = |why: &String| why.starts_with("the broker gave the job up") || why.contains("panicked");
        match self.job.valid {
            true if invalid > 0 => Some("understood, and called invalid".to_owned()),
            true if !self.dead.iter().all(given_up) => Some(format!("on otp.dead: {:?}", self.dead)),
            false if invalid < self.results.len() => Some("not understood, and not called invalid".to_owned()),
            false if !self.calls.is_empty() => Some("not understood, and sent".to_owned()),
            false if self.dead.is_empty() && !self.results.is_empty() => Some("not on otp.dead".to_owned()),
            _ => None,
        }
    }

    fn unrecorded(&self, rules: Rules) -> Option<String> {
        let result = *self.last_run().first().filter(|_| rules.recorded && self.job.valid)?;
        match &self.record {
            None => Some("the ledger does not know it".to_owned()),
            Some(record) if record.state != "done" => {
                Some(format!("has a result, and in the ledger is {}", record.state))
            }
            Some(record) if record.result != result.body => Some("the ledger has another result".to_owned()),
            Some(_) => None,
        }
    }

    fn secrets(&self) -> Option<String> {
        let secrets = [self.job.phone.as_str(), API_KEY, SECRET_KEY];
        let told = |secret: &&str| self.results.iter().any(|result| result.body.contains(*secret));
        secrets.iter().find(|secret| told(secret)).map(|secret| format!("a result holds {secret}"))
    }
}

/// Whether this fault leaves a careful client in doubt: eSMS may have taken the request, or not. An answer that
/// is whole does not, however it is delivered.
fn is_unclear(fault: &str) -> bool {
    let name = fault.split(':').next().unwrap_or_default();
    match name {
        "reset_before" | "reset_after" | "hang_before" | "hang_after" | "status_after" => true,
        "html" | "html_after" | "cut_json" | "cut_chunk" | "empty_body" | "no_code_result" | "proxy_lost" => true,
        "status" => fault.starts_with("status:5") && !fault.starts_with("status:503"),
        _ => false,
    }
}
