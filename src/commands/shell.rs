//! The code that all commands share: where settings come from, how a command runs, and how it fails.

use std::process::ExitCode;

use clap::ArgMatches;
use tokio::runtime::Runtime;

use crate::settings::reader::WrongSettings;
use crate::settings::table::{Group, Setting};

/// The exit code of a command that failed. Each command documents its other exit codes.
pub(super) const FAILED: u8 = 1;

/// The exit code of a wrong setting or flag, for every command.
pub(super) const WRONG_SETTINGS: u8 = 2;

/// The settings of `run`, and of commands that do the same as `run` does at its start.
pub(super) const RUN_GROUPS: &[Group] =
    &[Group::Broker, Group::Topology, Group::Jobs, Group::Esms, Group::Ledger, Group::Operations];

/// The settings of commands that talk only to the broker.
pub(super) const BROKER_GROUPS: &[Group] = &[Group::Broker, Group::Topology];

/// The value of a flag, else of the environment variable.
pub(super) fn source(given: &ArgMatches) -> impl Fn(&Setting) -> Option<String> + '_ {
    |setting| {
        let flag = given.get_one::<String>(setting.env).cloned();
        flag.or_else(|| std::env::var_os(setting.env).map(|value| value.to_string_lossy().into_owned()))
    }
}

/// Runs a command's work to its end.
///
/// The runtime is leaked on purpose: it is never shut down, and the process ends right after the work. So
/// nothing waits for I/O that is still pending. The AMQP client's own thread may still use the runtime's
/// clock; it would panic if the runtime were gone.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, ExitCode> {
    match Runtime::new() {
        Ok(runtime) => Ok(Box::leak(Box::new(runtime)).block_on(work)),
        Err(error) => Err(failed(&format!("cannot start: {error}"))),
    }
}

pub(super) fn wrong_settings(error: &WrongSettings) -> ExitCode {
    eprintln!("esms-otp-worker: {error}\nSee: esms-otp-worker run --help");
    ExitCode::from(WRONG_SETTINGS)
}

pub(super) fn failed(why: &str) -> ExitCode {
    eprintln!("esms-otp-worker: {why}");
    ExitCode::from(FAILED)
}
