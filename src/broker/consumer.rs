//! Consuming: an outer loop that reconnects, and one session inside it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::topology::{self, TopologyError};
use super::{GOOD_SESSION, REPLY_WITHIN, close};
use crate::amqp;
use crate::backoff::Policy;
use crate::config::BrokerConfig;
use crate::telemetry::http::Health;
use crate::telemetry::metrics::Metrics;

/// Jobs the broker gave up are only answered, not sent: a few at a time do.
const DROPPED_PREFETCH: u16 = 16;

/// How long a channel stays open after the last acknowledgement. The broker says nothing when it has taken
/// one, and keeps those of a quorum queue in the channel when more than about 30 are on their way to the
/// queue: a channel that closes loses them, and their jobs are delivered, and perhaps sent, again.
const SETTLING: Duration = Duration::from_secs(1);

/// Which queue a delivery came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The queue of jobs.
    Jobs,
    /// The queue of jobs that the broker gave up.
    Dropped,
}

/// Who takes the deliveries.
pub trait Taker: Send + Sync + 'static {
    /// Takes one delivery, without waiting.
    fn take(self: &Arc<Self>, delivery: Delivery, origin: Origin);

    /// Waits until every delivery taken has been dealt with.
    fn finished(&self) -> impl Future<Output = ()> + Send;
}

/// Consumes both queues, for ever.
pub struct ConsumerLoop<T> {
    /// The broker and its objects.
    pub broker: BrokerConfig,
    /// The prefetch of the queue of jobs.
    pub prefetch: u16,
    /// Who takes the deliveries.
    pub taker: Arc<T>,
    /// Told whether jobs are being consumed.
    pub health: Arc<Health>,
    /// Counts connections.
    pub metrics: Arc<Metrics>,
    /// From its cancelling on nothing more is consumed.
    pub stopping: CancellationToken,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("told to stop")]
    Stopped,
    #[error("{0}")]
    NotConnected(#[from] amqp::ConnectError),
    #[error("{0}")]
    Topology(#[from] TopologyError),
    #[error("{0}")]
    Lost(#[from] lapin::Error),
    #[error("the broker did not answer in time")]
    Silent,
    #[error("the broker ended the consumer; was a queue deleted?")]
    Cancelled,
}

impl<T: Taker> ConsumerLoop<T> {
    /// Consumes until told to stop and every delivery is dealt with; reconnects whenever the broker
    /// goes away, at the start too.
    ///
    /// # Errors
    /// When the broker's objects differ before anything was ever consumed: no waiting mends that.
    /// Later the same difference is logged and tried again, since jobs may still be in flight.
    pub async fn run(self) -> Result<(), TopologyError> {
        let mut waits = Policy::RECONNECT.waits();
        let mut ever_consumed = false;
        loop {
            let began = Instant::now();
            let ended = self.session(&mut ever_consumed).await;
            self.health.set_consuming(false);
            let why = match ended {
                Ended::Stopped => break,
                Ended::Topology(error @ TopologyError::Differs(_)) if !ever_consumed => return Err(error),
                Ended::Topology(error @ TopologyError::Differs(_)) => {
                    error!(%error, "not consuming; put the objects right, or set OTP_TOPOLOGY");
                    "topology".to_owned()
                }
                other => other.to_string(),
            };
            if self.stopping.is_cancelled() {
                break;
            }
            if began.elapsed() >= GOOD_SESSION {
                waits.reset();
            }
            let wait = waits.next_wait();
            warn!(why, retry_in_ms = wait.as_millis() as u64, "not consuming");
            tokio::select! {
                () = sleep(wait) => {}
                () = self.stopping.cancelled() => break,
            }
        }
        // Without a session there is nothing left to settle; results are still being published.
        self.taker.finished().await;
        Ok(())
    }

    /// One session, from connecting to its end.
    async fn session(&self, ever_consumed: &mut bool) -> Ended {
        let connecting = amqp::connect(&self.broker.uri, &self.broker.tls, "esms-otp-worker consumer");
        let connection = tokio::select! {
            connected = connecting => match connected {
                Ok(connection) => connection,
                Err(error) => return error.into(),
            },
            () = self.stopping.cancelled() => return Ended::Stopped,
        };
        self.metrics.connection_made();
        let ended = match self.consume(&connection, ever_consumed).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        };
        close(&connection).await;
        ended
    }

    async fn consume(
        &self,
        connection: &Connection,
        ever_consumed: &mut bool,
    ) -> Result<std::convert::Infallible, Ended> {
        let preparing = self.stopping.run_until_cancelled(self.prepare(connection)).await;
        let (channel, mut jobs, mut dropped) = preparing.ok_or(Ended::Stopped)??;
        *ever_consumed = true;
        self.health.set_consuming(true);
        let mut taken = false;
        info!(queue = self.broker.queue, prefetch = self.prefetch, "consuming");
        loop {
            tokio::select! {
                // Told to stop is looked at first, so that a full queue cannot hide it.
                biased;
                () = self.stopping.cancelled() => break,
                next = jobs.next() => self.taker.take(delivery(next)?, Origin::Jobs),
                next = dropped.next() => self.taker.take(delivery(next)?, Origin::Dropped),
            }
            taken = true;
        }
        self.health.set_consuming(false);
        for (consumer, origin) in [(&mut jobs, Origin::Jobs), (&mut dropped, Origin::Dropped)] {
            for delivery in stop_consuming(&channel, consumer).await {
                self.taker.take(delivery, origin);
            }
        }
        // The channel stays open until every job is settled, or the acknowledgements would be lost.
        self.taker.finished().await;
        if taken {
            sleep(SETTLING).await;
        }
        // Closed here, because the connection cannot say goodbye while a channel is half closed.
        let _ = timeout(REPLY_WITHIN, channel.close(200, "done".into())).await;
        Err(Ended::Stopped)
    }

    async fn prepare(&self, connection: &Connection) -> Result<(Channel, Consumer, Consumer), Ended> {
        topology::prepare(connection, &self.broker).await?;
        Ok(timeout(REPLY_WITHIN, self.subscribe(connection)).await.map_err(|_| Ended::Silent)??)
    }

    async fn subscribe(&self, connection: &Connection) -> lapin::Result<(Channel, Consumer, Consumer)> {
        let channel = connection.create_channel().await?;
        let subscribe = async |queue: &str, prefetch| {
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions::default();
            channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await
        };
        let jobs = subscribe(&self.broker.queue, self.prefetch).await?;
        let dropped = subscribe(&self.broker.dropped, DROPPED_PREFETCH).await?;
        Ok((channel, jobs, dropped))
    }
}

fn delivery(next: Option<lapin::Result<Delivery>>) -> Result<Delivery, Ended> {
    Ok(next.ok_or(Ended::Cancelled)??)
}

/// Ends a consumer; the deliveries that had come but were not looked at. Their taker knows that it is
/// told to stop, and how they are given back.
async fn stop_consuming(channel: &Channel, consumer: &mut Consumer) -> Vec<Delivery> {
    let mut left = Vec::new();
    let cancel = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
    if !matches!(timeout(REPLY_WITHIN, cancel).await, Ok(Ok(()))) {
        // The connection is gone, and the broker has put everything back itself.
        return left;
    }
    while let Ok(Some(Ok(delivery))) = timeout(REPLY_WITHIN, consumer.next()).await {
        left.push(delivery);
    }
    left
}
