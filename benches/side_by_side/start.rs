//! How long it takes from the start of a process to the first job's call, and how large the program is.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;
use uuid::Uuid;

use crate::Failed;
use crate::contender::Contender;
use crate::jobs;
use crate::launch::Launch;
use crate::numbers::Rounds;
use crate::stage::Stage;
use crate::support::terminal::{say, step};

const STARTS: usize = 10;
const LIMIT: Duration = Duration::from_secs(30);
const PREFETCH: u16 = 128;

#[derive(Debug, Serialize)]
pub(crate) struct Start {
    worker_ms: Vec<f64>,
    bare_ms: Vec<f64>,
    /// Of the worker without symbols; none where `strip` is not there.
    pub(crate) stripped_mb: Option<f64>,
}

impl Start {
    pub(crate) fn worker_ms(&self) -> Rounds {
        Rounds::of(self.worker_ms.iter().copied().enumerate())
    }
}

pub(crate) async fn measure(stage: &mut Stage) -> Result<Start, Failed> {
    let (mut worker_ms, mut bare_ms) = (Vec::new(), Vec::new());
    step(&format!("{STARTS} starts of each, in turn"), async {
        for _ in 0..STARTS {
            bare_ms.push(once(stage, Contender::Bare).await?);
            worker_ms.push(once(stage, Contender::Worker).await?);
        }
        Ok(())
    })
    .await?;
    let start = Start { worker_ms, bare_ms, stripped_mb: stripped_mb(stage) };
    say("  from the start of the process to the first byte of the first call, milliseconds: the median (least..most)");
    say(format!("  {:<13} {:>24.1}", "bare", Rounds::of(start.bare_ms.iter().copied().enumerate())));
    say(format!("  {:<13} {:>24.1}", "worker", start.worker_ms()));
    say(start.stripped_mb.map_or("  strip is not here: install binutils".into(), |size| {
        format!("  the worker's program without symbols: {size:.1} MB")
    }));
    Ok(start)
}

/// Milliseconds until the call of the one job on the queue. Nobody answers it.
async fn once(stage: &mut Stage, contender: Contender) -> Result<f64, Failed> {
    let queue = stage.new_queue().await?;
    stage.fill(&queue, std::iter::once(jobs::one(0, &Uuid::new_v4()))).await;
    let endpoint = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", endpoint.local_addr()?);
    let (path, args) = stage.settings.programs.command(contender);
    let mut command = Command::new(path);
    command.args(args).env_clear().envs(Launch::new(&queue, PREFETCH, &url).env(contender, stage));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let began = Instant::now();
    let mut program = command.spawn()?;
    let called = timeout(LIMIT, async { endpoint.accept().await?.0.read_u8().await }).await;
    let took = began.elapsed();
    called.map_err(|_| format!("{} does not call", contender.name()))??;
    program.kill().await?;
    stage.delete_queue(&queue).await?;
    Ok(took.as_secs_f64() * 1e3)
}

fn stripped_mb(stage: &Stage) -> Option<f64> {
    let stripped: PathBuf = stage.file("stripped");
    let mut strip = std::process::Command::new("strip");
    strip.arg("-o").arg(&stripped).arg(&stage.settings.programs.worker);
    strip.status().ok().filter(std::process::ExitStatus::success)?;
    Some(std::fs::metadata(stripped).ok()?.len() as f64 / 1e6)
}
