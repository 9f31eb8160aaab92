//! What is left behind in the queues, in Redis and in the workers' logs.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::SystemTime;

use lapin::options::{BasicAckOptions, BasicGetOptions};
use lapin::types::AMQPValue;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::Value;

use crate::Failed;
use crate::audit::Record;
use crate::job::{API_KEY, FORMS, SECRET_KEY};
use crate::limits::Counted;
use crate::stage::{LEDGER_PREFIX, Stage};
use crate::witness::{Witnesses, attempted};

/// The queues that must be empty in the end.
pub(crate) const EMPTY: [&str; 4] = ["otp.jobs", "otp.dropped", "otp.results.unrouted", crate::listener::QUEUE];
const DEAD: &str = "otp.dead";

/// Everything that was found.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// How many messages, delivered or not, are in each queue that should be empty.
    pub(crate) left: Vec<(&'static str, u32)>,
    /// Why each copy is on `otp.dead`, by job.
    pub(crate) dead: HashMap<String, Vec<String>>,
    pub(crate) records: HashMap<String, Record>,
    pub(crate) logs: Logs,
    /// What the limits count in the end.
    pub(crate) counted: Option<Counted>,
}

/// What the workers' logs say.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    /// How often each message of [`TOLD`] was logged.
    pub(crate) counts: Vec<(&'static str, u64)>,
    /// Lines that must not be in a log.
    pub(crate) bad: Vec<String>,
    pub(crate) ledger_errors: bool,
    /// Jobs that a worker attempted which ended while it could not reach the ledger.
    pub(crate) unwitnessed: HashSet<String>,
    /// How many attempts of each job the logs tell of.
    pub(crate) attempts: HashMap<String, usize>,
}

/// The events that are counted, and the words by which they are found in the logs.
const TOLD: [(&str, &str); 7] = [
    ("workers that began to consume", "\"message\":\"consuming\""),
    ("deliveries that joined a job in flight", "delivered again while in flight"),
    ("waits for another worker's result", "another worker has the job"),
    ("acknowledgements that came too late", "gone before its acknowledgement"),
    ("deliveries given back", "\"message\":\"given back\""),
    ("publishes tried again", "not published yet"),
    ("times a ledger was lost", LEDGER_LOST),
];
const LEDGER_LOST: &str = "\"message\":\"the ledger does not answer\"";

impl Evidence {
    pub(crate) async fn gather(stage: &Stage) -> Result<Self, Failed> {
        let mut evidence = Self { logs: Logs::read(stage)?, ..Self::default() };
        for queue in EMPTY {
            evidence.left.push((queue, stage.broker.messages(queue).await));
        }
        evidence.dead = dead_letters(&stage.broker.url()).await?;
        evidence.records = records(stage).await;
        evidence.counted = Counted::read(stage).await;
        Ok(evidence)
    }
}

impl Logs {
    fn read(stage: &Stage) -> Result<Self, Failed> {
        let mut logs = Self { counts: TOLD.map(|(what, _)| (what, 0)).to_vec(), ..Self::default() };
        for seat in 0..stage.networks.len() {
            let mut witnesses = Witnesses::default();
            for_each_line(&stage.log(seat), |line| {
                logs.note(line);
                witnesses.note(line);
            })?;
            witnesses.worker_ended();
            logs.unwitnessed.extend(witnesses.into_lost());
        }
        Ok(logs)
    }

    fn note(&mut self, line: &str) {
        for ((_, words), (_, count)) in TOLD.iter().zip(&mut self.counts) {
            *count += u64::from(line.contains(words));
        }
        if let Some(id) = attempted(line) {
            *self.attempts.entry(id).or_default() += 1;
        }
        self.ledger_errors |= line.contains(LEDGER_LOST) && line.contains("WARN");
        if is_unplanned_panic(line) || holds_a_phone(line) || line.contains(API_KEY) || line.contains(SECRET_KEY) {
            self.bad.push(line.to_owned());
        }
    }
}

/// The log lines about a job, each with its time.
pub(crate) fn lines_about(stage: &Stage, id: &str) -> Vec<(SystemTime, String)> {
    let mut lines = Vec::new();
    for seat in 0..stage.networks.len() {
        // A story with one log missing is better than no story.
        let _ = for_each_line(&stage.log(seat), |line| {
            if line.contains(id) {
                lines.extend(readable(line).map(|(at, line)| (at, format!("worker {}: {line}", seat + 1))));
            }
        });
    }
    lines
}

/// A log line, without the fields that are clear from its place in the story.
fn readable(line: &str) -> Option<(SystemTime, String)> {
    let mut json: Value = serde_json::from_str(line).ok()?;
    let fields = json.as_object_mut()?;
    let at = humantime::parse_rfc3339(fields.remove("timestamp")?.as_str()?).ok()?;
    let message = fields.remove("message")?.as_str()?.to_owned();
    fields.retain(|name, _| !["level", "target", "job_id", "phone", "hint"].contains(&name.as_str()));
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Some((at, format!("{message} {}", fields.join(" ")).trim_end().to_owned()))
}

fn for_each_line(path: &Path, mut look: impl FnMut(&str)) -> Result<(), Failed> {
    let text = String::from_utf8_lossy(&std::fs::read(path)?).into_owned();
    text.lines().for_each(&mut look);
    Ok(())
}

/// A panic anywhere but at the planned places of `src/crash.rs`.
fn is_unplanned_panic(line: &str) -> bool {
    line.contains("\"panicked\"") && !line.contains("\"location\":\"src/crash.rs:")
}

/// Whether the line contains a number that can only be a phone of this campaign.
fn holds_a_phone(line: &str) -> bool {
    let is_phone = |(at, form): (usize, &str)| {
        let digits = line[at + form.len()..].bytes().take_while(u8::is_ascii_digit).count();
        let inside = line[..at].bytes().next_back().is_some_and(|before| before.is_ascii_alphanumeric());
        digits == 6 && !inside
    };
    FORMS.iter().any(|form| line.match_indices(form).any(is_phone))
}

async fn dead_letters(url: &str) -> Result<HashMap<String, Vec<String>>, Failed> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let mut dead: HashMap<String, Vec<String>> = HashMap::new();
    while let Some(message) = channel.basic_get(DEAD.into(), BasicGetOptions::default()).await? {
        let properties = &message.delivery.properties;
        let id = properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
        dead.entry(id).or_default().push(why(properties));
        message.delivery.ack(BasicAckOptions::default()).await?;
    }
    connection.close(200, "done".into()).await?;
    Ok(dead)
}

fn why(properties: &BasicProperties) -> String {
    let header = properties.headers().as_ref().and_then(|headers| headers.inner().get("x-error"));
    match header {
        Some(AMQPValue::LongString(why)) => why.to_string(),
        _ => "no x-error".to_owned(),
    }
}

/// Every record of Redis, read in one step.
async fn records(stage: &Stage) -> HashMap<String, Record> {
    let Some(redis) = &stage.redis else { return HashMap::new() };
    let told = redis.cli(&["--raw", "EVAL", RECORDS, "0", &format!("{LEDGER_PREFIX}job:")]).await;
    let records = told.lines().filter_map(|line| {
        let mut fields = line.splitn(3, '\t');
        let id = fields.next()?.rsplit(':').next()?.to_owned();
        let (state, result) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        Some((id, Record { state, result }))
    });
    records.collect()
}

/// Returns one line for each key: the key, the state, and the result as JSON without a line break.
const RECORDS: &str = "local told = {} \
    for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do \
      local job = redis.call('HMGET', key, 'state', 'result') \
      told[#told + 1] = key .. '\\t' .. (job[1] or '') .. '\\t' .. (job[2] or '') \
    end \
    return told";
