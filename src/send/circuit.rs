//! The circuit breaker: it holds calls back while eSMS does not answer.
//!
//! While it is closed, every call passes. After so many failed attempts in a row it opens: no call is made, and
//! no job uses up an attempt. After the cooldown one call at a time passes as a probe. If the probe succeeds,
//! the circuit closes; if it fails, it stays open for another cooldown. Every answer of eSMS is a success, and a
//! reply that cannot be read as one is a failure.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::settings::CircuitSettings;
use crate::esms::classify::Class;
use crate::telemetry::metrics::Metrics;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Every call passes. So many calls in a row have failed.
    Closed(u32),
    /// No call passes before this moment; then one probe does.
    Open(Instant),
    /// The probe with this number is under way. No other call passes.
    Probing(u64),
}

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
    probes: AtomicU64,
    changes: watch::Sender<()>,
    metrics: Arc<Metrics>,
}

/// The permission to make one attempt. If it is dropped without a report, because its job was aborted, nothing
/// is known about eSMS, and the next job may probe.
#[derive(Debug)]
pub struct Pass<'a> {
    circuit: &'a Circuit,
    probe: Option<u64>,
}

impl Circuit {
    /// A closed circuit.
    pub fn new(settings: CircuitSettings, metrics: Arc<Metrics>) -> Self {
        Self {
            settings,
            state: Mutex::new(State::Closed(0)),
            probes: AtomicU64::new(0),
            changes: watch::Sender::new(()),
            metrics,
        }
    }

    /// Waits until an attempt may be made. This can take for ever, so the caller sets the limit.
    pub async fn pass(&self) -> Pass<'_> {
        let mut changes = self.changes.subscribe();
        loop {
            let wait_until = match self.try_pass() {
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
        !matches!(*self.state(), State::Closed(_))
    }

    /// A pass, or the moment to ask again. There is no such moment while a probe is under way.
    fn try_pass(&self) -> Result<Pass<'_>, Option<Instant>> {
        let mut state = self.state();
        match *state {
            State::Closed(_) => Ok(Pass { circuit: self, probe: None }),
            State::Open(until) if Instant::now() >= until => {
                let probe = self.probes.fetch_add(1, Ordering::Relaxed);
                *state = State::Probing(probe);
                Ok(Pass { circuit: self, probe: Some(probe) })
            }
            State::Open(until) => Err(Some(until)),
            State::Probing(_) => Err(None),
        }
    }

    fn succeeded(&self) {
        let mut state = self.state();
        let was_open = !matches!(*state, State::Closed(_));
        *state = State::Closed(0);
        drop(state);
        if was_open {
            info!(parent: None, "eSMS answers again: circuit closed");
            self.changed(false);
        }
    }

    fn failed(&self, probe: Option<u64>, shown: Shown) {
        let mut state = self.state();
        let failures = match *state {
            State::Closed(failures) => failures.saturating_add(1),
            State::Probing(current) if probe == Some(current) => self.settings.failures.get(),
            // This attempt began before the circuit opened, so it shows nothing new.
            State::Open(_) | State::Probing(_) => return,
        };
        if failures < self.settings.failures.get() {
            *state = State::Closed(failures);
            return;
        }
        *state = State::Open(Instant::now() + self.settings.cooldown);
        drop(state);
        if probe.is_none() {
            warn!(
                parent: None,
                failures,
                cooldown = %humantime::format_duration(self.settings.cooldown),
                hint = shown.hint(),
                "circuit opened"
            );
        }
        self.changed(true);
    }

    fn changed(&self, open: bool) {
        self.metrics.circuit_open(open);
        self.changes.send_replace(());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds this lock, and every state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// Whether the attempt may still be made: the circuit can have opened since.
    pub fn still_holds(&self) -> bool {
        self.probe.is_some() || !self.circuit.is_open()
    }

    /// Says what the attempt has shown.
    pub fn report(mut self, shown: Shown) {
        let probe = self.probe.take();
        match shown {
            Shown::Answered => self.circuit.succeeded(),
            Shown::NoAnswer | Shown::Unreadable => self.circuit.failed(probe, shown),
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let Some(probe) = self.probe else { return };
        let mut state = self.circuit.state();
        // An earlier attempt may have closed the circuit already.
        if *state == State::Probing(probe) {
            *state = State::Open(Instant::now());
            drop(state);
            self.circuit.changed(true);
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
mod tests {
    use super::*;
    use std::num::NonZeroU32;
    use std::time::Duration;
    use tokio::time::{advance, timeout};

    const COOLDOWN: Duration = Duration::from_secs(5);

    fn circuit(failures: u32) -> Circuit {
        let settings = CircuitSettings { failures: NonZeroU32::new(failures).unwrap(), cooldown: COOLDOWN };
        Circuit::new(settings, Arc::new(Metrics::new().unwrap()))
    }

    async fn passes(circuit: &Circuit) -> bool {
        timeout(Duration::from_millis(1), circuit.pass()).await.is_ok()
    }

    async fn fail(circuit: &Circuit, times: u32) {
        for _ in 0..times {
            circuit.pass().await.report(Shown::NoAnswer);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_so_many_failures_in_a_row_and_not_before() {
        let circuit = circuit(3);
        fail(&circuit, 2).await;
        circuit.pass().await.report(Shown::Answered);
        fail(&circuit, 2).await;
        assert!(!circuit.is_open());
        fail(&circuit, 1).await;
        assert!(circuit.is_open());
        assert!(!passes(&circuit).await);
    }

    #[tokio::test(start_paused = true)]
    async fn replies_that_cannot_be_read_open_it_as_silence_does() {
        let circuit = circuit(3);
        for shown in [Shown::Unreadable, Shown::NoAnswer, Shown::Unreadable] {
            assert!(!circuit.is_open());
            circuit.pass().await.report(shown);
        }
        assert!(circuit.is_open());
        advance(COOLDOWN).await;
        circuit.pass().await.report(Shown::Unreadable);
        assert!(circuit.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_cooldown_one_probe_passes_and_its_success_lets_everything_through() {
        let circuit = circuit(1);
        fail(&circuit, 1).await;
        advance(COOLDOWN).await;
        let probe = circuit.pass().await;
        assert!(!passes(&circuit).await, "a second probe passed");
        let waiting = circuit.pass();
        probe.report(Shown::Answered);
        timeout(Duration::from_secs(1), waiting).await.unwrap();
        assert!(!circuit.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_opens_it_for_another_cooldown() {
        let circuit = circuit(2);
        fail(&circuit, 2).await;
        advance(COOLDOWN).await;
        circuit.pass().await.report(Shown::NoAnswer);
        advance(COOLDOWN - Duration::from_millis(10)).await;
        assert!(!passes(&circuit).await);
        advance(Duration::from_millis(10)).await;
        assert!(passes(&circuit).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_was_aborted_leaves_its_turn_to_the_next() {
        let circuit = circuit(1);
        fail(&circuit, 1).await;
        advance(COOLDOWN).await;
        drop(circuit.pass().await);
        circuit.pass().await.report(Shown::Answered);
        assert!(!circuit.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_was_aborted_leaves_a_closed_circuit_closed() {
        let circuit = circuit(1);
        let early = circuit.pass().await;
        fail(&circuit, 1).await;
        advance(COOLDOWN).await;
        let probe = circuit.pass().await;
        early.report(Shown::Answered);
        drop(probe);
        assert!(!circuit.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_that_began_before_it_opened_do_not_prolong_it() {
        let circuit = circuit(1);
        let (early, late) = (circuit.pass().await, circuit.pass().await);
        early.report(Shown::NoAnswer);
        advance(COOLDOWN - Duration::from_millis(1)).await;
        late.report(Shown::NoAnswer);
        advance(Duration::from_millis(1)).await;
        assert!(passes(&circuit).await);
    }
}
