//! `dead-letters`: looks at the jobs that are kept for people, and replays or removes them.
//!
//! Exit codes: 0 it was done, 1 it failed, or not all was done, 2 a setting or the usage is wrong.

mod copy;
mod error;
mod fate;
mod ledger;
mod letter;
mod listing;
mod masking;
mod outstanding;
mod publishing;
mod purging;
mod queue;
mod requeueing;
mod selection;
mod showing;
mod tally;
mod words;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use tokio_util::sync::CancellationToken;

use super::ledger::{store, without_redis};
use super::shell::{BROKER_GROUPS, FAILED, block_on, failed, print_lines, say, source, wrong_settings, wrong_usage};
use crate::broker::settings::BrokerSettings;
use crate::ledger::settings::StoreSettings;
use crate::settings::reader::{Reader, WrongSettings};
use crate::settings::table::{self, Group};
use error::Failed;
use fate::Wanted;
use letter::Rules;
use listing::Listing;
use purging::{Purge, Purged, can_ask};
use requeueing::{Done, Requeue};
use selection::{NOT_SAID, Selection, add_flags, add_flags_and_all, is_said};
use words::{held_line, unseen_line};

/// The settings of commands that tell what would become of a job.
const LEDGER_GROUPS: &[Group] = &[Group::Broker, Group::Topology, Group::Ledger];

const NEEDS_REDIS: &str =
    "--new-id asks it which jobs ended unknown; with memory: only the workers themselves know, and cannot be asked";

/// The command and its flags.
pub(super) fn command() -> Command {
    Command::new("dead-letters")
        .next_line_help(true)
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .about("Look at the jobs that are kept for people, requeue or purge them")
        .after_help(
            "They are on the queue OTP_DEAD_LETTER_EXCHANGE (otp.dead). Letters that are\n\
             looked at stay. While one command holds them, another does not see them.\n\
             Exit code 0: it was done. 1: it failed, or not all was done. 2: a setting or\n\
             the usage is wrong.",
        )
        .subcommand(list_command())
        .subcommand(show_command())
        .subcommand(requeue_command())
        .subcommand(purge_command())
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// What these commands do is said by their words.
fn with_settings(command: Command, groups: &[Group]) -> Command {
    table::add_flags(command, groups).mut_arg(table::OTP_TOPOLOGY.env, |flag| flag.hide(true))
}

fn list_command() -> Command {
    let list = Command::new("list")
        .next_line_help(true)
        .about("List letters, the oldest first: age, reason, job id, masked phone, size")
        .after_help(
            "On a terminal a table, else columns that are separated by tabs. The age is that\n\
             of the job, or the time since the broker dropped it; - where neither is known. A\n\
             letter without a message_id has a derived id. Exit codes are those of\n\
             dead-letters.",
        )
        .arg(
            Arg::new("limit")
                .long("limit")
                .value_name("LETTERS")
                .value_parser(value_parser!(u32).range(1..))
                .default_value("1000")
                .help("Show at most so many, and say how many more there are"),
        )
        .arg(flag("json", "Print one JSON object a line"));
    with_settings(add_flags(list), BROKER_GROUPS)
}

fn show_command() -> Command {
    let show = Command::new("show")
        .next_line_help(true)
        .about("Tell of one letter all that is known, and what requeue would do with it")
        .after_help(
            "Exit code 0: it was told. 1: there is no such letter, or it failed.\n\
             2: a setting or the usage is wrong.",
        )
        .arg(Arg::new("id").value_name("ID").required(true).help("The job's id, as list shows it"));
    with_rules(with_settings(show, LEDGER_GROUPS))
}

/// What decides how a worker would read a letter.
fn with_rules(command: Command) -> Command {
    command.arg(table::flag(&table::OTP_JOB_TTL)).arg(table::flag(&table::ESMS_TEMPLATE_ID))
}

fn requeue_command() -> Command {
    let requeue = Command::new("requeue")
        .next_line_help(true)
        .about("Put letters back on the queue of jobs")
        .after_help(
            "A letter goes only once the broker has confirmed its job. Interrupted at any\n\
             moment, give the command again: what was moved twice has the same id, and the\n\
             ledger answers it. What cannot be understood, or ended unknown, stays and is\n\
             counted. Give the command the settings of the workers.\n\
             Exit code 0: all that was chosen went. 1: it failed, or something stayed.\n\
             2: a setting or the usage is wrong.",
        )
        .arg(flag("fresh", "Drop the old timestamp and expiration: each job gets a new lifetime"))
        .arg(flag(
            "new-id",
            "Send again what may have been sent: jobs that the ledger holds as unknown, under a new id, and those that it has forgotten. Their persons may get a second OTP",
        ))
        .arg(flag("dry-run", "Change nothing, and say what would become of them"));
    with_rules(with_settings(add_flags_and_all(requeue), LEDGER_GROUPS))
}

fn purge_command() -> Command {
    let purge = Command::new("purge")
        .next_line_help(true)
        .about("Remove letters for good")
        .after_help("On a terminal it asks first. Exit codes are those of dead-letters.")
        .arg(flag("yes", "Do not ask"))
        .arg(flag("dry-run", "Remove nothing, and say how many would be"));
    with_settings(add_flags_and_all(purge), BROKER_GROUPS)
}

/// Runs the command.
pub(super) fn execute(given: &ArgMatches) -> ExitCode {
    match given.subcommand() {
        Some(("list", given)) => list(given),
        Some(("show", given)) => show(given),
        Some((_, given)) if !is_said(given) => wrong_usage(NOT_SAID),
        Some(("requeue", given)) => requeue(given),
        Some((_, given)) => purge(given),
        // clap accepts no other.
        None => wrong_usage("a word is missing: list, show, requeue or purge"),
    }
}

/// Runs what works with letters. Ctrl-C ends it as soon as all letters in hand are given back.
fn run<T, F: Future<Output = Result<T, Failed>>>(work: impl FnOnce(CancellationToken) -> F) -> Result<T, ExitCode> {
    let stop = CancellationToken::new();
    let working = work(stop.clone());
    let done = block_on(async move {
        tokio::spawn(async move {
            // Without it, Ctrl-C ends the process as SIGKILL would: nothing is lost.
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.cancel();
            }
        });
        working.await
    })?;
    done.map_err(|error| failed(&error.to_string()))
}

fn list(given: &ArgMatches) -> ExitCode {
    let broker = match BrokerSettings::read(&source(given)) {
        Ok(broker) => broker,
        Err(error) => return wrong_settings(&error),
    };
    let listing = Listing {
        selection: Selection::read(given),
        limit: given.get_one("limit").copied().unwrap_or(1),
        is_json: given.get_flag("json"),
    };
    run(|stop| listing::list(&broker, listing, stop)).map_or_else(|code| code, |()| ExitCode::SUCCESS)
}

/// The settings of a command that tells what would become of a job.
fn read(given: &ArgMatches) -> Result<(BrokerSettings, StoreSettings, Rules), WrongSettings> {
    let source = source(given);
    let mut reader = Reader::new(&source);
    let broker = BrokerSettings::from_reader(&mut reader);
    let store = store(&mut reader, &broker);
    let rules = Rules {
        job_ttl: reader.duration(&table::OTP_JOB_TTL, Duration::from_secs(1)),
        template_id: reader.given(&table::ESMS_TEMPLATE_ID),
    };
    if matches!(store, StoreSettings::Memory) && given.try_get_one("new-id").ok().flatten() == Some(&true) {
        return Err(without_redis(reader, NEEDS_REDIS));
    }
    reader.finish((broker, store, rules))
}

fn show(given: &ArgMatches) -> ExitCode {
    let (broker, store, rules) = match read(given) {
        Ok(read) => read,
        Err(error) => return wrong_settings(&error),
    };
    let id = given.get_one::<String>("id").map_or("", String::as_str);
    match run(|stop| showing::show(&broker, store, id, &rules, stop)) {
        Ok(lines) if lines.is_empty() => failed(&unseen_line(id)),
        Ok(lines) => print_lines(&lines, ExitCode::SUCCESS),
        Err(code) => code,
    }
}

fn requeue(given: &ArgMatches) -> ExitCode {
    let (broker, store, rules) = match read(given) {
        Ok(read) => read,
        Err(error) => return wrong_settings(&error),
    };
    let wanted = Wanted { is_fresh: given.get_flag("fresh"), is_sent_again: given.get_flag("new-id") };
    let is_dry_run = given.get_flag("dry-run");
    let asked = Requeue { selection: Selection::read(given), wanted, rules, is_dry_run };
    let Done { tally, is_in_memory, unseen, held_by_others, ended } =
        match run(|stop| requeueing::requeue(&broker, store, asked, stop)) {
            Ok(done) => done,
            Err(code) => return code,
        };
    let mut lines = tally.lines(wanted, !is_dry_run, is_in_memory);
    lines.extend(unseen.iter().map(|id| unseen_line(id)));
    lines.extend(held_line(held_by_others));
    let is_whole = unseen.is_empty() && held_by_others == 0 && (is_dry_run || tally.stayed() == 0);
    let code = print_lines(&lines, if is_whole { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
    match ended {
        Ok(()) => code,
        Err(error) => {
            say(
                "It ended early. What is told above was done, and the rest is still there. Some of the last jobs may be on \
                both queues: they have the same id, and the ledger answers the second. Mend what follows, if it is not \
                an interruption, and give the command again",
            );
            failed(&error.to_string())
        }
    }
}

fn purge(given: &ArgMatches) -> ExitCode {
    let broker = match BrokerSettings::read(&source(given)) {
        Ok(broker) => broker,
        Err(error) => return wrong_settings(&error),
    };
    let (is_dry_run, is_sure) = (given.get_flag("dry-run"), given.get_flag("yes"));
    if !is_dry_run && !is_sure && !can_ask() {
        return wrong_usage("purge asks before it removes anything, and there is no terminal to ask on: give --yes");
    }
    let asked = Purge { selection: Selection::read(given), is_dry_run, is_sure };
    match run(|stop| purging::purge(&broker, asked, stop)) {
        Ok(Purged { lines, is_whole: true }) => print_lines(&lines, ExitCode::SUCCESS),
        Ok(Purged { lines, is_whole: false }) => print_lines(&lines, ExitCode::from(FAILED)),
        Err(code) => code,
    }
}
