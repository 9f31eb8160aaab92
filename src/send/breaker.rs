//! When calls are held back because eSMS does not answer. Pure; [`super::circuit`] makes jobs wait for it.
//!
//! ```text
//!   closed --failures in a row, or nearly all of the last ones--> open
//!   open   --cooldown-------------------------------------------> one call is tried
//!   trying --the one call fails---------------------------------> open
//!   trying --a call succeeds, so that twice as many are tried---> closed, once enough are
//!   trying --a call fails, so that half as many are tried-------> open, once that is fewer than two
//! ```
//!
//! A failure that is a job's own says nothing about eSMS: [`Seen::FailedAgain`] counts only when eSMS has not answered
//! anyone for a while. So jobs that always fail do not hold back the others.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::settings::CircuitSettings;

/// With so many calls tried at once, the circuit is closed for good.
const ENOUGH: u32 = 32;

/// While eSMS has answered anyone within this time, failures that are expected do not count.
const ALIVE: Duration = Duration::from_secs(5);

/// What a call showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// eSMS answered.
    Answered,
    /// It did not.
    Failed,
    /// It did not, and this was to be expected of this job.
    FailedAgain,
    /// The call was not made, or was cut off.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Every call passes. So many calls in a row have failed.
    Closed(u32),
    /// No call passes before this moment; then one is tried.
    Open(Instant),
    /// At most `allowed` calls are under way at once.
    Trying { allowed: u32, under_way: u32 },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Breaker {
    settings: CircuitSettings,
    state: State,
    /// Counts how often it opened. What began before is no trial of now.
    period: u64,
    answered: Option<Instant>,
    latest: Latest,
}

/// The permission to make a call: which trial it is, if it is one.
pub(super) type Trial = Option<u64>;

impl Breaker {
    /// Closed.
    pub(super) fn new(settings: CircuitSettings) -> Self {
        let latest = Latest::new(settings.failures.get());
        Self { settings, state: State::Closed(0), period: 0, answered: None, latest }
    }

    /// A permission, or the moment to ask again; without such a moment, when something has changed.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Trial, Option<Instant>> {
        match self.state {
            State::Closed(_) => return Ok(None),
            State::Open(until) if now < until => return Err(Some(until)),
            State::Open(_) => self.state = State::Trying { allowed: 1, under_way: 1 },
            State::Trying { allowed, under_way } if under_way >= allowed => return Err(None),
            State::Trying { allowed, under_way } => {
                self.state = State::Trying { allowed, under_way: under_way + 1 };
            }
        }
        Ok(Some(self.period))
    }

    /// Whether a call with this permission may still be made: the circuit can have opened since.
    pub(super) fn still_admits(&self, trial: Trial) -> bool {
        match self.state {
            State::Closed(_) => true,
            State::Open(_) => false,
            State::Trying { .. } => trial == Some(self.period),
        }
    }

    /// How many calls failed lately, and of how many. It opens on this, or on failures in a row.
    pub(super) fn failed_of_latest(&self) -> (usize, usize) {
        (self.latest.failed, self.latest.calls.len())
    }

    /// Whether no call passes, or one at a time.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_) | State::Trying { allowed: 1, .. })
    }

    /// Whether no call passes, or only some.
    pub(super) const fn holds_back(&self) -> bool {
        !matches!(self.state, State::Closed(_))
    }

    /// A call is over, or none was made.
    pub(super) fn over(&mut self, trial: Trial, seen: Seen, now: Instant) {
        let is_alive = self.answered.is_some_and(|at| now.duration_since(at) < ALIVE);
        let is_trial = trial == Some(self.period);
        if let (State::Trying { under_way, .. }, true) = (&mut self.state, is_trial) {
            *under_way = under_way.saturating_sub(1);
        }
        match seen {
            Seen::Answered => self.answered(now),
            Seen::Failed => self.failed(is_trial, now),
            Seen::FailedAgain if !is_alive || self.is_open() => self.failed(is_trial, now),
            Seen::FailedAgain => {}
            Seen::Nothing => {}
        }
    }

    fn answered(&mut self, now: Instant) {
        self.answered = Some(now);
        let (allowed, under_way) = match self.state {
            State::Closed(_) => {
                self.latest.add(false, now);
                self.state = State::Closed(0);
                return;
            }
            // A call from before answers late: as good as one that was tried.
            State::Open(_) => (1, 0),
            State::Trying { allowed, under_way } => (allowed, under_way),
        };
        let allowed = allowed.saturating_mul(2);
        self.state = State::Trying { allowed, under_way };
        if allowed >= ENOUGH {
            self.state = State::Closed(0);
            self.latest.forget();
        }
    }

    fn failed(&mut self, is_trial: bool, now: Instant) {
        match self.state {
            State::Closed(in_a_row) => {
                self.latest.add(true, now);
                let in_a_row = in_a_row.saturating_add(1);
                if in_a_row >= self.settings.failures.get() || self.latest.nearly_all_failed() {
                    self.open(now);
                } else {
                    self.state = State::Closed(in_a_row);
                }
            }
            State::Trying { allowed, under_way } if is_trial => match allowed / 2 {
                0 | 1 => self.open(now),
                allowed => self.state = State::Trying { allowed, under_way },
            },
            // This call began before the circuit opened, so it shows nothing new.
            State::Open(_) | State::Trying { .. } => {}
        }
    }

    fn open(&mut self, now: Instant) {
        self.state = State::Open(now + self.settings.cooldown);
        self.period += 1;
    }
}

/// The latest calls: twice as many as failures in a row open the circuit.
#[derive(Debug)]
struct Latest {
    most: usize,
    failed: usize,
    calls: VecDeque<(Instant, bool)>,
}

impl Latest {
    /// Nine tenths of the latest calls are nearly all: one lucky answer in twenty is no sign of health.
    const NEARLY_ALL: (usize, usize) = (9, 10);

    /// What is older says nothing about now.
    const WITHIN: Duration = Duration::from_secs(60);

    /// More calls are not kept. With a greater `OTP_BREAKER_FAILURES`, only failures in a row open the circuit.
    const MOST: usize = 2_000;

    fn new(failures: u32) -> Self {
        Self {
            most: usize::try_from(failures).unwrap_or(usize::MAX).saturating_mul(2),
            failed: 0,
            calls: VecDeque::new(),
        }
    }

    fn add(&mut self, failed: bool, now: Instant) {
        if self.most > Self::MOST {
            return;
        }
        self.calls.push_back((now, failed));
        self.failed += usize::from(failed);
        while let Some((at, failed)) = self.calls.front()
            && (self.calls.len() > self.most || now.duration_since(*at) > Self::WITHIN)
        {
            self.failed -= usize::from(*failed);
            self.calls.pop_front();
        }
    }

    fn nearly_all_failed(&self) -> bool {
        let (part, whole) = Self::NEARLY_ALL;
        self.calls.len() >= self.most && self.failed * whole >= self.most * part && self.most <= Self::MOST
    }

    fn forget(&mut self) {
        self.calls.clear();
        self.failed = 0;
    }
}

#[cfg(test)]
mod tests;
