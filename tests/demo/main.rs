//! `make demo`: sends 1,000 jobs through a real RabbitMQ and the real worker to an eSMS that misbehaves.
//! Then it prints a summary, and an audit that compares what the worker says with what eSMS counted.
//!
//! With `AMQP_URL` it uses that broker instead of a private one. With `KEEP=1` it leaves everything running
//! until Ctrl-C. Exit code 0: every number adds up. 1: one number does not, or something failed. 130:
//! interrupted.

#[path = "../support"]
mod support {
    //! The parts of the tests' support that the demonstration uses.
    #![allow(dead_code, reason = "each program that includes these modules uses a part of them")]
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken expectation here is a failed run")]

    pub(crate) mod broker;
    pub(crate) mod kept;
    pub(crate) mod leash;
    pub(crate) mod metrics;
    pub(crate) mod ports;
    pub(crate) mod terminal;
    pub(crate) mod wait;
    pub(crate) mod worker;

    /// Any error. The only reaction to it is to print it and end the program.
    pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;
}

mod audit;
mod broker;
mod programs;
mod run;
mod summary;
mod visit;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Duration;

use audit::Check;
use broker::Home;
use futures_util::FutureExt;
use programs::{Esms, Worker};
use run::Seen;
pub(crate) use support::Failed;
use support::leash::Scratch;
use support::terminal::{bold, dim, green, red, say, step, thousands};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Longer than the worker's own shutdown grace.
const STOP_LIMIT: Duration = Duration::from_secs(40);

const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let ended = runtime.block_on(demonstrate());
    // A broker that is still starting is not waited for: it is killed when this process ends.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

fn failed(error: &Failed) -> ExitCode {
    say(red(&format!("demo: failed: {error}")));
    ExitCode::FAILURE
}

async fn demonstrate() -> Result<ExitCode, Failed> {
    let stop = CancellationToken::new();
    tokio::spawn(signals(stop.clone()));
    say(bold("esms-otp-worker: 1,000 OTP jobs, and an eSMS that misbehaves") + "\n");
    let scratch = Scratch::new()?;
    let Some(home) = stop.run_until_cancelled(home()).await.transpose()? else { return Ok(interrupted()) };
    // The support code panics when it cannot go on. The broker must be left in order even then.
    let performed = AssertUnwindSafe(perform(&home, &scratch, &stop)).catch_unwind().await;
    let left = home.leave().await;
    let ended = performed.unwrap_or_else(|_| Err("the reason is above".into()));
    if ended.is_err() {
        last_words(&scratch);
    }
    let ended = ended?;
    left.map_err(|error| format!("the objects {}… are still on the broker: {error}", home.queue()))?;
    Ok(ended)
}

/// The first Ctrl-C or `kill` ends the demonstration in order. The second ends it at once.
async fn signals(stop: CancellationToken) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    for second in [false, true] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if second {
            std::process::exit(INTERRUPTED.into());
        }
        stop.cancel();
    }
}

fn interrupted() -> ExitCode {
    say("\ndemo: interrupted; all that it started ends with it");
    ExitCode::from(INTERRUPTED)
}

async fn home() -> Result<Home, Failed> {
    match std::env::var("AMQP_URL").ok().filter(|url| !url.is_empty()) {
        Some(url) => {
            let home = step("the broker in AMQP_URL", Home::given(url)).await?;
            say(dim(&format!("    {}, with {} and its like, deleted afterwards", home.address(), home.queue())));
            Ok(home)
        }
        None => {
            let home = step("a private RabbitMQ node", Home::private()).await?;
            say(dim(&format!("    {}", home.address())));
            Ok(home)
        }
    }
}

async fn perform(home: &Home, scratch: &Scratch, stop: &CancellationToken) -> Result<ExitCode, Failed> {
    let showing = stop.run_until_cancelled(show(home, scratch)).await.transpose()?;
    let Some((esms, mut worker, seen)) = showing else { return Ok(interrupted()) };
    let checks = audit::audit(&seen, run::JOBS);
    summary::audit(&checks);
    let keep = std::env::var("KEEP").is_ok_and(|keep| !keep.is_empty() && keep != "0");
    if keep {
        visit::invite(home, &esms, &worker)?;
        until_left(&mut worker, stop).await;
    }
    let parting = part(home, &mut worker, keep).await?;
    if !keep {
        visit::next()?;
    }
    Ok(verdict(&seen, &checks, &parting))
}

/// Does everything up to the summary.
async fn show(home: &Home, scratch: &Scratch) -> Result<(Esms, Worker, Seen), Failed> {
    let esms = step("eSMS, played by esms-sandbox", Esms::start(scratch)).await?;
    let faults = programs::FAULTS.map(|(fault, _)| fault.split(':').take(2).collect::<Vec<_>>().join(":"));
    for faults in faults.chunks(6) {
        say(dim(&format!("    {}", faults.join("  "))));
    }
    let worker = step("the worker, esms-otp-worker run", Worker::start(home, &esms, scratch)).await?;
    say(dim(&format!("    pid {}, http://{}/metrics", worker.program.pid(), worker.http)));
    run::prepare(scratch, &esms).await?;
    say("  1,000 jobs, esms-otp-worker send jobs.jsonl --wait");
    let seen = run::watch(home, &esms, &worker, scratch).await?;
    summary::print(&seen);
    Ok((esms, worker, seen))
}

/// Waits until somebody ends the demonstration. Reports it if the worker ends before that.
async fn until_left(worker: &mut Worker, stop: &CancellationToken) {
    let forever = Duration::from_secs(u32::MAX.into());
    tokio::select! {
        () = stop.cancelled() => return,
        code = worker.program.wait(forever) => {
            say(format!("\nThe worker has stopped, with exit code {}.", code.unwrap_or_default()));
        }
    }
    stop.cancelled().await;
}

/// Stops the worker. The queues are not checked when somebody has played with it, because that may leave
/// messages behind.
async fn part(home: &Home, worker: &mut Worker, played: bool) -> Result<Check, Failed> {
    worker.program.terminate();
    let code = worker.program.wait(STOP_LIMIT).await.ok_or("the worker did not stop")?;
    say(format!("\n{}", bold("After SIGTERM")));
    say(format!("  the worker exits with code {code}"));
    if played {
        return Ok(Check::equal("", &[]));
    }
    let left = home.left().await?;
    let told: Vec<_> = left.iter().map(|(_, count)| count.to_string()).collect();
    say(format!("  messages left on its {} queues: {}", left.len(), told.join(", ")));
    let mut pairs: Vec<_> = left.iter().map(|(queue, count)| (queue.as_str(), u64::from(*count), 0)).collect();
    pairs.push(("the worker's exit code", code.unsigned_abs().into(), 0));
    Ok(Check::equal("the worker stops with code 0 and leaves nothing behind", &pairs))
}

fn verdict(seen: &Seen, checks: &[Check], parting: &Check) -> ExitCode {
    say(format!("\n{} results for {} jobs", thousands(seen.heard.len() as u64), thousands(run::JOBS as u64)));
    let wrong: Vec<_> = checks.iter().chain([parting]).filter(|check| !check.holds()).collect();
    for check in &wrong {
        say(red(&format!("demo: does not add up: {} ({})", check.claim, check.against.join("; "))));
    }
    if wrong.is_empty() {
        say(green("demo: ok"));
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

/// Prints the ends of the logs, which help to find out why it failed.
fn last_words(scratch: &Scratch) {
    for name in ["sandbox.log", "worker.log"] {
        let log = std::fs::read_to_string(scratch.file(name)).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        say(format!("\n{name}, its last lines:"));
        for line in &lines[lines.len().saturating_sub(15)..] {
            say(line);
        }
    }
}
