//! `schema`: what a job and a result are, for people's tools: JSON Schemas, and an AsyncAPI document over them.
//!
//! Exit codes: 0 it was printed, 1 it could not be, 2 a setting or the usage is wrong.

mod asyncapi;

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use super::shell::{BROKER_GROUPS, print_lines, source, wrong_settings};
use crate::broker::settings::BrokerSettings;
use crate::job::schema;
use crate::settings::table;

const WHAT: &str = "what";

/// The command and its flags.
pub(super) fn command() -> Command {
    let command = Command::new("schema")
        .next_line_help(true)
        .about("Print what a job and a result are, as JSON Schema or AsyncAPI")
        .after_help("It connects to nothing. The names in the AsyncAPI document are those of the settings.")
        .arg(
            Arg::new(WHAT)
                .value_name("WHAT")
                .required(true)
                .value_parser(["job", "result", "asyncapi"])
                .help("The body of a job, the body of a result, or all of it: channels, exchange, queue, messages"),
        );
    // It changes nothing here.
    table::add_flags(command, BROKER_GROUPS).mut_arg(table::OTP_TOPOLOGY.env, |flag| flag.hide(true))
}

/// Runs the command.
pub(super) fn execute(given: &ArgMatches) -> ExitCode {
    let printed = match given.get_one::<String>(WHAT).map(String::as_str) {
        Some("job") => schema::job(),
        Some("result") => schema::result(),
        _ => match BrokerSettings::read(&source(given)) {
            Ok(broker) => asyncapi::document(&broker),
            Err(error) => return wrong_settings(&error),
        },
    };
    print_lines(&[format!("{printed:#}")], ExitCode::SUCCESS)
}
