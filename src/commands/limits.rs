//! `limits`: what is counted now for one number, for people who help others. `limits reset` forgets it.
//!
//! The number is read from standard input. Exit codes: 0 it was told or forgotten, 1 Redis did not answer, 2 a setting,
//! the usage or the number is wrong.

mod input;
mod report;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use tokio::time::timeout;

use super::ledger::{not_told, store, without_redis};
use super::shell::{Output, block_on, failed, output_failed, source, wrong_settings, wrong_usage};
use crate::broker::settings::BrokerSettings;
use crate::job::phone::Phone;
use crate::ledger::counts::Counts;
use crate::ledger::redis::RedisSettings;
use crate::ledger::settings::StoreSettings;
use crate::ledger::store::StoreError;
use crate::limits::Limits;
use crate::settings::reader::{Reader, Source, WrongSettings};
use crate::settings::table::{self, Group};
use report::Report;

/// Where the number is counted, and under which rules. The queue and the virtual host are part of the keys' prefix.
const GROUPS: &[Group] = &[Group::Broker, Group::Topology, Group::Limits, Group::Ledger];

/// The limit on all that is asked of Redis.
const LEDGER_LIMIT: Duration = Duration::from_secs(10);

/// The name of what stands where no argument may.
const MISPLACED: &str = "misplaced";

const ONLY_IN_MEMORY: &str = "with memory: only the worker itself knows what it has counted, until it ends";

const NO_ARGUMENT: &str = "the number is read from standard input, and is no argument: shells remember arguments, \
    and others on the machine see them. Start the command without it, and type or paste the number when it asks";

/// What is done with the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Told,
    Forgotten,
}

/// The command and its flags.
pub(super) fn command() -> Command {
    let limits = Command::new("limits")
        .next_line_help(true)
        // It would repeat its argument, too.
        .disable_help_subcommand(true)
        .about("Say what is counted for the number on standard input, and when its next OTP can go out")
        .after_help(
            "The number is read from standard input, never from an argument. Give the command\n\
             the settings of the workers, above all AMQP_URL, OTP_QUEUE, OTP_LEDGER_URL and\n\
             the limits. It needs a ledger in Redis, and connects to nothing else.\n\
             Exit code 0: it was told. 1: Redis did not answer. 2: a setting, the usage or\n\
             the number is wrong.",
        )
        .subcommand(reset());
    // They may stand before and after `reset`.
    table::add_flags(limits, GROUPS).mut_args(|flag| flag.global(true)).arg(misplaced())
}

fn reset() -> Command {
    Command::new("reset")
        .next_line_help(true)
        .about("Forget what is counted for the number on standard input")
        .after_help(
            "What is counted for its prefix and in all stays, and so do the lists of prefixes\n\
             that are served. A job in flight counts again once it has ended. While Redis is\n\
             away, workers go by what they have counted themselves: that is not forgotten.\n\
             Exit codes are those of limits.",
        )
        .arg(misplaced())
}

/// clap itself would repeat the argument, which is a phone number.
fn misplaced() -> Arg {
    Arg::new(MISPLACED).num_args(0..).hide(true).allow_negative_numbers(true)
}

/// Runs the command.
pub(super) fn execute(given: &ArgMatches) -> ExitCode {
    let has_misplaced =
        |given: &ArgMatches| given.get_many::<String>(MISPLACED).is_some_and(|misplaced| misplaced.len() > 0);
    let (wanted, last) = match given.subcommand() {
        Some((_, last)) => (Wanted::Forgotten, last),
        None => (Wanted::Told, given),
    };
    if has_misplaced(given) || has_misplaced(last) {
        return wrong_usage(NO_ARGUMENT);
    }
    let given = last;
    let (limits, redis) = match read(&source(given)) {
        Ok(read) => read,
        Err(error) => return wrong_settings(&error),
    };
    let phone = match input::number() {
        Ok(phone) => phone,
        Err(error) => return wrong_usage(&error.to_string()),
    };
    let report = match block_on(ask(wanted, limits, &redis, &phone)) {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => return failed(&not_told(&redis, &error)),
        Err(code) => return code,
    };
    match block_on(print(&report)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => output_failed(&error),
        Err(code) => code,
    }
}

fn read(source: &Source<'_>) -> Result<(Limits, RedisSettings), WrongSettings> {
    let mut reader = Reader::new(source);
    let broker = BrokerSettings::from_reader(&mut reader);
    let limits = Limits::from_reader(&mut reader);
    match store(&mut reader, &broker) {
        StoreSettings::Redis(redis) => reader.finish((limits, *redis)),
        StoreSettings::Memory => Err(without_redis(reader, ONLY_IN_MEMORY)),
    }
}

async fn ask(wanted: Wanted, limits: Limits, redis: &RedisSettings, phone: &Phone) -> Result<Report, StoreError> {
    let limits = Arc::new(limits);
    let counts = Counts::new(redis, Arc::clone(&limits));
    let asked = timeout(LEDGER_LIMIT, async {
        counts.open().await?;
        match wanted {
            Wanted::Told => match limits.place_of(phone) {
                Some(place) => Ok(Report::of(&limits, phone, Some((&place, counts.of(&place).await?)))),
                None => Ok(Report::of(&limits, phone, None)),
            },
            Wanted::Forgotten => Ok(Report::of_reset(phone, counts.forget(phone).await?)),
        }
    });
    asked.await.unwrap_or_else(|_| Err(StoreError::Unreachable("it took too long".into())))
}

async fn print(report: &Report) -> std::io::Result<()> {
    let mut output = Output::new();
    for line in &report.lines {
        output.line(line.as_bytes()).await?;
    }
    output.end().await
}
