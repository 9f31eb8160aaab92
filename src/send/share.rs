//! One worker's share of the rate of all workers (`OTP_SHARED_RATE_LIMIT`). Pure.
//!
//! The workers divide time into turns, one call each. Together, they ask the store for a few turns at a time. Alone,
//! while the store is away, a worker gives itself every n-th turn of n workers; its place among them is what the
//! store said last. So the shares of workers that are all alone fit into each other.

use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::pace::{Heard, Word};

/// Of the turns that the limit allows this part is given out: calls are a little late now and then, and so come
/// closer together than their turns.
const GIVEN_OUT: f64 = 0.98;

/// A turn that is later than this is lost: a worker that was held up must not make its calls all at once. Since not all
/// turns are given out, no second has more than 1.1 times the limit.
pub const LATE: Duration = Duration::from_millis(50);

/// A worker asks for what it needs in this time.
const BATCH: Duration = Duration::from_millis(200);

/// How many workers there are, to one that has never reached the store.
const MANY: u32 = 16;

/// When the next call may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At this moment, or right away where it has just passed.
    At(Instant),
    /// The store must be asked for turns.
    Ask,
    /// This is to be asked again then.
    Later(Instant),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The store gives turns.
    Together,
    /// The store does not answer.
    Alone,
    /// The store answers, and lets everybody go on alone until then.
    AloneUntil(Instant),
}

/// See the module.
#[derive(Debug)]
pub struct Share {
    interval: Duration,
    workers: u32,
    rank: u32,
    /// The store's clock, in microseconds, at a moment of ours.
    clock: (u64, Instant),
    mode: Mode,
    /// Whether turns were given here that the store does not know of.
    owns_up: bool,
    /// The next turn of those that the store gave, and how many are left.
    next: Instant,
    left: u32,
    /// The next turn may not be sooner.
    not_before: Instant,
}

impl Share {
    /// A share of so many calls a second of all workers. `seed` is any number, and another one in each worker.
    pub fn new(limit: f64, seed: u32, now: Instant) -> Self {
        Self {
            interval: Duration::from_secs_f64((limit * GIVEN_OUT).recip()),
            workers: MANY,
            rank: seed % MANY,
            clock: (0, now),
            mode: Mode::Together,
            owns_up: false,
            next: now,
            left: 0,
            not_before: now,
        }
    }

    /// When the next call may begin.
    pub fn next(&mut self, now: Instant) -> Next {
        while self.left > 0 && now > self.next + LATE {
            self.next += self.interval;
            self.left -= 1;
        }
        if self.left > 0 {
            return Next::At(self.next);
        }
        let own = self.own_turn(now);
        match self.mode {
            Mode::Together => Next::Ask,
            Mode::Alone => Next::At(own),
            Mode::AloneUntil(end) if now >= end => {
                self.mode = Mode::Together;
                Next::Ask
            }
            Mode::AloneUntil(end) if own >= end => Next::Later(end),
            Mode::AloneUntil(_) => Next::At(own),
        }
    }

    /// A call takes the turn that [`Share::next`] said.
    pub fn take(&mut self, turn: Instant) {
        if self.left > 0 {
            self.next += self.interval;
            self.left -= 1;
            self.not_before = self.not_before.max(turn + self.interval);
            return;
        }
        self.owns_up |= self.mode == Mode::Alone;
        // A little less, because moments are rounded.
        self.not_before = turn + self.interval * self.workers - self.interval / 2;
    }

    /// What to say to the store; `waiting` calls wait for turns.
    pub fn word(&self, waiting: u32, now: Instant) -> Word {
        Word {
            interval: self.interval,
            turns: waiting.min(batch(self.interval, self.workers)),
            not_before: self.not_before.saturating_duration_since(now),
            was_alone: self.owns_up,
            cut: None,
        }
    }

    /// The store has answered `word`.
    pub fn heard(&mut self, word: &Word, heard: &Heard) {
        self.owns_up &= !word.was_alone;
        self.clock = (heard.clock, heard.at);
        self.rank = heard.rank;
        if heard.alone_for.is_zero() {
            self.mode = Mode::Together;
            self.workers = heard.workers.max(1);
        } else {
            self.leave_the_others(heard.at);
            self.mode = Mode::AloneUntil(heard.at + heard.alone_for);
            // Those that have not found the store again are not counted there.
            self.workers = self.workers.max(heard.workers);
        }
        if heard.turns > 0 {
            (self.next, self.left) = (self.ours(heard.first), heard.turns);
        }
    }

    /// The store has not answered.
    pub fn not_heard(&mut self, now: Instant) {
        self.leave_the_others(now);
        self.mode = Mode::Alone;
    }

    /// Turns that the store has given out are over before this worker gives itself one.
    fn leave_the_others(&mut self, now: Instant) {
        if self.mode == Mode::Together {
            let given_out = self.interval * self.workers * batch(self.interval, self.workers);
            self.not_before = self.not_before.max(now + given_out);
        }
    }

    /// The first turn of this worker's own that is not over.
    fn own_turn(&self, now: Instant) -> Instant {
        let earliest = self.stores(self.not_before.max(now));
        let interval = micros(self.interval).max(1);
        let (workers, rank) = (u64::from(self.workers), u64::from(self.rank));
        let turn = earliest.div_ceil(interval);
        let until_own = (rank % workers + workers - turn % workers) % workers;
        self.ours((turn + until_own).saturating_mul(interval))
    }

    /// The store's clock at a moment that is not before the one it told.
    fn stores(&self, at: Instant) -> u64 {
        self.clock.0.saturating_add(micros(at.saturating_duration_since(self.clock.1)))
    }

    fn ours(&self, clock: u64) -> Instant {
        self.clock.1 + Duration::from_micros(clock.saturating_sub(self.clock.0))
    }
}

/// How many turns one of so many workers asks for at most: its part of what there are in [`BATCH`].
fn batch(interval: Duration, workers: u32) -> u32 {
    let all = BATCH.as_micros() / interval.as_micros().max(1);
    u32::try_from(all.div_ceil(u128::from(workers.max(1)))).unwrap_or(u32::MAX).max(1)
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
