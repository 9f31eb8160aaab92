//! The limit on calls a second. Calls are spread evenly, without bursts.

use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::telemetry::metrics::Metrics;

/// Spreads calls to eSMS in time, if a limit is set.
#[derive(Debug)]
pub struct Rate {
    limiter: Option<DefaultDirectRateLimiter>,
    /// Only the call that holds this lock waits for the limiter. The others wait for the lock, in order. Without
    /// the lock the limiter would wake all of them for each turn.
    head_of_the_queue: Mutex<()>,
    metrics: Arc<Metrics>,
}

impl Rate {
    /// At most one call every `interval`; any number without one.
    pub fn new(interval: Option<Duration>, metrics: Arc<Metrics>) -> Self {
        // A quota of one cell: idle time does not save up calls for a burst.
        let limiter = interval.and_then(Quota::with_period).map(RateLimiter::direct);
        Self { limiter, head_of_the_queue: Mutex::default(), metrics }
    }

    /// Waits for this call's turn. The time is counted even if the caller stops waiting.
    pub async fn turn(&self) {
        let Some(limiter) = &self.limiter else { return };
        let _waited = Waited { began: Instant::now(), metrics: &self.metrics };
        let _head = self.head_of_the_queue.lock().await;
        limiter.until_ready().await;
    }
}

/// Counts the time until it is dropped.
struct Waited<'a> {
    began: Instant,
    metrics: &'a Metrics,
}

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        self.metrics.rate_limited(self.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_are_spread_and_nothing_is_saved_up_while_idle() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let rate = Rate::new(Some(Duration::from_millis(20)), Arc::clone(&metrics));
        let began = Instant::now();
        for _ in 0..6 {
            rate.turn().await;
        }
        // Whatever came before, six turns are five intervals apart at the least.
        assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
        assert!(!metrics.text().contains("otp_rate_limited_seconds_total 0\n"));
    }

    #[tokio::test]
    async fn without_a_limit_nothing_waits() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let rate = Rate::new(None, Arc::clone(&metrics));
        for _ in 0..10_000 {
            rate.turn().await;
        }
        assert!(metrics.text().contains("otp_rate_limited_seconds_total 0\n"));
    }
}
