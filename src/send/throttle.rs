//! Slower while eSMS throttles: a `CodeResult` of `ESMS_RETRY_CODES`, a 429, or a `Retry-After` slows all calls of
//! the worker, not only its job's.
//!
//! A cut holds all calls for a moment. Then half as many a second are let through as before, and a tenth of that
//! rate is added each second. Where nothing is cut again, the limit is lifted once it is above what it was.
//! [`Throttle`] decides this, and is pure.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use crate::esms::classify::Class;
use crate::telemetry::metrics::Metrics;

/// Calls are held for so long at least, since limits are for a second, and for so long at most, whatever eSMS asks for.
const SHORTEST_HOLD: Duration = Duration::from_secs(1);
const LONGEST_HOLD: Duration = Duration::from_secs(30);

/// The rate after a cut, as a part of that before; what is added to it each second; and where the limit is lifted.
const CUT_TO: f64 = 0.5;
const ADDED: f64 = 0.1;
const LIFTED_AT: f64 = 1.2;

/// The lowest rate, in calls a second.
const LOWEST: f64 = 1.0;

/// The time over which the rate is measured, and its parts.
const MEASURED: Duration = Duration::from_secs(5);
const PART: Duration = Duration::from_millis(500);

/// Cuts of two workers that are no further apart than this are of one burst: a cut is heard of within a second.
const SAME_BURST: Duration = Duration::from_secs(2);

/// What happened to the rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// It was cut to so many calls a second.
    Cut(f64),
    /// It was cut before, and calls may be held for longer now.
    SameBurst,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Throttle {
    /// Calls that began lately: when the first of each part did, and how many.
    begun: VecDeque<(Instant, u32)>,
    cut: Option<Cut>,
}

#[derive(Debug)]
struct Cut {
    at: Instant,
    held_until: Instant,
    /// Calls a second, before the cut and after it.
    before: f64,
    after: f64,
    next: Instant,
}

impl Cut {
    /// The rate that is allowed, unless the limit is lifted.
    fn rate(&self, now: Instant) -> Option<f64> {
        let seconds = now.saturating_duration_since(self.held_until).as_secs();
        let rate = self.after + self.before * ADDED * Duration::from_secs(seconds).as_secs_f64();
        (rate < self.before * LIFTED_AT).then_some(rate)
    }
}

impl Throttle {
    /// The rate that is allowed now, in calls a second; nothing where there is no limit.
    pub fn rate(&self, now: Instant) -> Option<f64> {
        self.cut.as_ref().and_then(|cut| cut.rate(now))
    }

    /// When the next call may begin; nothing where it may now.
    pub fn wait_until(&self, now: Instant) -> Option<Instant> {
        let cut = self.cut.as_ref()?;
        cut.rate(now)?;
        Some(cut.held_until.max(cut.next)).filter(|at| *at > now)
    }

    /// A call begins.
    pub fn begins(&mut self, now: Instant) {
        if let (Some(rate), Some(cut)) = (self.rate(now), &mut self.cut) {
            cut.next = now + Duration::from_secs_f64(rate.recip());
        }
        match self.begun.back_mut() {
            Some((since, calls)) if now < *since + PART => *calls += 1,
            _ => self.begun.push_back((now, 1)),
        }
        self.begun.retain(|(since, _)| now < *since + MEASURED);
    }

    /// A call that began at `began` was throttled; eSMS asks to wait for `asked`.
    pub fn throttled(&mut self, began: Instant, asked: Option<Duration>, now: Instant) -> Change {
        let hold = asked.unwrap_or_default().clamp(SHORTEST_HOLD, LONGEST_HOLD);
        if self.cut.as_ref().is_some_and(|cut| began <= cut.at) {
            return self.hold_for(hold, now);
        }
        self.cut_for(hold, now)
    }

    /// Another worker was throttled so long ago, and tells all to hold calls for `hold` more.
    pub fn told(&mut self, ago: Duration, hold: Duration, now: Instant) -> Change {
        let hold = hold.min(LONGEST_HOLD);
        let is_known = |cut: &Cut| now < cut.held_until || now < cut.at + ago + SAME_BURST;
        if self.cut.as_ref().is_some_and(is_known) {
            return self.hold_for(hold, now);
        }
        self.cut_for(hold, now)
    }

    /// How long calls are held from now on.
    pub fn held_for(&self, now: Instant) -> Duration {
        self.cut.as_ref().map(|cut| cut.held_until.saturating_duration_since(now)).unwrap_or_default()
    }

    /// Forgets a cut whose limit is lifted. True if there was one.
    pub fn is_lifted(&mut self, now: Instant) -> bool {
        self.cut.take_if(|cut| cut.rate(now).is_none()).is_some()
    }

    fn hold_for(&mut self, hold: Duration, now: Instant) -> Change {
        if let Some(cut) = &mut self.cut {
            cut.held_until = cut.held_until.max(now + hold);
        }
        Change::SameBurst
    }

    fn cut_for(&mut self, hold: Duration, now: Instant) -> Change {
        let before = self.rate(now).unwrap_or_else(|| self.measured(now)).max(LOWEST);
        let after = (before * CUT_TO).max(LOWEST);
        let held_until = self.cut.as_ref().map_or(now, |cut| cut.held_until).max(now + hold);
        self.cut = Some(Cut { at: now, held_until, before, after, next: now });
        Change::Cut(after)
    }

    /// Calls a second, lately: over the time since the first of them, and over a second at least.
    fn measured(&self, now: Instant) -> f64 {
        let lately = self.begun.iter().filter(|(since, _)| now < *since + MEASURED);
        let calls: u32 = lately.clone().map(|(_, calls)| calls).sum();
        let since = lately.map(|(since, _)| now.saturating_duration_since(*since)).max().unwrap_or_default();
        f64::from(calls) / since.as_secs_f64().max(1.0)
    }
}

/// How eSMS has throttled a call, by its status and its class.
pub fn asked_to_slow_down(status: Option<u16>, class: &Class) -> Option<Option<Duration>> {
    match class {
        Class::AnsweredTryLater(_) => Some(None),
        Class::NotSent { not_before: Some(wait), .. } => Some(Some(*wait)),
        Class::NotSent { not_before: None, .. } if status == Some(429) => Some(None),
        Class::NotSent { not_before: None, .. }
        | Class::Answered(_)
        | Class::Ambiguous { .. }
        | Class::Unreadable { .. }
        | Class::Refused { .. } => None,
    }
}

/// A cut of this worker that the others have not been told of yet.
#[derive(Clone, Copy, Debug)]
pub struct Untold {
    /// When the throttled call began.
    pub began: Instant,
    /// Until when calls are held.
    pub until: Instant,
}

/// One throttle for all calls of a worker.
#[derive(Debug)]
pub struct Throttled {
    throttle: Mutex<Throttle>,
    untold: Mutex<Option<Untold>>,
    /// There is something to tell, or to show.
    pub changed: Notify,
    metrics: Arc<Metrics>,
}

impl Throttled {
    /// Nothing is throttled yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { throttle: Mutex::default(), untold: Mutex::default(), changed: Notify::new(), metrics }
    }

    /// Waits until a call may begin.
    pub async fn until_allowed(&self) {
        loop {
            let wait_until = self.lock().wait_until(Instant::now());
            match wait_until {
                Some(at) => sleep_until(at).await,
                None => return,
            }
        }
    }

    /// A call begins, unless it must wait.
    pub fn try_begin(&self) -> bool {
        let (mut throttle, now) = (self.lock(), Instant::now());
        let may_begin = throttle.wait_until(now).is_none();
        if may_begin {
            throttle.begins(now);
        }
        may_begin
    }

    /// A call that began at `began` was throttled, and eSMS asks to wait for `asked`.
    pub fn cut(&self, began: Instant, asked: Option<Duration>) {
        let now = Instant::now();
        let mut throttle = self.lock();
        let (was, change) = (throttle.rate(now), throttle.throttled(began, asked, now));
        let hold = throttle.held_for(now);
        drop(throttle);
        *self.untold.lock().unwrap_or_else(PoisonError::into_inner) = Some(Untold { began, until: now + hold });
        if let Change::Cut(rate) = change {
            let hold =
                humantime::format_duration(Duration::from_millis(hold.as_millis().try_into().unwrap_or(u64::MAX)));
            if was.is_some() {
                debug!(parent: None, %hold, rate, "eSMS throttles again");
            } else {
                warn!(
                    parent: None,
                    %hold,
                    rate,
                    hint = "jobs wait and fail none; if it comes often, lower OTP_SHARED_RATE_LIMIT or OTP_RATE_LIMIT, or have eSMS raise the account's limit",
                    "eSMS throttles: all calls are held, and are slower for a while"
                );
            }
        }
        self.show();
        self.changed.notify_one();
    }

    /// Another worker was throttled so long ago, and tells all to hold calls for `hold`.
    pub fn told(&self, ago: Duration, hold: Duration) {
        let now = Instant::now();
        let mut throttle = self.lock();
        let (was, change) = (throttle.rate(now), throttle.told(ago, hold, now));
        drop(throttle);
        if let (Change::Cut(rate), None) = (change, was) {
            info!(parent: None, rate, "eSMS throttles another worker: all calls are held here too, and are slower for a while");
        }
        self.show();
    }

    /// What the others must be told. Nothing, once it was taken.
    pub fn take_untold(&self) -> Option<Untold> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The others could not be told.
    pub fn put_back(&self, told: Untold) {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(told);
    }

    /// Whether calls are held or slowed.
    pub fn is_slow(&self) -> bool {
        self.lock().rate(Instant::now()).is_some()
    }

    /// The metric follows the rate, and the end of a limit is logged.
    pub fn show(&self) {
        let now = Instant::now();
        let mut throttle = self.lock();
        let (is_lifted, rate) = (throttle.is_lifted(now), throttle.rate(now));
        drop(throttle);
        self.metrics.rate_found(rate.unwrap_or_default());
        if is_lifted {
            info!(parent: None, "calls are not slowed any more");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Throttle> {
        // No code panics while it holds this lock, and every state is whole.
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
