//! Every class, under either policy, with and without an ambiguous attempt before, under each limit.

use super::*;

const POLICIES: [OnAmbiguous; 2] = [OnAmbiguous::Resend, OnAmbiguous::GiveUp];

/// Which limit comes before the next attempt would.
#[derive(Clone, Copy, Debug)]
enum Limit {
    None,
    Elapsed,
    Deadline,
}

impl Limit {
    const ALL: [Limit; 3] = [Limit::None, Limit::Elapsed, Limit::Deadline];

    /// The next attempt is proposed in 1 s, or in 3 s where eSMS asks for it.
    fn limits(self, now: Instant, on_ambiguous: OnAmbiguous) -> Limits {
        match self {
            Limit::None => limits(now, 60, 30, on_ambiguous),
            Limit::Elapsed => limits(now, 60, 1, on_ambiguous),
            Limit::Deadline => limits(now, 1, 30, on_ambiguous),
        }
    }
}

/// The contract's tables of outcomes and of classes, written a second time. None is another attempt.
fn expected(event: Event, policy: OnAmbiguous, earlier: bool, limit: Limit) -> Option<Outcome> {
    let unless_ambiguous = |outcome| if earlier { Outcome::Unknown } else { outcome };
    match (event, limit) {
        (Event::Accepted, _) => Some(Outcome::Accepted),
        (Event::Rejected, _) => Some(Outcome::Rejected),
        (Event::Refused, _) => Some(unless_ambiguous(Outcome::Failed)),
        (Event::Ambiguous, _) if policy == OnAmbiguous::GiveUp => Some(Outcome::Unknown),
        (Event::Ambiguous, Limit::Elapsed | Limit::Deadline) => Some(Outcome::Unknown),
        (_, Limit::Elapsed) => Some(unless_ambiguous(Outcome::Failed)),
        (_, Limit::Deadline) => Some(unless_ambiguous(Outcome::Expired)),
        (_, Limit::None) => None,
    }
}

fn every_case(mut check: impl FnMut(&str, Event, OnAmbiguous, bool, Limit, Instant, Next)) {
    let now = Instant::now();
    for event in Event::ALL {
        for policy in POLICIES {
            for earlier in [false, true] {
                for limit in Limit::ALL {
                    let next = after(event.class(), under_way(earlier), limit.limits(now, policy), now, S(1));
                    let case = format!("{event:?}, {policy:?}, ambiguous before: {earlier}, limit: {limit:?}");
                    check(&case, event, policy, earlier, limit, now, next);
                }
            }
        }
    }
}

#[test]
fn every_case_ends_or_goes_on_as_the_contract_says() {
    every_case(|case, event, policy, earlier, limit, _, next| {
        let outcome = match next {
            Next::End(ending) => Some(ending.outcome),
            Next::AttemptAt(..) => None,
        };
        assert_eq!(outcome, expected(event, policy, earlier, limit), "{case}");
    });
}

#[test]
fn every_ending_counts_its_attempts_and_says_whether_one_before_the_last_was_ambiguous() {
    every_case(|case, _, _, earlier, _, _, next| {
        if let Next::End(ending) = next {
            assert_eq!(ending.attempts, if earlier { 2 } else { 1 }, "{case}");
            assert_eq!(ending.may_be_duplicate, earlier, "{case}");
        }
    });
}

#[test]
fn every_ending_but_accepted_has_a_reason() {
    every_case(|case, _, _, _, _, _, next| {
        if let Next::End(ending) = next {
            assert_eq!(ending.reason.is_none(), ending.outcome == Outcome::Accepted, "{case}");
            assert!(ending.reason.is_none_or(|reason| !reason.is_empty()), "{case}");
        }
    });
}

#[test]
fn every_further_attempt_waits_as_long_as_was_proposed_or_asked_for() {
    every_case(|case, event, _, earlier, _, now, next| {
        if let Next::AttemptAt(at, progress) = next {
            assert_eq!(at - now, if event == Event::NotSentWait(3) { S(3) } else { S(1) }, "{case}");
            assert_eq!(progress.is_ambiguous(), earlier || event == Event::Ambiguous, "{case}");
            assert_eq!(progress.may_be_duplicate, earlier, "the next attempt has not begun; {case}");
        }
    });
}

#[test]
fn a_shorter_retry_after_does_not_shorten_the_wait() {
    let now = Instant::now();
    let limits = limits(now, 60, 30, OnAmbiguous::Resend);
    let (at, _) = next_attempt(after(Event::NotSentWait(2).class(), under_way(false), limits, now, S(5)));
    assert_eq!(at - now, S(5));
}

#[test]
fn a_retry_after_beyond_every_limit_ends_the_job_now() {
    let now = Instant::now();
    for (deadline, give_up, outcome) in [(60, 30, Outcome::Failed), (30, 60, Outcome::Expired)] {
        let limits = limits(now, deadline, give_up, OnAmbiguous::Resend);
        let next = after(Event::NotSentWait(u32::MAX.into()).class(), under_way(false), limits, now, S(1));
        assert_eq!(ending(next).outcome, outcome);
    }
}

#[test]
fn an_attempt_may_begin_just_before_a_limit_and_not_at_it() {
    let now = Instant::now();
    for event in [Event::TryLater, Event::NotSent, Event::Ambiguous] {
        for limits in [limits(now, 10, 60, OnAmbiguous::Resend), limits(now, 60, 10, OnAmbiguous::Resend)] {
            let at = |wait| after(event.class(), under_way(false), limits, now, wait);
            assert!(matches!(at(S(10) - Duration::from_nanos(1)), Next::AttemptAt(..)));
            assert!(matches!(at(S(10)), Next::End(_)));
        }
    }
}

#[test]
fn a_limit_that_has_passed_already_ends_the_job() {
    let now = Instant::now();
    let limits = limits(now, 1, 2, OnAmbiguous::Resend);
    let later = now + S(20);
    assert_eq!(ending(after(Event::NotSent.class(), under_way(false), limits, later, S(0))).outcome, Outcome::Expired);
}

#[test]
fn where_both_limits_fall_together_the_deadline_is_told() {
    let now = Instant::now();
    let limits = limits(now, 1, 1, OnAmbiguous::Resend);
    assert_eq!(ending(after(Event::NotSent.class(), under_way(false), limits, now, S(1))).outcome, Outcome::Expired);
}

#[test]
fn the_reasons_are_for_people() {
    let now = Instant::now();
    let reason = |event: Event, deadline, give_up, policy| {
        let limits = limits(now, deadline, give_up, policy);
        ending(after(event.class(), under_way(false), limits, now, S(1))).reason.unwrap()
    };
    let resend = OnAmbiguous::Resend;
    assert_eq!(reason(Event::Rejected, 9, 9, resend), "eSMS refused it: phone number malformed");
    assert_eq!(reason(Event::Refused, 9, 9, resend), "refused by HTTP 404");
    assert_eq!(reason(Event::NotSent, 9, 1, resend), "retries ran out; last: no route");
    let throttled = "retries ran out; last: CodeResult 160: over the allowed calls per second";
    assert_eq!(reason(Event::TryLater, 9, 1, resend), throttled);
    let too_late = "no further attempt fits before the deadline; last: timed out";
    assert_eq!(reason(Event::Ambiguous, 1, 9, resend), too_late);
    let gave_up = "the request may have reached eSMS, and OTP_ON_AMBIGUOUS=give-up; last: timed out";
    assert_eq!(reason(Event::Ambiguous, 9, 9, OnAmbiguous::GiveUp), gave_up);
}

#[test]
fn the_last_words_of_esms_stay_with_the_job() {
    let now = Instant::now();
    let limits = limits(now, 60, 30, OnAmbiguous::Resend);
    let (_, mut progress) = next_attempt(after(Event::TryLater.class(), under_way(false), limits, now, S(1)));
    assert_eq!(progress.answer.as_ref().map(|answer| answer.code.as_str()), Some("160"));
    progress.begin_attempt();
    let code = |event: Event| ending(after(event.class(), progress.clone(), limits, now, S(40))).answer.unwrap().code;
    assert_eq!(code(Event::NotSent), "160");
    assert_eq!(code(Event::Refused), "160");
    assert_eq!(code(Event::Rejected), "108");
    assert_eq!(code(Event::Accepted), "100");
}

#[test]
fn a_job_that_another_worker_may_have_sent_is_ambiguous_before_its_first_attempt() {
    let mut progress = Progress::default().with_past(Past::OneUnknown, OnAmbiguous::Resend);
    assert!(progress.is_ambiguous() && !progress.may_be_duplicate && progress.attempts == 0);
    let ended = progress.clone().end_without_answer(Outcome::Expired, "the deadline passed");
    assert_eq!((ended.outcome, ended.may_be_duplicate, ended.attempts), (Outcome::Unknown, false, 0));
    assert_eq!(ended.reason.unwrap(), "the deadline passed; last: a worker that had this job before may have sent it");
    progress.begin_attempt();
    assert!(progress.may_be_duplicate && progress.attempts == 1);
}

#[test]
fn after_as_many_ambiguous_attempts_as_are_allowed_the_job_is_unknown() {
    let now = Instant::now();
    for (resend_limit, allowed) in [(0, 1), (1, 2), (3, 4)] {
        let limits = Limits { resend_limit, ..limits(now, 60, 30, OnAmbiguous::Resend) };
        let mut progress = Progress::default();
        let ending = loop {
            progress.begin_attempt();
            // Attempts that certainly sent nothing do not count.
            let not_sent = after(Event::NotSent.class(), progress, limits, now, S(1));
            let Next::AttemptAt(_, mut next) = not_sent else { panic!("{not_sent:?}") };
            next.begin_attempt();
            match after(Event::Ambiguous.class(), next, limits, now, S(1)) {
                Next::AttemptAt(_, next) => progress = next,
                Next::End(ending) => break ending,
            }
        };
        assert_eq!((ending.outcome, ending.attempts), (Outcome::Unknown, 2 * allowed));
        assert_eq!(ending.may_be_duplicate, allowed > 1);
        assert!(ending.reason.unwrap().contains("OTP_RESEND_LIMIT"));
    }
}
