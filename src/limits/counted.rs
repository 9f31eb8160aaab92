//! What this process has counted. With the memory ledger it decides; beside Redis it stands in while Redis is away.
//!
//! It is bounded: of a number it keeps no more places than its rules need, of numbers at most [`MOST_NUMBERS`], and of
//! a group 60 parts of each window. A number is kept as a keyed hash.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{HeldBack, Limits, Place, Rule, Seen, Verdict};

/// The most numbers that are remembered. Those sent to longest ago are forgotten first. docs/ledger.md says what
/// they cost.
pub const MOST_NUMBERS: usize = 200_000;

/// Into how many parts the window of a group is divided.
pub const PARTS: u64 = 60;

/// How long after its deadline a job in flight has certainly ended, in ms. If nobody said how, its OTP counts.
pub const ENDED_AFTER: u64 = 60_000;

/// See the module.
#[derive(Debug)]
pub struct Counted {
    limits: Arc<Limits>,
    /// The key of the hashes. It is this process's own.
    key: RandomState,
    since: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    numbers: HashMap<u64, Vec<Counts>>,
    groups: Vec<Together>,
}

/// A place of a number: from when on it counts (ms), and whose it is. In flight, it counts from the deadline on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Counts {
    at: u64,
    job: u64,
}

/// The places of one group.
#[derive(Clone, Debug, Default)]
struct Together {
    /// Jobs in flight, and their deadlines.
    in_flight: HashMap<u64, u64>,
    /// For each rule: OTPs in each part of its window.
    parts: Vec<BTreeMap<u64, u64>>,
}

impl Counted {
    /// Nothing is counted yet.
    pub fn new(limits: Arc<Limits>) -> Self {
        let together =
            |group: &super::Group| Together { parts: vec![BTreeMap::new(); group.rules.len()], ..Together::default() };
        let groups = limits.groups.iter().map(together).collect();
        let state = Mutex::new(State { groups, ..State::default() });
        Self { limits, key: RandomState::new(), since: Instant::now(), state }
    }

    /// Takes a place for a job that is to be sent, unless a limit holds it back. A job that has its place keeps it.
    ///
    /// # Errors
    /// The limit.
    pub fn reserve(&self, place: &Place) -> Result<(), HeldBack> {
        let (now, job) = (self.ms(Instant::now()), self.key.hash_one(&place.id));
        let mut state = self.state();
        let number = self.key.hash_one(place.phone.digits());
        let has_place = state.numbers.get(&number).is_some_and(|counts| counts.iter().any(|place| place.job == job));
        let verdict = if has_place { None } else { self.verdict(&mut state, place, number, now) };
        if let Some(held) = verdict.and_then(|verdict| self.limits.held_back(place, verdict)) {
            return Err(held);
        }
        self.occupy(&mut state, place, now);
        Ok(())
    }

    /// Takes a place for a job that is to be sent whatever was counted: it was counted elsewhere.
    pub fn take(&self, place: &Place) {
        self.occupy(&mut self.state(), place, self.ms(Instant::now()));
    }

    /// The job has ended. `sent` is the time of its last attempt, where an OTP went out or may have.
    pub fn settle(&self, place: &Place, sent: Option<Instant>) -> Seen {
        let (now, job, sent) = (self.ms(Instant::now()), self.key.hash_one(&place.id), sent.map(|at| self.ms(at)));
        let mut state = self.state();
        for (n, group) in self.limits.groups_of(place) {
            let Some(together) = state.groups.get_mut(n) else { continue };
            together.in_flight.remove(&job);
            if let Some(at) = sent {
                together.count(&group.rules, at, now);
            }
        }
        let number = self.key.hash_one(place.phone.digits());
        let counts = state.numbers.entry(number).or_default();
        counts.retain(|counts| counts.job != job && counts.at + millis(self.limits.longest()) > now);
        let seen = if counts.is_empty() { Seen::New } else { Seen::Known };
        match sent {
            Some(at) => self.insert(counts, Counts { at, job }),
            None if counts.is_empty() => {
                state.numbers.remove(&number);
            }
            None => {}
        }
        seen
    }

    fn verdict(&self, state: &mut State, place: &Place, number: u64, now: u64) -> Option<Verdict> {
        let counts = state.numbers.get(&number).map_or(&[][..], Vec::as_slice);
        let mut verdicts: Vec<Option<(u64, bool)>> =
            self.limits.number.iter().map(|rule| of_number(rule, counts, now)).collect();
        for (n, group) in self.limits.groups_of(place) {
            let Some(together) = state.groups.get_mut(n) else { continue };
            together.forget(&group.rules, now);
            verdicts.extend((0..group.rules.len()).map(|n| together.verdict(n, &group.rules[n], now)));
        }
        // The end of a job in flight helps only where nothing else holds this one back.
        let is_in_flight = verdicts.iter().flatten().all(|(_, is_in_flight)| *is_in_flight);
        let found =
            verdicts.into_iter().enumerate().filter_map(|(rule, found)| found.map(|(free_at, _)| (rule, free_at)));
        found.max_by_key(|(_, free_at)| *free_at).map(|(rule, free_at)| Verdict {
            rule,
            free_in: Duration::from_millis(free_at - now),
            is_in_flight,
        })
    }

    fn occupy(&self, state: &mut State, place: &Place, now: u64) {
        let (until, job) = (self.ms(place.until).max(now), self.key.hash_one(&place.id));
        for (n, _) in self.limits.groups_of(place) {
            if let Some(together) = state.groups.get_mut(n) {
                together.in_flight.insert(job, until);
            }
        }
        self.make_room(state, now);
        let counts = state.numbers.entry(self.key.hash_one(place.phone.digits())).or_default();
        counts.retain(|counts| counts.job != job);
        self.insert(counts, Counts { at: until, job });
    }

    fn insert(&self, counts: &mut Vec<Counts>, new: Counts) {
        counts.push(new);
        counts.sort_unstable();
        let more = counts.len().saturating_sub(self.limits.most_of_a_number() as usize);
        counts.drain(..more);
    }

    /// Forgets what is over, once there are too many numbers; and then, if there still are, the older half.
    fn make_room(&self, state: &mut State, now: u64) {
        if state.numbers.len() < MOST_NUMBERS {
            return;
        }
        let longest = millis(self.limits.longest());
        let latest = |counts: &[Counts]| counts.last().map_or(0, |counts| counts.at);
        state.numbers.retain(|_, counts| latest(counts) + longest > now);
        if state.numbers.len() < MOST_NUMBERS {
            return;
        }
        // A job in flight counts from its deadline on, so it is among the latest.
        let mut times: Vec<(u64, u64)> =
            state.numbers.iter().map(|(number, counts)| (latest(counts), *number)).collect();
        let (older, ..) = times.select_nth_unstable(MOST_NUMBERS / 2);
        for (_, number) in older {
            state.numbers.remove(number);
        }
    }

    fn ms(&self, at: Instant) -> u64 {
        millis(at.saturating_duration_since(self.since))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When there is a place again, and whether that depends on a job in flight.
fn of_number(rule: &Rule, counts: &[Counts], now: u64) -> Option<(u64, bool)> {
    let first_of_the_most = counts.len().checked_sub(rule.most as usize)?;
    let at = counts.get(first_of_the_most)?.at;
    let free_at = at + millis(rule.window);
    (free_at > now).then_some((free_at, at > now))
}

impl Together {
    /// Counts an OTP that was sent at this time.
    fn count(&mut self, rules: &[Rule], at: u64, now: u64) {
        for (rule, parts) in rules.iter().zip(&mut self.parts) {
            *parts.entry(at / width(rule)).or_default() += 1;
        }
        self.forget(rules, now);
    }

    /// Forgets what has left the windows. A job that must have ended counts as sent at its deadline.
    fn forget(&mut self, rules: &[Rule], now: u64) {
        let ended: Vec<(u64, u64)> = self
            .in_flight
            .iter()
            .filter(|(_, until)| **until + ENDED_AFTER <= now)
            .map(|(job, at)| (*job, *at))
            .collect();
        for (job, at) in ended {
            self.in_flight.remove(&job);
            for (rule, parts) in rules.iter().zip(&mut self.parts) {
                *parts.entry(at / width(rule)).or_default() += 1;
            }
        }
        for (rule, parts) in rules.iter().zip(&mut self.parts) {
            while let Some(first) = parts.first_entry().filter(|first| left_at(rule, *first.key()) <= now) {
                first.remove();
            }
        }
    }

    fn verdict(&self, n: usize, rule: &Rule, now: u64) -> Option<(u64, bool)> {
        let parts = self.parts.get(n)?;
        let counted = parts.values().sum::<u64>() + self.in_flight.len() as u64;
        // So many must leave.
        let mut more = (counted + 1).checked_sub(u64::from(rule.most)).filter(|more| *more > 0)?;
        for (part, otps) in parts {
            more = more.saturating_sub(*otps);
            if more == 0 {
                return Some((left_at(rule, *part), false));
            }
        }
        let mut deadlines: Vec<u64> = self.in_flight.values().copied().collect();
        deadlines.sort_unstable();
        let deadline = deadlines.get(usize::try_from(more).unwrap_or(usize::MAX).saturating_sub(1)).copied();
        Some((left_at(rule, deadline.unwrap_or(now).max(now) / width(rule)), false))
    }
}

/// The length of a part, in ms.
fn width(rule: &Rule) -> u64 {
    (millis(rule.window) / PARTS).max(1)
}

/// When the last OTP of a part has left the window.
fn left_at(rule: &Rule, part: u64) -> u64 {
    (part + 1) * width(rule) + millis(rule.window)
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
