//! What must hold, and whether it did.

use serde::Serialize;

use crate::backlog::Backlog;
use crate::contender::Contender::{self, Bare, FastStream, Node, Worker, WorkerRedis};
use crate::latency;
use crate::measured::Measured;
use crate::memory::Memory;
use crate::numbers::Rounds;
use crate::settings::{Cell, Part};
use crate::start::Start;
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

/// All demands on these parts, in order.
pub(crate) fn of(measured: &Measured, parts: &[Part]) -> Vec<Must> {
    let mut musts = Vec::new();
    for cell in measured.cells() {
        musts.extend(of_cell(&measured.throughput, cell));
        musts.extend(of_memory(measured, cell));
    }
    for part in parts {
        musts.extend(match part {
            Part::Latency => of_latency(&measured.latency),
            Part::Start => of_start(measured.start.as_ref()),
            Part::Many => vec![of_many(measured)],
            Part::Memory => of_ledger(measured.memory.as_ref()),
            Part::Backlog => vec![of_backlog(measured)],
            Part::Throughput | Part::Fleet | Part::Profile => Vec::new(),
        });
    }
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

/// What the worker needs beside what its ledger holds after a run.
fn of_memory(measured: &Measured, cell: Cell) -> Option<Must> {
    let peak = |contender, apart: f64| {
        rounds(&measured.throughput, cell, contender, |run| run.peak_kib as f64 - run.jobs as f64 * apart / 1024.0)
    };
    let ledger = measured.memory.as_ref();
    let ratio = ledger.and_then(|ledger| peak(Worker, ledger.bytes_a_job).per(&peak(Bare, 0.0)).median());
    let what = format!("6 memory without the ledger, worker / bare, at most 1.5; {cell}");
    (cell.prefetch == 512).then(|| Must::at_most(what, ratio, 1.5, ""))
}

fn of_many(measured: &Measured) -> Must {
    let each = measured.many.as_ref().map(|many| many.kib_each);
    Must::at_most("6 memory of each of 10,000 calls under way, at most 30 KiB", each, 30.0, "KiB")
}

fn of_ledger(ledger: Option<&Memory>) -> Vec<Must> {
    let (below, beyond) = (ledger.map(|ledger| ledger.bytes_a_job), ledger.map(|ledger| ledger.bytes_a_job_beyond));
    vec![
        Must::at_most("6 memory of each job in the ledger, at most 300 bytes", below, 300.0, "bytes"),
        // Nothing grows; but the memory of a busy process goes up and down by some MiB.
        Must::at_most("6 memory of each job beyond the ledger's bound, at most 30 bytes", beyond, 30.0, "bytes"),
    ]
}

fn of_start(start: Option<&Start>) -> Vec<Must> {
    let first_call = start.and_then(|start| start.worker_ms().median());
    let size = start.and_then(|start| start.stripped_mb);
    vec![
        Must::at_most("7 from the start to the first call, at most 50 ms", first_call, 50.0, "ms"),
        Must::at_most("7 the program without symbols, at most 12 MB", size, 12.0, "MB"),
    ]
}

fn of_backlog(measured: &Measured) -> Must {
    let growth = measured.backlog.as_ref().and_then(Backlog::growth);
    Must::at_most("8 CPU, last tenth of a long queue / first tenth, at most 1.10", growth, 1.1, "")
}

pub(crate) fn print(musts: &[Must]) {
    if musts.is_empty() {
        return;
    }
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
