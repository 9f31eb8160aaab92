//! The queues of `watch`, which end with its connection.
//!
//! ```text
//! otp.results == each routing key ==> otp.results.watch ==> our queue, and that of every other watch
//! otp.results.unrouted ==> our queue of copies
//! ```
//!
//! All that run at the same time share one exchange. So a test takes all of them away, and none is another's other queue.

use std::future::Future;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeUnbindOptions, QueueBindOptions, QueueDeclareOptions,
    QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Confirmation, Connection, Consumer, ExchangeKind};
use tokio::time::timeout;

use super::lanes::{Lanes, Then, With};
use crate::amqp;
use crate::broker::REPLY_WITHIN;
use crate::broker::settings::BrokerSettings;
use crate::job::result::Outcome;

/// Results that were not shown yet. If a terminal is slower than the workers, the oldest are not shown, and the broker's
/// memory is safe.
const MOST_BYTES: i64 = 64 * 1024 * 1024;

/// Results that are on their way to us.
const PREFETCH: u16 = 256;

/// Why watching ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchError {
    /// The broker cannot be connected to.
    #[error(transparent)]
    NotConnected(#[from] amqp::ConnectError),
    /// The broker refused, or the connection was lost.
    #[error("the broker says: {0}\nTo mend it: {hint}", hint = hint(.0))]
    Lost(#[from] lapin::Error),
    /// The broker did not answer.
    #[error("the broker did not answer within {} s", REPLY_WITHIN.as_secs())]
    Silent,
    /// The broker refused a result.
    #[error("the broker did not take a result back: it may be short of memory or disk")]
    Refused,
    /// Our queue was deleted, or the connection was closed.
    #[error("the broker ended the subscription; results since then are not shown. Give the command again")]
    Ended,
    /// The results cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(std::io::Error),
}

fn hint(error: &lapin::Error) -> &'static str {
    let said = error.to_string();
    if said.contains("NOT_FOUND") {
        "start a worker first, which declares the exchanges, or set OTP_REPLY_EXCHANGE to that of the workers"
    } else if said.contains("ACCESS_REFUSED") {
        "the user needs permission to configure, write and read queues amq.gen-* and the exchange of results with .watch \
         added, and to write and read both exchanges of results; with --take-unbound, to read the exchange of results"
    } else {
        "results since then are not shown; give the command again"
    }
}

/// A result that came.
pub(super) enum Came {
    /// To our queue on the exchange of results.
    Taken(Delivery),
    /// As a copy, by way of the unrouted exchange. It may have been shown already.
    Copied(Delivery, IsShown),
}

/// Whether a copy was shown already.
type IsShown = bool;

impl Came {
    pub(super) fn body(&self) -> &[u8] {
        match self {
            Came::Taken(result) | Came::Copied(result, _) => &result.data,
        }
    }

    pub(super) const fn is_to_show(&self) -> bool {
        match self {
            Came::Taken(_) => true,
            Came::Copied(_, is_shown) => !*is_shown,
        }
    }
}

/// Our queues on the broker, and what is known of the others'.
pub(super) struct Queues {
    channel: Channel,
    exchange: String,
    unrouted: String,
    /// The exchange between that of results and our queue.
    shared: String,
    takes: Consumer,
    copies: Option<Consumer>,
    /// The name of the queue that catches what comes back from a test. It is kept between tests: RabbitMQ may refuse what
    /// is on its way to a queue that is deleted, and a worker would publish that once more.
    caught: ShortString,
    lanes: Lanes,
}

impl Queues {
    pub(super) async fn open(
        connection: &Connection,
        broker: &BrokerSettings,
        takes_unbound: bool,
    ) -> Result<Self, WatchError> {
        let channel = within(connection.create_channel()).await?;
        within(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        within(channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
        let (exchange, unrouted) = (broker.reply_exchange.clone(), broker.unrouted());
        let copies = match takes_unbound {
            true => None,
            false => {
                let copied = queue(&channel).await?;
                bind(&channel, &copied, &unrouted, "").await?;
                Some(consume(&channel, &copied, true).await?)
            }
        };
        let [caught, taken] = [queue(&channel).await?, queue(&channel).await?];
        let takes = consume(&channel, &taken, false).await?;
        let queues = Self {
            shared: format!("{exchange}.watch"),
            channel,
            exchange,
            unrouted,
            takes,
            copies,
            caught,
            lanes: Lanes::new(takes_unbound),
        };
        queues.subscribe(&taken, takes_unbound).await?;
        Ok(queues)
    }

    async fn subscribe(&self, taken: &ShortString, takes_unbound: bool) -> Result<(), WatchError> {
        if takes_unbound {
            return bind(&self.channel, taken, &self.exchange, "otp.*").await;
        }
        let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
        let shared = ShortString::from(self.shared.as_str());
        within(self.channel.exchange_declare(shared, ExchangeKind::Fanout, options, FieldTable::default())).await?;
        // First, so that no result comes to an exchange without a queue.
        bind(&self.channel, taken, &self.shared, "").await?;
        for outcome in Outcome::ALL {
            self.bind_key(&outcome.routing_key()).await?;
        }
        Ok(())
    }

    async fn bind_key(&self, key: &str) -> Result<(), WatchError> {
        let [to, from, key] = [&self.shared, &self.exchange, key].map(|name: &str| ShortString::from(name));
        let options = ExchangeBindOptions::default();
        within(self.channel.exchange_bind(to, from, key, options, FieldTable::default())).await
    }

    async fn unbind_key(&self, key: &str) -> Result<(), WatchError> {
        let [to, from, key] = [&self.shared, &self.exchange, key].map(|name: &str| ShortString::from(name));
        let options = ExchangeUnbindOptions::default();
        within(self.channel.exchange_unbind(to, from, key, options, FieldTable::default())).await
    }

    /// The next result.
    pub(super) async fn next(&mut self) -> Result<Came, WatchError> {
        let copied = async {
            match &mut self.copies {
                Some(copies) => copies.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            taken = self.takes.next() => Ok(Came::Taken(taken.ok_or(WatchError::Ended)??)),
            copied = copied => {
                let copied = copied.ok_or(WatchError::Ended)??;
                let is_shown = self.lanes.is_shown_already(id(&copied));
                Ok(Came::Copied(copied, is_shown))
            }
        }
    }

    /// Does what is to be done with a result of our queue, after it was shown.
    pub(super) async fn settle(&mut self, result: Delivery) -> Result<Option<Then>, WatchError> {
        let then = match self.lanes.with_taken(result.routing_key.as_str()) {
            With::Acknowledge => None,
            With::Test => Some(self.test(&result).await?),
            With::GiveBack => {
                self.lanes.will_come_again(id(&result));
                self.publish(&self.unrouted, &result).await?;
                None
            }
        };
        within(result.ack(BasicAckOptions::default())).await?;
        Ok(then)
    }

    /// Finds out whether another queue gets results with the routing key of this one.
    async fn test(&mut self, result: &Delivery) -> Result<Then, WatchError> {
        let key = result.routing_key.clone();
        within(self.channel.queue_purge(self.caught.clone(), QueuePurgeOptions::default())).await?;
        bind(&self.channel, &self.caught, &self.unrouted, "").await?;
        self.unbind_key(key.as_str()).await?;
        self.lanes.will_come_again(id(result));
        self.publish(&self.exchange, result).await?;
        // Confirmed: so it is in every queue that gets it.
        let came_back = self.is_caught(result).await?;
        unbind(&self.channel, &self.caught, &self.unrouted, "").await?;
        let then = self.lanes.tested(key.as_str(), came_back);
        if then == Then::BindAgain {
            self.bind_key(key.as_str()).await?;
        }
        Ok(then)
    }

    /// Whether the result is among those that came by way of the unrouted exchange.
    async fn is_caught(&self, result: &Delivery) -> Result<bool, WatchError> {
        let no_ack = BasicGetOptions { no_ack: true };
        while let Some(other) = within(self.channel.basic_get(self.caught.clone(), no_ack)).await? {
            if id(&other.delivery) == id(result) && other.delivery.data == result.data {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Publishes a result as it is, once more.
    async fn publish(&self, exchange: &str, result: &Delivery) -> Result<(), WatchError> {
        let publishing = self.channel.basic_publish(
            exchange.into(),
            result.routing_key.clone(),
            BasicPublishOptions::default(),
            &result.data,
            result.properties.clone(),
        );
        match within(async { publishing.await?.await }).await? {
            Confirmation::Ack(_) => Ok(()),
            Confirmation::Nack(_) | Confirmation::NotRequested => Err(WatchError::Refused),
        }
    }
}

fn id(result: &Delivery) -> &str {
    result.properties.message_id().as_ref().map_or("", ShortString::as_str)
}

async fn within<T>(answer: impl Future<Output = lapin::Result<T>>) -> Result<T, WatchError> {
    Ok(timeout(REPLY_WITHIN, answer).await.map_err(|_| WatchError::Silent)??)
}

/// A queue that ends with the connection.
async fn queue(channel: &Channel) -> Result<ShortString, WatchError> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(MOST_BYTES));
    let options = QueueDeclareOptions::exclusive().auto_delete();
    Ok(within(channel.queue_declare("".into(), options, arguments)).await?.name().clone())
}

async fn bind(channel: &Channel, queue: &ShortString, exchange: &str, key: &str) -> Result<(), WatchError> {
    let options = QueueBindOptions::default();
    within(channel.queue_bind(queue.clone(), exchange.into(), key.into(), options, FieldTable::default())).await
}

async fn unbind(channel: &Channel, queue: &ShortString, exchange: &str, key: &str) -> Result<(), WatchError> {
    within(channel.queue_unbind(queue.clone(), exchange.into(), key.into(), FieldTable::default())).await
}

async fn consume(channel: &Channel, queue: &ShortString, no_ack: bool) -> Result<Consumer, WatchError> {
    let options = BasicConsumeOptions { no_ack, ..Default::default() };
    within(channel.basic_consume(queue.clone(), "".into(), options, FieldTable::default())).await
}
