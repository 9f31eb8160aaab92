//! What the ledger in memory takes for each job it remembers, and whether that ends at its bound.

use std::time::Duration;

use serde::Serialize;

use crate::Failed;
use crate::contender::Contender;
use crate::process;
use crate::stage::Stage;
use crate::support::terminal::{say, step, thousands};
use crate::trial::Trial;

/// Memory is read after so many jobs. The ledger holds 200,000: two below the bound, two so far beyond it that the
/// allocator has no more to find out.
const AFTER: [usize; 4] = [90_000, 180_000, 450_000, 700_000];

const PREFETCH: u16 = 512;

#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    /// Jobs done, and the worker's memory then.
    kib_after: Vec<(usize, u64)>,
    pub(crate) bytes_a_job: f64,
    pub(crate) bytes_a_job_beyond: f64,
}

pub(crate) async fn measure(stage: &mut Stage) -> Result<Memory, Failed> {
    let jobs = AFTER[AFTER.len() - 1];
    let kib_after = step(&format!("{} jobs", thousands(jobs as u64)), run(stage, jobs)).await?;
    for (jobs, kib) in &kib_after {
        say(format!("  after {:>7} jobs {:>7.1} MiB", thousands(*jobs as u64), *kib as f64 / 1024.0));
    }
    let bytes = |from: usize| {
        let ((jobs, kib), (more_jobs, more_kib)) = (kib_after[from], kib_after[from + 1]);
        (more_kib as f64 - kib as f64) * 1024.0 / (more_jobs - jobs) as f64
    };
    let memory = Memory { bytes_a_job: bytes(0), bytes_a_job_beyond: bytes(2), kib_after: kib_after.clone() };
    say(format!("  {:.0} bytes a job below the bound, {:.0} beyond it", memory.bytes_a_job, memory.bytes_a_job_beyond));
    Ok(memory)
}

async fn run(stage: &mut Stage, jobs: usize) -> Result<Vec<(usize, u64)>, Failed> {
    let mut trial = Trial::prepare(stage, jobs, Duration::ZERO).await?;
    let pid = trial.start(stage, Contender::Worker, PREFETCH, &[])?;
    let mut kib_after = Vec::new();
    let look = |done| {
        if AFTER.contains(&done) {
            kib_after.push((done, process::rss_kib(pid)?));
        }
        Ok(())
    };
    trial.finish(stage, look).await?;
    trial.end(stage).await?;
    Ok(kib_after)
}
