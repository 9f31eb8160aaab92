//! The fault campaign. While jobs flow, it kills, stops, stalls and disconnects the workers, a real broker,
//! a real Redis and an eSMS that misbehaves. Then it audits every job.
//!
//! `cargo test` runs two short campaigns. `make chaos` runs the long one, with settings from the
//! environment: see [`settings`].

// Clippy takes only functions marked `#[test]` for tests.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a broken expectation here is a failed test")]

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod campaign;
mod dice;
mod evidence;
mod faults;
mod job;
mod journal;
mod limits;
mod listener;
mod producer;
mod seat;
mod settings;
mod stage;
mod story;
mod table;
mod witness;

use std::process::ExitCode;
use std::sync::Arc;

use settings::Settings;
pub(crate) use support::Failed;
use support::broker::Broker;
use support::terminal::{green, red, say, step};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

/// What this program must do, according to the arguments that `cargo test` passes on.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// Run the short campaigns.
    Short,
    /// Run the campaign that the environment describes.
    Long,
    /// Print the names of the tests.
    List,
    /// Do nothing, because other tests are wanted.
    Nothing,
}

const NAME: &str = "chaos";

fn wanted(args: impl Iterator<Item = String>) -> Wanted {
    let (mut filters, mut skips, mut exact) = (Vec::new(), Vec::new(), false);
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--list" => return Wanted::List,
            "--campaign" => return Wanted::Long,
            "--ignored" => return Wanted::Nothing,
            "--exact" => exact = true,
            "--skip" => skips.extend(args.next()),
            "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" => drop(args.next()),
            option if option.starts_with('-') => {}
            filter => filters.push(filter.to_owned()),
        }
    }
    let meant = |filter: &String| if exact { NAME == filter } else { NAME.contains(filter.as_str()) };
    let chosen = (filters.is_empty() || filters.iter().any(meant)) && !skips.iter().any(meant);
    if chosen { Wanted::Short } else { Wanted::Nothing }
}

fn main() -> ExitCode {
    let settings = match wanted(std::env::args().skip(1)) {
        Wanted::List => {
            say(format!("{NAME}: test"));
            return ExitCode::SUCCESS;
        }
        Wanted::Nothing => return ExitCode::SUCCESS,
        Wanted::Short => Ok(Settings::short()),
        Wanted::Long => Settings::from_env().map(|settings| vec![settings]),
    };
    match settings.and_then(perform) {
        Ok(true) => {
            say(format!("\n{}", green("chaos: clean")));
            ExitCode::SUCCESS
        }
        Ok(false) => {
            say(format!("\n{}", red("chaos: FAILED")));
            ExitCode::FAILURE
        }
        Err(error) => {
            say(red(&format!("\nchaos: FAILED: {error}")));
            ExitCode::FAILURE
        }
    }
}

/// Runs one campaign after the other on one broker. Returns whether all were clean.
fn perform(campaigns: Vec<Settings>) -> Result<bool, Failed> {
    let runtime = Runtime::new()?;
    let ended = LocalSet::new().block_on(&runtime, async {
        let broker = Arc::new(step("a private broker", async { Ok(Broker::start().await) }).await?);
        let mut clean = true;
        for settings in campaigns {
            clean &= found_nothing(settings, Arc::clone(&broker)).await?;
        }
        Ok(clean)
    });
    // A broker that is still starting is not waited for: it is killed when this process ends.
    runtime.shutdown_background();
    ended
}

async fn found_nothing(settings: Settings, broker: Arc<Broker>) -> Result<bool, Failed> {
    let (stage, finding) = campaign::run(settings, broker).await?;
    table::print(&stage, &finding);
    let clean = finding.violations.is_empty();
    if !clean {
        story::tell(&stage, &finding);
        say(format!("\nAgain with: make chaos {}", stage.settings));
    }
    Ok(clean)
}
