//! What is known of each routing key: whether another queue gets its results.
//!
//! A queue of our own on the exchange of results gets a copy of each. But where no other queue is bound, it would keep
//! the results from `otp.results.unrouted`. AMQP cannot tell who else is bound. So the first result of a key is the test:
//! our queue is unbound for a moment, and the result is published once more. It goes to the other queues, which know a
//! repeat by its `message_id`, or it comes back by way of the unrouted exchange, and then it also is where it would have
//! been without us.

use std::collections::BTreeMap;

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

/// All routing keys, and the copies that were shown already.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    takes_unbound: bool,
    lanes: BTreeMap<String, Lane>,
    /// Results that were shown and that come once more as copies, by `message_id`: how often.
    shown: BTreeMap<String, u32>,
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

    /// A result that was shown will come once more, as a copy.
    pub(super) fn will_come_again(&mut self, message_id: &str) {
        *self.shown.entry(message_id.to_owned()).or_default() += 1;
    }

    /// It will not, after all.
    pub(super) fn will_not_come_again(&mut self, message_id: &str) {
        self.is_shown_already(message_id);
    }

    /// Whether this copy was shown before. Each is so only once.
    pub(super) fn is_shown_already(&mut self, message_id: &str) -> bool {
        let Some(times) = self.shown.get_mut(message_id) else { return false };
        *times -= 1;
        if *times == 0 {
            self.shown.remove(message_id);
        }
        true
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
    fn a_result_that_was_shown_is_passed_over_as_often_as_it_comes_again() {
        let mut lanes = Lanes::default();
        lanes.will_come_again("a:result");
        lanes.will_come_again("a:result");
        lanes.will_come_again("b:result");
        lanes.will_not_come_again("b:result");
        let shown = ["a:result", "b:result", "a:result", "a:result"].map(|id| lanes.is_shown_already(id));
        assert_eq!(shown, [true, false, true, false]);
        assert!(lanes.shown.is_empty());
    }
}
