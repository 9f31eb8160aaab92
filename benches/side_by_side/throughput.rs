//! A full queue, worked until it is empty: what a job costs and how fast it goes.

use std::time::Duration;

use crate::Failed;
use crate::contender::Contender;
use crate::jobs::{self, Results};
use crate::numbers::Rounds;
use crate::process;
use crate::settings::Cell;
use crate::stage::{Sandbox, Stage};
use crate::support::terminal::{bold, say, step, thousands};

/// How long a run with a slow endpoint takes at best.
const RUN: Duration = Duration::from_secs(10);

/// A broker that has just taken many jobs still works on them.
const BREATH: Duration = Duration::from_secs(1);

/// One contender in one cell in one round.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) cell: Cell,
    pub(crate) contender: Contender,
    pub(crate) jobs: usize,
    /// Microseconds of processor time a job: the contender's, the broker's, and Redis's.
    pub(crate) cpu: f64,
    pub(crate) broker_cpu: f64,
    pub(crate) redis_cpu: f64,
    pub(crate) jobs_per_second: f64,
    pub(crate) peak_kib: u64,
}

pub(crate) async fn measure(stage: &mut Stage) -> Result<(), Failed> {
    let mut runs = Vec::new();
    for cell in stage.settings.cells.clone() {
        for round in 0..stage.settings.rounds {
            let mut contenders = stage.settings.contenders.clone();
            let places = contenders.len();
            contenders.rotate_left(round % places);
            for contender in contenders {
                let what = format!("round {}, {}: {}", round + 1, describe(cell), contender.name());
                runs.push(step(&what, run(stage, cell, contender)).await?);
            }
        }
        print(cell, &runs, &stage.settings.contenders);
    }
    Ok(())
}

fn describe(cell: Cell) -> String {
    format!("prefetch {}, endpoint {} ms", cell.prefetch, cell.latency.as_millis())
}

fn jobs_of(stage: &Stage, cell: Cell) -> usize {
    let most = cell.ideal().map_or(f64::MAX, |ideal| ideal * RUN.as_secs_f64());
    stage.settings.jobs.min(most as usize)
}

async fn run(stage: &mut Stage, cell: Cell, contender: Contender) -> Result<Run, Failed> {
    let count = jobs_of(stage, cell);
    let queue = stage.new_queue().await?;
    let (jobs, ids) = jobs::make(count);
    stage.fill(&queue, jobs).await;
    stage.redis.cli(&["FLUSHALL"]).await;
    let sandbox = Sandbox::start(stage, cell.latency).await?;
    let mut results = Results::open(&stage.broker.url()).await?;
    tokio::time::sleep(BREATH).await;
    let (broker, redis) = (stage.broker_cpu()?, process::cpu(stage.redis_pid)?);
    let mut program = contender.start(stage, &queue, cell.prefetch, &sandbox.url())?;
    let came = results.of_all(ids).await.map_err(|error| format!("{error}\n{}", stage.end_of_log()))?;
    stage.emptied(&queue).await;
    let per_job = |used: Duration| used.as_secs_f64() * 1e6 / count as f64;
    let run = Run {
        cell,
        contender,
        jobs: count,
        cpu: per_job(process::cpu(program.pid())?),
        broker_cpu: per_job(stage.broker_cpu()? - broker),
        redis_cpu: per_job(process::cpu(stage.redis_pid)? - redis),
        jobs_per_second: (count - 1) as f64 / (came.last - came.first).as_secs_f64(),
        peak_kib: process::peak_kib(program.pid())?,
    };
    results.close().await?;
    sandbox.check(count).await?;
    program.terminate();
    program.wait(Duration::from_secs(30)).await;
    stage.delete_queue(&queue).await?;
    Ok(run)
}

/// The rounds of one contender in one cell.
fn rounds(runs: &[Run], cell: Cell, contender: Contender, number: impl Fn(&Run) -> f64) -> Rounds {
    Rounds::of(runs.iter().filter(|run| run.cell == cell && run.contender == contender).map(number))
}

fn print(cell: Cell, runs: &[Run], contenders: &[Contender]) {
    let jobs = runs.iter().find(|run| run.cell == cell).map_or(0, |run| run.jobs);
    say(bold(&format!("\n{}: {} jobs; the median round (least..most)", describe(cell), thousands(jobs as u64))));
    say(format!(
        "{:<13} {:>22} {:>18} {:>24} {:>9} {:>9} {:>11} {:>10}",
        "", "CPU us a job", "x bare", "jobs/s", "of ideal", "peak MiB", "broker us", "Redis us"
    ));
    let bare = rounds(runs, cell, Contender::Bare, |run| run.cpu);
    for &contender in contenders {
        let of = |number: fn(&Run) -> f64| rounds(runs, cell, contender, number);
        let (cpu, speed) = (of(|run| run.cpu), of(|run| run.jobs_per_second));
        let ideal = cell
            .ideal()
            .zip(speed.median())
            .map_or("-".into(), |(ideal, speed)| format!("{:.0} %", speed / ideal * 100.0));
        let median = |rounds: Rounds| rounds.median().unwrap_or_default();
        say(format!(
            "{:<13} {cpu:>22.1} {:>18.2} {speed:>24.0} {ideal:>9} {:>9.1} {:>11.1} {:>10.1}",
            contender.name(),
            cpu.per(&bare),
            median(of(|run| run.peak_kib as f64 / 1024.0)),
            median(of(|run| run.broker_cpu)),
            median(of(|run| run.redis_cpu)),
        ));
    }
    say("");
}
