//! The worker beside others that do the same work: what a job costs, and how fast it is done. `make bench` runs
//! it; [`settings`] says what can be chosen.
//!
//! Every contender is a process of its own. They take turns, so that a busy machine is busy for all of them. What
//! counts are the ratios within one run.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a broken expectation here is a failed benchmark")]

#[path = "../../tests/support/mod.rs"]
mod support;

mod contender;
mod jobs;
mod numbers;
mod process;
mod settings;
mod stage;
mod throughput;

use std::process::ExitCode;

use settings::Settings;
use stage::Stage;
pub(crate) use support::Failed;
use support::terminal::{red, say};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    // `cargo test` passes no such argument, and compiles this only.
    if !std::env::args().any(|arg| arg == "--bench") {
        return ExitCode::SUCCESS;
    }
    match Settings::from_env().and_then(perform) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(red(&format!("bench: FAILED: {error}")));
            ExitCode::FAILURE
        }
    }
}

fn perform(settings: Settings) -> Result<(), Failed> {
    let runtime = Runtime::new()?;
    let ended = runtime.block_on(async {
        let mut stage = Stage::set(settings).await?;
        throughput::measure(&mut stage).await
    });
    // A broker that is still starting is not waited for: it is killed when this process ends.
    runtime.shutdown_background();
    ended
}
