//! The commands: one file each, with its flags, its options and its exit codes. `shell.rs` has their shared code.

mod check;
mod completions;
mod dead_letters;
mod harmless;
mod health;
mod job;
mod ledger;
mod limits;
mod rows;
mod run;
mod schema;
mod send;
mod shell;
mod topology;
mod watch;

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use shell::WRONG_SETTINGS;

/// The command line.
pub fn command() -> Command {
    Command::new("esms-otp-worker")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Turns a RabbitMQ queue of OTP jobs into eSMS.vn calls. No job is lost, and a possible second OTP is reported")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(run::command())
        .subcommand(check::command())
        .subcommand(dead_letters::command())
        .subcommand(job::command())
        .subcommand(limits::command())
        .subcommand(send::command())
        .subcommand(watch::command())
        .subcommand(topology::command())
        .subcommand(schema::command())
        .subcommand(health::command())
        .subcommand(completions::command())
        .subcommand(completions::man_command())
}

/// Runs the command that was given on the command line.
pub fn execute(given: &ArgMatches) -> ExitCode {
    match given.subcommand() {
        Some(("run", given)) => run::execute(given),
        Some(("check", given)) => check::execute(given),
        Some(("dead-letters", given)) => dead_letters::execute(given),
        Some(("job", given)) => job::execute(given),
        Some(("limits", given)) => limits::execute(given),
        Some(("send", given)) => send::execute(given),
        Some(("watch", given)) => watch::execute(given),
        Some(("topology", given)) => topology::execute(given),
        Some(("schema", given)) => schema::execute(given),
        Some(("health", given)) => health::execute(given),
        Some(("completions", given)) => completions::execute(given, command()),
        Some(("man", _)) => completions::execute_man(command()),
        // clap accepts no other command.
        Some(_) | None => ExitCode::from(WRONG_SETTINGS),
    }
}
