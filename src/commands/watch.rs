//! `watch`: prints results as they are published, and takes them from nobody. `watch/lanes.rs` says how.
//!
//! Exit codes: 0 a person ended it, or as many came as wanted; 1 the broker failed it; 2 a setting or a flag is wrong.

mod lanes;
mod queues;
mod wire;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use tokio::signal::ctrl_c;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::rows::{Format, Told};
use super::shell::{BROKER_GROUPS, Output, block_on, failed, output_failed, say, source, wrong_settings};
use crate::broker::alarm::{Alarm, in_words};
use crate::broker::close;
use crate::broker::settings::BrokerSettings;
use crate::job::result::Outcome;
use crate::settings::table;
use lanes::Then;
use queues::{Came, Queues};
use wire::WatchError;

/// Results that wait to be printed. The broker is not made to wait for a slow reader.
const MOST_UNPRINTED: usize = 10_000;

/// How long giving back, and printing the rest, may take.
const FINISHED_WITHIN: Duration = Duration::from_secs(10);
const PRINTED_WITHIN: Duration = Duration::from_secs(2);

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
    let format = if given.get_flag("json") { Format::Json } else { Format::table() };
    let count = given.get_one::<u64>("count").copied();
    match block_on(work(&broker, given.get_flag("take-unbound"), Shown { filter, count, format })) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(WatchError::Output(error))) => output_failed(&error),
        Ok(Err(error)) => failed(&error.to_string()),
        Err(code) => code,
    }
}

/// What is shown, and how.
struct Shown {
    filter: Filter,
    count: Option<u64>,
    format: Format,
}

async fn work(broker: &BrokerSettings, takes_unbound: bool, shown: Shown) -> Result<(), WatchError> {
    let connection = broker.connect("esms-otp-worker watch").await?.connection;
    let alarm = Alarm::default();
    let mut queues = tokio::select! {
        queues = Queues::open(&connection, broker, takes_unbound, alarm.clone()) => queues?,
        _ = ctrl_c() => return Ok(()),
    };
    say(&greeting(broker, takes_unbound));
    let ended = tokio::select! {
        ended = watch(&mut queues, broker, shown) => ended,
        never = alarm.follow(connection.events_listener(), |blocked| say(&in_words(blocked))) => match never {},
    };
    close(&connection).await;
    ended
}

/// Shows results until a person or the count ends it, and gives back what it has not come to.
async fn watch(queues: &mut Queues, broker: &BrokerSettings, shown: Shown) -> Result<(), WatchError> {
    let (rows, printed) = mpsc::channel(MOST_UNPRINTED);
    let printing = tokio::spawn(print(printed));
    let mut missed = 0;
    tokio::select! {
        ended = show(queues, broker, shown, &rows, &mut missed) => ended?,
        _ = ctrl_c() => {}
    }
    let finished = tokio::select! {
        finished = timeout(FINISHED_WITHIN, queues.finish()) => finished.unwrap_or(Err(WatchError::Silent)),
        _ = ctrl_c() => Ok(()),
    };
    drop(rows);
    if missed > 0 {
        say(&format!("{missed} results were not shown: the output was read too slowly"));
    }
    match timeout(PRINTED_WITHIN, printing).await {
        Ok(Ok(printed)) => printed.map_err(WatchError::Output).and(finished),
        Ok(Err(_)) | Err(_) => finished,
    }
}

async fn show(
    queues: &mut Queues,
    broker: &BrokerSettings,
    mut shown: Shown,
    rows: &mpsc::Sender<Vec<Vec<u8>>>,
    missed: &mut u64,
) -> Result<(), WatchError> {
    while shown.count != Some(0) {
        let came = tokio::select! {
            came = queues.next() => came?,
            // Nobody reads any more.
            () = rows.closed() => return Ok(()),
        };
        // First, so that nothing that follows on what a person sees here falls into the test.
        let settled = match &came {
            Came::Taken(result) => queues.settle(result).await,
            Came::Copied(..) => Ok(None),
        };
        if let Some(told) = Told::read(came.body()).filter(|told| came.is_to_show() && shown.filter.shows(told)) {
            if rows.try_send(shown.format.lines(&told, came.body())).is_err() {
                *missed += 1;
            }
            shown.count = shown.count.map(|left| left - 1);
        }
        if let (Some(Then::ShowCopies), Came::Taken(result)) = (settled?, &came) {
            say(&unbound(broker, result.routing_key.as_str()));
        }
    }
    Ok(())
}

/// Prints until nothing more comes, or nobody reads any more.
async fn print(mut rows: mpsc::Receiver<Vec<Vec<u8>>>) -> std::io::Result<()> {
    let mut output = Output::new();
    while let Some(lines) = rows.recv().await {
        for line in lines {
            output.line(&line).await?;
        }
        output.end().await?;
        if !output.has_reader {
            break;
        }
    }
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
