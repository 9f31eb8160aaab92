//! One worker's seat. Its worker is killed, stopped or paused, and then another worker takes the place at
//! once.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use esms_otp_worker::crash::Point;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::Failed;
use crate::dice::Dice;
use crate::settings::{Ledger, Settings};
use crate::stage::Stage;
use crate::support::leash::Program;

const PROGRAM: &str = env!("CARGO_BIN_EXE_esms-otp-worker");

/// Longer than a worker's shutdown grace, on a slow machine.
const STOP_LIMIT: Duration = Duration::from_secs(60);

const KILLED: i32 = 128 + 9;
/// Terminated before it could handle the signal.
const TERMINATED: i32 = 128 + 15;
const GRACE_OVER: i32 = 4;

/// What is done to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wound {
    Kill,
    Terminate,
    /// The worker stands still, for longer or shorter than a lease.
    Pause,
    /// The worker dies when the n-th job reaches this point.
    Crash(Point),
    /// The code panics when some jobs reach this point. The worker goes on.
    Panic(Point),
}

/// One seat.
pub(crate) struct Seat {
    stage: Arc<Stage>,
    number: usize,
    dice: Dice,
}

impl Seat {
    pub(crate) fn new(stage: &Arc<Stage>, number: usize) -> Self {
        let dice = Dice::new(stage.settings.seed, "seat", number as u64);
        Self { stage: Arc::clone(stage), number, dice }
    }

    fn name(&self) -> String {
        format!("worker {}", self.number + 1)
    }

    /// Keeps a worker here. It is wounded until `peace`, unharmed after that, and stopped in order after
    /// `end`. Returns what a worker did by itself that it should not do.
    pub(crate) async fn keep(
        mut self,
        peace: CancellationToken,
        end: CancellationToken,
    ) -> Result<Vec<String>, Failed> {
        let mut amiss = Vec::new();
        while !end.is_cancelled() {
            let wound = if peace.is_cancelled() { None } else { self.stage.next_wound() };
            let mut worker = self.start(wound)?;
            let until = self.dice.millis(300..3_000) * self.stage.settings.calm;
            let code = tokio::select! {
                code = ended(&mut worker) => self.note_crash(wound, code),
                () = self.survive(wound, until, &peace, &end) => match wound {
                    Some(wound) if !peace.is_cancelled() => self.strike(&mut worker, wound).await?,
                    _ => self.sit_out(&mut worker, wound, &end).await?,
                },
            };
            amiss.extend(self.judge(wound, code));
        }
        Ok(amiss)
    }

    fn start(&mut self, wound: Option<Wound>) -> Result<Program, Failed> {
        let most = 10 * u64::from(self.stage.settings.calm);
        let mut at = |point: Point| format!("{}:{}", point.name(), self.dice.of(1..most));
        let planned = match wound {
            Some(Wound::Crash(point)) => Some(("CRASH_AT", at(point))),
            Some(Wound::Panic(point)) => Some(("PANIC_AT", [at(point), at(point), at(point)].join(","))),
            Some(Wound::Kill | Wound::Terminate | Wound::Pause) | None => None,
        };
        if let Some(Wound::Panic(point)) = wound {
            self.stage.journal.note(format!("panics {}", point.name()), self.name());
        }
        let log = File::options().create(true).append(true).open(self.stage.log(self.number))?;
        let env = self.stage.env(self.number);
        Program::start(Path::new(PROGRAM), &["run"], Stdio::from(log), |command| {
            command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
            command.envs(env).envs(planned);
        })
    }

    /// Waits for the time of the wound, or for peace. That time counts from when the worker reached the
    /// broker. A worker without a wound stays until peace.
    async fn survive(&self, wound: Option<Wound>, until: Duration, peace: &CancellationToken, end: &CancellationToken) {
        let its_time = async {
            self.stage.networks[self.number].until_used().await;
            sleep(until).await;
        };
        tokio::select! {
            () = its_time, if wound.is_some() => {}
            () = peace.cancelled() => {}
            () = end.cancelled() => {}
        }
    }

    /// Wounds the worker and returns its exit code.
    async fn strike(&mut self, worker: &mut Program, wound: Wound) -> Result<i32, Failed> {
        match wound {
            Wound::Kill | Wound::Crash(_) => {
                self.stage.journal.note("worker SIGKILL", self.name());
                signal(worker, "KILL");
            }
            Wound::Terminate | Wound::Panic(_) => {
                self.stage.journal.note("worker SIGTERM", self.name());
                worker.terminate();
            }
            Wound::Pause => {
                self.stage.journal.note("worker paused", self.name());
                signal(worker, "STOP");
                sleep(self.dice.millis(500..9_000)).await;
                signal(worker, "CONT");
                // The worker goes on. It is stopped only to make room for the next one.
                sleep(self.dice.millis(500..2_000)).await;
                worker.terminate();
            }
        }
        worker.wait(STOP_LIMIT).await.ok_or_else(|| format!("{} did not end after {wound:?}", self.name()).into())
    }

    /// Waits until the campaign ends or the worker crashes.
    async fn sit_out(
        &self,
        worker: &mut Program,
        wound: Option<Wound>,
        end: &CancellationToken,
    ) -> Result<i32, Failed> {
        tokio::select! {
            code = ended(worker) => return Ok(self.note_crash(wound, code)),
            () = end.cancelled() => worker.terminate(),
        }
        worker.wait(STOP_LIMIT).await.ok_or_else(|| format!("{} did not stop", self.name()).into())
    }

    fn note_crash(&self, wound: Option<Wound>, code: i32) -> i32 {
        if let (Some(Wound::Crash(point)), KILLED) = (wound, code) {
            self.stage.journal.note(format!("worker killed {}", point.name()), self.name());
        }
        code
    }

    /// What is wrong with this exit code, if anything.
    fn judge(&self, wound: Option<Wound>, code: i32) -> Option<String> {
        match (wound, code) {
            (_, 0 | TERMINATED) | (Some(Wound::Kill | Wound::Crash(_)), KILLED) => None,
            (Some(Wound::Terminate | Wound::Pause | Wound::Panic(_)), GRACE_OVER) => None,
            (_, code) => Some(format!("{} ended with exit code {code} after {wound:?}", self.name())),
        }
    }
}

/// The wounds that workers may get without breaking the promises of this ledger.
pub(crate) fn wounds(settings: &Settings) -> Vec<Wound> {
    match settings.ledger {
        Ledger::Redis => {
            let others = [Wound::Kill, Wound::Kill, Wound::Terminate, Wound::Terminate, Wound::Pause];
            Point::ALL.into_iter().flat_map(|point| [Wound::Crash(point), Wound::Panic(point)]).chain(others).collect()
        }
        // A killed worker would forget what it sent. A worker that stops in order gives back only what it
        // did not send.
        Ledger::Memory if !settings.is_one_process() => vec![Wound::Terminate, Wound::Pause],
        Ledger::Memory => Vec::new(),
    }
}

async fn ended(worker: &mut Program) -> i32 {
    let forever = Duration::from_secs(u32::MAX.into());
    worker.wait(forever).await.unwrap_or_default()
}

fn signal(worker: &Program, name: &str) {
    // A worker that has just ended needs no signal.
    let _ = Command::new("kill").args(["-s", name, &worker.pid().to_string()]).stderr(Stdio::null()).status();
}
