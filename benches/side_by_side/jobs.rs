//! The jobs of a run, and their results as they come.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties, Consumer};
use serde_json::json;
use tokio::time::timeout;
use uuid::Uuid;

use crate::Failed;
use crate::stage::EXCHANGE;
use crate::support::client::Job;

/// How long no result may come before the run has failed.
const SILENCE: Duration = Duration::from_secs(60);

/// Jobs as docs/producing.md has them, each with its own number; they are made now.
pub(crate) fn make(ids: &[Uuid]) -> impl Iterator<Item = Job> {
    let now = SystemTime::now();
    ids.iter().enumerate().map(move |(n, id)| one(n, id).timestamp(now))
}

/// The job with this number.
pub(crate) fn one(n: usize, id: &Uuid) -> Job {
    let phone = format!("09{n:08}");
    let body = json!({"Phone": phone, "MultiChannelTempId": "1234", "TypeId": "2", "TimeAlive": "5"});
    Job::new(body).id(&id.to_string())
}

/// A reader of all results.
pub(crate) struct Results {
    connection: Connection,
    consumer: Consumer,
}

/// When the first and the last result of a run came.
pub(crate) struct Came {
    pub(crate) first: Instant,
    pub(crate) last: Instant,
}

impl Results {
    /// The results from now on. The exchange must be there.
    pub(crate) async fn open(url: &str) -> Result<Self, Failed> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let (options, none) = (QueueDeclareOptions::exclusive().auto_delete(), FieldTable::default);
        let queue = channel.queue_declare("".into(), options, none()).await?.name().clone();
        let options = QueueBindOptions::default();
        channel.queue_bind(queue.clone(), EXCHANGE.into(), "otp.#".into(), options, none()).await?;
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(queue, "".into(), options, none()).await?;
        Ok(Self { connection, consumer })
    }

    /// The job of the next result, and when it came.
    pub(crate) async fn next(&mut self) -> Result<(Uuid, Instant), Failed> {
        let next = timeout(SILENCE, self.consumer.next()).await.map_err(|_| "no result comes")?;
        let came = Instant::now();
        let properties = next.ok_or("the results have ended")??.properties;
        let message_id = properties.message_id().as_ref().map_or("", |id| id.as_str());
        let id = message_id.strip_suffix(":result").and_then(|id| id.parse().ok());
        Ok((id.ok_or_else(|| format!("no result of a job: {message_id}"))?, came))
    }

    /// Waits for one result of each of these jobs. Calls `at` with the number of results, after each.
    pub(crate) async fn of_all(
        &mut self,
        ids: &[Uuid],
        mut at: impl FnMut(usize) -> Result<(), Failed>,
    ) -> Result<Came, Failed> {
        let mut missing: HashSet<&Uuid> = ids.iter().collect();
        let (mut first, mut last) = (None, Instant::now());
        while !missing.is_empty() {
            let (id, came) = self.next().await.map_err(|error| format!("{} jobs to go: {error}", missing.len()))?;
            if !missing.remove(&id) {
                return Err(format!("a result too many: {id}").into());
            }
            last = came;
            first.get_or_insert(last);
            at(ids.len() - missing.len())?;
        }
        Ok(Came { first: first.unwrap_or(last), last })
    }

    /// Looks whether a result came too many, and closes.
    pub(crate) async fn close(mut self) -> Result<(), Failed> {
        let more = timeout(Duration::from_millis(50), self.consumer.next()).await;
        self.connection.close(200, "done".into()).await.ok();
        if more.is_ok() { Err("a job has a second result".into()) } else { Ok(()) }
    }
}
