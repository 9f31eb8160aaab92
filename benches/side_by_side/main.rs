//! The worker beside others that do the same work: what a job costs, and how fast it is done. `make bench` runs
//! it; [`settings`] says what can be chosen.
//!
//! Every contender is a process of its own. They take turns, so that a busy machine is busy for all of them. What
//! counts are the ratios within one run.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a broken expectation here is a failed benchmark")]

#[path = "../../tests/support/mod.rs"]
mod support;

mod backlog;
mod contender;
mod fleet;
mod jobs;
mod latency;
mod launch;
mod machine;
mod many;
mod measured;
mod memory;
mod musts;
mod numbers;
mod picture;
mod process;
mod profile;
mod programs;
mod report;
mod sandbox;
mod settings;
mod stage;
mod start;
mod table;
mod throughput;
mod trial;

use std::process::ExitCode;

use measured::Measured;
use settings::{Part, Settings};
use stage::Stage;
pub(crate) use support::Failed;
use support::terminal::{bold, red, say};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    // `cargo test` passes no such argument, and compiles this only.
    if !std::env::args().any(|arg| arg == "--bench") {
        return ExitCode::SUCCESS;
    }
    match Settings::from_env().and_then(perform) {
        Ok(failures) if failures.is_empty() => ExitCode::SUCCESS,
        Ok(failures) => {
            failures.iter().for_each(|failure| say(red(&format!("bench: FAILED: {failure}"))));
            ExitCode::FAILURE
        }
        Err(error) => {
            say(red(&format!("bench: FAILED: {error}")));
            ExitCode::FAILURE
        }
    }
}

fn perform(settings: Settings) -> Result<Vec<String>, Failed> {
    let runtime = Runtime::new()?;
    let ended = runtime.block_on(async {
        let mut stage = Stage::set(settings).await?;
        launch::declare(&stage).await?;
        let mut measured = Measured::on(&stage).await;
        for part in stage.settings.parts.clone() {
            say(bold(&format!("\n{}", part.title())));
            if let Err(error) = measure(part, &mut stage, &mut measured).await {
                stage.part_failed(part.title(), &error);
            }
        }
        report::give(&stage, &measured)?;
        Ok(stage.failures())
    });
    // A broker that is still starting is not waited for: it is killed when this process ends.
    runtime.shutdown_background();
    ended
}

async fn measure(part: Part, stage: &mut Stage, measured: &mut Measured) -> Result<(), Failed> {
    match part {
        Part::Throughput => measured.throughput = throughput::measure(stage).await?,
        Part::Latency => measured.latency = latency::measure(stage).await?,
        Part::Start => measured.start = Some(start::measure(stage).await?),
        Part::Many => measured.many = many::measure(stage).await?,
        Part::Memory => measured.memory = Some(memory::measure(stage).await?),
        Part::Backlog => measured.backlog = Some(backlog::measure(stage).await?),
        Part::Profile => profile::measure(stage).await?,
        Part::Fleet => measured.fleet = fleet::measure(stage).await?,
    }
    Ok(())
}
