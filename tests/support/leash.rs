//! Things that must not outlive the program that started them: other programs and a directory. `leash.sh`
//! keeps each of them and explains how.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader as AsyncBufReader, Lines};
use tokio::process::ChildStdout;

use super::Failed;
use super::wait::found;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/leash.sh");

/// A running script. When this is dropped, the script kills its program or removes its directory.
struct Leash {
    script: Child,
    hold: Option<ChildStdin>,
}

impl Leash {
    /// Starts the script where a Ctrl-C at the terminal does not reach it, so that it can clean up.
    fn start(command: &mut Command) -> Result<Self, Failed> {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn();
        let mut script = spawned.map_err(|error| format!("{SCRIPT} with bash: {error}"))?;
        let hold = script.stdin.take();
        Ok(Self { script, hold })
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        drop(self.hold.take());
        // If waiting for the script fails, nothing more can be done about it.
        let _ = self.script.wait();
    }
}

/// A temporary directory.
pub(crate) struct Scratch {
    path: PathBuf,
    _leash: Leash,
}

impl Scratch {
    pub(crate) fn new() -> Result<Self, Failed> {
        let mut leash = Leash::start(Command::new("bash").args([SCRIPT, "directory"]))?;
        let path = first_line(leash.script.stdout.take())?;
        Ok(Self { path: path.into(), _leash: leash })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Reads byte by byte, because the output after this line is for another reader.
fn first_line(output: Option<impl Read>) -> Result<String, Failed> {
    let mut line = String::new();
    if let Some(output) = output {
        BufReader::with_capacity(1, output).read_line(&mut line)?;
    }
    if line.is_empty() { Err(format!("{SCRIPT} said nothing").into()) } else { Ok(line.trim_end().to_owned()) }
}

/// A running program, killed when this is dropped.
pub(crate) struct Program {
    pid: u32,
    output: Lines<AsyncBufReader<ChildStdout>>,
    leash: Leash,
}

impl Program {
    /// Starts `path` with these arguments. `errors` becomes its standard error. `prepare` may add to the
    /// command, such as environment variables.
    pub(crate) fn start(
        path: &Path,
        args: &[&str],
        errors: Stdio,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self, Failed> {
        let mut command = Command::new("bash");
        command.args([SCRIPT, "run"]).arg(path).args(args).stderr(errors);
        prepare(&mut command);
        let mut leash = Leash::start(&mut command)?;
        let mut output = leash.script.stdout.take();
        let pid = first_line(output.as_mut())?.parse()?;
        let output = output.ok_or("no standard output")?;
        let output = AsyncBufReader::new(ChildStdout::from_std(output)?).lines();
        Ok(Self { pid, output, leash })
    }

    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// The next line of its standard output, or `None` after the end of that output.
    pub(crate) async fn line(&mut self) -> Result<Option<String>, Failed> {
        Ok(self.output.next_line().await?)
    }

    /// Asks it to stop, as an orchestrator would, if it still runs.
    pub(crate) fn terminate(&mut self) {
        if self.exit_code().is_none() {
            // It does no harm if the program has just ended: that is the goal.
            let _ = Command::new("kill").args(["-s", "TERM", &self.pid.to_string()]).stderr(Stdio::null()).status();
        }
    }

    /// Its exit code, or `None` while it still runs.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.leash.script.try_wait().ok().flatten().and_then(|status| status.code())
    }

    /// Its exit code, or `None` when it still runs after `within`.
    pub(crate) async fn wait(&mut self, within: Duration) -> Option<i32> {
        found(within, async || self.exit_code()).await
    }
}

/// A file for a program's standard error.
pub(crate) fn log_file(path: &Path) -> Result<Stdio, Failed> {
    Ok(File::create(path)?.into())
}
