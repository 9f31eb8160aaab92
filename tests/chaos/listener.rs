//! Listens for the results: a durable queue on the results exchange, and its reader.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::Failed;

/// The queue of the results. It is a quorum queue, so that a result confirmed to a worker outlives a kill.
pub(crate) const QUEUE: &str = "chaos.results";
const EXCHANGE: &str = "otp.results";

const SILENCE: Duration = Duration::from_secs(10);

/// One result as it came.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) at: SystemTime,
    pub(crate) body: String,
}

/// Every result so far, by its job's id.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<HashMap<String, Vec<Told>>>);

impl Heard {
    fn results(&self) -> MutexGuard<'_, HashMap<String, Vec<Told>>> {
        self.0.lock().expect("an unpoisoned lock")
    }

    /// How many jobs have a result.
    pub(crate) fn jobs(&self) -> usize {
        self.results().len()
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.results().contains_key(id)
    }

    pub(crate) fn all(&self) -> HashMap<String, Vec<Told>> {
        self.results().clone()
    }

    fn note(&self, body: &[u8], redelivered: bool) {
        let body = String::from_utf8_lossy(body).into_owned();
        let id = serde_json::from_str(&body).ok().and_then(|json: Value| Some(json["JobId"].as_str()?.to_owned()));
        let mut results = self.results();
        // A result without an id belongs to no job. The audit reports it.
        let told = results.entry(id.unwrap_or_default()).or_default();
        // When this reader could not acknowledge a message, it is delivered again, but it was published
        // only once.
        if !(redelivered && told.iter().any(|earlier| earlier.body == body)) {
            told.push(Told { at: SystemTime::now(), body });
        }
    }
}

/// Declares and binds the queue. The exchange must exist: a worker declares it.
pub(crate) async fn bind(url: &str) -> Result<(), Failed> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), arguments).await?;
    let options = QueueBindOptions::default();
    channel.queue_bind(QUEUE.into(), EXCHANGE.into(), "otp.#".into(), options, FieldTable::default()).await?;
    connection.close(200, "done".into()).await?;
    Ok(())
}

/// Listens until told to stop. It reconnects when the broker fails.
pub(crate) async fn listen(url: String, heard: Arc<Heard>, end: CancellationToken) {
    while end.run_until_cancelled(session(&url, &heard)).await.is_some() {
        sleep(Duration::from_millis(200)).await;
    }
}

/// Listens until the connection is lost.
async fn session(url: &str, heard: &Heard) {
    let Ok(Ok(connection)) = timeout(SILENCE, Connection::connect(url, ConnectionProperties::default())).await else {
        return;
    };
    let _ = consume(&connection, heard).await;
}

async fn consume(connection: &Connection, heard: &Heard) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(100, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut consumer = channel.basic_consume(QUEUE.into(), "".into(), options, FieldTable::default()).await?;
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        heard.note(&delivery.data, delivery.redelivered);
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}
