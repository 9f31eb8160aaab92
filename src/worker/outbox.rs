//! What leaves the worker: results, replies and dead letters; and the acknowledgement after them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use crate::backoff::Policy;
use crate::broker::publisher::{Message, PublishError, Publisher, Routed};
use crate::broker::settings::BrokerSettings;
use crate::crash::{self, Point};
use crate::deliveries::original::Original;
use crate::deliveries::receipt::Receipt;
use crate::job::envelope::Trace;
use crate::job::result::{self, ResultEvent};
use crate::telemetry::labels::Published;
use crate::telemetry::metrics::Metrics;

/// How often a reply is tried. The person at the login screen may have gone, and the result exchange has the
/// result in any case.
const REPLY_TRIES: u32 = 3;

/// How long an acknowledgement waits for a reply after the result is confirmed. It must be shorter than the
/// shutdown grace: otherwise a stop during a reply would have the job delivered again.
const REPLY_LIMIT: Duration = Duration::from_secs(3);

/// Publishes what becomes of jobs.
#[derive(Debug)]
pub struct Outbox {
    results: Publisher,
    replies: Publisher,
    /// Held by the one reply that is being tried again.
    again: Mutex<()>,
    exchange: String,
    dead_letters_to: String,
    metrics: Arc<Metrics>,
}

impl Outbox {
    /// Results go through `results`. Replies to producers' queues and dead letters go through `replies`.
    /// These must be two connections: RabbitMQ closes the whole connection for some malformed direct reply-to
    /// names, and the channel for a missing dead-letter exchange. Results must not be held up by that.
    pub fn new(results: Publisher, replies: Publisher, broker: &BrokerSettings, metrics: Arc<Metrics>) -> Self {
        let (exchange, dead_letters_to) = (broker.reply_exchange.clone(), broker.dead_letter.clone());
        Self { results, replies, again: Mutex::default(), exchange, dead_letters_to, metrics }
    }

    /// Publishes the result of `id` to all who want it, and then acknowledges the delivery.
    pub async fn publish(&self, id: &str, event: &ResultEvent, receipt: &Receipt) {
        receipt.span.ended_with(event);
        let span = receipt.span.publish(&self.exchange, &receipt.logged_id, event);
        let trace = span.context_or(&receipt.trace);
        tokio::join!(
            async { span.published(self.publish_result(id, event, receipt, &trace).await == Routed::ToAQueue) },
            self.publish_reply(id, event, receipt, &trace)
        );
        crash::point(Point::BeforeAcknowledge);
        if receipt.acknowledge().await {
            self.metrics.acknowledged(event.outcome, receipt.delivered.elapsed());
        } else {
            debug!("the delivery was gone before its acknowledgement; the job comes again and gets this result");
        }
    }

    /// Publishes a result until it is confirmed.
    async fn publish_result(&self, id: &str, event: &ResultEvent, receipt: &Receipt, trace: &Trace) -> Routed {
        let routing_key = event.routing_key();
        let message = Message {
            exchange: &self.exchange,
            routing_key: &routing_key,
            body: &event.body,
            properties: result::properties(&event.message_id(id), &receipt.correlation_id, trace, SystemTime::now()),
        };
        let routed = self.publish_until_confirmed(message).await;
        if routed == Routed::Nowhere {
            error!(
                exchange = self.exchange,
                hint = "no queue took it and the alternate exchange is gone; bind a queue, or restore the topology",
                "result returned as unroutable"
            );
        }
        routed
    }

    async fn publish_until_confirmed(&self, message: Message<'_>) -> Routed {
        let mut waits = Policy::RECONNECT.waits();
        loop {
            match self.results.publish(message.clone()).await {
                Ok(routed) => {
                    self.count_published(routed);
                    return routed;
                }
                Err(error) => {
                    self.metrics.published(Published::Failed);
                    warn!(%error, "not published yet; the job stays unacknowledged meanwhile");
                }
            }
            sleep(waits.next_wait()).await;
        }
    }

    fn count_published(&self, routed: Routed) {
        self.metrics.published(match routed {
            Routed::ToAQueue => Published::Confirmed,
            Routed::Nowhere => Published::Returned,
        });
    }

    /// Publishes to the producer's reply queue, if there is one. A queue that is gone is no failure.
    async fn publish_reply(&self, id: &str, event: &ResultEvent, receipt: &Receipt, trace: &Trace) {
        let Some(queue) = &receipt.reply_to else { return };
        let message = Message {
            exchange: "",
            routing_key: queue.as_str(),
            body: &event.body,
            properties: result::properties(&event.message_id(id), &receipt.correlation_id, trace, SystemTime::now()),
        };
        match timeout(REPLY_LIMIT, self.reply(message)).await {
            Ok(Some(routed)) => {
                self.count_published(routed);
                if routed == Routed::Nowhere {
                    info!("the queue in reply_to is gone; the result exchange has the result");
                }
            }
            Ok(None) | Err(_) => {
                self.metrics.published(Published::Failed);
                warn!("no reply could be published; the result exchange has the result");
            }
        }
    }

    async fn reply(&self, message: Message<'_>) -> Option<Routed> {
        for tried in 0..REPLY_TRIES {
            if let Ok(routed) = self.try_reply(tried, message.clone()).await {
                return Some(routed);
            }
        }
        None
    }

    /// Only one reply at a time is tried again: a name that closes the connection would make the other replies
    /// fail with it each time.
    async fn try_reply(&self, tried: u32, message: Message<'_>) -> Result<Routed, PublishError> {
        let _alone = if tried > 0 { Some(self.again.lock().await) } else { None };
        self.replies.publish(message).await
    }

    /// Keeps a copy of a job for people.
    pub async fn dead_letter(&self, original: &Original, why: &str) {
        let body = original.body_without_credentials();
        let message = Message {
            exchange: &self.dead_letters_to,
            routing_key: "",
            body: &body,
            properties: original.properties_with_error(why),
        };
        let mut waits = Policy::RECONNECT.waits();
        loop {
            match self.replies.publish(message.clone()).await {
                Ok(Routed::ToAQueue) => break,
                Ok(Routed::Nowhere) => {
                    error!(
                        exchange = self.dead_letters_to,
                        hint = "no queue is bound to it; restore the topology",
                        "dead letter returned as unroutable"
                    );
                    break;
                }
                Err(error) => warn!(%error, "dead letter not published yet; the job stays unacknowledged meanwhile"),
            }
            sleep(waits.next_wait()).await;
        }
        self.metrics.dead_lettered();
    }
}
