//! What all runs share: a private broker, a private Redis, the objects on the broker, and who cannot run.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};

use crate::Failed;
use crate::contender::Contender;
use crate::settings::Settings;
use crate::support::broker::Broker;
use crate::support::client::{Client, Job};
use crate::support::leash::Scratch;
use crate::support::redis::Redis;
use crate::support::terminal::{red, say, step};
use crate::support::wait::found;

/// Where results are published.
pub(crate) const EXCHANGE: &str = "otp.results";

const LIMIT: Duration = Duration::from_secs(60);

/// How many jobs are published before their confirms are awaited.
const AT_ONCE: usize = 2_000;

pub(crate) struct Stage {
    pub(crate) settings: Settings,
    pub(crate) broker: Broker,
    pub(crate) redis: Redis,
    pub(crate) broker_pid: u32,
    pub(crate) redis_pid: u32,
    scratch: Scratch,
    queues: usize,
    /// Who does not run, and why.
    away: Vec<(Contender, String)>,
    failures: Vec<String>,
}

impl Stage {
    pub(crate) async fn set(settings: Settings) -> Result<Self, Failed> {
        let scratch = Scratch::new()?;
        let broker = step("a private broker", async { Ok(Broker::start().await) }).await?;
        let redis = step("a private Redis", async { Ok(Redis::start().await) }).await?;
        let broker_pid = broker.eval("os:getpid().").await.trim_matches('"').parse()?;
        let info = redis.cli(&["INFO", "server"]).await;
        let redis_pid = info.lines().find_map(|line| line.strip_prefix("process_id:")).ok_or("no process_id")?;
        let redis_pid = redis_pid.trim().parse()?;
        let chosen = settings.contenders.iter();
        let away = chosen.filter_map(|&who| Some((who, settings.programs.why_not(who)?))).collect();
        let failures = Vec::new();
        Ok(Self { settings, broker, redis, broker_pid, redis_pid, scratch, queues: 0, away, failures })
    }

    /// Who runs in this round. The order is another in each.
    pub(crate) fn turns(&self, round: usize) -> Vec<Contender> {
        let mut contenders = self.settings.contenders.clone();
        let places = contenders.len();
        contenders.rotate_left(round % places);
        contenders.retain(|&contender| self.why_away(contender).is_none());
        contenders
    }

    /// Why this one does not run, if it does not.
    pub(crate) fn why_away(&self, contender: Contender) -> Option<&str> {
        self.away.iter().find(|(who, _)| *who == contender).map(|(_, why)| why.as_str())
    }

    /// A run has failed. Whoever failed does not run again.
    pub(crate) fn failed(&mut self, contender: Contender, what: &str, error: &Failed) {
        self.part_failed(what, error);
        self.away.push((contender, "it has failed; see above".into()));
    }

    /// Something has failed. The rest is measured all the same.
    pub(crate) fn part_failed(&mut self, what: &str, error: &Failed) {
        say(red(&format!("  {what}: {error}\n{}", self.end_of_log())));
        self.failures.push(what.to_owned());
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.clone()
    }

    /// What a contender writes to its standard error; the last lines of the first one's are told after a failure.
    pub(crate) fn log(&self, nth: usize) -> PathBuf {
        self.scratch.file(&format!("log-{nth}"))
    }

    pub(crate) fn end_of_log(&self) -> String {
        let end = std::fs::File::open(self.log(0)).and_then(|mut file| {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(1_500)))?;
            let mut end = Vec::new();
            file.read_to_end(&mut end).map(|_| end)
        });
        String::from_utf8_lossy(&end.unwrap_or_default()).trim_end().to_owned()
    }

    /// A file that is gone after the benchmark.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.scratch.file(name)
    }

    /// A new empty queue of the kind that the worker declares. The worker refuses one that differs.
    pub(crate) async fn new_queue(&mut self) -> Result<String, Failed> {
        self.queues += 1;
        let name = format!("bench.jobs.{}", self.queues);
        let client = Client::connect(&self.broker.url()).await;
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        client.channel().queue_declare(name.as_str().into(), options, work_queue()).await?;
        client.close().await;
        Ok(name)
    }

    pub(crate) async fn delete_queue(&self, name: &str) -> Result<(), Failed> {
        let client = Client::connect(&self.broker.url()).await;
        client.channel().queue_delete(name.into(), QueueDeleteOptions::default()).await?;
        client.close().await;
        Ok(())
    }

    /// Puts the jobs on the queue. They are confirmed when this returns.
    pub(crate) async fn fill(&self, queue: &str, jobs: impl Iterator<Item = Job>) {
        let client = Client::connect(&self.broker.url()).await;
        let mut jobs = jobs.peekable();
        while jobs.peek().is_some() {
            client.publish_all(queue, jobs.by_ref().take(AT_ONCE)).await;
        }
        client.close().await;
    }

    /// Waits until the queue has no message, delivered or not.
    pub(crate) async fn emptied(&self, queue: &str) -> Result<(), Failed> {
        let empty = async || (self.broker.messages(queue).await == 0).then_some(());
        found(LIMIT, empty).await.ok_or_else(|| "jobs are not acknowledged".into())
    }
}

fn work_queue() -> FieldTable {
    let text = |value: &str| AMQPValue::LongString(value.into());
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-dead-letter-exchange".into(), text("otp.dropped"));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(20));
    arguments
}
