//! A full queue, worked until it is empty: what a job costs and how fast it goes.

use std::time::Duration;

use serde::Serialize;

use crate::Failed;
use crate::contender::Contender;
use crate::numbers::Rounds;
use crate::process;
use crate::settings::Cell;
use crate::stage::Stage;
use crate::support::terminal::{bold, say, step, thousands};
use crate::table::{SPREAD, not_run};
use crate::trial::Trial;

/// How long a run with a slow endpoint takes at best.
const RUN: Duration = Duration::from_secs(10);

/// One contender in one cell in one round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) cell: Cell,
    pub(crate) contender: Contender,
    pub(crate) round: usize,
    pub(crate) jobs: usize,
    /// Processor time a job: the contender's, from its start on, the broker's, and Redis's.
    pub(crate) cpu_us: f64,
    pub(crate) broker_cpu_us: f64,
    pub(crate) redis_cpu_us: f64,
    pub(crate) jobs_per_second: f64,
    pub(crate) peak_kib: u64,
}

pub(crate) async fn measure(stage: &mut Stage) -> Result<Vec<Run>, Failed> {
    let mut runs = Vec::new();
    for cell in stage.settings.cells.clone() {
        for round in 0..stage.settings.rounds {
            for contender in stage.turns(round) {
                let what = format!("round {}, {cell}: {}", round + 1, contender.name());
                match step(&what, run(stage, cell, contender, round)).await {
                    Ok(run) => runs.push(run),
                    Err(error) => stage.failed(contender, &what, &error),
                }
            }
        }
        tell(stage, cell, &runs);
    }
    Ok(runs)
}

async fn run(stage: &mut Stage, cell: Cell, contender: Contender, round: usize) -> Result<Run, Failed> {
    let most = cell.ideal().map_or(f64::MAX, |ideal| ideal * RUN.as_secs_f64());
    let jobs = contender.share(stage.settings.jobs.min(most as usize));
    let mut trial = Trial::prepare(stage, jobs, cell.latency).await?;
    let pid = trial.start(stage, contender, cell.prefetch, &[])?;
    let came = trial.finish(stage, |_| Ok(())).await?;
    let used = trial.used(stage)?;
    let per_job = |used: Duration| used.as_secs_f64() * 1e6 / jobs as f64;
    let run = Run {
        cell,
        contender,
        round,
        jobs,
        cpu_us: per_job(used.programs),
        broker_cpu_us: per_job(used.broker),
        redis_cpu_us: per_job(used.redis),
        jobs_per_second: (jobs - 1) as f64 / (came.last - came.first).as_secs_f64(),
        peak_kib: process::peak_kib(pid)?,
    };
    trial.end(stage).await?;
    Ok(run)
}

/// The rounds of one contender in one cell.
pub(crate) fn rounds(runs: &[Run], cell: Cell, contender: Contender, number: impl Fn(&Run) -> f64) -> Rounds {
    let runs = runs.iter().filter(|run| run.cell == cell && run.contender == contender);
    Rounds::of(runs.map(|run| (run.round, number(run))))
}

/// One cell's runs, as a table.
fn tell(stage: &Stage, cell: Cell, runs: &[Run]) {
    let jobs = runs.iter().filter(|run| run.cell == cell).map(|run| run.jobs).max().unwrap_or_default();
    say(bold(&format!("\n{cell}: {} jobs; {SPREAD}; CPU from the start of the process on", thousands(jobs as u64))));
    say(format!(
        "  {:<13} {:>22} {:>19} {:>21} {:>9} {:>9} {:>10} {:>9}",
        "", "CPU us a job", "x bare", "jobs/s", "of ideal", "peak MiB", "broker us", "Redis us"
    ));
    let bare = rounds(runs, cell, Contender::Bare, |run| run.cpu_us);
    for &contender in &stage.settings.contenders {
        let of = |number: fn(&Run) -> f64| rounds(runs, cell, contender, number);
        let median = |number: fn(&Run) -> f64| of(number).median().unwrap_or_default();
        let (cpu, speed) = (of(|run| run.cpu_us), of(|run| run.jobs_per_second));
        if cpu.median().is_none() {
            not_run(stage, contender);
            continue;
        }
        let ideal = cell.ideal().zip(speed.median());
        say(format!(
            "  {:<13} {cpu:>22.1} {:>19.2} {speed:>21.0} {:>9} {:>9.1} {:>10.1} {:>9.1}",
            contender.name(),
            cpu.per(&bare),
            ideal.map_or("-".into(), |(ideal, speed)| format!("{:.0} %", speed / ideal * 100.0)),
            median(|run| run.peak_kib as f64 / 1024.0),
            median(|run| run.broker_cpu_us),
            median(|run| run.redis_cpu_us),
        ));
    }
    say("");
}
