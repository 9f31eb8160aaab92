//! What all runs share: a private broker, a private Redis, and the objects on the broker.

use std::path::PathBuf;
use std::time::Duration;

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};

use crate::Failed;
use crate::contender::Contender;
use crate::process;
use crate::settings::Settings;
use crate::support::broker::Broker;
use crate::support::client::{Client, Job};
use crate::support::leash::{Program, Scratch};
use crate::support::ports;
use crate::support::redis::Redis;
use crate::support::terminal::step;
use crate::support::wait::{found, until};

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
        let stage = Self { settings, broker, redis, broker_pid, redis_pid, scratch, queues: 0 };
        stage.declare().await?;
        Ok(stage)
    }

    /// Has the worker declare its objects.
    async fn declare(&self) -> Result<(), Failed> {
        let mut worker = Contender::Worker.start(self, "otp.jobs", 1, "http://127.0.0.1:9/")?;
        let declared = async || self.broker.queue_depth("otp.jobs").await;
        found(LIMIT, declared).await.ok_or_else(|| format!("the worker does not declare\n{}", self.end_of_log()))?;
        worker.terminate();
        worker.wait(LIMIT).await;
        Ok(())
    }

    /// What a contender writes to its standard error.
    pub(crate) fn log(&self) -> PathBuf {
        self.scratch.file("log")
    }

    /// The last lines of what the last contender wrote.
    pub(crate) fn end_of_log(&self) -> String {
        let log = std::fs::read(self.log()).unwrap_or_default();
        let end = String::from_utf8_lossy(&log[log.len().saturating_sub(1_500)..]).into_owned();
        end.trim_end().to_owned()
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
    pub(crate) async fn fill(&self, queue: &str, jobs: Vec<Job>) {
        let client = Client::connect(&self.broker.url()).await;
        let mut jobs = jobs.into_iter().peekable();
        while jobs.peek().is_some() {
            client.publish_all(queue, jobs.by_ref().take(AT_ONCE)).await;
        }
        client.close().await;
    }

    /// Waits until the queue has no message, delivered or not.
    pub(crate) async fn emptied(&self, queue: &str) {
        until("every job is acknowledged", LIMIT, async || self.broker.messages(queue).await == 0).await;
    }

    /// Processor seconds that the broker has used.
    pub(crate) fn broker_cpu(&self) -> Result<Duration, Failed> {
        process::cpu(self.broker_pid)
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

/// The endpoint, pretended. It has no memory of earlier runs.
pub(crate) struct Sandbox {
    addr: std::net::SocketAddr,
    _program: Program,
}

impl Sandbox {
    pub(crate) async fn start(stage: &Stage, latency: Duration) -> Result<Self, Failed> {
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], ports::free_block(1)));
        let (at, latency) = (addr.to_string(), format!("{}ms", latency.as_millis()));
        let args = ["--addr", &at, "--latency", &latency];
        let mut program = Program::start(&stage.settings.programs.sandbox, &args, std::process::Stdio::null(), |_| {})?;
        program.line().await?.ok_or("the sandbox has ended")?;
        Ok(Self { addr, _program: program })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}{}", self.addr, esms_otp_worker::sandbox::SEND_PATH)
    }

    /// Fails unless each of `jobs` phones was called exactly once.
    pub(crate) async fn check(&self, jobs: usize) -> Result<(), Failed> {
        let (_, stats) = crate::support::metrics::get(self.addr, "/_sandbox/stats").await;
        let stats: serde_json::Value = serde_json::from_str(&stats)?;
        let count = |name: &str| stats[name].as_u64();
        let wanted = Some(jobs as u64);
        if [count("requests"), count("accepted"), count("phones")] == [wanted; 3] && count("duplicates") == Some(0) {
            return Ok(());
        }
        Err(format!("not one call for each of {jobs} phones: {stats}").into())
    }
}
