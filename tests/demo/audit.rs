//! Checks whether what the worker says agrees with what eSMS saw. Pure functions.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;

use crate::programs::PhoneStory;
use crate::run::{Event, Seen};
use crate::support::terminal::thousands;

/// One claim, and the findings against it.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) claim: String,
    pub(crate) against: Vec<String>,
}

impl Check {
    fn new(claim: impl Into<String>, against: Vec<String>) -> Self {
        Self { claim: claim.into(), against }
    }

    /// A claim that holds if the two numbers of every pair are equal.
    pub(crate) fn equal(claim: impl Into<String>, pairs: &[(&str, u64, u64)]) -> Self {
        let wrong = pairs.iter().filter(|(_, one, other)| one != other);
        let against = wrong.map(|(what, one, other)| format!("{what}: {} and {}", thousands(*one), thousands(*other)));
        Self::new(claim, against.collect())
    }

    pub(crate) fn holds(&self) -> bool {
        self.against.is_empty()
    }
}

/// A job's result, and what eSMS knows of its phone.
pub(crate) struct Case<'a> {
    pub(crate) phone: &'a str,
    pub(crate) result: &'a Event,
    pub(crate) story: &'a PhoneStory,
}

/// The results with their phones. A result names only its job, by an id that `send` made up. The worker's
/// log has the last three digits of that job's phone, and here every phone has its own last three digits.
pub(crate) fn cases(seen: &Seen) -> Vec<Case<'_>> {
    let endings: HashMap<&str, &str> =
        seen.logged.iter().map(|line| (line.job_id.as_str(), end(&line.phone))).collect();
    let phones: HashMap<&str, _> = seen.phones.iter().map(|known| (end(&known.0), known)).collect();
    let case = |result| {
        let (phone, story) = phones.get(endings.get(job(result))?)?;
        Some(Case { phone, result, story })
    };
    seen.heard.iter().filter_map(|heard| case(&heard.event)).collect()
}

fn job(result: &Event) -> &str {
    &result.job_id
}

fn end(phone: &str) -> &str {
    phone.get(phone.len().saturating_sub(3)..).unwrap_or_default()
}

/// Every claim about the run, in the order of the summary.
pub(crate) fn audit(seen: &Seen, jobs: usize) -> Vec<Check> {
    let cases = cases(seen);
    vec![
        one_result_each(seen, &cases, jobs as u64),
        attempts(seen, &cases),
        second_otps(&cases),
        otps(&cases),
        sms_ids(&cases),
        metrics(seen),
        send_code(seen),
    ]
}

fn one_result_each(seen: &Seen, cases: &[Case<'_>], jobs: u64) -> Check {
    let heard: BTreeSet<&str> = seen.heard.iter().map(|heard| job(&heard.event)).collect();
    let printed: BTreeSet<&str> = seen.printed.iter().map(job).collect();
    let phones: BTreeSet<&str> = cases.iter().map(|case| case.phone).collect();
    let mut check = Check::equal(
        "every job has one result, the same from `send` and from the exchange",
        &[
            ("results on the exchange and jobs", seen.heard.len() as u64, jobs),
            ("different results there and jobs", heard.len() as u64, jobs),
            ("results printed by `send` and jobs", seen.printed.len() as u64, jobs),
            ("results matched to a phone by the log and jobs", phones.len() as u64, jobs),
        ],
    );
    if heard != printed {
        check.against.push("`send` and the exchange had results of different jobs".into());
    }
    check
}

fn attempts(seen: &Seen, cases: &[Case<'_>]) -> Check {
    let attempts: u64 = cases.iter().map(|case| case.result.attempts).sum();
    let claim = format!("the {} attempts are the requests that eSMS saw, phone by phone", thousands(attempts));
    let counted = moved(seen, "otp_attempts_total", &[]);
    let mut check = Check::equal(
        claim,
        &[
            ("Attempts of the results and requests at eSMS", attempts, seen.stats.requests),
            ("Attempts of the results and otp_attempts_total", attempts, counted),
        ],
    );
    let wrong = cases.iter().filter(|case| case.result.attempts != case.story.requests);
    check.against.extend(wrong.map(|case| {
        format!("{}: {} attempts said, {} requests seen", case.phone, case.result.attempts, case.story.requests)
    }));
    check
}

fn second_otps(cases: &[Case<'_>]) -> Check {
    let twice: Vec<_> = cases.iter().filter(|case| case.story.accepted > 1).collect();
    let silent = twice.iter().filter(|case| !case.result.may_be_duplicate);
    let against = silent.map(|case| format!("{}: {} OTPs, unsaid", case.phone, case.story.accepted)).collect();
    Check::new(format!("{} phones got a second OTP: every result of theirs says so", twice.len()), against)
}

fn otps(cases: &[Case<'_>]) -> Check {
    let wrong = cases.iter().filter(|case| !otps_allowed(case.result).contains(&case.story.accepted));
    let told = wrong.map(|case| format!("{}: {}, {} OTPs", case.phone, case.result.outcome, case.story.accepted));
    Check::new("accepted means that an OTP went out; nothing went out unsaid", told.collect())
}

/// How many OTPs may have been sent, according to the result.
fn otps_allowed(result: &Event) -> RangeInclusive<u64> {
    let least = u64::from(result.outcome == "accepted");
    let one_at_most = matches!(result.outcome.as_str(), "accepted" | "unknown");
    let most = if result.may_be_duplicate { result.attempts } else { u64::from(one_at_most) };
    least..=most
}

fn sms_ids(cases: &[Case<'_>]) -> Check {
    let accepted: Vec<_> = cases.iter().filter(|case| case.result.outcome == "accepted").collect();
    let known = |case: &Case<'_>| case.story.story.iter().any(|call| call.sms_id == case.result.sms_id);
    let wrong = accepted.iter().filter(|case| case.result.sms_id.is_none() || !known(case));
    let against = wrong.map(|case| format!("{}: SMSID {:?}", case.phone, case.result.sms_id)).collect();
    Check::new(format!("the {} SMSIDs are those that eSMS gave to these phones", accepted.len()), against)
}

fn metrics(seen: &Seen) -> Check {
    let events = || seen.heard.iter().map(|heard| &heard.event);
    let flagged = events().filter(|event| event.may_be_duplicate).count() as u64;
    let outcomes: BTreeSet<&str> = events().map(|event| event.outcome.as_str()).collect();
    let mut pairs = vec![
        ("results and otp_jobs_total", seen.heard.len() as u64, moved(seen, "otp_jobs_total", &[])),
        ("results with MayBeDuplicate and their metric", flagged, moved(seen, "otp_may_be_duplicate_total", &[])),
    ];
    for outcome in outcomes {
        let count = events().filter(|event| event.outcome == outcome).count() as u64;
        pairs.push((outcome, count, moved(seen, "otp_jobs_total", &[("outcome", outcome)])));
    }
    Check::equal("the worker's metrics say the same as its results", &pairs)
}

/// The exit code must be 0 when every job was accepted, and 1 otherwise.
fn send_code(seen: &Seen) -> Check {
    let all = seen.printed.iter().all(|event| event.outcome == "accepted");
    let pairs = [("exit code and expected", seen.send_code.unsigned_abs().into(), u64::from(!all))];
    Check::equal(format!("`send` said so with exit code {}", seen.send_code), &pairs)
}

/// How much a counter grew during the run.
pub(crate) fn moved(seen: &Seen, name: &str, labels: &[(&str, &str)]) -> u64 {
    let before = seen.before.value(name, labels).unwrap_or_default();
    let after = seen.after.value(name, labels).unwrap_or_default();
    // These counters hold whole numbers.
    (after - before) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(outcome: &str, attempts: u64, may_be_duplicate: bool) -> Event {
        let sms_id = (outcome == "accepted").then(|| "one".to_owned());
        Event { job_id: "id".into(), outcome: outcome.into(), code_result: None, sms_id, attempts, may_be_duplicate }
    }

    fn story(accepted: u64) -> PhoneStory {
        PhoneStory { accepted, requests: 2, story: Vec::new() }
    }

    fn case<'a>(result: &'a Event, story: &'a PhoneStory) -> [Case<'a>; 1] {
        [Case { phone: "0900000001", result, story }]
    }

    #[test]
    fn a_second_otp_must_be_told() {
        let (told, untold) = (result("accepted", 2, true), result("accepted", 2, false));
        assert!(second_otps(&case(&told, &story(2))).holds());
        assert!(!second_otps(&case(&untold, &story(2))).holds());
        assert!(!otps(&case(&untold, &story(2))).holds());
    }

    #[test]
    fn an_accepted_result_without_an_otp_is_a_lie() {
        assert!(otps(&case(&result("accepted", 1, false), &story(1))).holds());
        assert!(!otps(&case(&result("accepted", 1, false), &story(0))).holds());
    }

    #[test]
    fn a_job_that_was_not_sent_has_no_otp() {
        for outcome in ["rejected", "failed", "expired"] {
            assert!(otps(&case(&result(outcome, 2, false), &story(0))).holds());
            assert!(!otps(&case(&result(outcome, 2, false), &story(1))).holds());
            assert!(otps(&case(&result(outcome, 2, true), &story(1))).holds());
        }
    }

    #[test]
    fn an_unknown_smsid_is_found_out() {
        let accepted = result("accepted", 1, false);
        let call = |id: &str| crate::programs::Call { sms_id: Some(id.into()) };
        let told = |id: &str| PhoneStory { story: vec![call(id)], ..story(1) };
        assert!(sms_ids(&case(&accepted, &told("one"))).holds());
        assert!(!sms_ids(&case(&accepted, &told("another"))).holds());
    }

    #[test]
    fn what_is_not_equal_is_named() {
        let check = Check::equal("claim", &[("apples", 1, 1), ("pears", 1_000, 2)]);
        assert_eq!(check.against, ["pears: 1,000 and 2"]);
    }
}
