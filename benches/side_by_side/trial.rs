//! One run: a queue with jobs, an endpoint, and whoever works the jobs.

use std::time::Duration;

use uuid::Uuid;

use crate::Failed;
use crate::contender::Contender;
use crate::jobs::{self, Came, Results};
use crate::launch::Launch;
use crate::process;
use crate::sandbox::Sandbox;
use crate::stage::Stage;
use crate::support::leash::Program;

/// A broker that has just taken many jobs still works on them.
const BREATH: Duration = Duration::from_secs(1);

const STOPPING: Duration = Duration::from_secs(30);

pub(crate) struct Trial {
    pub(crate) queue: String,
    pub(crate) sandbox: Sandbox,
    pub(crate) results: Results,
    ids: Vec<Uuid>,
    broker_before: Duration,
    redis_before: Duration,
    programs: Vec<Program>,
}

/// Processor time of one run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) programs: Duration,
    pub(crate) broker: Duration,
    pub(crate) redis: Duration,
}

impl Trial {
    /// Fills a new queue with jobs, and starts an endpoint that takes this long to answer.
    pub(crate) async fn prepare(stage: &mut Stage, count: usize, latency: Duration) -> Result<Self, Failed> {
        let queue = stage.new_queue().await?;
        let ids: Vec<Uuid> = (0..count).map(|_| Uuid::new_v4()).collect();
        stage.fill(&queue, jobs::make(&ids)).await;
        stage.redis.cli(&["FLUSHALL"]).await;
        let sandbox = Sandbox::start(stage, latency).await?;
        let results = Results::open(&stage.broker.url()).await?;
        tokio::time::sleep(BREATH).await;
        let (broker_before, redis_before) = (process::cpu(stage.broker_pid)?, process::cpu(stage.redis_pid)?);
        Ok(Self { queue, sandbox, results, ids, broker_before, redis_before, programs: Vec::new() })
    }

    /// Starts a contender. Several may work on the queue.
    pub(crate) fn start(
        &mut self,
        stage: &Stage,
        contender: Contender,
        prefetch: u16,
        more: &[(&str, &str)],
    ) -> Result<u32, Failed> {
        let (url, nth) = (self.sandbox.url(), self.programs.len());
        let launch = Launch { more, nth, ..Launch::new(&self.queue, prefetch, &url) };
        let program = launch.start(contender, stage)?;
        let pid = program.pid();
        self.programs.push(program);
        Ok(pid)
    }

    /// Waits until each job has a result and is acknowledged. Calls `at` with the number of results, after each.
    pub(crate) async fn finish(
        &mut self,
        stage: &Stage,
        at: impl FnMut(usize) -> Result<(), Failed>,
    ) -> Result<Came, Failed> {
        let came = self.results.of_all(&self.ids, at).await?;
        stage.emptied(&self.queue).await?;
        Ok(came)
    }

    /// What has been used since the programs were started.
    pub(crate) fn used(&self, stage: &Stage) -> Result<Used, Failed> {
        let mut programs = Duration::ZERO;
        for program in &self.programs {
            programs += process::cpu(program.pid())?;
        }
        let broker = process::cpu(stage.broker_pid)? - self.broker_before;
        Ok(Used { programs, broker, redis: process::cpu(stage.redis_pid)? - self.redis_before })
    }

    /// Checks that nothing was done twice, and ends the programs.
    pub(crate) async fn end(self, stage: &Stage) -> Result<(), Failed> {
        let jobs = self.ids.len();
        self.end_after(stage, jobs).await
    }

    /// The same, where so many jobs were published in all.
    pub(crate) async fn end_after(mut self, stage: &Stage, jobs: usize) -> Result<(), Failed> {
        self.results.close().await?;
        self.sandbox.check(jobs).await?;
        self.programs.iter_mut().for_each(Program::terminate);
        for program in &mut self.programs {
            program.wait(STOPPING).await;
        }
        stage.delete_queue(&self.queue).await
    }
}
