//! Where the worker's processor time goes, by `perf`.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;

use tokio::process::{Child, Command};

use crate::Failed;
use crate::contender::Contender;
use crate::settings::{Cell, target};
use crate::stage::Stage;
use crate::support::terminal::{bold, say, step};
use crate::trial::Trial;

/// The most lines of a table.
const LINES: usize = 40;

const MISSING: &str = "perf is not here: apt-get install linux-perf (Debian) or linux-tools-generic (Ubuntu)";

pub(crate) async fn measure(stage: &mut Stage) -> Result<(), Failed> {
    let data = target().join("bench/perf.data");
    std::fs::create_dir_all(target().join("bench"))?;
    if !is_here().await? {
        say(format!("  not run: {MISSING}"));
        return Ok(());
    }
    let cell = stage.settings.cells.first().copied().ok_or("no cell")?;
    let contender = stage.settings.contenders.first().copied().ok_or("no contender")?;
    step(&format!("{cell}: {}, watched by perf", contender.name()), run(stage, contender, cell, &data)).await?;
    for (title, key) in [("By thread", "comm"), ("By object", "dso"), ("By symbol", "symbol")] {
        say(bold(&format!("\n{title}")));
        report(&data, key).await?.iter().for_each(say);
    }
    say(format!("\nWith the callers: perf report -i {}", shown(&data)));
    Ok(())
}

/// Below the current directory, if it is there.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

async fn is_here() -> Result<bool, Failed> {
    match perf(&["--version"]).stdout(Stdio::null()).status().await {
        Ok(status) => Ok(status.success()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(format!("perf: {error}").into()),
    }
}

fn perf(args: &[&str]) -> Command {
    let mut perf = Command::new("perf");
    perf.args(args).stdin(Stdio::null()).kill_on_drop(true);
    perf
}

async fn run(stage: &mut Stage, contender: Contender, cell: Cell, data: &Path) -> Result<(), Failed> {
    let mut trial = Trial::prepare(stage, stage.settings.jobs, cell.latency).await?;
    let pid = trial.start(stage, contender, cell.prefetch, &[])?.to_string();
    let mut recording: Child = perf(&["record", "-g", "--quiet", "-p", &pid, "-o"]).arg(data).spawn()?;
    trial.finish(stage, |_| Ok(())).await?;
    // perf ends with the worker.
    trial.end(stage).await?;
    let ended = recording.wait().await?;
    if ended.success() { Ok(()) } else { Err(format!("perf record: {ended}").into()) }
}

/// The first lines of perf's own table.
async fn report(data: &Path, key: &str) -> Result<Vec<String>, Failed> {
    let args = ["report", "--stdio", "--no-children", "-g", "none", "--percent-limit", "0.3", "--sort", key, "-i"];
    let output = perf(&args).arg(data).stderr(Stdio::null()).output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text
        .lines()
        .map(|line| line.trim_end_matches([' ', '-']))
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.take(LINES).map(str::to_owned).collect())
}
