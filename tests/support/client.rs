//! A producer and a reader of results, written as other programs would write them. They use none of the
//! worker's own code.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

/// The `reply_to` with which a producer asks for a result on its own channel.
pub(crate) const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// One connection with one channel, in confirm mode. It does not reconnect.
pub(crate) struct Client {
    connection: Connection,
    channel: Channel,
}

impl Client {
    /// Connects as `test-client`.
    pub(crate) async fn connect(url: &str) -> Self {
        let properties = ConnectionProperties::default().with_connection_name(LongString::from("test-client"));
        let connection =
            Connection::connect(url, properties).await.unwrap_or_else(|error| panic!("connection to {url}: {error}"));
        let channel = connection.create_channel().await.expect("channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm mode");
        Self { connection, channel }
    }

    /// The channel, for operations that this client has no method for.
    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Publishes to `queue` through the default exchange. Returns when the broker has confirmed the
    /// message.
    pub(crate) async fn publish(&self, queue: &str, job: Job) {
        self.publish_to("", queue, job).await;
    }

    /// Publishes to any exchange. Returns when the broker has confirmed the message.
    ///
    /// # Panics
    ///
    /// When the broker refuses the message, or has no queue for it.
    pub(crate) async fn publish_to(&self, exchange: &str, routing_key: &str, job: Job) {
        self.send(exchange, routing_key, job, true).await;
    }

    /// Publishes to the `reply_to` of a message, without the mandatory flag. RabbitMQ returns a mandatory
    /// message to [`DIRECT_REPLY_TO`] as not routed, even when it arrives.
    pub(crate) async fn reply(&self, reply_to: &str, answer: Job) {
        self.send("", reply_to, answer, false).await;
    }

    async fn send(&self, exchange: &str, routing_key: &str, job: Job, mandatory: bool) {
        let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
        let confirm = self
            .channel
            .basic_publish(exchange.into(), routing_key.into(), options, &job.body, job.properties)
            .await
            .expect("publish")
            .await
            .expect("confirm");
        let taken = matches!(confirm, Confirmation::Ack(None));
        assert!(taken, "publish to {exchange:?} {routing_key:?}: {confirm:?}");
    }

    /// Publishes many messages to `queue` and does not wait for one confirm before the next publish.
    /// Returns when the broker has confirmed them all.
    ///
    /// # Panics
    ///
    /// When the broker refuses any of them.
    pub(crate) async fn publish_all(&self, queue: &str, jobs: impl IntoIterator<Item = Job>) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let mut confirms = Vec::new();
        for Job { body, properties } in jobs {
            let publish = self.channel.basic_publish("".into(), queue.into(), options, &body, properties);
            confirms.push(publish.await.expect("publish"));
        }
        for confirm in confirms {
            let confirm = confirm.await.expect("confirm");
            assert!(matches!(confirm, lapin::Confirmation::Ack(None)), "publish to {queue:?}: {confirm:?}");
        }
    }

    /// The results that come from now on with a routing key that matches `pattern` (`otp.*` matches all).
    /// The exchange must exist, so start a worker first.
    pub(crate) async fn results(&self, exchange: &str, pattern: &str) -> Results {
        let options = QueueDeclareOptions::exclusive().auto_delete();
        let queue =
            self.channel.queue_declare("".into(), options, FieldTable::default()).await.expect("a temporary queue");
        self.channel
            .queue_bind(
                queue.name().clone(),
                exchange.into(),
                pattern.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap_or_else(|error| panic!("binding to {exchange}: {error}"));
        self.consume(queue.name().as_str()).await
    }

    /// The results of the jobs that this client publishes with [`DIRECT_REPLY_TO`] as their `reply_to`.
    pub(crate) async fn direct_replies(&self) -> Results {
        self.consume(DIRECT_REPLY_TO).await
    }

    /// All messages of `queue`. The broker expects no acknowledgements for them.
    pub(crate) async fn consume(&self, queue: &str) -> Results {
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer = self
            .channel
            .basic_consume(queue.into(), "".into(), options, FieldTable::default())
            .await
            .unwrap_or_else(|error| panic!("consuming {queue}: {error}"));
        Results { consumer }
    }

    /// Closes the connection cleanly.
    pub(crate) async fn close(self) {
        self.connection.close(200, "done".into()).await.ok();
    }
}

/// A message to publish: a body and its AMQP properties.
#[derive(Clone)]
pub(crate) struct Job {
    body: Vec<u8>,
    properties: BasicProperties,
}

impl Job {
    /// A persistent message with the JSON as its body and no other property.
    pub(crate) fn new(body: Value) -> Self {
        Self::bytes(body.to_string())
    }

    /// The same with any body, JSON or not.
    pub(crate) fn bytes(body: impl Into<Vec<u8>>) -> Self {
        let persistent = 2;
        Self { body: body.into(), properties: BasicProperties::default().with_delivery_mode(persistent) }
    }

    /// A job for `phone` that the contract accepts, with an id.
    pub(crate) fn for_phone(phone: &str, id: &str) -> Self {
        let body = serde_json::json!({"Phone": phone, "MultiChannelTempId": "1234"});
        Self::new(body).id(id)
    }

    /// Sets `message_id`.
    pub(crate) fn id(self, id: &str) -> Self {
        self.with(|properties| properties.with_message_id(id.into()))
    }

    pub(crate) fn correlation_id(self, id: &str) -> Self {
        self.with(|properties| properties.with_correlation_id(id.into()))
    }

    pub(crate) fn reply_to(self, queue: &str) -> Self {
        self.with(|properties| properties.with_reply_to(queue.into()))
    }

    /// Sets `expiration`, which AMQP counts in milliseconds.
    pub(crate) fn expiration(self, expiration: Duration) -> Self {
        let millis = expiration.as_millis().to_string();
        self.with(|properties| properties.with_expiration(millis.into()))
    }

    /// Sets `timestamp`, which has whole seconds.
    pub(crate) fn timestamp(self, made: SystemTime) -> Self {
        let since = made.duration_since(UNIX_EPOCH).expect("a time after 1970");
        self.with(|properties| properties.with_timestamp(since.as_secs()))
    }

    /// Adds a header with a string value.
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        let mut headers = self.properties.headers().clone().unwrap_or_default();
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
        self.with(|properties| properties.with_headers(headers))
    }

    /// Changes the properties in any other way.
    pub(crate) fn with(mut self, change: impl FnOnce(BasicProperties) -> BasicProperties) -> Self {
        self.properties = change(self.properties);
        self
    }
}

/// A message as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) routing_key: String,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// When the body is not JSON.
    pub(crate) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    }
}

/// Messages in the order of their arrival.
pub(crate) struct Results {
    consumer: Consumer,
}

impl Results {
    /// The next message.
    ///
    /// # Panics
    ///
    /// When none comes within `within`.
    pub(crate) async fn next(&mut self, within: Duration) -> Received {
        let mut one = self.collect(1, within).await;
        assert_eq!(one.len(), 1, "no message within {within:?}");
        one.remove(0)
    }

    /// Returns as soon as there are `count` messages, or with fewer when `within` has passed. To show that
    /// no more messages come, ask for one more than expected with a short time.
    pub(crate) async fn collect(&mut self, count: usize, within: Duration) -> Vec<Received> {
        let deadline = Instant::now() + within;
        let mut received = Vec::new();
        while received.len() < count {
            let Ok(next) = timeout_at(deadline, self.consumer.next()).await else {
                break;
            };
            let delivery = next.expect("the consumer was cancelled").expect("the client's connection is up");
            received.push(Received {
                routing_key: delivery.routing_key.to_string(),
                properties: delivery.properties,
                body: delivery.data,
            });
        }
        received
    }
}
