//! When a call may begin, as far as its rate is limited: by `OTP_RATE_LIMIT`, by `OTP_SHARED_RATE_LIMIT`, and by
//! eSMS that throttles. Calls are spread evenly, without bursts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::share::LATE;
use super::throttle::Throttled;
use super::together::Together;
use crate::stop::Stop;
use crate::telemetry::metrics::Metrics;

/// How often the other workers are told and heard, and the metric is brought up to date.
const BEAT: Duration = Duration::from_secs(1);

/// Spreads calls to eSMS in time.
#[derive(Debug)]
pub struct Rate {
    limiter: Option<DefaultDirectRateLimiter>,
    throttled: Arc<Throttled>,
    together: Option<Together>,
    /// Only the call that holds this lock waits for the limits. The others wait for the lock, in order. Without
    /// the lock the limiter would wake all of them for each turn.
    head_of_the_queue: Mutex<()>,
    waiting: AtomicU32,
    metrics: Arc<Metrics>,
}

/// The permission to begin a call.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    at: Option<Instant>,
    /// How long the call has waited, where eSMS throttled meanwhile.
    pub held: Duration,
}

impl Turn {
    /// The same turn, for which the call was held for so long in all.
    pub const fn held_for(self, held: Duration) -> Self {
        Self { held, ..self }
    }

    /// Whether it is so late that the call would come together with others.
    pub fn is_over(&self) -> bool {
        self.at.is_some_and(|at| Instant::now() > at + LATE)
    }
}

impl Rate {
    /// At most one call every `interval`; any number without one. Beside that as the others say.
    pub fn new(
        interval: Option<Duration>,
        throttled: Arc<Throttled>,
        together: Option<Together>,
        metrics: Arc<Metrics>,
    ) -> Self {
        // A quota of one cell: idle time does not save up calls for a burst.
        let limiter = interval.and_then(Quota::with_period).map(RateLimiter::direct);
        Self { limiter, throttled, together, head_of_the_queue: Mutex::default(), waiting: AtomicU32::new(0), metrics }
    }

    /// Waits for this call's turn. The time is counted even if the caller stops waiting.
    pub async fn turn(&self) -> Turn {
        let is_limited = self.limiter.is_some() || self.together.as_ref().is_some_and(Together::has_limit);
        // Those that wait go first.
        let mut was_slow = self.throttled.is_slow();
        if !is_limited && !was_slow && self.throttled.try_begin() {
            return Turn { at: None, held: Duration::ZERO };
        }
        let waited = Waited::new(self);
        let _head = self.head_of_the_queue.lock().await;
        loop {
            was_slow |= self.throttled.is_slow();
            self.throttled.until_allowed().await;
            if let Some(limiter) = &self.limiter {
                limiter.until_ready().await;
            }
            let at = match &self.together {
                // On the heap: a job that waits for eSMS need not have room for it.
                Some(together) => Box::pin(together.turn(|| self.in_one_batch())).await,
                None => None,
            };
            // eSMS may have throttled meanwhile.
            if self.throttled.try_begin() {
                let held = if was_slow { waited.began.elapsed() } else { Duration::ZERO };
                return Turn { at, held };
            }
        }
    }

    /// Whether calls are held or slower because eSMS throttles.
    pub fn is_slow(&self) -> bool {
        self.throttled.is_slow()
    }

    /// For how many calls turns may be asked for at once. Where this worker is slower than all together, it would lose
    /// all but the first.
    fn in_one_batch(&self) -> u32 {
        if self.limiter.is_some() || self.throttled.is_slow() { 1 } else { self.waiting.load(Ordering::Relaxed) }
    }

    /// Keeps up with the other workers, and shows what the rate is, until the worker stops.
    pub async fn keep(self: Arc<Self>, stop: Stop) {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let keeping = async {
            loop {
                tokio::select! {
                    _ = beats.tick() => {}
                    () = self.throttled.changed.notified() => {}
                }
                if let Some(together) = &self.together {
                    together.beat().await;
                }
                self.throttled.show();
            }
        };
        let _: Option<()> = stop.draining().run_until_cancelled(keeping).await;
        if let Some(together) = &self.together {
            together.leave().await;
        }
    }
}

/// Counts a call that waits, and its time, until it is dropped.
struct Waited<'a> {
    began: Instant,
    rate: &'a Rate,
}

impl<'a> Waited<'a> {
    fn new(rate: &'a Rate) -> Self {
        rate.waiting.fetch_add(1, Ordering::Relaxed);
        Self { began: Instant::now(), rate }
    }
}

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        self.rate.waiting.fetch_sub(1, Ordering::Relaxed);
        self.rate.metrics.rate_limited(self.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(interval: Option<Duration>, metrics: &Arc<Metrics>) -> Rate {
        let throttled = Arc::new(Throttled::new(Arc::clone(metrics)));
        Rate::new(interval, throttled, None, Arc::clone(metrics))
    }

    #[tokio::test]
    async fn calls_are_spread_and_nothing_is_saved_up_while_idle() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let rate = rate(Some(Duration::from_millis(20)), &metrics);
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
        let rate = rate(None, &metrics);
        for _ in 0..10_000 {
            rate.turn().await;
        }
        assert!(metrics.text().contains("otp_rate_limited_seconds_total 0\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn all_calls_wait_while_esms_throttles_and_the_waiting_is_counted() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let rate = rate(None, &metrics);
        let began = Instant::now();
        assert_eq!(rate.turn().await.held, Duration::ZERO);
        rate.throttled.cut(began, Some(Duration::from_secs(7)));
        assert_eq!(rate.turn().await.held, Duration::from_secs(7));
        assert_eq!(began.elapsed(), Duration::from_secs(7));
        assert!(metrics.text().contains("otp_rate_limited_seconds_total 7\n"), "{}", metrics.text());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_behind_others_knows_how_long_it_was_held() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let rate = rate(None, &metrics);
        rate.throttled.cut(Instant::now(), None);
        // A call a second is left, and soon a little more.
        let turns = futures_util::future::join_all((0..3).map(|_| rate.turn())).await;
        let held: Vec<u64> = turns.iter().map(|turn| turn.held.as_secs()).collect();
        assert_eq!(held, [1, 2, 2]);
    }
}
