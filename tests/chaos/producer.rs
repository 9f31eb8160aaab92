//! Publishes the jobs directly to the broker, each until it is confirmed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, Connection, ConnectionProperties};
use tokio::time::{sleep, timeout};

use crate::job::Job;
use crate::listener::Heard;
use crate::stage::Stage;

/// The workers' queue.
pub(crate) const QUEUE: &str = "otp.jobs";

/// How many lanes publish at the same time.
const LANES: usize = 4;

/// When a broker says nothing for this long, the producer tries again with a new connection.
const SILENCE: Duration = Duration::from_secs(10);

/// One try to publish.
#[derive(Clone, Debug)]
pub(crate) struct Try {
    pub(crate) at: SystemTime,
    pub(crate) confirmed: bool,
}

/// Everything that was published.
#[derive(Debug, Default)]
pub(crate) struct Published {
    next: AtomicU64,
    tries: Mutex<HashMap<u64, Vec<Try>>>,
}

impl Published {
    fn tries(&self) -> MutexGuard<'_, HashMap<u64, Vec<Try>>> {
        self.tries.lock().expect("an unpoisoned lock")
    }

    /// How many jobs the broker has confirmed. It is responsible for these.
    pub(crate) fn owed(&self) -> usize {
        self.tries().values().filter(|tries| is_owed(tries)).count()
    }

    /// Every job that was published or tried, by its number.
    pub(crate) fn all(&self) -> HashMap<u64, Vec<Try>> {
        self.tries().clone()
    }

    fn note(&self, number: u64, at: SystemTime, confirmed: bool) {
        self.tries().entry(number).or_default().push(Try { at, confirmed });
    }
}

/// Whether the broker has confirmed the job.
pub(crate) fn is_owed(tries: &[Try]) -> bool {
    tries.iter().any(|one| one.confirmed)
}

/// Publishes until there are enough jobs or the time is up.
pub(crate) async fn publish_all(stage: &Arc<Stage>, published: &Arc<Published>, heard: &Arc<Heard>) {
    let until = Instant::now() + stage.settings.at_most;
    let lanes = (0..LANES).map(|_| Lane::new(stage, published, heard).run(until));
    futures_util::future::join_all(lanes).await;
}

struct Lane {
    stage: Arc<Stage>,
    published: Arc<Published>,
    heard: Arc<Heard>,
    link: Option<(Connection, Channel)>,
}

impl Lane {
    fn new(stage: &Arc<Stage>, published: &Arc<Published>, heard: &Arc<Heard>) -> Self {
        Self { stage: Arc::clone(stage), published: Arc::clone(published), heard: Arc::clone(heard), link: None }
    }

    async fn run(mut self, until: Instant) {
        while Instant::now() < until {
            // Look now and then, because nothing signals that the backlog has shrunk.
            if self.published.owed() >= self.heard.jobs() + self.stage.settings.backlog {
                sleep(Duration::from_millis(20)).await;
                continue;
            }
            let number = self.published.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.stage.settings.jobs {
                break;
            }
            let job = Job::new(&self.stage.settings, number);
            for _ in 0..job.copies {
                self.publish(number, &job).await;
            }
        }
        if let Some((connection, _)) = self.link.take() {
            let _ = timeout(SILENCE, connection.close(200, "done".into())).await;
        }
    }

    /// Publishes one copy. A copy that may have reached the broker is repeated only if a repeat does no
    /// harm. Without a repeat, the broker owes nothing for it, but every result that comes for it must
    /// still be right.
    async fn publish(&mut self, number: u64, job: &Job) {
        loop {
            let Some(channel) = self.channel().await else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            let at = SystemTime::now();
            let confirmed = matches!(timeout(SILENCE, send(&channel, job)).await, Ok(Ok(Confirmation::Ack(None))));
            self.published.note(number, at, confirmed);
            if confirmed {
                return;
            }
            self.link = None;
            if !self.stage.settings.repeats_are_known() {
                return;
            }
        }
    }

    async fn channel(&mut self) -> Option<Channel> {
        if let Some((_, channel)) = self.link.as_ref().filter(|(_, channel)| channel.status().connected()) {
            return Some(channel.clone());
        }
        self.link = timeout(SILENCE, connect(&self.stage.broker.url())).await.ok()?.ok();
        self.link.as_ref().map(|(_, channel)| channel.clone())
    }
}

async fn connect(url: &str) -> lapin::Result<(Connection, Channel)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok((connection, channel))
}

async fn send(channel: &Channel, job: &Job) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = job.properties();
    channel.basic_publish("".into(), QUEUE.into(), options, job.body.as_bytes(), properties).await?.await
}
