//! The circuit breaker: it holds calls back while eSMS does not answer.
//!
//! While it is closed, every call passes. After so many failed attempts in a row it opens, and also when nearly all of
//! the latest failed: no call is made, and no job uses up an attempt. After the cooldown one call at a time passes as a
//! probe. If the probe fails, the circuit stays open for another cooldown. If it succeeds, the circuit closes, and the
//! calls under way at once grow from two, twice as many with each success. Every answer of eSMS is a success, and a
//! reply that cannot be read as one is a failure. The file `breaker.rs` decides; here jobs
//! wait for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::breaker::{Breaker, Seen, Trial};
use super::settings::CircuitSettings;
use crate::esms::classify::Class;
use crate::telemetry::metrics::Metrics;

/// What an attempt shows about eSMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// It answers.
    Answered,
    /// It was not reached, or did not answer.
    NoAnswer,
    /// Something answers, and not as eSMS does.
    Unreadable,
}

impl Shown {
    /// What an attempt of this class shows.
    pub const fn by(class: &Class) -> Self {
        match class {
            Class::Answered(_) | Class::AnsweredTryLater(_) => Self::Answered,
            Class::Unreadable { .. } => Self::Unreadable,
            Class::NotSent { .. } | Class::Ambiguous { .. } | Class::Refused { .. } => Self::NoAnswer,
        }
    }

    const fn hint(self) -> &'static str {
        match self {
            Self::Answered | Self::NoAnswer => {
                "eSMS does not answer: check its status and the network to it; jobs wait, and expire in time"
            }
            Self::Unreadable => {
                "what answers does not answer as eSMS does, as an earlier line quotes it: jobs wait, and expire in time"
            }
        }
    }
}

/// One circuit for all jobs of a worker.
#[derive(Debug)]
pub struct Circuit {
    settings: CircuitSettings,
    state: Mutex<State>,
    changes: watch::Sender<()>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    /// Jobs that wait for their first attempt.
    new_jobs: usize,
}

/// The permission to make one attempt. If it is dropped without a report, because its job was aborted, nothing
/// is known about eSMS, and the next job may probe.
#[derive(Debug)]
pub struct Pass<'a> {
    circuit: &'a Circuit,
    trial: Trial,
    is_reported: bool,
}

impl Circuit {
    /// A closed circuit.
    pub fn new(settings: CircuitSettings, metrics: Arc<Metrics>) -> Self {
        let state = Mutex::new(State { breaker: Breaker::new(settings), new_jobs: 0 });
        Self { settings, state, changes: watch::Sender::new(()), metrics }
    }

    /// Waits until an attempt may be made. This can take for ever, so the caller sets the limit. A job that was not
    /// attempted before goes first: its attempt says more about eSMS than that of a job that has failed already.
    pub async fn pass(&self, is_new: bool) -> Pass<'_> {
        if let Ok(pass) = self.try_pass(is_new) {
            return pass;
        }
        let mut changes = self.changes.subscribe();
        let _waits = is_new.then(|| NewJob::waits(self));
        loop {
            let wait_until = match self.try_pass(is_new) {
                Ok(pass) => return pass,
                Err(wait_until) => wait_until,
            };
            tokio::select! {
                // The sender lives as long as this circuit.
                _ = changes.changed() => {}
                () = sleep_or_forever(wait_until) => {}
            }
        }
    }

    /// Whether nothing but a probe may pass.
    pub fn is_open(&self) -> bool {
        self.state().breaker.is_open()
    }

    /// A pass, or the moment to ask again. There is no such moment while others are waited for.
    fn try_pass(&self, is_new: bool) -> Result<Pass<'_>, Option<Instant>> {
        let mut state = self.state();
        if state.breaker.holds_back() && !is_new && state.new_jobs > 0 {
            return Err(None);
        }
        let trial = state.breaker.admit(Instant::now())?;
        Ok(Pass { circuit: self, trial, is_reported: false })
    }

    fn over(&self, trial: Trial, shown: Option<Shown>, is_expected: bool) {
        let mut state = self.state();
        let breaker = &mut state.breaker;
        let (was_open, held_back) = (breaker.is_open(), breaker.holds_back());
        breaker.over(trial, seen(shown, is_expected), Instant::now());
        let (is_open, holds_back, (failed, of)) = (breaker.is_open(), breaker.holds_back(), breaker.failed_of_latest());
        drop(state);
        match (was_open, is_open) {
            (true, false) => info!(parent: None, "eSMS answers again: circuit closed"),
            (false, true) => warn!(
                parent: None,
                failures = failed,
                of,
                cooldown = %humantime::format_duration(self.settings.cooldown),
                hint = shown.map(Shown::hint),
                "circuit opened"
            ),
            (true, true) | (false, false) => {}
        }
        if held_back || holds_back {
            self.metrics.circuit_open(is_open);
            self.changes.send_replace(());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds this lock, and every state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn seen(shown: Option<Shown>, is_expected: bool) -> Seen {
    match shown {
        None => Seen::Nothing,
        Some(Shown::Answered) => Seen::Answered,
        Some(Shown::NoAnswer | Shown::Unreadable) if is_expected => Seen::FailedAgain,
        Some(Shown::NoAnswer | Shown::Unreadable) => Seen::Failed,
    }
}

impl Pass<'_> {
    /// Whether the attempt may still be made: the circuit can have opened since.
    pub fn still_holds(&self) -> bool {
        self.circuit.state().breaker.still_admits(self.trial)
    }

    /// Says what the attempt has shown. A failure `is_expected` where the job or its template has failed before:
    /// then it says nothing about eSMS, as long as others are answered.
    pub fn report(mut self, shown: Shown, is_expected: bool) {
        self.is_reported = true;
        self.circuit.over(self.trial, Some(shown), is_expected);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.is_reported {
            self.circuit.over(self.trial, None, false);
        }
    }
}

/// Counts a job that waits for its first attempt, until it is dropped.
struct NewJob<'a>(&'a Circuit);

impl<'a> NewJob<'a> {
    fn waits(circuit: &'a Circuit) -> Self {
        circuit.state().new_jobs += 1;
        Self(circuit)
    }
}

impl Drop for NewJob<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.new_jobs = state.new_jobs.saturating_sub(1);
        let is_last = state.new_jobs == 0;
        drop(state);
        if is_last {
            self.0.changes.send_replace(());
        }
    }
}

async fn sleep_or_forever(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
