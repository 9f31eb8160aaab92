use super::*;
use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::esms::classify::{End, Seen, classify};
use crate::job::result::Answer;

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

/// A throttle that has seen so many calls a second for four seconds, and the moment after them.
fn busy(calls: u32) -> (Throttle, Instant) {
    let (mut throttle, began) = (Throttle::default(), Instant::now());
    for n in 0..4 * calls {
        throttle.begins(began + S(4) * n / (4 * calls));
    }
    (throttle, began + S(4))
}

fn almost(rate: Option<f64>, wanted: f64) -> bool {
    rate.is_some_and(|rate| (rate - wanted).abs() < wanted * 0.05)
}

fn answer() -> Answer {
    Answer { code: "160".into(), sms_id: None, count_regenerate: None, error_message: None }
}

fn unreadable() -> Class {
    let page = Seen::Reply { status: 200, retry_after: Some("7".into()), body: "<html>".into(), end: End::Whole };
    classify(page, &BTreeSet::new(), SystemTime::UNIX_EPOCH)
}

#[test]
fn a_code_to_retry_a_429_and_a_retry_after_slow_all_calls_and_nothing_else_does() {
    let not_sent = |not_before| Class::NotSent { why: "a test".into(), not_before };
    let why = || "a test".to_owned();
    for (status, class, asked) in [
        (Some(200), Class::AnsweredTryLater(answer()), Some(None)),
        (Some(429), not_sent(None), Some(None)),
        (Some(429), not_sent(Some(S(7))), Some(Some(S(7)))),
        (Some(408), not_sent(Some(S(0))), Some(Some(S(0)))),
        (Some(425), not_sent(Some(S(1))), Some(Some(S(1)))),
        (Some(503), not_sent(Some(S(3600))), Some(Some(S(3600)))),
        (Some(503), not_sent(None), None),
        (Some(408), not_sent(None), None),
        (None, not_sent(None), None),
        (Some(200), Class::Answered(answer()), None),
        (Some(500), Class::Ambiguous { why: why() }, None),
        // A proxy's, which says that it lost the request.
        (Some(429), Class::Ambiguous { why: why() }, None),
        (None, Class::Ambiguous { why: why() }, None),
        (Some(200), unreadable(), None),
        (Some(403), Class::Refused { why: why() }, None),
    ] {
        assert_eq!(asked_to_slow_down(status, &class), asked, "{status:?} {class:?}");
    }
}

#[test]
fn calls_are_held_as_long_as_esms_asks_but_a_second_at_least_and_half_a_minute_at_most() {
    for (asked, hold) in
        [(None, S(1)), (Some(S(0)), S(1)), (Some(S(7)), S(7)), (Some(S(30)), S(30)), (Some(S(3600)), S(30))]
    {
        let (mut throttle, now) = busy(10);
        throttle.throttled(now, asked, now);
        assert_eq!(throttle.held_for(now), hold, "{asked:?}");
        assert_eq!(throttle.wait_until(now), Some(now + hold));
        assert_eq!(throttle.wait_until(now + hold), None);
    }
}

#[test]
fn the_rate_is_halved_then_rises_by_a_tenth_each_second_and_is_lifted_above_what_it_was() {
    let (mut throttle, now) = busy(40);
    let Change::Cut(rate) = throttle.throttled(now, Some(S(2)), now) else { panic!("not cut") };
    assert!(almost(Some(rate), 20.0), "{rate}");
    let after_hold = now + S(2);
    for (seconds, wanted) in [(0, 20.0), (1, 24.0), (2, 28.0), (3, 32.0), (4, 36.0), (5, 40.0), (6, 44.0)] {
        let rate = throttle.rate(after_hold + S(seconds));
        assert!(almost(rate, wanted), "{seconds}: {rate:?}");
        assert!(!throttle.is_lifted(after_hold + S(seconds)));
    }
    assert_eq!(throttle.rate(after_hold + S(8)), None);
    assert_eq!(throttle.wait_until(after_hold + S(8)), None);
    assert!(throttle.is_lifted(after_hold + S(8)));
    assert!(!throttle.is_lifted(after_hold + S(8)), "told once");
}

#[test]
fn calls_are_spread_while_the_rate_is_limited() {
    let (mut throttle, now) = busy(40);
    throttle.throttled(now, None, now);
    let (mut at, mut calls) = (now + S(1), 0);
    while at < now + S(2) {
        assert_eq!(throttle.wait_until(at), None);
        throttle.begins(at);
        calls += 1;
        at = throttle.wait_until(at).unwrap();
    }
    assert!((19..=22).contains(&calls), "{calls}");
}

#[test]
fn many_throttled_answers_of_one_burst_are_one_cut() {
    let (mut throttle, now) = busy(40);
    let early = now - MS(10);
    assert!(matches!(throttle.throttled(early, None, now), Change::Cut(_)));
    for n in 0..60 {
        assert_eq!(throttle.throttled(early, None, now + MS(n)), Change::SameBurst);
    }
    assert!(almost(throttle.rate(now), 20.0));
    // One of them may ask for more time than the others.
    throttle.throttled(early, Some(S(9)), now + MS(60));
    assert_eq!(throttle.held_for(now + MS(60)), S(9));
    throttle.throttled(early, None, now + MS(70));
    assert_eq!(throttle.held_for(now + MS(60)), S(9));
}

#[test]
fn a_call_that_began_after_a_cut_and_is_throttled_cuts_again() {
    let (mut throttle, now) = busy(40);
    throttle.throttled(now, None, now);
    let later = now + MS(1500);
    assert!(matches!(throttle.throttled(later, None, later), Change::Cut(rate) if almost(Some(rate), 10.0)));
    // Each rise is a tenth of what the rate was before this cut.
    assert!(almost(throttle.rate(later + S(2)), 12.0));
}

#[test]
fn one_call_a_second_is_left_whatever_happens() {
    for calls in [0, 1, 3] {
        let (mut throttle, mut now) = (Throttle::default(), Instant::now());
        (0..calls).for_each(|_| throttle.begins(now));
        for _ in 0..20 {
            throttle.throttled(now, None, now);
            assert!(throttle.rate(now).is_some_and(|rate| rate >= LOWEST), "{calls}");
            now += MS(1001);
        }
        assert_eq!(throttle.rate(now + S(20)), None, "and it recovers");
    }
}

#[test]
fn the_rate_is_that_of_the_last_seconds() {
    for (after, wanted) in [(MS(0), 30.0), (S(4), 15.0), (S(60), 2.0)] {
        let (mut throttle, now) = busy(30);
        throttle.throttled(now + after, None, now + after);
        let before = throttle.rate(now + after).unwrap() / CUT_TO;
        assert!(before <= wanted * 1.05, "{after:?}: {before}");
    }
    let (mut throttle, now) = (Throttle::default(), Instant::now());
    (0..64).for_each(|_| throttle.begins(now));
    throttle.throttled(now, None, now + MS(50));
    assert!(almost(throttle.rate(now + MS(50)), 32.0), "a burst counts as that of a second");
}

#[test]
fn what_another_worker_tells_cuts_once_and_not_when_this_one_was_cut_in_the_same_burst() {
    for (own_cut_ago, told_ago, is_cut) in [
        (None, MS(900), true),
        (Some(MS(500)), MS(900), false),
        (Some(MS(2500)), MS(900), false),
        (Some(S(4)), MS(900), true),
    ] {
        let (mut throttle, now) = busy(40);
        if let Some(ago) = own_cut_ago {
            throttle.throttled(now - ago, None, now - ago);
        }
        let change = throttle.told(told_ago, S(3), now);
        assert_eq!(matches!(change, Change::Cut(_)), is_cut, "{own_cut_ago:?}");
        assert_eq!(throttle.held_for(now), S(3), "{own_cut_ago:?}");
        // The same is heard again a second later.
        let change = throttle.told(told_ago + S(1), S(2), now + S(1));
        assert_eq!(change, Change::SameBurst, "{own_cut_ago:?}");
        assert_eq!(throttle.held_for(now), S(3), "{own_cut_ago:?}");
    }
}

#[test]
fn what_is_told_holds_no_longer_than_what_esms_says() {
    let (mut throttle, now) = busy(1);
    throttle.told(S(0), S(100_000), now);
    assert_eq!(throttle.held_for(now), LONGEST_HOLD);
    let (mut throttle, now) = busy(1);
    throttle.told(S(2), S(0), now);
    assert_eq!(throttle.held_for(now), S(0), "the hold is over, and the rate is lower all the same");
    assert!(throttle.rate(now).is_some());
}
