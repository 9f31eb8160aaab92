//! `send`: puts jobs on the queue, as a producer does, and waits for their results if asked to.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, Consumer};
use serde::Deserialize;
use tokio::fs::File;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, stdin, stdout};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use crate::amqp;
use crate::broker::{REPLY_WITHIN, close};
use crate::config::BrokerConfig;
use crate::job::request;

/// Publishes that may wait for their confirmation at once: enough to hide the round trip, few enough
/// that a slow broker slows the reading.
const UNCONFIRMED: usize = 512;

/// RabbitMQ's pseudo-queue that brings a reply straight to this channel.
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";

/// Where the jobs come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// This one body.
    One(String),
    /// A file of JSON lines.
    File(PathBuf),
    /// JSON lines on standard input.
    StandardInput,
}

/// What to send and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The jobs.
    pub source: Source,
    /// The `expiration` of each job.
    pub expiration: Option<Duration>,
    /// How long to wait for results after the last job is queued; no waiting without.
    pub wait: Option<Duration>,
}

/// Why not everything could be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The broker cannot be connected to.
    #[error(transparent)]
    NotConnected(#[from] amqp::ConnectError),
    /// The connection was lost.
    #[error("the connection to the broker was lost: {0}")]
    Lost(#[from] lapin::Error),
    /// The broker did not answer.
    #[error("the broker did not answer within {} s", REPLY_WITHIN.as_secs())]
    Silent,
    /// No such queue.
    #[error("the broker has no queue {0}: start a worker first, which declares it")]
    NoQueue(String),
    /// The queue is full.
    #[error("the broker refused a job (nack): the queue may be full")]
    Refused,
    /// The jobs cannot be read.
    #[error("cannot read {0}: {1}")]
    Input(String, std::io::Error),
    /// The ids or results cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(std::io::Error),
}

/// What became of the jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Jobs that are on the queue.
    pub queued: usize,
    /// Lines that are no job, with the reason; they were not queued.
    pub refused: Vec<String>,
    /// Results that came, by outcome.
    pub outcomes: BTreeMap<String, usize>,
    /// Whether results were waited for.
    pub waited: bool,
}

impl Summary {
    /// Jobs whose result did not come in time.
    pub fn missing(&self) -> usize {
        if self.waited { self.queued.saturating_sub(self.outcomes.values().sum()) } else { 0 }
    }

    /// Whether every line was queued and, if waited for, accepted.
    pub fn is_success(&self) -> bool {
        let accepted = self.outcomes.get("accepted").copied().unwrap_or_default();
        self.refused.is_empty() && (!self.waited || accepted == self.queued)
    }
}

/// Queues the jobs of `options`. Prints to standard output the id of each, or, when waiting, the
/// result of each as it comes; draws its progress on standard error.
///
/// # Errors
/// [`SendError`]; what was queued before stays queued.
pub async fn send(broker: &BrokerConfig, options: Options) -> Result<Summary, SendError> {
    let lines = Lines::open(options.source).await?;
    let connection = amqp::connect(&broker.uri, &broker.tls, "esms-otp-worker send").await?;
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
    broker: &BrokerConfig,
    lines: Lines,
    expiration: Option<Duration>,
) -> Result<Summary, SendError> {
    let progress = bar("queued", lines.total);
    let (ids, mut printed) = mpsc::channel::<String>(UNCONFIRMED);
    let printing = tokio::spawn(async move {
        let mut out = stdout();
        while let Some(id) = printed.recv().await {
            out.write_all(format!("{id}\n").as_bytes()).await?;
        }
        out.flush().await
    });
    let publishing = Publishing::new(channel, broker, expiration, None, ids);
    let summary = publishing.run(lines, &progress).await;
    progress.finish_and_clear();
    printing.await.map_err(std::io::Error::other).and_then(|written| written).map_err(SendError::Output)?;
    summary
}

async fn send_and_wait(
    channel: Channel,
    broker: &BrokerConfig,
    lines: Lines,
    expiration: Option<Duration>,
    patience: Duration,
) -> Result<Summary, SendError> {
    let progress = bar("results", lines.total);
    // Direct reply-to is a consumer of the publishing channel, and must be there before the first job.
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let subscribing = channel.basic_consume(DIRECT_REPLY.into(), "".into(), options, FieldTable::default());
    let replies = timeout(REPLY_WITHIN, subscribing).await.map_err(|_| SendError::Silent)??;
    let (ids, queued) = mpsc::channel(UNCONFIRMED);
    let publishing = Publishing::new(channel, broker, expiration, Some(DIRECT_REPLY), ids);
    let hidden = ProgressBar::hidden();
    let collecting = collect(replies, queued, &progress, patience);
    // Where queueing fails there is nothing more to wait for.
    let ended = tokio::try_join!(publishing.run(lines, &hidden), collecting);
    progress.finish_and_clear();
    let (summary, outcomes) = ended?;
    Ok(Summary { outcomes, waited: true, ..summary })
}

/// JSON lines, one job each.
struct Lines {
    name: String,
    input: Box<dyn AsyncBufRead + Send + Unpin>,
    total: Option<u64>,
}

impl Lines {
    async fn open(source: Source) -> Result<Self, SendError> {
        match source {
            Source::One(body) => Ok(Self {
                name: "the job".into(),
                input: Box::new(std::io::Cursor::new(body.into_bytes())),
                total: Some(1),
            }),
            Source::StandardInput => {
                Ok(Self { name: "standard input".into(), input: Box::new(BufReader::new(stdin())), total: None })
            }
            Source::File(path) => {
                let name = path.display().to_string();
                let failed = |error| SendError::Input(name.clone(), error);
                let total = count_lines(&path).await.map_err(failed)?;
                let file = File::open(&path).await.map_err(failed)?;
                Ok(Self { name, input: Box::new(BufReader::new(file)), total: Some(total) })
            }
        }
    }
}

async fn count_lines(path: &PathBuf) -> std::io::Result<u64> {
    let mut lines = BufReader::new(File::open(path).await?).split(b'\n');
    let mut total = 0;
    while let Some(line) = lines.next_segment().await? {
        total += u64::from(!line.trim_ascii().is_empty());
    }
    Ok(total)
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

/// The id of a published job, and what the broker said to it.
type Confirmed = Result<(String, Confirmation), SendError>;

/// Publishes jobs, a window of them unconfirmed.
struct Publishing {
    channel: Channel,
    queue: String,
    expiration: Option<Duration>,
    reply_to: Option<&'static str>,
    window: Arc<Semaphore>,
    ids: mpsc::Sender<String>,
}

impl Publishing {
    fn new(
        channel: Channel,
        broker: &BrokerConfig,
        expiration: Option<Duration>,
        reply_to: Option<&'static str>,
        ids: mpsc::Sender<String>,
    ) -> Self {
        let window = Arc::new(Semaphore::new(UNCONFIRMED));
        Self { channel, queue: broker.queue.clone(), expiration, reply_to, window, ids }
    }

    async fn run(self, lines: Lines, progress: &ProgressBar) -> Result<Summary, SendError> {
        let mut summary = Summary::default();
        let mut confirming = JoinSet::new();
        let mut input = lines.input.split(b'\n');
        let mut number = 0;
        while let Some(line) =
            input.next_segment().await.map_err(|error| SendError::Input(lines.name.clone(), error))?
        {
            number += 1;
            let body = line.trim_ascii();
            if body.is_empty() {
                continue;
            }
            // A template may be the worker's setting, so its absence is no mistake here.
            if let Err(error) = request::decode(body, Some("the worker's")) {
                summary.refused.push(format!("line {number}: {error}"));
                continue;
            }
            self.publish(body, &mut confirming).await?;
            while let Some(confirmed) = confirming.try_join_next() {
                self.tell(confirmed, &mut summary, progress).await?;
            }
        }
        while let Some(confirmed) = confirming.join_next().await {
            self.tell(confirmed, &mut summary, progress).await?;
        }
        Ok(summary)
    }

    async fn publish(&self, body: &[u8], confirming: &mut JoinSet<Confirmed>) -> Result<(), SendError> {
        let place = Arc::clone(&self.window).acquire_owned().await;
        let id = Uuid::new_v4().to_string();
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let queue = ShortString::from(self.queue.as_str());
        let publish = self.channel.basic_publish("".into(), queue, options, body, self.properties(&id));
        let confirm = timeout(REPLY_WITHIN, publish).await.map_err(|_| SendError::Silent)??;
        confirming.spawn(async move {
            let confirmed = timeout(REPLY_WITHIN, confirm).await.map_err(|_| SendError::Silent)?;
            drop(place);
            Ok((id, confirmed?))
        });
        Ok(())
    }

    fn properties(&self, id: &str) -> BasicProperties {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_message_id(id.into())
            .with_timestamp(now.as_secs());
        if let Some(expiration) = self.expiration {
            properties = properties.with_expiration(expiration.as_millis().to_string().into());
        }
        if let Some(queue) = self.reply_to {
            properties = properties.with_reply_to(queue.into());
        }
        properties
    }

    /// One job more is on the queue, if the broker says so.
    async fn tell(
        &self,
        confirmed: Result<Confirmed, JoinError>,
        summary: &mut Summary,
        progress: &ProgressBar,
    ) -> Result<(), SendError> {
        match confirmed.map_err(|_| SendError::Silent)?? {
            (id, Confirmation::Ack(None)) => {
                summary.queued += 1;
                progress.inc(1);
                // Who prints or awaits it may have given up, and says so itself.
                let _ = self.ids.send(id).await;
                Ok(())
            }
            (_, Confirmation::Ack(Some(_))) => Err(SendError::NoQueue(self.queue.clone())),
            (_, Confirmation::Nack(_) | Confirmation::NotRequested) => Err(SendError::Refused),
        }
    }
}

/// The part of a result that is counted.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Counted {
    job_id: String,
    outcome: String,
}

/// Prints each result once, until every queued job has one or none has come for `patience`.
async fn collect(
    mut replies: Consumer,
    mut queued: mpsc::Receiver<String>,
    progress: &ProgressBar,
    patience: Duration,
) -> Result<BTreeMap<String, usize>, SendError> {
    let mut outcomes = BTreeMap::new();
    let (mut waiting, mut seen) = (HashSet::new(), HashSet::new());
    let mut all_queued = false;
    let mut last = Instant::now();
    let mut out = stdout();
    while !(all_queued && waiting.is_empty()) {
        let reply = tokio::select! {
            id = queued.recv(), if !all_queued => {
                last = Instant::now();
                match id {
                    // A result can be faster than the confirmation.
                    Some(id) if seen.contains(&id) => {}
                    Some(id) => drop(waiting.insert(id)),
                    None => all_queued = true,
                }
                continue;
            }
            reply = replies.next() => reply,
            // A result that is late is missing, and the summary says so. While none is awaited, a
            // producer that pauses makes none late.
            () = sleep_until(last + patience), if !waiting.is_empty() => break,
        };
        let Some(reply) = reply else { break };
        let reply: Delivery = reply?;
        last = Instant::now();
        let Ok(counted) = serde_json::from_slice::<Counted>(&reply.data) else { continue };
        waiting.remove(&counted.job_id);
        // A result comes at least once; it is shown once.
        if !seen.insert(counted.job_id) {
            continue;
        }
        *outcomes.entry(counted.outcome).or_default() += 1;
        progress.inc(1);
        out.write_all(&[&reply.data[..], b"\n"].concat()).await.map_err(SendError::Output)?;
    }
    out.flush().await.map_err(SendError::Output)?;
    Ok(outcomes)
}
