//! What is needed to answer one delivery, and to settle it.

use std::sync::Arc;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::ShortString;
use tokio::time::Instant;

use crate::broker::consumer::Origin;
use crate::broker::settling::Settle;
use crate::job::envelope::{DeliveryCount, Envelope, Moment, Trace};
use crate::telemetry::traces::Span;

/// One delivery: where its result goes, and how it is settled.
#[derive(Debug)]
pub struct Receipt {
    settle: Arc<Settle>,
    /// Copied to the result.
    pub correlation_id: ShortString,
    /// A queue that wants the result too.
    pub reply_to: Option<ShortString>,
    /// The producer's trace context.
    pub trace: Trace,
    /// When it was delivered.
    pub delivered: Instant,
    /// Whether it came from the queue of dropped jobs.
    pub is_dropped: bool,
    /// Whether the broker had delivered it before.
    pub redelivered: bool,
    /// How often the queue delivered it before, where it counts.
    pub delivery_count: Option<DeliveryCount>,
    /// Its span, which ends when it is settled.
    pub span: Span,
    /// The job's id as logs and spans show it: without a phone number.
    pub logged_id: String,
}

impl Receipt {
    /// The receipt of a delivery with this envelope.
    pub fn new(
        settle: Arc<Settle>,
        origin: Origin,
        redelivered: bool,
        envelope: &Envelope,
        received: Moment,
        span: Span,
        logged_id: String,
    ) -> Self {
        Self {
            settle,
            correlation_id: envelope.correlation_id.clone(),
            reply_to: envelope.reply_to.clone(),
            trace: envelope.trace.clone(),
            delivered: received.instant,
            is_dropped: origin == Origin::Dropped,
            redelivered,
            delivery_count: envelope.delivery_count,
            span,
            logged_id,
        }
    }

    /// The receipt of a delivery that could not even be read.
    pub fn unread(settle: Arc<Settle>, origin: Origin, received: Moment) -> Self {
        let nothing = Envelope::read(&BasicProperties::default(), received, Duration::ZERO);
        Self::new(settle, origin, false, &nothing, received, Span::default(), String::new())
    }

    /// Whether the broker still waits for it to be settled on its channel. If not, the broker has put the
    /// job back and delivers it again.
    pub fn is_live(&self) -> bool {
        self.settle.is_live()
    }

    /// Acknowledges it. True if the connection was told; false if the channel was gone, in which case the job
    /// comes again.
    pub fn acknowledge(&self) -> bool {
        self.span.end();
        self.settle.ack()
    }

    /// Puts the job back on its queue, unworked. From RabbitMQ 4.3 on this does not count against the
    /// queue's delivery limit.
    pub async fn give_back(&self) -> bool {
        let told = self.settle.nack().await;
        self.span.end();
        told
    }

    /// Puts the job back on its queue because working it failed. This counts against the queue's delivery
    /// limit on every version, so that such a job cannot come back for ever.
    pub async fn reject(&self) -> bool {
        let told = self.settle.reject().await;
        self.span.end();
        told
    }
}
