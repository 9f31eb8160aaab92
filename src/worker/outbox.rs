//! What leaves the worker: results, replies and dead letters; and the acknowledgement after them.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lapin::types::ShortString;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use super::replies::Replies;
use crate::backoff::Policy;
use crate::broker::publisher::{Message, PublishError, Publisher, Routed, Try};
use crate::broker::settings::BrokerSettings;
use crate::crash::{self, Point};
use crate::deliveries::original::Original;
use crate::deliveries::receipt::Receipt;
use crate::job::envelope::Trace;
use crate::job::request::logged_id;
use crate::job::result::{self, ResultEvent};
use crate::telemetry::labels::Published;
use crate::telemetry::metrics::Metrics;

/// How often a reply is tried. The person at the login screen may have gone, and the result exchange has the
/// result in any case.
const REPLY_TRIES: u32 = 3;

/// How long an acknowledgement waits for a reply after the result is confirmed. It must be shorter than the
/// shutdown grace: otherwise a stop during a reply would have the job delivered again.
const REPLY_LIMIT: Duration = Duration::from_secs(3);

/// What a person can do where replies are refused.
const NO_PERMISSION: &str = "give the user of AMQP_URL write permission on the default exchange (amq.default), or have producers set no reply_to; results are on OTP_REPLY_EXCHANGE in any case";

/// What a person can do where replies have no connection.
const NO_CONNECTION: &str = "replies have a connection of their own: does the broker grant this user one more? Results are on OTP_REPLY_EXCHANGE in any case";

/// The job whose result has this `message_id`, as logs show it.
fn job_id(message_id: &str) -> String {
    logged_id(message_id.rsplit_once(":result").map_or(message_id, |(job, _)| job), None)
}

/// Publishes what becomes of jobs.
#[derive(Debug)]
pub struct Outbox {
    channels: Channels,
    replies: Replies,
    /// Held by the one reply that is being tried again.
    again: Mutex<()>,
    exchange: String,
    dead_letters_to: String,
    metrics: Arc<Metrics>,
}

/// A channel for each kind of message: what closes one, or comes back on one, is of that kind.
#[derive(Debug)]
pub struct Channels {
    /// For results.
    pub results: Publisher,
    /// For dead letters.
    pub dead_letters: Publisher,
    /// For replies to producers' queues. On a connection of its own: RabbitMQ closes the whole connection for
    /// some malformed direct reply-to names, and results must not be held up by that.
    pub replies: Publisher,
}

impl Outbox {
    /// An outbox that publishes through these channels.
    pub fn new(channels: Channels, broker: &BrokerSettings, metrics: Arc<Metrics>) -> Self {
        let (exchange, dead_letters_to) = (broker.reply_exchange.clone(), broker.dead_letter.clone());
        Self { channels, replies: Replies::default(), again: Mutex::default(), exchange, dead_letters_to, metrics }
    }

    /// Publishes the result of `id` to all who want it, and then acknowledges the delivery.
    pub async fn publish(&self, id: &str, event: &ResultEvent, receipt: &Receipt) {
        self.tell(id, event, receipt).await;
        self.acknowledge(event, receipt);
    }

    /// Publishes the result of `id` to all who want it.
    pub async fn tell(&self, id: &str, event: &ResultEvent, receipt: &Receipt) {
        receipt.span.ended_with(event);
        let span = receipt.span.publish(&self.exchange, &receipt.logged_id, event);
        let trace = span.context_or(&receipt.trace);
        let result =
            pin!(async { span.published(self.publish_result(id, event, receipt, &trace).await == Routed::ToAQueue) });
        match &receipt.reply_to {
            None => result.await,
            // On the heap: few jobs want a reply, and the others need not have room for it.
            Some(queue) => {
                tokio::join!(result, Box::pin(self.publish_reply(queue, id, event, receipt, &trace)));
            }
        }
    }

    /// Acknowledges a delivery whose result is published.
    pub fn acknowledge(&self, event: &ResultEvent, receipt: &Receipt) {
        crash::point(Point::BeforeAcknowledge);
        if receipt.acknowledge() {
            self.metrics.acknowledged(event.outcome, receipt.delivered.elapsed());
        } else {
            debug!("the delivery was gone before its acknowledgement; the job comes again and gets this result");
        }
    }

    /// Publishes a result that says more than the one before, to all who are bound for results. The properties of
    /// the job are not known any more.
    pub async fn correct(&self, id: &str, event: &ResultEvent) {
        let (routing_key, message_id) = (event.routing_key(), event.message_id(id));
        let message = Message {
            exchange: &self.exchange,
            routing_key: &routing_key,
            body: &event.body,
            properties: result::properties(&message_id, &id.into(), &Trace::default(), SystemTime::now()),
        };
        self.publish_until_confirmed(&message).await;
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
        let routed = self.publish_until_confirmed(&message).await;
        if let Routed::Nowhere { message_id } = &routed {
            // Not in the span of this job: the result that came back may be that of another.
            error!(
                parent: None,
                job_id = message_id.as_ref().map(|id| job_id(id.as_str())),
                exchange = self.exchange,
                hint = "no queue took it and the alternate exchange is gone; bind a queue, or restore the topology",
                "result returned as unroutable"
            );
        }
        routed
    }

    async fn publish_until_confirmed(&self, message: &Message<'_>) -> Routed {
        let mut waits = Policy::RECONNECT.waits();
        let mut tried = Try::First;
        loop {
            match self.channels.results.publish(message, tried).await {
                Ok(routed) => {
                    self.count_published(&routed);
                    return routed;
                }
                Err(error) => {
                    self.metrics.published(Published::Failed);
                    warn!(%error, "not published yet; the job stays unacknowledged meanwhile");
                }
            }
            tried = Try::Again;
            sleep(waits.next_wait()).await;
        }
    }

    fn count_published(&self, routed: &Routed) {
        self.metrics.published(match routed {
            Routed::ToAQueue => Published::Confirmed,
            Routed::Nowhere { .. } => Published::Returned,
        });
    }

    /// Publishes to the producer's reply queue. A queue that is gone is no failure.
    async fn publish_reply(
        &self,
        queue: &ShortString,
        id: &str,
        event: &ResultEvent,
        receipt: &Receipt,
        trace: &Trace,
    ) {
        let message = Message {
            exchange: "",
            routing_key: queue.as_str(),
            body: &event.body,
            properties: result::properties(&event.message_id(id), &receipt.correlation_id, trace, SystemTime::now()),
        };
        if !self.replies.may_try() {
            self.metrics.published(Published::Failed);
            return debug!("no reply is tried, because replies are refused; the result exchange has the result");
        }
        match timeout(REPLY_LIMIT, self.reply(&message)).await {
            Ok(Some(routed)) => {
                self.count_published(&routed);
                if self.replies.taken() {
                    info!("replies are taken again");
                }
                if let Routed::Nowhere { message_id } = routed {
                    let job_id = message_id.as_ref().map(|id| job_id(id.as_str()));
                    info!(parent: None, job_id, "the queue in reply_to is gone; the result exchange has the result");
                }
            }
            Ok(None) => {
                self.metrics.published(Published::Failed);
                warn!("no reply could be published; the result exchange has the result");
            }
            Err(_) => {
                self.metrics.published(Published::Failed);
                self.pause_replies("there is no connection for them, or the broker does not confirm", NO_CONNECTION);
            }
        }
    }

    /// Tries a reply a few times, unless replies are refused.
    async fn reply(&self, message: &Message<'_>) -> Option<Routed> {
        for tried in 0..REPLY_TRIES {
            match self.try_reply(tried, message).await {
                Ok(routed) => return Some(routed),
                Err(PublishError::Forbidden(why)) => {
                    self.pause_replies(&why, NO_PERMISSION);
                    return None;
                }
                Err(_) if self.replies.are_paused() => return None,
                Err(_) => {}
            }
        }
        None
    }

    /// Told once, not for each reply.
    fn pause_replies(&self, why: &str, hint: &str) {
        if self.replies.refused() {
            warn!(why, hint, "replies are not taken; from now on one is tried now and then, and no job waits for it");
        }
    }

    /// Only one reply at a time is tried again: a name that closes the connection would make the other replies
    /// fail with it each time.
    async fn try_reply(&self, tried: u32, message: &Message<'_>) -> Result<Routed, PublishError> {
        let _alone = if tried > 0 { Some(self.again.lock().await) } else { None };
        self.channels.replies.publish(message, Try::First).await
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
        let mut tried = Try::First;
        loop {
            match self.channels.dead_letters.publish(&message, tried).await {
                Ok(Routed::ToAQueue) => break,
                Ok(Routed::Nowhere { message_id }) => {
                    error!(
                        parent: None,
                        job_id = message_id.as_ref().map(|id| job_id(id.as_str())),
                        exchange = self.dead_letters_to,
                        hint = "no queue is bound to it; restore the topology",
                        "dead letter returned as unroutable"
                    );
                    break;
                }
                Err(error) => warn!(%error, "dead letter not published yet; the job stays unacknowledged meanwhile"),
            }
            tried = Try::Again;
            sleep(waits.next_wait()).await;
        }
        self.metrics.dead_lettered();
    }
}
