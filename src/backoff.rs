//! How long to wait before the next try. Only this module uses the `backoff` crate.
//!
//! This project chose the crate, but it is no longer maintained. Only its arithmetic is used (exponential
//! growth with jitter). Limits and loops are ours, so that the crate can be replaced here without a change
//! elsewhere.

use std::time::Duration;

use ::backoff::backoff::Backoff as _;
use ::backoff::exponential::ExponentialBackoff;
use ::backoff::{ExponentialBackoffBuilder, SystemClock};

/// Waits that start at `initial`, double each time, and never exceed a cap. Jitter changes each by up to
/// half, up or down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    initial: Duration,
    longest: Duration,
}

/// Why a policy is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The first wait is zero, so the tries would never pause.
    #[error("the first wait must be longer than nothing")]
    NoFirstWait,
    /// The cap is below the first wait.
    #[error("must not be shorter than the first wait")]
    CapBelowFirst,
}

impl Policy {
    /// For reconnecting to the broker: soon at first, then about every 10 s, for ever.
    pub const RECONNECT: Policy = Policy { initial: Duration::from_millis(100), longest: Duration::from_secs(10) };

    /// For asking about something that another process will settle soon: almost at once, then about every
    /// second.
    pub const POLL: Policy = Policy { initial: Duration::from_millis(50), longest: Duration::from_secs(1) };

    /// A policy with these waits. `longest` is the cap.
    ///
    /// # Errors
    /// When the first wait is zero, or the cap is below the first wait.
    pub fn new(initial: Duration, longest: Duration) -> Result<Self, PolicyError> {
        if initial.is_zero() {
            return Err(PolicyError::NoFirstWait);
        }
        if longest < initial {
            return Err(PolicyError::CapBelowFirst);
        }
        Ok(Self { initial, longest })
    }

    /// The waits of one series of tries.
    pub fn waits(self) -> Waits {
        let series = ExponentialBackoffBuilder::new()
            .with_initial_interval(self.initial)
            .with_max_interval(self.longest)
            .with_multiplier(2.0)
            .with_randomization_factor(0.5)
            // No limit here: the retry loop keeps a job's own deadline and elapsed time.
            .with_max_elapsed_time(None)
            .build();
        Waits { series, longest: self.longest }
    }
}

/// The waits of one series of tries. They never end.
#[derive(Debug)]
pub struct Waits {
    series: ExponentialBackoff<SystemClock>,
    longest: Duration,
}

impl Waits {
    /// The next wait, never above the policy's cap.
    pub fn next_wait(&mut self) -> Duration {
        // The crate adds jitter after its cap, so the cap is applied again here.
        self.series.next_backoff().unwrap_or(self.longest).min(self.longest)
    }

    /// Starts again at the first wait, after a success.
    pub fn reset(&mut self) {
        self.series.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn waits_grow_from_the_first_to_the_cap_and_never_above() {
        let mut waits = Policy::new(MS(100), MS(1000)).unwrap().waits();
        let series: Vec<Duration> = (0..50).map(|_| waits.next_wait()).collect();
        assert!((MS(50)..=MS(151)).contains(&series[0]), "{:?}", series[0]);
        assert!((MS(100)..=MS(301)).contains(&series[1]), "{:?}", series[1]);
        assert!(series.iter().all(|wait| *wait <= MS(1000)));
        assert!(series[10..].iter().all(|wait| *wait >= MS(500)), "{series:?}");
    }

    #[test]
    fn a_success_starts_the_series_again() {
        let mut waits = Policy::new(MS(100), MS(10_000)).unwrap().waits();
        for _ in 0..8 {
            waits.next_wait();
        }
        waits.reset();
        assert!(waits.next_wait() <= MS(151));
    }

    #[test]
    fn reconnecting_goes_on_for_ever_every_few_seconds() {
        let mut waits = Policy::RECONNECT.waits();
        let series: Vec<Duration> = (0..10_000).map(|_| waits.next_wait()).collect();
        assert!(series[100..].iter().all(|wait| (MS(5_000)..=MS(10_000)).contains(wait)));
    }

    #[test]
    fn waits_of_one_length_still_have_jitter_below_it() {
        let mut waits = Policy::new(MS(1000), MS(1000)).unwrap().waits();
        let series: Vec<Duration> = (0..100).map(|_| waits.next_wait()).collect();
        assert!(series.iter().all(|wait| (MS(499)..=MS(1000)).contains(wait)));
        assert!(series.iter().any(|wait| *wait < MS(1000)), "many workers must not try in step");
    }

    proptest::proptest! {
        #[test]
        fn no_wait_of_any_possible_policy_is_above_its_cap(
            initial in 1u64..=31_536_000_000, more in 0u64..=31_536_000_000, tries in 1usize..200,
        ) {
            let cap = MS(initial + more);
            let mut waits = Policy::new(MS(initial), cap).unwrap().waits();
            for _ in 0..tries {
                let wait = waits.next_wait();
                proptest::prop_assert!(wait <= cap && wait >= MS(initial) / 2 - MS(1).min(MS(initial) / 2));
            }
        }
    }

    #[test]
    fn impossible_waits_are_refused() {
        assert_eq!(Policy::new(Duration::ZERO, MS(1)), Err(PolicyError::NoFirstWait));
        assert_eq!(Policy::new(MS(2), MS(1)), Err(PolicyError::CapBelowFirst));
    }
}
