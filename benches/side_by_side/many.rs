//! Ten thousand calls under way at once: what each takes of memory.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use tokio::time::sleep;
use uuid::Uuid;

use crate::Failed;
use crate::contender::Contender;
use crate::jobs;
use crate::process;
use crate::stage::Stage;
use crate::support::terminal::{say, step};
use crate::support::wait::found;
use crate::trial::Trial;

const CALLS: u16 = 10_000;

/// How long an answer takes. All calls must be under way before the first is answered.
const LATENCY: Duration = Duration::from_secs(20);

/// Until a worker with nothing to do has calmed down.
const CALM: Duration = Duration::from_secs(3);

/// Files a process may have open: a connection for each call, and some more.
const FILES: u64 = CALLS as u64 + 1_000;

#[derive(Debug, Serialize)]
pub(crate) struct Many {
    calls: u16,
    idle_kib: u64,
    peak_kib: u64,
    pub(crate) kib_each: f64,
}

/// Nothing where too few files may be open.
pub(crate) async fn measure(stage: &mut Stage) -> Result<Option<Many>, Failed> {
    if getrlimit(Resource::Nofile).current.is_some_and(|files| files < FILES) {
        say(format!("  not run: too few files may be open here; ulimit -n {FILES}"));
        return Ok(None);
    }
    let many = step(&format!("{CALLS} calls at once"), run(stage)).await?;
    say(format!(
        "  the worker's memory: {:.1} MiB with nothing to do, {:.1} MiB at its peak; {:.1} KiB each",
        many.idle_kib as f64 / 1024.0,
        many.peak_kib as f64 / 1024.0,
        many.kib_each,
    ));
    Ok(Some(many))
}

async fn run(stage: &mut Stage) -> Result<Many, Failed> {
    let mut trial = Trial::prepare(stage, 0, LATENCY).await?;
    let more = [("ESMS_TIMEOUT", "60s"), ("ESMS_CONNECT_TIMEOUT", "30s"), ("OTP_SHUTDOWN_GRACE", "90s")];
    let pid = trial.start(stage, Contender::Worker, CALLS, &more)?;
    sleep(CALM).await;
    let idle_kib = process::rss_kib(pid)?;
    let ids: Vec<Uuid> = (0..CALLS).map(|_| Uuid::new_v4()).collect();
    stage.fill(&trial.queue, jobs::make(&ids)).await;
    let under_way = async || (trial.sandbox.most_in_progress().await.ok()? == u64::from(CALLS)).then_some(());
    if found(LATENCY * 2, under_way).await.is_none() {
        let most = trial.sandbox.most_in_progress().await?;
        return Err(format!("only {most} calls were under way at once").into());
    }
    trial.results.of_all(&ids, |_| Ok(())).await?;
    stage.emptied(&trial.queue).await?;
    let peak_kib = process::peak_kib(pid)?;
    trial.end_after(stage, ids.len()).await?;
    let kib_each = peak_kib.saturating_sub(idle_kib) as f64 / f64::from(CALLS);
    Ok(Many { calls: CALLS, idle_kib, peak_kib, kib_each })
}
