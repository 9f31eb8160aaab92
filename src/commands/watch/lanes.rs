//! What is known of each routing key: whether another queue gets its results.
//!
//! A queue of our own behind the exchange of results gets a copy of each. But where no other queue is bound, it would keep
//! the results from `otp.results.unrouted`. AMQP cannot tell who else is bound. So the first result of a key is the test:
//! our queue is unbound for a moment, and the result is published once more. It goes to the other queues, which know a
//! repeat by its `message_id`, or it comes back by way of the unrouted exchange, and then it also is where it would have
//! been without us.

use std::collections::{BTreeMap, VecDeque};

/// What is known of a routing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// Nothing yet. Our queue is bound.
    Unknown,
    /// Another queue gets the results, too. Our queue is bound.
    Shared,
    /// No other queue does. Our queue is not bound: copies come from the unrouted exchange.
    Unbound,
}

/// What is to be done with a result that came to our queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum With {
    /// Nothing: others have it, or it may be taken.
    Acknowledge,
    /// It is the test.
    Test,
    /// It came before our queue was unbound, and nobody else has it.
    GiveBack,
}

/// What follows from a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Our queue is bound again.
    BindAgain,
    /// It stays unbound.
    ShowCopies,
}

/// So many results that come again are remembered. They are those of some milliseconds.
const MOST_SHOWN: usize = 10_000;

/// All routing keys, and the copies that were shown already.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    takes_unbound: bool,
    lanes: BTreeMap<String, Lane>,
    /// The `message_id` of results that were shown and come again as copies: from every `watch` that gives them back.
    shown: VecDeque<String>,
}

impl Lanes {
    pub(super) fn new(takes_unbound: bool) -> Self {
        Self { takes_unbound, ..Self::default() }
    }

    /// What is to be done with a result of this key.
    pub(super) fn with_taken(&self, key: &str) -> With {
        match self.lanes.get(key).copied().unwrap_or(Lane::Unknown) {
            _ if self.takes_unbound => With::Acknowledge,
            Lane::Unknown => With::Test,
            Lane::Shared => With::Acknowledge,
            Lane::Unbound => With::GiveBack,
        }
    }

    /// The test of this key has ended: its result came back, or it did not.
    pub(super) fn tested(&mut self, key: &str, came_back: bool) -> Then {
        let (lane, then) = if came_back { (Lane::Unbound, Then::ShowCopies) } else { (Lane::Shared, Then::BindAgain) };
        self.lanes.insert(key.to_owned(), lane);
        then
    }

    /// A result that was shown will come again, as a copy.
    pub(super) fn will_come_again(&mut self, message_id: &str) {
        if self.shown.len() == MOST_SHOWN {
            self.shown.pop_front();
        }
        self.shown.push_back(message_id.to_owned());
    }

    /// Whether this copy was shown before it came.
    pub(super) fn is_shown_already(&self, message_id: &str) -> bool {
        self.shown.iter().any(|shown| shown == message_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_result_of_each_key_is_the_test_for_the_next() {
        let mut lanes = Lanes::new(false);
        assert_eq!(lanes.with_taken("otp.accepted"), With::Test);
        assert_eq!(lanes.tested("otp.accepted", true), Then::ShowCopies);
        assert_eq!(lanes.with_taken("otp.accepted"), With::GiveBack);
        assert_eq!(lanes.with_taken("otp.failed"), With::Test);
        assert_eq!(lanes.tested("otp.failed", false), Then::BindAgain);
        assert_eq!(lanes.with_taken("otp.failed"), With::Acknowledge);
    }

    #[test]
    fn who_takes_all_tests_nothing() {
        assert_eq!(Lanes::new(true).with_taken("otp.accepted"), With::Acknowledge);
    }

    #[test]
    fn a_result_that_was_shown_is_passed_over_when_it_comes_again() {
        let mut lanes = Lanes::default();
        lanes.will_come_again("a:result");
        let shown = ["a:result", "b:result", "a:result"].map(|id| lanes.is_shown_already(id));
        assert_eq!(shown, [true, false, true]);
        (0..2 * MOST_SHOWN).for_each(|n| lanes.will_come_again(&n.to_string()));
        assert_eq!((lanes.shown.len(), lanes.is_shown_already("a:result")), (MOST_SHOWN, false));
    }
}
