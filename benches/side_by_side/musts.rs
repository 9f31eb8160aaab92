//! What must hold, and whether it did.

use serde::Serialize;

use crate::contender::Contender::{self, Bare, FastStream, Node, Worker, WorkerRedis};
use crate::latency;
use crate::numbers::Rounds;
use crate::report::Measured;
use crate::settings::Cell;
use crate::support::terminal::{bold, green, red, say, yellow};
use crate::throughput::{Run, rounds};

/// One demand. There is no number where it was not measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Must {
    pub(crate) what: String,
    pub(crate) measured: Option<f64>,
    pub(crate) limit: f64,
    unit: &'static str,
    pub(crate) held: Option<bool>,
}

impl Must {
    pub(crate) fn at_most(what: impl Into<String>, measured: Option<f64>, limit: f64, unit: &'static str) -> Self {
        Self { what: what.into(), measured, limit, unit, held: measured.map(|number| number <= limit) }
    }

    pub(crate) fn at_least(what: impl Into<String>, measured: Option<f64>, limit: f64, unit: &'static str) -> Self {
        Self { held: measured.map(|number| number >= limit), ..Self::at_most(what, measured, limit, unit) }
    }

    /// Its text begins with it.
    fn number(&self) -> Option<u32> {
        self.what.split(' ').next()?.parse().ok()
    }
}

/// All demands, in order.
pub(crate) fn of(measured: &Measured) -> Vec<Must> {
    let mut musts = Vec::new();
    for cell in measured.cells() {
        musts.extend(of_cell(&measured.throughput, cell));
    }
    musts.extend(of_latency(&measured.latency));
    musts.sort_by_key(Must::number);
    musts
}

fn of_cell(runs: &[Run], cell: Cell) -> Vec<Must> {
    let cpu = |contender| rounds(runs, cell, contender, |run| run.cpu_us);
    let speed = |contender| rounds(runs, cell, contender, |run| run.jobs_per_second);
    let ratio = |one: Rounds, other: Rounds| one.per(&other).median();
    let (at_most, at_least) = (Must::at_most, Must::at_least);
    let mut musts = vec![
        at_most(format!("1 CPU, worker / bare, at most 1.25; {cell}"), ratio(cpu(Worker), cpu(Bare)), 1.25, ""),
        at_most(
            format!("2 CPU, worker-redis / bare, at most 1.7; {cell}"),
            ratio(cpu(WorkerRedis), cpu(Bare)),
            1.7,
            "",
        ),
        at_most(format!("3 CPU, worker / node, at most 0.8; {cell}"), ratio(cpu(Worker), cpu(Node)), 0.8, ""),
        at_least(
            format!("3 CPU, faststream / worker, at least 15; {cell}"),
            ratio(cpu(FastStream), cpu(Worker)),
            15.0,
            "",
        ),
    ];
    if !cell.latency.is_zero() {
        let speeds = ratio(speed(Worker), speed(Bare));
        musts.push(at_least(format!("4 jobs/s, worker / bare, at least 0.98; {cell}"), speeds, 0.98, ""));
    }
    musts
}

fn of_latency(runs: &[latency::Run]) -> Vec<Must> {
    let ratio = |number: fn(&latency::Run) -> f64| {
        let of = |contender: Contender| latency::rounds(runs, contender, number);
        of(Worker).per(&of(Bare)).median()
    };
    vec![
        Must::at_most("5 latency p50, worker / bare, at most 1.2", ratio(|run| run.p50_ms), 1.2, ""),
        Must::at_most("5 latency p99, worker / bare, at most 1.3", ratio(|run| run.p99_ms), 1.3, ""),
    ]
}

pub(crate) fn print(musts: &[Must]) {
    say(bold("\nWhat must hold"));
    for must in musts {
        let (number, held) = match (must.measured, must.held) {
            (Some(number), Some(true)) => (format!("{number:.2}"), green("held")),
            (Some(number), _) => (format!("{number:.2}"), red("NOT HELD")),
            (None, _) => ("-".into(), yellow("not measured")),
        };
        say(format!("  {:<75} {number:>8} {:<6} {held}", must.what, must.unit));
    }
}
