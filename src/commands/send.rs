//! `send`: puts jobs on the queue, as a producer does. With `--wait` it also waits for their results.
//!
//! Exit codes: 0 every job was queued and, with `--wait`, accepted; 1 otherwise; 2 a setting or a flag is wrong.

mod error;
mod input;
mod publishing;
mod results;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use indicatif::{ProgressBar, ProgressStyle};
use lapin::options::{BasicConsumeOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::shell::{BROKER_GROUPS, Output, block_on, failed, say, source, wrong_settings};
use crate::broker::settings::BrokerSettings;
use crate::broker::{DIRECT_REPLY, REPLY_WITHIN, close};
use crate::settings::table;
use error::SendError;
use input::{Lines, Source};
use publishing::{Publishing, Summary, UNCONFIRMED};
use results::collect;

/// What to send and how.
#[derive(Clone, Debug)]
struct Options {
    /// The jobs.
    source: Source,
    /// The `expiration` of each job.
    expiration: Option<Duration>,
    /// How long to wait for the next result before giving up. `None`: do not wait for results.
    wait: Option<Duration>,
}

/// The command and its flags.
pub(super) fn command() -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let command = Command::new("send")
        .next_line_help(true)
        .about("Put jobs on the queue: one from flags, or many as JSON lines")
        .after_help(
            "One job, and its result:\n  \
             esms-otp-worker send --phone 0901888484 --template 1234 --wait\n\
             Many, from a file of lines such as {\"Phone\":\"0901888484\",\"MultiChannelTempId\":\"1234\"}:\n  \
             esms-otp-worker send jobs.jsonl --wait > results.jsonl\n\
             Exit code 0: every job was queued and, with --wait, accepted. 1: not so. 2: wrong usage.",
        )
        .arg(Arg::new("file").value_name("FILE").help("JSON lines, one job each; - for standard input"))
        .arg(text("phone", "PHONE", "The receiver of one job"))
        .arg(text("template", "ID", "Its MultiChannelTempId").requires("phone").conflicts_with("file"))
        .arg(
            text("type", "TYPE", "Its TypeId: 1 generates a code, 2 also sends it")
                .requires("phone")
                .conflicts_with("file"),
        )
        .arg(
            text("time-alive", "MINUTES", "Its TimeAlive: the life of the code")
                .requires("phone")
                .conflicts_with("file"),
        )
        .group(ArgGroup::new("jobs").args(["file", "phone"]).required(true))
        .arg(text("expiration", "DURATION", "Give each job this long to be sent").value_parser(expiration))
        .arg(Arg::new("wait").long("wait").action(ArgAction::SetTrue).help("Wait for the results and print them"))
        .arg(
            text("timeout", "DURATION", "Give up when no result has come for this long")
                .value_parser(humantime::parse_duration)
                .default_value("60s"),
        );
    table::add_flags(command, BROKER_GROUPS)
}

/// Runs the command.
pub(super) fn execute(given: &ArgMatches) -> ExitCode {
    let broker = match BrokerSettings::read(&source(given)) {
        Ok(broker) => broker,
        Err(error) => return wrong_settings(&error),
    };
    match block_on(until_interrupted(send(&broker, options(given)))) {
        Ok(Some(Ok(summary))) => report(&summary),
        Ok(Some(Err(error))) => failed(&error.to_string()),
        Ok(None) => failed("interrupted; what was queued stays queued"),
        Err(code) => code,
    }
}

async fn until_interrupted<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        _ = tokio::signal::ctrl_c() => None,
    }
}

fn options(given: &ArgMatches) -> Options {
    let source = match (given.get_one::<String>("file").map(String::as_str), given.get_one::<String>("phone")) {
        (_, Some(phone)) => Source::One(job_from_flags(given, phone)),
        (Some("-") | None, None) => Source::StandardInput,
        (Some(path), None) => Source::File(path.into()),
    };
    let wait = given.get_flag("wait").then(|| given.get_one("timeout").copied()).flatten();
    Options { source, expiration: given.get_one("expiration").copied(), wait }
}

/// AMQP's expiration is a number of milliseconds. RabbitMQ keeps it in 32 bits.
fn expiration(text: &str) -> Result<Duration, String> {
    let expiration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let fits = u32::try_from(expiration.as_millis()).is_ok();
    if fits { Ok(expiration) } else { Err("must be at most 49 days".into()) }
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

fn report(summary: &Summary) -> ExitCode {
    for line in &summary.refused {
        say(&format!("not queued: {line}"));
    }
    let jobs = if summary.queued == 1 { "job" } else { "jobs" };
    let outcomes: Vec<String> = summary.outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    let colon = if outcomes.is_empty() { "" } else { ": " };
    say(&format!("queued {} {jobs}{colon}{}", summary.queued, outcomes.join(", ")));
    if summary.missing() > 0 {
        say(&format!(
            "{} without a result in time: is a worker running? They are still queued or being worked",
            summary.missing()
        ));
    }
    ExitCode::from(u8::from(!summary.is_success()))
}

/// Queues the jobs of `options`. Prints the id of each job to standard output. When waiting, it prints each
/// result instead, as it comes. Draws its progress on standard error.
///
/// # Errors
/// [`SendError`]. Jobs that were queued before the error stay queued.
async fn send(broker: &BrokerSettings, options: Options) -> Result<Summary, SendError> {
    let lines = Lines::open(options.source).await?;
    let connection = broker.connect("esms-otp-worker send").await?.connection;
    let channel = timeout(REPLY_WITHIN, open(&connection)).await.map_err(|_| SendError::Silent)??;
    let summary = match options.wait {
        None => send_only(channel, broker, lines, options.expiration).await,
        Some(patience) => send_and_wait(channel, broker, lines, options.expiration, patience).await,
    };
    close(&connection).await;
    summary
}

async fn open(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

async fn send_only(
    channel: Channel,
    broker: &BrokerSettings,
    lines: Lines,
    expiration: Option<Duration>,
) -> Result<Summary, SendError> {
    let progress = bar("queued", lines.total);
    let (ids, mut printed) = mpsc::channel::<String>(UNCONFIRMED);
    let printing = tokio::spawn(async move {
        let mut output = Output::new();
        while let Some(id) = printed.recv().await {
            output.line(id.as_bytes()).await?;
        }
        output.end().await
    });
    let publishing = Publishing::new(channel, broker, expiration, None, ids);
    let summary = publishing.run(lines, &progress).await;
    progress.finish_and_clear();
    printing.await.map_err(std::io::Error::other).and_then(|written| written).map_err(SendError::Output)?;
    summary
}

async fn send_and_wait(
    channel: Channel,
    broker: &BrokerSettings,
    lines: Lines,
    expiration: Option<Duration>,
    patience: Duration,
) -> Result<Summary, SendError> {
    let progress = bar("results", lines.total);
    // Direct reply-to needs a consumer on the publishing channel, before the first job is published.
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let subscribing = channel.basic_consume(DIRECT_REPLY.into(), "".into(), options, FieldTable::default());
    let replies = timeout(REPLY_WITHIN, subscribing).await.map_err(|_| SendError::Silent)??;
    let (ids, queued) = mpsc::channel(UNCONFIRMED);
    let publishing = Publishing::new(channel, broker, expiration, Some(DIRECT_REPLY), ids);
    let hidden = ProgressBar::hidden();
    let collecting = collect(replies, queued, &progress, patience);
    // If queueing fails, the command ends without waiting for results.
    let ended = tokio::try_join!(publishing.run(lines, &hidden), collecting);
    progress.finish_and_clear();
    let (summary, outcomes) = ended?;
    Ok(Summary { outcomes, waited: true, ..summary })
}

fn bar(what: &'static str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{msg} {bar:40} {pos}/{len} ({per_sec}, {eta} left)"),
        None => (ProgressBar::new_spinner(), "{msg} {spinner} {pos} ({per_sec})"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(what)
}
