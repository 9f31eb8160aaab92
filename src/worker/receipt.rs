//! What is needed to answer and to settle one delivery.

use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::ShortString;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::broker::REPLY_WITHIN;
use crate::broker::consumer::Origin;
use crate::job::envelope::{Envelope, Moment, Trace};
use crate::telemetry::traces::Span;

/// One delivery: where its answer goes and how it is acknowledged.
#[derive(Debug)]
pub struct Receipt {
    acker: Acker,
    /// Copied to the result.
    pub correlation_id: ShortString,
    /// A queue that wants the result too.
    pub reply_to: Option<ShortString>,
    /// The producer's trace context.
    pub trace: Trace,
    /// When it was delivered.
    pub delivered: Instant,
    /// Whether it came from the queue of jobs that the broker gave up.
    pub given_up: bool,
    /// Whether the broker had delivered it before.
    pub redelivered: bool,
    /// How often the queue has taken it back, where it counts.
    pub delivery_count: Option<u64>,
    /// Its span, which ends when it is settled.
    pub span: Span,
}

impl Receipt {
    /// The receipt of a delivery with this envelope.
    pub fn new(
        acker: Acker,
        origin: Origin,
        redelivered: bool,
        envelope: &Envelope,
        arrival: Moment,
        span: Span,
    ) -> Self {
        Self {
            acker,
            correlation_id: envelope.correlation_id.clone(),
            reply_to: envelope.reply_to.clone(),
            trace: envelope.trace.clone(),
            delivered: arrival.instant,
            given_up: origin == Origin::Dropped,
            redelivered,
            delivery_count: envelope.delivery_count,
            span,
        }
    }

    /// Whether the broker still waits for it to be settled on its channel. If not, the broker has
    /// put the job back and delivers it again.
    pub fn is_live(&self) -> bool {
        self.acker.usable()
    }

    /// Acknowledges it. True if the broker was told; false if the channel was gone, in which case the
    /// job comes again.
    pub async fn acknowledge(&self) -> bool {
        self.settled(timeout(REPLY_WITHIN, self.acker.ack(BasicAckOptions::default())).await, "ack")
    }

    /// Puts the job back on its queue.
    pub async fn give_back(&self) -> bool {
        let requeue = BasicNackOptions { requeue: true, ..Default::default() };
        self.settled(timeout(REPLY_WITHIN, self.acker.nack(requeue)).await, "nack")
    }

    /// `Ok(false)` from the client means that nothing was sent to the broker.
    fn settled(&self, sent: Result<lapin::Result<bool>, tokio::time::error::Elapsed>, what: &str) -> bool {
        self.span.end();
        match sent {
            Ok(Ok(settled)) => settled,
            Ok(Err(error)) => {
                debug!(what, %error, "a delivery could not be settled; the broker delivers it again");
                false
            }
            Err(_) => false,
        }
    }
}
