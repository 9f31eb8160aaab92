//! Publishes jobs, as a producer does. A limited number of them may be unconfirmed at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use indicatif::ProgressBar;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::io::AsyncBufReadExt as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use uuid::Uuid;

use super::error::SendError;
use super::input::{Lines, is_utf16, job};
use crate::broker::REPLY_WITHIN;
use crate::broker::settings::BrokerSettings;
use crate::job::request;

/// How many published jobs may wait for their publisher confirm at once. It is enough to hide the round trip,
/// and few enough that a slow broker slows the reading of the input.
pub(super) const UNCONFIRMED: usize = 512;

/// What happened to the jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// Jobs that are on the queue.
    pub queued: usize,
    /// Lines that are not a job, with the reason. They were not queued.
    pub refused: Vec<String>,
    /// How many results came, by outcome.
    pub outcomes: BTreeMap<String, usize>,
    /// Whether results were waited for.
    pub waited: bool,
}

impl Summary {
    /// How many jobs got no result in time.
    pub(super) fn missing(&self) -> usize {
        if self.waited { self.queued.saturating_sub(self.outcomes.values().sum()) } else { 0 }
    }

    /// Whether every line was queued and, if results were waited for, accepted.
    pub(super) fn is_success(&self) -> bool {
        let accepted = self.outcomes.get("accepted").copied().unwrap_or_default();
        self.refused.is_empty() && (!self.waited || accepted == self.queued)
    }
}

/// The id of a published job, and the broker's answer to it.
type Confirmed = Result<(String, Confirmation), SendError>;

/// Publishes jobs. At most [`UNCONFIRMED`] of them wait for their publisher confirm at once.
pub(super) struct Publishing {
    channel: Channel,
    queue: String,
    expiration: Option<Duration>,
    reply_to: Option<&'static str>,
    window: Arc<Semaphore>,
    ids: mpsc::Sender<String>,
}

impl Publishing {
    pub(super) fn new(
        channel: Channel,
        broker: &BrokerSettings,
        expiration: Option<Duration>,
        reply_to: Option<&'static str>,
        ids: mpsc::Sender<String>,
    ) -> Self {
        let window = Arc::new(Semaphore::new(UNCONFIRMED));
        Self { channel, queue: broker.queue.clone(), expiration, reply_to, window, ids }
    }

    pub(super) async fn run(self, lines: Lines, progress: &ProgressBar) -> Result<Summary, SendError> {
        let mut summary = Summary::default();
        let mut confirming = JoinSet::new();
        let mut input = lines.input.split(b'\n');
        let mut number = 0;
        while let Some(line) =
            input.next_segment().await.map_err(|error| SendError::Input(lines.name.clone(), error))?
        {
            number += 1;
            if number == 1 && is_utf16(&line) {
                return Err(SendError::Encoding(lines.name));
            }
            let body = job(&line);
            if body.is_empty() {
                continue;
            }
            // The worker may have a default template, so a job without one is not a mistake here.
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
        if let Some(expiration) = self.expiration {
            properties = properties.with_expiration(expiration.as_millis().to_string().into());
        }
        if let Some(queue) = self.reply_to {
            properties = properties.with_reply_to(queue.into());
        }
        properties
    }

    /// Counts one more queued job if the broker confirmed it.
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
                // The task that receives the ids may have ended. It reports its own error.
                let _ = self.ids.send(id).await;
                Ok(())
            }
            (_, Confirmation::Ack(Some(_))) => Err(SendError::NoQueue(self.queue.clone())),
            (_, Confirmation::Nack(_) | Confirmation::NotRequested) => Err(SendError::Refused),
        }
    }
}
