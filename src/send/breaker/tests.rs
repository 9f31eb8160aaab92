//! What opens the circuit, what does not, and how it closes.

use super::*;
use std::num::NonZeroU32;

const COOLDOWN: Duration = Duration::from_secs(5);

struct Table {
    breaker: Breaker,
    now: Instant,
}

impl Table {
    fn of(failures: u32) -> Self {
        let failures = NonZeroU32::new(failures).unwrap();
        Self { breaker: Breaker::new(CircuitSettings { failures, cooldown: COOLDOWN }), now: Instant::now() }
    }

    /// One call, a millisecond after the one before it. False if it may not be made.
    fn call(&mut self, seen: Seen) -> bool {
        self.now += Duration::from_millis(1);
        let Ok(trial) = self.breaker.admit(self.now) else { return false };
        self.breaker.over(trial, seen, self.now);
        true
    }

    /// Calls until one may not be made, and how many were.
    fn calls(&mut self, seen: impl IntoIterator<Item = Seen>) -> usize {
        seen.into_iter().take_while(|seen| self.call(*seen)).count()
    }

    /// As many calls at once as may be made.
    fn at_once(&mut self) -> Vec<Trial> {
        std::iter::from_fn(|| self.breaker.admit(self.now).ok()).take(100).collect()
    }

    fn opened(failures: u32) -> Self {
        let mut table = Self::of(failures);
        assert_eq!(table.calls([Seen::Failed; 1_000]), failures as usize);
        table.now += COOLDOWN;
        table
    }
}

/// Calls of which one in `of` is answered, or one in `of` fails.
fn mostly(seen: Seen, but: Seen, of: usize) -> impl Iterator<Item = Seen> {
    (1..10_000).map(move |n| if n % of == 0 { but } else { seen })
}

#[test]
fn what_opens_it_and_what_does_not() {
    use Seen::{Answered, Failed, FailedAgain};
    let cases: [(&str, Box<dyn Iterator<Item = Seen>>, bool); 9] = [
        ("silence", Box::new(mostly(Failed, Failed, 1)), true),
        ("silence to jobs that have failed before", Box::new(mostly(FailedAgain, FailedAgain, 1)), true),
        ("one lucky answer in twenty", Box::new(mostly(Failed, Answered, 20)), true),
        ("one lucky answer in ten", Box::new(mostly(Failed, Answered, 10)), true),
        ("every other call fails", Box::new(mostly(Failed, Answered, 2)), false),
        ("three of four fail", Box::new(mostly(Failed, Answered, 4)), false),
        ("a tenth fails", Box::new(mostly(Answered, Failed, 10)), false),
        ("nothing fails", Box::new(mostly(Answered, Answered, 1)), false),
        // A few jobs that always fail are tried far more often than the many that succeed at once.
        ("nearly all fail, as expected", Box::new(mostly(FailedAgain, Answered, 100)), false),
    ];
    for (what, calls, opens) in cases {
        let mut table = Table::of(20);
        table.call(Seen::Answered);
        table.calls(calls);
        assert_eq!(table.breaker.is_open(), opens, "{what}");
    }
}

#[test]
fn it_opens_at_the_very_failure_and_no_later() {
    for failures in [1, 2, 20, 5_000] {
        let mut table = Table::of(failures);
        assert_eq!(table.calls([Seen::Answered; 100]), 100);
        assert_eq!(table.calls(vec![Seen::Failed; 10_000]), failures as usize);
    }
    // Of the latest forty, thirty-six; the fortieth was answered.
    let mut table = Table::of(20);
    assert_eq!(table.calls(mostly(Seen::Failed, Seen::Answered, 10)), 41);
}

#[test]
fn what_is_long_ago_says_nothing_about_now() {
    let mut table = Table::of(20);
    for _ in 0..10 {
        assert_eq!(table.calls(mostly(Seen::Failed, Seen::Answered, 20).take(20)), 20);
        table.now += Latest::WITHIN;
    }
    assert!(!table.breaker.is_open());
}

#[test]
fn expected_failures_count_once_nobody_is_answered_any_more() {
    let mut table = Table::of(3);
    table.call(Seen::Answered);
    let since = table.now;
    while table.call(Seen::FailedAgain) {}
    let took = table.now - since;
    assert!((ALIVE..ALIVE + Duration::from_millis(10)).contains(&took), "{took:?}");
}

#[test]
fn after_the_cooldown_one_call_is_tried_and_what_fails_opens_it_again() {
    for failure in [Seen::Failed, Seen::FailedAgain] {
        let mut table = Table::opened(20);
        for _ in 0..3 {
            let tried = table.at_once();
            assert_eq!(tried.len(), 1);
            table.breaker.over(tried[0], failure, table.now);
            assert_eq!(table.breaker.admit(table.now), Err(Some(table.now + COOLDOWN)));
            assert!(table.breaker.is_open());
            table.now += COOLDOWN;
        }
    }
}

#[test]
fn a_call_that_was_not_made_leaves_its_turn_to_the_next() {
    let mut table = Table::opened(20);
    for _ in 0..3 {
        let tried = table.at_once();
        assert_eq!(tried.len(), 1);
        table.breaker.over(tried[0], Seen::Nothing, table.now);
    }
    assert_eq!(table.at_once().len(), 1);
}

#[test]
fn calls_at_once_double_with_each_success_and_halve_with_each_failure() {
    let mut table = Table::opened(20);
    let mut tried = table.at_once();
    // What one call shows, and how many may be under way then.
    for (seen, allowed) in [
        (Seen::Answered, 2),
        (Seen::Answered, 4),
        (Seen::Answered, 8),
        (Seen::Failed, 4),
        (Seen::FailedAgain, 4),
        (Seen::Nothing, 4),
        (Seen::Failed, 2),
        (Seen::Answered, 4),
    ] {
        table.breaker.over(tried.pop().unwrap(), seen, table.now);
        tried.extend(table.at_once());
        assert!(tried.len() >= allowed, "{seen:?}: {}", tried.len());
        assert_eq!(table.breaker.state, State::Trying { allowed: allowed as u32, under_way: tried.len() as u32 });
        assert!(!table.breaker.is_open() && table.breaker.holds_back());
    }
}

#[test]
fn it_closes_for_good_after_a_few_successes_and_opens_again_after_a_lucky_one() {
    let mut table = Table::opened(20);
    table.calls([Seen::Answered; 4]);
    assert!(table.breaker.holds_back());
    table.calls([Seen::Answered]);
    assert!(!table.breaker.holds_back());
    assert_eq!(table.at_once().len(), 100);

    let mut table = Table::opened(20);
    assert_eq!(table.calls([Seen::Answered, Seen::Failed, Seen::Failed]), 2);
    assert!(table.breaker.is_open());
}

#[test]
fn a_half_dead_esms_is_probed_and_not_flooded() {
    // An hour in which calls are made whenever one may be, and one in twenty is answered.
    let mut table = Table::opened(20);
    let (mut made, end) = (0, table.now + Duration::from_secs(3600));
    while table.now < end {
        made += usize::from(table.call(if made % 20 == 7 { Seen::Answered } else { Seen::Failed }));
    }
    let probes = 3600 / COOLDOWN.as_secs() as usize;
    assert!((probes..probes + probes / 10).contains(&made), "{made} calls in an hour");
}

#[test]
fn calls_from_before_it_opened_do_not_prolong_it_and_a_late_answer_ends_it() {
    let mut table = Table::of(1);
    let early = table.at_once();
    table.breaker.over(early[0], Seen::Failed, table.now);
    table.now += COOLDOWN - Duration::from_millis(1);
    table.breaker.over(early[1], Seen::Failed, table.now);
    table.now += Duration::from_millis(1);
    let tried = table.at_once();
    assert_eq!(tried.len(), 1);
    assert!(!table.breaker.still_admits(early[2]) && table.breaker.still_admits(tried[0]));
    table.breaker.over(early[3], Seen::Failed, table.now);
    assert!(table.breaker.still_admits(tried[0]));
    table.breaker.over(early[4], Seen::Answered, table.now);
    assert!(!table.breaker.is_open());
    // The probe that is still under way is one of the two that may be now.
    assert_eq!(table.at_once().len(), 1);
}
