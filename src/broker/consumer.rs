//! Consuming, in one session after another. A session begins with connecting and ends when the connection is
//! lost.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, error, info, warn};

use super::bounds::Unbounded;
use super::session::{self, Ended, Sessions};
use super::settings::BrokerSettings;
use super::settling::{Settle, Settling};
use super::topology::{self, TopologyError};
use super::{REPLY_WITHIN, close};
use crate::amqp::{self, Opened};
use crate::stop::Stop;
use crate::telemetry::http::Health;
use crate::telemetry::logs;
use crate::telemetry::metrics::Metrics;

/// Dropped jobs are only answered, not sent, so a few at a time are enough.
const DROPPED_PREFETCH: u16 = 16;

/// How long a channel stays open after the last ack. The broker does not confirm an ack. When more than about
/// 30 acks are on their way to a quorum queue, the broker keeps acks in the channel. If the channel closes
/// then, these acks are lost. Their jobs are delivered again, and perhaps sent again.
const SETTLING: Duration = Duration::from_secs(1);

/// Which queue a delivery came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The queue of jobs.
    Jobs,
    /// The queue of jobs that the broker dropped, because they expired or were delivered too often.
    Dropped,
}

/// Receives the deliveries.
pub trait Taker: Send + Sync + 'static {
    /// Hears from which cluster the deliveries come, before the first of each session.
    ///
    /// # Errors
    /// Why nothing may be taken from there, and what a person must do.
    fn comes_from(&self, cluster: &str) -> impl Future<Output = Result<(), String>> + Send;

    /// Takes one delivery, without waiting.
    fn take(self: &Arc<Self>, delivery: Delivery, settle: Arc<Settle>, origin: Origin);

    /// Waits until every delivery that was taken is handled.
    fn finished(&self) -> impl Future<Output = ()> + Send;
}

/// Consumes both queues until it is told to stop.
pub struct ConsumerLoop<T> {
    /// The broker and its objects.
    pub broker: BrokerSettings,
    /// The prefetch of the queue of jobs.
    pub prefetch: u16,
    /// Receives the deliveries.
    pub taker: Arc<T>,
    /// Is told whether jobs are being consumed.
    pub health: Arc<Health>,
    /// Counts connections.
    pub metrics: Arc<Metrics>,
    /// From the phase `draining` on, nothing more is consumed.
    pub stop: Stop,
}

/// Why a worker that has not consumed yet never will.
#[derive(Debug, thiserror::Error)]
pub enum NotBegun {
    /// The broker's objects are not those that the worker needs.
    #[error("{0}")]
    Topology(TopologyError),
    /// Nothing may be taken from this broker.
    #[error("{0}")]
    Refused(String),
}

/// Why a session ended before the worker was told to stop.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    NotConnected(#[from] amqp::ConnectError),
    #[error("{0}")]
    Topology(#[from] TopologyError),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Lost(#[from] lapin::Error),
    #[error("the broker did not answer in time")]
    Silent,
    #[error(
        "{0}; a job took longer than the broker's consumer_timeout: raise it (in rabbitmq.conf, or consumer-timeout in a policy) above OTP_JOB_TTL"
    )]
    TooSlow(String),
    #[error("the broker ended the consumer; was a queue deleted?")]
    Cancelled,
}

/// A channel that consumes both queues.
struct Subscription {
    channel: Channel,
    settling: Arc<Settling>,
    jobs: Consumer,
    dropped: Consumer,
    /// Hands over what is acknowledged.
    _acknowledging: AbortOnDropHandle<()>,
}

/// How many deliveries are taken in a row. Then the jobs that have begun have their turn, while their memory is still in
/// the processor's cache, and a stop is looked for again.
const TAKEN_AT_ONCE: usize = 16;

/// The sessions of a consumer.
struct Consuming<'a, T> {
    consumer: &'a ConsumerLoop<T>,
    ever_consumed: bool,
}

impl<T: Taker> Sessions for Consuming<'_, T> {
    type ForGood = NotBegun;

    async fn session(&mut self) -> Ended<NotBegun> {
        let ended = self.consumer.session(&mut self.ever_consumed).await;
        self.consumer.health.set_consuming(false);
        match ended {
            Ok(()) => Ended::Stopped,
            Err(Trouble::Topology(error @ TopologyError::Differs(_))) if !self.ever_consumed => {
                Ended::ForGood(NotBegun::Topology(error))
            }
            Err(Trouble::Refused(why)) if !self.ever_consumed => Ended::ForGood(NotBegun::Refused(why)),
            Err(Trouble::Topology(error @ TopologyError::Differs(_))) => {
                error!(%error, "not consuming; put the objects right, or set OTP_TOPOLOGY");
                Ended::Lost("topology".to_owned())
            }
            Err(other) => Ended::Lost(other.to_string()),
        }
    }
}

/// The name of the connection, as the broker shows it.
const CONNECTION: &str = "esms-otp-worker consumer";

impl<T: Taker> ConsumerLoop<T> {
    /// Consumes until it is told to stop and every delivery is handled. Connects again whenever the broker
    /// goes away. Also waits for a broker that is not there at the start.
    ///
    /// # Errors
    /// When the broker's objects differ, or the taker takes nothing from this broker, before the worker has
    /// ever consumed. Waiting does not help then. Later it is logged and tried again, because jobs may still
    /// be in flight.
    pub async fn run(self) -> Result<(), NotBegun> {
        let sessions = Consuming { consumer: &self, ever_consumed: false };
        let consuming = session::repeat("not consuming", self.stop.draining(), sessions);
        consuming.instrument(logs::connection_span(CONNECTION)).await?;
        // Without a session nothing can be acknowledged any more. But results may still be on their way, so
        // wait.
        self.taker.finished().await;
        Ok(())
    }

    /// Runs one session, from connecting to its end. Returns `Ok` when told to stop.
    async fn session(&self, ever_consumed: &mut bool) -> Result<(), Trouble> {
        let connecting = self.broker.connect(CONNECTION);
        let Some(connected) = self.stop.draining().run_until_cancelled(connecting).await else { return Ok(()) };
        let Opened { connection, cluster } = connected?;
        self.metrics.connection_made();
        let ended = self.consume(&connection, cluster, ever_consumed).await;
        close(&connection).await;
        ended
    }

    async fn consume(
        &self,
        connection: &Connection,
        cluster: Option<String>,
        ever_consumed: &mut bool,
    ) -> Result<(), Trouble> {
        if let Some(cluster) = cluster {
            let hearing = self.stop.draining().run_until_cancelled(self.taker.comes_from(&cluster)).await;
            let Some(heard) = hearing else { return Ok(()) };
            heard.map_err(Trouble::Refused)?;
        }
        let preparing = topology::prepare(connection, &self.broker);
        let preparing = self.stop.draining().run_until_cancelled(preparing).await;
        let Some(prepared) = preparing else { return Ok(()) };
        self.warn_of(&prepared?, *ever_consumed);
        // A job that is taken here could not be told of, and another worker may be able to.
        let publishing = self.stop.draining().run_until_cancelled(self.health.until_publishing()).await;
        if publishing.is_none() {
            return Ok(());
        }
        let mut subscription =
            timeout(REPLY_WITHIN, self.subscribe(connection)).await.map_err(|_| Trouble::Silent)??;
        *ever_consumed = true;
        self.health.set_consuming(true);
        info!(queue = self.broker.queue, prefetch = self.prefetch, "consuming");
        let has_taken = self.take_until_told_to_stop(&mut subscription).await?;
        self.health.set_consuming(false);
        self.finish(subscription, has_taken).await;
        Ok(())
    }

    /// Once for a worker, not for each session.
    fn warn_of(&self, unbounded: &[Unbounded], was_said: bool) {
        for found in unbounded.iter().filter(|_| !was_said) {
            warn!(queue = found.queue, set_policy = found.command(), "{found}");
        }
    }

    /// Takes deliveries until told to stop. Returns whether there was any.
    async fn take_until_told_to_stop(
        &self,
        Subscription { settling, jobs, dropped, .. }: &mut Subscription,
    ) -> Result<bool, Trouble> {
        let mut has_taken = false;
        loop {
            let (next, origin) = tokio::select! {
                // Check for the stop first, so that a full queue cannot hide it.
                biased;
                () = self.stop.draining().cancelled() => return Ok(has_taken),
                next = jobs.next() => (next, Origin::Jobs),
                next = dropped.next() => (next, Origin::Dropped),
            };
            self.take(settling, delivery(next)?, origin);
            has_taken = true;
            // Those that have come with it need no turn of their own.
            for _ in 1..TAKEN_AT_ONCE {
                let Some(next) = jobs.next().now_or_never() else { break };
                self.take(settling, delivery(next)?, Origin::Jobs);
            }
            yield_now().await;
        }
    }

    fn take(&self, settling: &Arc<Settling>, delivery: Delivery, origin: Origin) {
        let settle = Settle::new(delivery.acker.clone(), delivery.delivery_tag, settling);
        self.taker.take(delivery, Arc::new(settle), origin);
    }

    /// Gives back the deliveries that were not begun, waits for the rest, and closes the channel.
    async fn finish(&self, subscription: Subscription, has_taken: bool) {
        let Subscription { channel, settling, mut jobs, mut dropped, _acknowledging } = subscription;
        for (consumer, origin) in [(&mut jobs, Origin::Jobs), (&mut dropped, Origin::Dropped)] {
            for delivery in stop_consuming(&channel, consumer).await {
                self.take(&settling, delivery, origin);
            }
        }
        // Keep the channel open until every job is settled. Otherwise the acks would be lost.
        self.taker.finished().await;
        if has_taken {
            sleep(SETTLING).await;
        }
        // Close the channel first: the connection cannot close properly while a channel is half closed.
        let _ = timeout(REPLY_WITHIN, channel.close(200, "done".into())).await;
    }

    async fn subscribe(&self, connection: &Connection) -> lapin::Result<Subscription> {
        let channel = connection.create_channel().await?;
        let subscribe = async |queue: &str, prefetch| {
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions::default();
            channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await
        };
        let jobs = subscribe(&self.broker.queue, self.prefetch).await?;
        let dropped = subscribe(&self.broker.dropped, DROPPED_PREFETCH).await?;
        let settling = Arc::new(Settling::new(channel.clone()));
        let acknowledging = tokio::spawn({
            let settling = Arc::clone(&settling);
            async move { settling.run().await }
        });
        let _acknowledging = AbortOnDropHandle::new(acknowledging);
        Ok(Subscription { channel, settling, jobs, dropped, _acknowledging })
    }
}

fn delivery(next: Option<lapin::Result<Delivery>>) -> Result<Delivery, Trouble> {
    next.ok_or(Trouble::Cancelled)?.map_err(|error| {
        let said = error.to_string();
        // The code is that of many other mistakes, so only the text tells.
        if said.contains("acknowledgement") && said.contains("timed out") {
            Trouble::TooSlow(said)
        } else {
            error.into()
        }
    })
}

/// Cancels a consumer. Returns the deliveries that had arrived but were not taken yet. The taker knows that
/// the worker is stopping, and how to give them back.
async fn stop_consuming(channel: &Channel, consumer: &mut Consumer) -> Vec<Delivery> {
    let mut left = Vec::new();
    let cancel = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
    if !matches!(timeout(REPLY_WITHIN, cancel).await, Ok(Ok(()))) {
        // The connection is gone, and the broker has requeued everything itself.
        return left;
    }
    while let Ok(Some(Ok(delivery))) = timeout(REPLY_WITHIN, consumer.next()).await {
        left.push(delivery);
    }
    left
}
