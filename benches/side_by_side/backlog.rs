//! A long queue: whether a job costs as much at its end as at its beginning.

use std::time::Duration;

use serde::Serialize;

use crate::Failed;
use crate::contender::Contender;
use crate::process;
use crate::stage::Stage;
use crate::support::terminal::{say, step, thousands};
use crate::trial::Trial;

const PREFETCH: u16 = 512;

#[derive(Debug, Serialize)]
pub(crate) struct Backlog {
    jobs: usize,
    /// Processor time a job, in each tenth of the queue.
    worker_us: Vec<f64>,
    broker_us: Vec<f64>,
}

impl Backlog {
    /// The last tenth's cost, divided by the first's.
    pub(crate) fn growth(&self) -> Option<f64> {
        Some(self.worker_us.last()? / self.worker_us.first()?)
    }
}

pub(crate) async fn measure(stage: &mut Stage) -> Result<Backlog, Failed> {
    let jobs = stage.settings.backlog;
    let backlog = step(&format!("{} jobs", thousands(jobs as u64)), run(stage, jobs)).await?;
    let line = |us: &[f64]| us.iter().map(|us| format!("{us:>8.1}")).collect::<String>();
    say("  CPU us a job, in each tenth of the queue");
    say(format!("  {:<8}{}", "worker", line(&backlog.worker_us)));
    say(format!("  {:<8}{}", "broker", line(&backlog.broker_us)));
    Ok(backlog)
}

async fn run(stage: &mut Stage, jobs: usize) -> Result<Backlog, Failed> {
    let mut trial = Trial::prepare(stage, jobs, Duration::ZERO).await?;
    let pid = trial.start(stage, Contender::Worker, PREFETCH, &[])?;
    let (tenth, broker) = (jobs / 10, stage.broker_pid);
    let mut marks: Vec<(Duration, Duration)> = Vec::new();
    let look = |done: usize| {
        // The first: what the start has cost does not count.
        if done == 1 || done.is_multiple_of(tenth) {
            marks.push((process::cpu(pid)?, process::cpu(broker)?));
        }
        Ok(())
    };
    trial.finish(stage, look).await?;
    trial.end(stage).await?;
    let us = |used: Duration| used.as_secs_f64() * 1e6 / tenth as f64;
    let between = marks.windows(2).map(|pair| (us(pair[1].0 - pair[0].0), us(pair[1].1 - pair[0].1)));
    let (worker_us, broker_us) = between.unzip();
    Ok(Backlog { jobs, worker_us, broker_us })
}
