//! Jobs that wait for the circuit.

use super::*;
use futures_util::FutureExt as _;
use std::num::NonZeroU32;
use std::time::Duration;
use tokio::time::{advance, timeout};

const COOLDOWN: Duration = Duration::from_secs(5);

fn circuit(failures: u32) -> Circuit {
    let settings = CircuitSettings { failures: NonZeroU32::new(failures).unwrap(), cooldown: COOLDOWN };
    Circuit::new(settings, Arc::new(Metrics::new().unwrap()))
}

async fn passes(circuit: &Circuit) -> bool {
    timeout(Duration::from_millis(1), circuit.pass(true)).await.is_ok()
}

async fn fail(circuit: &Circuit, times: u32) {
    for _ in 0..times {
        circuit.pass(true).await.report(Shown::NoAnswer, false);
    }
}

#[tokio::test(start_paused = true)]
async fn it_opens_after_so_many_failures_in_a_row_and_not_before() {
    let circuit = circuit(3);
    fail(&circuit, 2).await;
    circuit.pass(true).await.report(Shown::Answered, false);
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
        circuit.pass(true).await.report(shown, false);
    }
    assert!(circuit.is_open());
    advance(COOLDOWN).await;
    circuit.pass(true).await.report(Shown::Unreadable, false);
    assert!(circuit.is_open());
}

#[tokio::test(start_paused = true)]
async fn after_the_cooldown_one_probe_passes_and_its_success_lets_everything_through() {
    let circuit = circuit(1);
    fail(&circuit, 1).await;
    advance(COOLDOWN).await;
    let probe = circuit.pass(true).await;
    assert!(!passes(&circuit).await, "a second probe passed");
    let waiting = circuit.pass(true);
    probe.report(Shown::Answered, false);
    timeout(Duration::from_secs(1), waiting).await.unwrap();
    assert!(!circuit.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_opens_it_for_another_cooldown() {
    let circuit = circuit(2);
    fail(&circuit, 2).await;
    advance(COOLDOWN).await;
    circuit.pass(true).await.report(Shown::NoAnswer, false);
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
    drop(circuit.pass(true).await);
    circuit.pass(true).await.report(Shown::Answered, false);
    assert!(!circuit.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_was_aborted_leaves_a_closed_circuit_closed() {
    let circuit = circuit(1);
    let early = circuit.pass(true).await;
    fail(&circuit, 1).await;
    advance(COOLDOWN).await;
    let probe = circuit.pass(true).await;
    early.report(Shown::Answered, false);
    drop(probe);
    assert!(!circuit.is_open());
}

#[tokio::test(start_paused = true)]
async fn attempts_that_began_before_it_opened_do_not_prolong_it() {
    let circuit = circuit(1);
    let (early, late) = (circuit.pass(true).await, circuit.pass(true).await);
    early.report(Shown::NoAnswer, false);
    advance(COOLDOWN - Duration::from_millis(1)).await;
    late.report(Shown::NoAnswer, false);
    advance(Duration::from_millis(1)).await;
    assert!(passes(&circuit).await);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_not_attempted_yet_probes_before_one_that_has_failed() {
    let circuit = circuit(1);
    fail(&circuit, 1).await;
    let (mut failed, mut new) = (Box::pin(circuit.pass(false)), Box::pin(circuit.pass(true)));
    for waiting in [&mut failed, &mut new] {
        assert!(waiting.as_mut().now_or_never().is_none());
    }
    advance(COOLDOWN).await;
    assert!(failed.as_mut().now_or_never().is_none());
    let probe = new.as_mut().now_or_never().unwrap();
    probe.report(Shown::Answered, false);
    assert!(failed.now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_new_job_that_waits_no_longer_holds_nobody_up() {
    let circuit = circuit(1);
    fail(&circuit, 1).await;
    let (mut failed, mut new) = (Box::pin(circuit.pass(false)), Box::pin(circuit.pass(true)));
    assert!(new.as_mut().now_or_never().is_none());
    advance(COOLDOWN).await;
    assert!(failed.as_mut().now_or_never().is_none());
    drop(new);
    timeout(Duration::from_millis(1), failed).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_grow_after_a_probe_and_are_not_let_through_all_at_once() {
    let circuit = circuit(1);
    fail(&circuit, 1).await;
    advance(COOLDOWN).await;
    circuit.pass(true).await.report(Shown::Answered, false);
    let (first, _second) = (circuit.pass(true).await, circuit.pass(true).await);
    assert!(!passes(&circuit).await, "a third call passed");
    let (waiting, mut another) = (circuit.pass(true), Box::pin(circuit.pass(true)));
    assert!(another.as_mut().now_or_never().is_none());
    first.report(Shown::Answered, false);
    let _passed = (waiting.await, another.await);
}
