//! `watch`: prints results as they are published, and takes them from nobody. `watch/lanes.rs` says how.
//!
//! Exit codes: 0 a person ended it, or as many came as wanted; 1 the broker failed it; 2 a setting or a flag is wrong.

mod lanes;
mod queues;

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::rows::{Printer, Rows, Told};
use super::shell::{BROKER_GROUPS, block_on, failed, output_failed, say, source, wrong_settings};
use crate::broker::close;
use crate::broker::settings::BrokerSettings;
use crate::job::result::Outcome;
use crate::settings::table;
use lanes::Then;
use queues::{Came, Queues, WatchError};

const AFTER_HELP: &str = "\
Results that no queue is bound for are kept in the queue otp.results.unrouted.
This command takes them from nobody. Where another queue gets a result, it shows
its own copy. Where no other queue does, it says so, leaves the results where they
are, and shows copies. To find that out, it publishes the first result of each
outcome once more, with the same message_id: readers see a repeat.
With --take-unbound it does not find out: results that no other queue gets are
shown here, and are kept nowhere else.

Exit code 0: ended by Ctrl-C or by --count. 1: the broker failed. 2: wrong usage.";

/// Which results are shown.
struct Filter {
    outcomes: BTreeSet<String>,
    codes: BTreeSet<String>,
    ids: BTreeSet<String>,
}

impl Filter {
    fn shows(&self, told: &Told) -> bool {
        let fits = |wanted: &BTreeSet<String>, said: &str| wanted.is_empty() || wanted.contains(said);
        fits(&self.outcomes, &told.outcome)
            && fits(&self.codes, told.code_result.as_deref().unwrap_or_default())
            && fits(&self.ids, &told.job_id)
    }
}

/// The command and its flags.
pub(super) fn command() -> Command {
    let listed = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help).action(ArgAction::Append).value_delimiter(',')
    };
    let flag = |name: &'static str, help| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let command = Command::new("watch")
        .next_line_help(true)
        .about("Print results as they are published, and take them from nobody")
        .after_help(AFTER_HELP)
        .arg(
            listed("outcome", "OUTCOME", "Show only results with this outcome (several: with commas)")
                .value_parser(PossibleValuesParser::new(Outcome::ALL.map(Outcome::as_str))),
        )
        .arg(listed("code", "CODE", "Show only results with this CodeResult (several: with commas)"))
        .arg(
            Arg::new("id")
                .long("id")
                .value_name("ID")
                .action(ArgAction::Append)
                .help("Show only the result of this job (several: give it several times)"),
        )
        .arg(
            Arg::new("count")
                .long("count")
                .value_name("N")
                .value_parser(value_parser!(u64).range(1..))
                .help("End after so many results"),
        )
        .arg(flag("take-unbound", "Take results that no other queue gets: they are kept nowhere else"))
        .arg(flag("json", "Print each result as the JSON that it is"));
    table::add_flags(command, BROKER_GROUPS)
}

/// Runs the command.
pub(super) fn execute(given: &ArgMatches) -> ExitCode {
    let broker = match BrokerSettings::read(&source(given)) {
        Ok(broker) => broker,
        Err(error) => return wrong_settings(&error),
    };
    let all = |name: &str| given.get_many::<String>(name).into_iter().flatten().cloned().collect();
    let filter = Filter { outcomes: all("outcome"), codes: all("code"), ids: all("id") };
    let printer = Printer::new((!given.get_flag("json")).then(Rows::new));
    let count = given.get_one::<u64>("count").copied();
    let work = watch(&broker, &filter, given.get_flag("take-unbound"), count, printer);
    let watched = block_on(async {
        tokio::select! {
            watched = work => watched,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    });
    match watched {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(WatchError::Output(error))) => output_failed(&error),
        Ok(Err(error)) => failed(&error.to_string()),
        Err(code) => code,
    }
}

async fn watch(
    broker: &BrokerSettings,
    filter: &Filter,
    takes_unbound: bool,
    count: Option<u64>,
    mut printer: Printer,
) -> Result<(), WatchError> {
    let connection = broker.connect("esms-otp-worker watch").await?.connection;
    let mut queues = Queues::open(&connection, broker, takes_unbound).await?;
    say(&greeting(broker, takes_unbound));
    let mut left = count;
    while left != Some(0) && printer.has_reader() {
        let came = queues.next().await?;
        let told = Told::read(came.body()).filter(|told| came.is_to_show() && filter.shows(told));
        let body = came.body().to_vec();
        if let Came::Taken(result) = came {
            let key = result.routing_key.to_string();
            // First, so that nothing that follows on what a person sees here falls into the test.
            if queues.settle(result).await? == Some(Then::ShowCopies) {
                say(&unbound(broker, &key));
            }
        }
        if let Some(told) = told {
            printer.print(&told, &body).await.map_err(WatchError::Output)?;
            printer.end().await.map_err(WatchError::Output)?;
            left = left.map(|left| left - 1);
        }
    }
    close(&connection).await;
    Ok(())
}

fn greeting(broker: &BrokerSettings, takes_unbound: bool) -> String {
    let exchange = &broker.reply_exchange;
    if takes_unbound {
        return format!(
            "watching {exchange}; Ctrl-C ends. Results that no other queue gets are shown here and not kept in {}",
            broker.unrouted()
        );
    }
    format!("watching {exchange}; Ctrl-C ends")
}

fn unbound(broker: &BrokerSettings, key: &str) -> String {
    format!(
        "no other queue is bound to {} for {key}: these results stay in {}, and copies are shown. \
         --take-unbound would take them",
        broker.reply_exchange,
        broker.unrouted()
    )
}
