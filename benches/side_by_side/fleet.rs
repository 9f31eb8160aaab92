//! One worker, and ten on the same queue: what a job costs them and the broker.

use std::time::Duration;

use serde::Serialize;

use crate::Failed;
use crate::contender::Contender;
use crate::numbers::Rounds;
use crate::stage::Stage;
use crate::support::terminal::{say, step};
use crate::trial::Trial;

const FLEETS: [usize; 2] = [1, 10];
const PREFETCH: u16 = 128;

#[derive(Debug, Serialize)]
pub(crate) struct Run {
    round: usize,
    workers: usize,
    workers_us: f64,
    broker_us: f64,
    jobs_per_second: f64,
}

pub(crate) async fn measure(stage: &mut Stage) -> Result<Vec<Run>, Failed> {
    let mut runs = Vec::new();
    for round in 0..stage.settings.rounds {
        for workers in FLEETS {
            let what = format!("round {}, workers: {workers}", round + 1);
            runs.push(step(&what, run(stage, round, workers)).await?);
        }
    }
    say(format!("  {:<11} {:>24} {:>24} {:>24}", "", "workers' CPU us a job", "broker's CPU us a job", "jobs/s"));
    for workers in FLEETS {
        let of = |number: fn(&Run) -> f64| {
            let runs = runs.iter().filter(|run| run.workers == workers);
            Rounds::of(runs.map(|run| (run.round, number(run))))
        };
        let (cpu, broker, speed) = (of(|run| run.workers_us), of(|run| run.broker_us), of(|run| run.jobs_per_second));
        say(format!("  {workers:>2} workers  {cpu:>24.1} {broker:>24.1} {speed:>24.0}"));
    }
    Ok(runs)
}

async fn run(stage: &mut Stage, round: usize, workers: usize) -> Result<Run, Failed> {
    let jobs = stage.settings.jobs;
    let mut trial = Trial::prepare(stage, jobs, Duration::ZERO).await?;
    for _ in 0..workers {
        trial.start(stage, Contender::Worker, PREFETCH, &[])?;
    }
    let came = trial.finish(stage, |_| Ok(())).await?;
    let used = trial.used(stage)?;
    trial.end(stage).await?;
    let us = |used: Duration| used.as_secs_f64() * 1e6 / jobs as f64;
    let jobs_per_second = (jobs - 1) as f64 / (came.last - came.first).as_secs_f64();
    Ok(Run { round, workers, workers_us: us(used.programs), broker_us: us(used.broker), jobs_per_second })
}
