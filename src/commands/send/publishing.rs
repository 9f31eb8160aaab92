//! Publishes jobs, as a producer does. A limited number of them may be unconfirmed at once.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::error::SendError;
use super::ids::Ids;
use super::input::Lines;
use super::line::Line;
use super::pace::Pace;
use super::voice::{Event, Summary, Voice};
use crate::broker::REPLY_WITHIN;
use crate::broker::alarm::Alarm;
use crate::job::request::{self, BodyError};

/// How many published jobs may wait for their publisher confirm at once. It is enough to hide the round trip,
/// and few enough that a slow broker slows the reading of the input.
pub(super) const UNCONFIRMED: usize = 512;

/// How long confirms are taken in after an error.
const DRAINED_WITHIN: Duration = Duration::from_secs(2);

/// A job on the queue.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) id: String,
    /// The line that it came from.
    pub(super) line: u64,
}

/// A published job, and the broker's answer to it.
type Confirmed = Result<(Queued, Confirmation), SendError>;

/// How jobs are published.
pub(super) struct Manner {
    pub(super) queue: String,
    pub(super) expiration: Option<Duration>,
    pub(super) reply_to: Option<&'static str>,
    pub(super) ids: Ids,
    pub(super) pace: Option<Pace>,
    /// Ends the publishing.
    pub(super) stop: CancellationToken,
}

/// Publishes jobs. At most [`UNCONFIRMED`] of them wait for their publisher confirm at once.
pub(super) struct Publishing<'a> {
    channel: Channel,
    manner: Manner,
    window: Arc<Semaphore>,
    alarm: Alarm,
    voice: &'a Voice,
    queued: mpsc::Sender<Queued>,
    confirming: JoinSet<Confirmed>,
    refused: u64,
}

impl<'a> Publishing<'a> {
    pub(super) fn new(
        channel: Channel,
        manner: Manner,
        alarm: Alarm,
        voice: &'a Voice,
        queued: mpsc::Sender<Queued>,
    ) -> Self {
        let window = Arc::new(Semaphore::new(UNCONFIRMED));
        Self { channel, manner, window, alarm, voice, queued, confirming: JoinSet::new(), refused: 0 }
    }

    pub(super) const fn voice(&self) -> &'a Voice {
        self.voice
    }

    pub(super) async fn run(mut self, lines: Lines) -> Result<Summary, SendError> {
        let ended = match self.publish_all(lines).await {
            Ok(()) => self.drain().await,
            Err(error) => {
                // What is confirmed all the same is told. The error says more than another one.
                let _ = timeout(DRAINED_WITHIN, self.drain()).await;
                Err(error)
            }
        };
        ended.map(|()| Summary { queued: self.voice.queued().jobs, refused: self.refused, outcomes: None })
    }

    async fn publish_all(&mut self, mut lines: Lines) -> Result<(), SendError> {
        let stop = self.manner.stop.clone();
        loop {
            tokio::select! {
                line = lines.read.recv() => match line {
                    Some(line) => {
                        let taken = stop.run_until_cancelled(self.take(line?)).await;
                        taken.unwrap_or(Err(SendError::Interrupted))?;
                    }
                    None => return Ok(()),
                },
                // While the input pauses, too.
                Some(confirmed) = self.confirming.join_next() => self.tell(confirmed).await?,
                () = stop.cancelled() => return Err(SendError::Interrupted),
            }
        }
    }

    /// Takes in every confirm that is awaited.
    async fn drain(&mut self) -> Result<(), SendError> {
        let mut ended = Ok(());
        while let Some(confirmed) = self.confirming.join_next().await {
            let told = self.tell(confirmed).await;
            ended = ended.and(told);
        }
        ended
    }

    async fn take(&mut self, line: Line) -> Result<(), SendError> {
        // The worker may have a default template, so a job without one is not a mistake here.
        let decoded = line.body.and_then(|body| match request::decode(&body, Some("the worker's")) {
            Ok(job) => Ok((body, job)),
            Err(error) => Err(in_words(&error)),
        });
        match decoded {
            Ok((body, job)) => {
                let id = self.manner.ids.next(&job);
                self.publish(&body, Queued { id, line: line.number }).await
            }
            Err(why) => {
                self.refused += 1;
                self.voice.tell(&Event::Refused { line: line.number, why: &why });
                Ok(())
            }
        }
    }

    async fn publish(&mut self, body: &[u8], job: Queued) -> Result<(), SendError> {
        let place = self.place().await?;
        if let Some(pace) = &mut self.manner.pace {
            let at = pace.next(Instant::now());
            sleep_until(at).await;
        }
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let queue = ShortString::from(self.manner.queue.as_str());
        let publish = self.channel.basic_publish("".into(), queue, options, body, self.properties(&job.id));
        let alarm = self.alarm.clone();
        let confirm = tokio::select! {
            confirm = publish => confirm?,
            () = alarm.silence(REPLY_WITHIN) => return Err(SendError::Silent),
        };
        self.voice.one_published();
        self.confirming.spawn(async move {
            let confirmed = tokio::select! {
                confirmed = confirm => confirmed?,
                () = alarm.silence(REPLY_WITHIN) => return Err(SendError::Silent),
            };
            drop(place);
            Ok((job, confirmed))
        });
        Ok(())
    }

    /// A place among the unconfirmed. Meanwhile confirms are taken in: one of them may be an error.
    async fn place(&mut self) -> Result<tokio::sync::OwnedSemaphorePermit, SendError> {
        loop {
            let free = Arc::clone(&self.window).acquire_owned();
            tokio::select! {
                biased;
                Some(confirmed) = self.confirming.join_next() => self.tell(confirmed).await?,
                // The semaphore is never closed.
                place = free => return place.map_err(|_| SendError::Silent),
            }
        }
    }

    fn properties(&self, id: &str) -> BasicProperties {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // A timestamp has whole seconds. This header is as exact as a deadline needs it.
        let mut headers = FieldTable::default();
        let millis = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        headers.insert("timestamp_in_ms".into(), AMQPValue::LongLongInt(millis));
        let mut properties = BasicProperties::default()
            .with_headers(headers)
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_message_id(id.into())
            .with_timestamp(now.as_secs());
        if let Some(expiration) = self.manner.expiration {
            properties = properties.with_expiration(expiration.as_millis().to_string().into());
        }
        if let Some(queue) = self.manner.reply_to {
            properties = properties.with_reply_to(queue.into());
        }
        properties
    }

    /// Counts one more queued job if the broker confirmed it.
    async fn tell(&self, confirmed: Result<Confirmed, JoinError>) -> Result<(), SendError> {
        match confirmed.map_err(|_| SendError::Silent)?? {
            (job, Confirmation::Ack(None)) => {
                self.voice.one_queued();
                if self.manner.reply_to.is_none() {
                    self.voice.one_done();
                }
                // Whoever prints them has ended, and reports its own error.
                self.queued.send(job).await.map_err(|_| SendError::Interrupted)
            }
            (_, Confirmation::Ack(Some(_))) => Err(SendError::NoQueue(self.manner.queue.clone())),
            (_, Confirmation::Nack(_) | Confirmation::NotRequested) => Err(SendError::Refused),
        }
    }
}

/// Why a line is no job. Its number is said already.
fn in_words(error: &BodyError) -> String {
    match error {
        BodyError::NotJson { column, .. } => format!(
            "it is not valid JSON (column {column}): each line must be one whole job; a CSV file needs --format csv"
        ),
        error => error.to_string(),
    }
}
