//! What every command shares: where its settings come from, how it runs, and how it fails.

use std::process::ExitCode;

use clap::ArgMatches;
use tokio::runtime::Runtime;

use crate::settings::reader::WrongSettings;
use crate::settings::table::{Group, Setting};

/// The exit code of a command that failed. Each command documents its others.
pub(super) const FAILED: u8 = 1;

/// The exit code of a wrong setting or flag, for every command.
pub(super) const WRONG_SETTINGS: u8 = 2;

/// The settings of `run`, and of the commands that do what it does at its start.
pub(super) const RUN_GROUPS: &[Group] =
    &[Group::Broker, Group::Topology, Group::Jobs, Group::Esms, Group::Ledger, Group::Operations];

/// The settings of commands that talk to the broker alone.
pub(super) const BROKER_GROUPS: &[Group] = &[Group::Broker, Group::Topology];

/// A flag's value, else the environment's.
pub(super) fn source(given: &ArgMatches) -> impl Fn(&Setting) -> Option<String> + '_ {
    |setting| {
        let flag = given.get_one::<String>(setting.env).cloned();
        flag.or_else(|| std::env::var_os(setting.env).map(|value| value.to_string_lossy().into_owned()))
    }
}

/// Runs a command's work to its end.
///
/// The runtime is never taken down; the process ends right after. What still waits on the outside then is
/// not waited for, and the AMQP client's own thread, which may still use the runtime's clock, does not panic
/// for want of it.
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
