//! `job`: one job's story, from the ledger. It changes nothing.
//!
//! Exit codes: 0 it was told, 1 the ledger has no record of it, or one that cannot be read, or it did not answer, 2 a
//! setting or the usage is wrong.

mod words;

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio::time::timeout;

use super::harmless::{harmless, harmless_json};
use super::ledger::{not_told, store, without_redis};
use super::shell::{block_on, failed, print_lines, source, wrong_settings, wrong_usage};
use crate::broker::settings::BrokerSettings;
use crate::job::envelope::LONGEST_ID;
use crate::ledger::records::{Found, Records};
use crate::ledger::redis::RedisSettings;
use crate::ledger::settings::StoreSettings;
use crate::ledger::store::StoreError;
use crate::settings::reader::{Reader, Source, WrongSettings};
use crate::settings::table::{self, Group};
use words::{as_json, in_words, shown};

/// Where the ledger is. The queue and the virtual host are part of the keys' prefix.
const GROUPS: &[Group] = &[Group::Broker, Group::Topology, Group::Ledger];

/// The limit on all that is asked of Redis.
const LEDGER_LIMIT: Duration = Duration::from_secs(10);

const ONLY_IN_MEMORY: &str = "with memory: only the worker itself knows its jobs, until it ends; its log tells of them. \
     Where the workers have a Redis, set OTP_LEDGER_URL=redis://HOST:6379 as they do; esms-otp-worker job --help tells more";

/// The command and its flags.
pub(super) fn command() -> Command {
    let job = Command::new("job")
        .next_line_help(true)
        .about("Tell one job's story from the ledger: what it has been through, and what happens next")
        .after_help(
            "Give the command the settings of the workers, above all AMQP_URL, OTP_QUEUE and\n\
             OTP_LEDGER_URL. It needs a ledger in Redis, connects to nothing else, and\n\
             changes nothing. An id that begins with a dash stands after --: job -- -x\n\
             Exit code 0: it was told. 1: the ledger has no record of it, or did not answer.\n\
             2: a setting or the usage is wrong.",
        )
        .arg(Arg::new("id").value_name("ID").required(true).help("The job's message_id"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print one JSON object"));
    table::add_flags(job, GROUPS)
}

/// Runs the command.
pub(super) fn execute(given: &ArgMatches) -> ExitCode {
    let (redis, broker) = match read(&source(given)) {
        Ok(read) => read,
        Err(error) => return wrong_settings(&error),
    };
    let id = given.get_one::<String>("id").map_or("", String::as_str);
    if !(1..=LONGEST_ID).contains(&id.len()) {
        return wrong_usage(&format!("an id has 1 to {LONGEST_ID} bytes: give the message_id of the job"));
    }
    match block_on(ask(&redis, id)) {
        Ok(Ok(Found::Job(record))) => {
            let now = SystemTime::now();
            let lines = if given.get_flag("json") {
                vec![harmless_json(&as_json(id, &record))]
            } else {
                in_words(id, &record, now)
            };
            print_lines(&lines, ExitCode::SUCCESS)
        }
        Ok(Ok(Found::Nothing)) => failed(&nothing(id, &broker)),
        Ok(Ok(Found::Unreadable)) => {
            failed(&format!("the record of the job {} cannot be read: {UNREADABLE}", shown(id)))
        }
        Ok(Err(error)) => failed(&not_told(&redis, &error)),
        Err(code) => code,
    }
}

const UNREADABLE: &str = "another program, or another version of this one, wrote it\n\
    To workers the job counts as one that may have been sent. To mend it: find out what wrote the record, and delete it";

fn nothing(id: &str, broker: &BrokerSettings) -> String {
    let (queue, dead) = (harmless(&broker.queue), harmless(&broker.dead_letter));
    format!(
        "the ledger has no record of the job {}\nThat can be because\n  \
         no worker has begun it yet: is it still on the queue {queue}, and does a worker run?\n  \
         it could not be understood: then it is on {dead} (esms-otp-worker dead-letters show ID)\n  \
         its last change is longer ago than OTP_LEDGER_TTL\n  \
         its worker could not reach the ledger at that time\n  \
         the id, or OTP_LEDGER_PREFIX, is another: AMQP_URL, OTP_QUEUE and the prefix must be the workers'",
        shown(id)
    )
}

fn read(source: &Source<'_>) -> Result<(RedisSettings, BrokerSettings), WrongSettings> {
    let mut reader = Reader::new(source);
    let broker = BrokerSettings::from_reader(&mut reader);
    match store(&mut reader, &broker) {
        StoreSettings::Redis(redis) => reader.finish((*redis, broker)),
        StoreSettings::Memory => Err(without_redis(reader, ONLY_IN_MEMORY)),
    }
}

async fn ask(redis: &RedisSettings, id: &str) -> Result<Found, StoreError> {
    let records = Records::new(redis);
    let asked = timeout(LEDGER_LIMIT, async {
        records.open().await?;
        Ok(records.of(&[id]).await?.pop().unwrap_or(Found::Nothing))
    });
    asked.await.unwrap_or_else(|_| Err(StoreError::Unreachable("it took too long".into())))
}
