//! No more jobs a second than the person wants.

use std::time::Duration;

use tokio::time::Instant;

/// How much of a delay is made up for: as long as timers may be late. After a longer one there is no rush.
const MADE_UP: Duration = Duration::from_millis(100);

/// When each job may go.
#[derive(Debug)]
pub(super) struct Pace {
    step: Duration,
    due: Instant,
}

impl Pace {
    /// `rate` is above 0.
    pub(super) fn new(rate: f64, now: Instant) -> Self {
        Self { step: Duration::from_secs_f64(1.0 / rate), due: now }
    }

    /// When the next job may go.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        let earliest = now.checked_sub(MADE_UP).unwrap_or(now);
        let at = self.due.max(earliest);
        self.due = at + self.step;
        at
    }
}

/// Reads a rate: jobs a second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    if (0.001..=100_000.0).contains(&rate) { Ok(rate) } else { Err("must be between 0.001 and 100000".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_go_one_after_the_other() {
        let start = Instant::now();
        let mut pace = Pace::new(4.0, start);
        for n in 0..10 {
            assert_eq!(pace.next(start), start + Duration::from_millis(250) * n);
        }
    }

    #[test]
    fn a_late_timer_is_made_up_for_and_a_pause_is_not() {
        let start = Instant::now();
        let mut pace = Pace::new(100.0, start);
        pace.next(start);
        let late = start + Duration::from_millis(50);
        assert_eq!(pace.next(late), start + Duration::from_millis(10));
        let after_pause = start + Duration::from_secs(60);
        let at_once = (0..100).filter(|_| pace.next(after_pause) <= after_pause).count();
        assert!(at_once <= 11, "{at_once} jobs at once");
    }

    #[test]
    fn a_rate_is_a_positive_number() {
        assert_eq!((rate("50"), rate("0.5")), (Ok(50.0), Ok(0.5)));
        for wrong in ["0", "-1", "fast", "", "inf", "NaN", "1e9"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
