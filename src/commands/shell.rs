//! The code that all commands share: where settings come from, how a command runs, prints and fails.

use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

use clap::ArgMatches;
use tokio::io::{AsyncWriteExt as _, Stdout, stdout};
use tokio::runtime::Builder;

use crate::settings::reader::WrongSettings;
use crate::settings::table::{Group, Setting};

/// The exit code of a command that failed. Each command documents its other exit codes.
pub(super) const FAILED: u8 = 1;

/// The exit code of a wrong setting or flag, for every command.
pub(super) const WRONG_SETTINGS: u8 = 2;

/// The settings of `run`, and of commands that do the same as `run` does at its start.
pub(super) const RUN_GROUPS: &[Group] =
    &[Group::Broker, Group::Topology, Group::Jobs, Group::Esms, Group::Limits, Group::Ledger, Group::Operations];

/// The settings of commands that talk only to the broker.
pub(super) const BROKER_GROUPS: &[Group] = &[Group::Broker, Group::Topology];

/// The value of a flag, else of the environment variable.
pub(super) fn source(given: &ArgMatches) -> impl Fn(&Setting) -> Option<String> + '_ {
    |setting| {
        // A variable of a specification is no flag.
        let flag = given.try_get_one::<String>(setting.env).ok().flatten().cloned();
        flag.or_else(|| std::env::var_os(setting.env).map(|value| value.to_string_lossy().into_owned()))
    }
}

/// Runs a command's work to its end.
///
/// One thread runs all tasks: what one of them hands to another costs no waking of another thread, and one core does
/// thousands of jobs a second.
///
/// The runtime is leaked on purpose: it is never shut down, and the process ends right after the work. So
/// nothing waits for I/O that is still pending. The AMQP client's own thread may still use the runtime's
/// clock; it would panic if the runtime were gone.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, ExitCode> {
    match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => Ok(Box::leak(Box::new(runtime)).block_on(work)),
        Err(error) => Err(failed(&format!("cannot start: {error}"))),
    }
}

/// Standard output.
///
/// When its reader has gone, as with `| head -1`, nothing more is printed, and the command goes on to its end: its
/// work and its exit code are the same. Any other error is one to report, such as a disk that is full.
pub(super) struct Output {
    out: Stdout,
    /// Whether its reader has not gone, as far as is known.
    pub(super) has_reader: bool,
}

impl Output {
    pub(super) fn new() -> Self {
        Self { out: stdout(), has_reader: true }
    }

    /// Prints one line.
    pub(super) async fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if !self.has_reader {
            return Ok(());
        }
        let printed = self.out.write_all(&[line, b"\n"].concat()).await;
        self.unless_closed(printed)
    }

    /// Prints one line to a terminal, and returns when it is there.
    pub(super) fn line_at_once(&mut self, line: &[u8]) -> io::Result<()> {
        if !self.has_reader {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        let printed = out.write_all(&[line, b"\n"].concat()).and_then(|()| out.flush());
        self.unless_closed(printed)
    }

    /// Waits until everything is printed.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        if !self.has_reader {
            return Ok(());
        }
        let printed = self.out.flush().await;
        self.unless_closed(printed)
    }

    fn unless_closed(&mut self, printed: io::Result<()>) -> io::Result<()> {
        match printed {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.has_reader = false;
                Ok(())
            }
            printed => printed,
        }
    }
}

/// Prints the lines, and ends with this code, unless they cannot be printed.
pub(super) fn print_lines(lines: &[String], code: ExitCode) -> ExitCode {
    let printing = async {
        let mut output = Output::new();
        for line in lines {
            output.line(line.as_bytes()).await?;
        }
        output.end().await
    };
    match block_on(printing) {
        Ok(Ok(())) => code,
        Ok(Err(error)) => output_failed(&error),
        Err(code) => code,
    }
}

/// Prints a line to standard error. That its reader has gone changes nothing.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

pub(super) fn output_failed(error: &io::Error) -> ExitCode {
    failed(&format!("cannot write to standard output: {error}"))
}

pub(super) fn wrong_settings(error: &WrongSettings) -> ExitCode {
    say(&format!("esms-otp-worker: {error}\nSee: esms-otp-worker run --help"));
    ExitCode::from(WRONG_SETTINGS)
}

pub(super) fn failed(why: &str) -> ExitCode {
    say(&format!("esms-otp-worker: {why}"));
    ExitCode::from(FAILED)
}

/// A flag or an argument is wrong.
pub(super) fn wrong_usage(why: &str) -> ExitCode {
    say(&format!("esms-otp-worker: {why}"));
    ExitCode::from(WRONG_SETTINGS)
}
