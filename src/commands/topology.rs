//! `topology`: the objects on the broker as RabbitMQ's definitions or as custom resources; `apply` declares them, and
//! `diff` compares them with those that are there.
//!
//! Exit codes: 0 it was done, and nothing differs; 1 something differs, or the broker did not answer; 2 a setting or
//! the usage is wrong.

mod words;

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use tokio::time::timeout;

use super::shell::{BROKER_GROUPS, FAILED, block_on, failed, print_lines, source, wrong_settings};
use crate::amqp::ConnectError;
use crate::broker::bounds::Unbounded;
use crate::broker::close;
use crate::broker::definitions::{custom_resources, definitions};
use crate::broker::settings::{BrokerSettings, TopologyMode};
use crate::broker::topology::{self, Difference, TopologyError};
use crate::settings::table;
use words::{of_applied, of_differences};

/// The limit on all that is asked of the broker, its connection apart, which has limits of its own.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

const DEFINITIONS: &str = "definitions";
const MESSAGING_TOPOLOGY: &str = "messaging-topology";

/// Why nothing was found out.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error("the broker did not answer within a minute")]
    Silent,
}

/// The command and its flags.
pub(super) fn command() -> Command {
    let topology = Command::new("topology")
        .next_line_help(true)
        .disable_help_subcommand(true)
        .about("Print the exchanges and queues that the worker needs; declare them, or compare them")
        .after_help(
            "Prints JSON, and connects to nothing. Import it, and run the worker with\n\
             OTP_TOPOLOGY=check where it may not declare:\n\
             \x20   esms-otp-worker topology | rabbitmqctl import_definitions\n\
             \x20   esms-otp-worker topology --format messaging-topology | kubectl apply -f -\n\
             Exit code 0: it was done, and nothing differs. 1: something differs, or the broker\n\
             did not answer. 2: a setting or the usage is wrong.",
        )
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .value_parser([DEFINITIONS, MESSAGING_TOPOLOGY])
                .default_value(DEFINITIONS)
                .help("For RabbitMQ itself, or for its Messaging Topology Operator"),
        )
        .arg(
            Arg::new("cluster")
                .long("cluster")
                .value_name("NAME")
                .default_value("rabbitmq")
                .value_parser(kubernetes_name)
                .help("With messaging-topology: the name of the RabbitmqCluster"),
        )
        .subcommand(apply_command())
        .subcommand(diff_command());
    // They may stand before and after the word.
    table::add_flags(topology, BROKER_GROUPS).mut_args(|flag| match flag.get_id().as_str() {
        "format" | "cluster" => flag,
        // What this command does with the objects is said by its words.
        id if id == table::OTP_TOPOLOGY.env => flag.hide(true),
        _ => flag.global(true),
    })
}

fn kubernetes_name(text: &str) -> Result<String, String> {
    let is_end = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends = text.bytes().next().is_some_and(is_end) && text.bytes().last().is_some_and(is_end);
    if ends && text.len() <= 253 && text.bytes().all(|c| is_end(c) || matches!(c, b'-' | b'.')) {
        return Ok(text.to_owned());
    }
    Err("must be a name of Kubernetes: small letters, digits, dashes and dots".to_owned())
}

fn apply_command() -> Command {
    Command::new("apply")
        .next_line_help(true)
        .about("Declare what is missing")
        .after_help("What is there and differs stays as it is, and is named. Exit codes are those of topology.")
}

fn diff_command() -> Command {
    Command::new("diff").next_line_help(true).about("Say what differs from what is there, and what to do").after_help(
        "It changes nothing, but needs the permissions of a user who may declare. RabbitMQ\n\
             says over AMQP what exchanges and queues are, and nothing of bindings and policies. Exit codes are those of topology.",
    )
}

/// Runs the command.
pub(super) fn execute(given: &ArgMatches) -> ExitCode {
    let (word, last) = given.subcommand().map_or((None, given), |(word, last)| (Some(word), last));
    let broker = match BrokerSettings::read(&source(last)) {
        Ok(broker) => broker,
        Err(error) => return wrong_settings(&error),
    };
    match word {
        None => print_lines(&[printed(given, &broker)], ExitCode::SUCCESS),
        Some("apply") => match asked(apply(broker)) {
            Ok(unbounded) => print_lines(&of_applied(&unbounded), ExitCode::SUCCESS),
            Err(code) => code,
        },
        Some(_) => match asked(diff(&broker)) {
            Ok(differences) if differences.is_empty() => print_lines(&of_differences(&[]), ExitCode::SUCCESS),
            Ok(differences) => print_lines(&of_differences(&differences), ExitCode::from(FAILED)),
            Err(code) => code,
        },
    }
}

fn printed(given: &ArgMatches, broker: &BrokerSettings) -> String {
    let text = |name: &str| given.get_one::<String>(name).map_or("", String::as_str);
    let objects = match text("format") {
        MESSAGING_TOPOLOGY => custom_resources(broker, text("cluster")),
        _ => definitions(broker),
    };
    format!("{objects:#}")
}

/// Runs what asks the broker.
fn asked<T>(asking: impl Future<Output = Result<T, Failed>>) -> Result<T, ExitCode> {
    block_on(async { timeout(LIMIT, asking).await.unwrap_or(Err(Failed::Silent)) })?
        .map_err(|error| failed(&error.to_string()))
}

async fn apply(mut broker: BrokerSettings) -> Result<Vec<Unbounded>, Failed> {
    // Whoever gives this command wants them declared, whatever the workers do.
    broker.topology = TopologyMode::Declare;
    let connection = broker.connect("esms-otp-worker topology apply").await?.connection;
    let prepared = topology::prepare(&connection, &broker).await;
    close(&connection).await;
    Ok(prepared?)
}

async fn diff(broker: &BrokerSettings) -> Result<Vec<Difference>, Failed> {
    let connection = broker.connect("esms-otp-worker topology diff").await?.connection;
    let differences = topology::differences(&connection, broker).await;
    close(&connection).await;
    Ok(differences?)
}
