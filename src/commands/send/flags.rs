//! The flags of `send`.

use std::path::Path;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use tokio::time::Instant;

use super::ids::{Batch, Ids};
use super::input::{Format, Source};
use super::pace::{Pace, rate};
use crate::commands::shell::BROKER_GROUPS;
use crate::job::envelope::id_problem;
use crate::settings::table;

/// What to send and how.
pub(super) struct Options {
    /// The jobs.
    pub(super) source: Source,
    /// The `expiration` of each job.
    pub(super) expiration: Option<Duration>,
    /// How long to wait for the next result before giving up. `None`: do not wait for results.
    pub(super) wait: Option<Duration>,
    pub(super) ids: Ids,
    /// What comes of giving the same command again.
    pub(super) repeat: &'static str,
    pub(super) pace: Option<Pace>,
    /// Whether everything is told as JSON.
    pub(super) is_json: bool,
}

const AFTER_HELP: &str = "\
One job, and its result:
  esms-otp-worker send --phone 0901888484 --template 1234 --wait
Many, from a file of lines such as {\"Phone\":\"0901888484\",\"TimeAlive\":\"5\"},
or from CSV whose first line names the columns Phone, MultiChannelTempId, ...:
  esms-otp-worker send people.csv --batch spring-7f3k --rate 20 --wait
With --batch, the same command can be given again: a job that a worker has ended
gets its recorded result, and nobody is sent twice while the ledger remembers it
(OTP_LEDGER_TTL). What failed or expired without an OTP is tried again.

Standard output: the id of each job or, with --wait, its result (a table on a
terminal, else JSON lines). Standard error: progress, errors and the end.

Exit code 0: every job was queued and, with --wait, accepted. 1: a line was
refused, a job was not accepted, or nothing could be queued. 2: wrong usage.
3: cut short, or results did not come in time: some jobs may still be sent.";

/// The command and its flags.
pub(super) fn command() -> Command {
    let command = Command::new("send")
        .next_line_help(true)
        .about("Put jobs on the queue: one from flags, or many as JSON lines or CSV")
        .after_help(AFTER_HELP)
        .args(of_a_file())
        .args(of_one_job())
        .group(ArgGroup::new("jobs").args(["file", "phone"]).required(true))
        .args(of_all());
    table::add_flags(command, BROKER_GROUPS)
}

fn text(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn of_a_file() -> [Arg; 3] {
    let format = PossibleValuesParser::new(["jsonl", "csv"])
        .map(|format| if format == "csv" { Format::Csv } else { Format::JsonLines });
    [
        Arg::new("file").value_name("FILE").help("JSON lines or CSV, one job each; - for standard input"),
        text("format", "FORMAT", "How FILE is written; without it, .csv is CSV, and all else is JSON lines")
            .value_parser(format)
            .conflicts_with("phone"),
        text("batch", "NAME", "Make the ids of the jobs from this name, which nobody should guess, and the jobs")
            .value_parser(clap::builder::NonEmptyStringValueParser::new())
            .conflicts_with("phone"),
    ]
}

fn of_one_job() -> [Arg; 5] {
    let of_one = |name, value, help| text(name, value, help).requires("phone").conflicts_with("file");
    [
        text("phone", "PHONE", "The receiver of one job"),
        of_one("template", "ID", "Its MultiChannelTempId"),
        of_one("type", "TYPE", "Its TypeId: 1 generates a code, 2 also sends it"),
        of_one("time-alive", "MINUTES", "Its TimeAlive: the life of the code"),
        of_one("id", "ID", "Its message_id; without it a new one is made up").value_parser(id),
    ]
}

fn of_all() -> [Arg; 5] {
    let flag = |name: &'static str, help| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    [
        text("expiration", "DURATION", "Give each job this long to be sent").value_parser(expiration),
        text("rate", "JOBS", "Queue at most so many jobs a second").value_parser(rate),
        flag("wait", "Wait for the results and print them"),
        text("timeout", "DURATION", "Give up when no result has come for this long")
            .value_parser(patience)
            .default_value("60s"),
        flag("json", "Tell everything as JSON, a line each, also on a terminal"),
    ]
}

/// What was given.
pub(super) fn options(given: &ArgMatches) -> Options {
    let format = given.get_one::<Format>("format").copied();
    let source = match (given.get_one::<String>("file").map(String::as_str), given.get_one::<String>("phone")) {
        (_, Some(phone)) => Source::One(job_from_flags(given, phone)),
        (Some("-") | None, None) => Source::StandardInput(format.unwrap_or(Format::JsonLines)),
        (Some(path), None) => Source::File(path.into(), format.unwrap_or_else(|| Format::of(Path::new(path)))),
    };
    let ids = match (given.get_one::<String>("batch"), given.get_one::<String>("id")) {
        (Some(name), _) => Ids::Batch(Batch::new(name)),
        (None, Some(id)) => Ids::Given(id.clone()),
        (None, None) => Ids::Random,
    };
    let repeat = match (&ids, &source) {
        (Ids::Batch(_) | Ids::Given(_), _) => "Give the same command again to go on: it sends nobody twice",
        (Ids::Random, Source::One(_)) => {
            "The same command would send it again, as a new job. With --id ID it sends nobody twice"
        }
        (Ids::Random, Source::File(..) | Source::StandardInput(_)) => {
            "The same command would send all again, as new jobs. With --batch NAME it sends nobody twice"
        }
    };
    Options {
        source,
        expiration: given.get_one("expiration").copied(),
        wait: given.get_flag("wait").then(|| given.get_one("timeout").copied()).flatten(),
        ids,
        repeat,
        pace: given.get_one("rate").map(|rate| Pace::new(*rate, Instant::now())),
        is_json: given.get_flag("json"),
    }
}

fn job_from_flags(given: &ArgMatches, phone: &str) -> String {
    let mut job = serde_json::Map::from_iter([("Phone".to_owned(), phone.into())]);
    for (field, flag) in [("MultiChannelTempId", "template"), ("TypeId", "type"), ("TimeAlive", "time-alive")] {
        if let Some(value) = given.get_one::<String>(flag) {
            job.insert(field.to_owned(), value.as_str().into());
        }
    }
    serde_json::Value::Object(job).to_string()
}

fn id(text: &str) -> Result<String, String> {
    match id_problem(text) {
        _ if text.is_empty() => Err("must not be empty".into()),
        Some(problem) => Err(problem.replace("message_id", "it")),
        None => Ok(text.to_owned()),
    }
}

fn patience(text: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    let patience = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if patience <= MOST { Ok(patience) } else { Err("must be at most 30 days".into()) }
}

/// AMQP's expiration is a number of milliseconds. RabbitMQ keeps it in 32 bits.
fn expiration(text: &str) -> Result<Duration, String> {
    let expiration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let fits = u32::try_from(expiration.as_millis()).is_ok();
    if fits { Ok(expiration) } else { Err("must be at most 49 days".into()) }
}
