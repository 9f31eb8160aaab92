//! What `watch` asks of the broker. A broker that is short of memory or disk may answer late; any other must answer in time.

use lapin::message::Delivery;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, ExchangeBindOptions, ExchangeDeclareOptions, ExchangeUnbindOptions, QueueBindOptions,
    QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Confirmation, Connection, Consumer, ExchangeKind, PublisherConfirm};

use crate::amqp;
use crate::broker::REPLY_WITHIN;
use crate::broker::alarm::Alarm;

/// Results that were not taken in yet. The broker's memory is safe, if this program stands still.
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

/// A channel.
pub(super) struct Wire {
    channel: Channel,
    alarm: Alarm,
}

impl Wire {
    pub(super) async fn open(connection: &Connection, alarm: Alarm) -> Result<Self, WatchError> {
        let channel = within(&alarm, connection.create_channel()).await?;
        let wire = Self { channel, alarm };
        wire.ask(wire.channel.confirm_select(ConfirmSelectOptions::default())).await?;
        wire.ask(wire.channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
        Ok(wire)
    }

    /// Waits for an answer.
    pub(super) async fn ask<T>(&self, answer: impl Future<Output = lapin::Result<T>>) -> Result<T, WatchError> {
        within(&self.alarm, answer).await
    }

    /// A queue that ends with the connection.
    pub(super) async fn queue(&self) -> Result<ShortString, WatchError> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(MOST_BYTES));
        let declared = self.channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), arguments);
        Ok(self.ask(declared).await?.name().clone())
    }

    pub(super) async fn bind(&self, queue: &ShortString, exchange: &str, key: &str) -> Result<(), WatchError> {
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        self.ask(self.channel.queue_bind(queue.clone(), exchange.into(), key.into(), options, none)).await
    }

    pub(super) async fn unbind(&self, queue: &ShortString, exchange: &str, key: &str) -> Result<(), WatchError> {
        let none = FieldTable::default();
        self.ask(self.channel.queue_unbind(queue.clone(), exchange.into(), key.into(), none)).await
    }

    /// An exchange that ends with the last queue that is bound to it.
    pub(super) async fn exchange(&self, name: &str) -> Result<(), WatchError> {
        let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
        self.ask(self.channel.exchange_declare(name.into(), ExchangeKind::Fanout, options, FieldTable::default())).await
    }

    pub(super) async fn bind_exchange(&self, to: &str, from: &str, key: &str) -> Result<(), WatchError> {
        let (options, none) = (ExchangeBindOptions::default(), FieldTable::default());
        self.ask(self.channel.exchange_bind(to.into(), from.into(), key.into(), options, none)).await
    }

    pub(super) async fn unbind_exchange(&self, to: &str, from: &str, key: &str) -> Result<(), WatchError> {
        let (options, none) = (ExchangeUnbindOptions::default(), FieldTable::default());
        self.ask(self.channel.exchange_unbind(to.into(), from.into(), key.into(), options, none)).await
    }

    pub(super) async fn consume(&self, queue: &ShortString, no_ack: bool) -> Result<Consumer, WatchError> {
        let options = BasicConsumeOptions { no_ack, ..Default::default() };
        self.ask(self.channel.basic_consume(queue.clone(), "".into(), options, FieldTable::default())).await
    }

    /// What has come already stays.
    pub(super) async fn cancel(&self, consumer: &Consumer) -> Result<(), WatchError> {
        self.ask(self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default())).await
    }

    pub(super) async fn purge(&self, queue: &ShortString) -> Result<(), WatchError> {
        self.ask(self.channel.queue_purge(queue.clone(), QueuePurgeOptions::default())).await.map(drop)
    }

    /// Takes a message from a queue, if there is one.
    pub(super) async fn get(&self, queue: &ShortString) -> Result<Option<Delivery>, WatchError> {
        let no_ack = BasicGetOptions { no_ack: true };
        Ok(self.ask(self.channel.basic_get(queue.clone(), no_ack)).await?.map(|got| got.delivery))
    }

    /// Publishes a result as it is, once more.
    pub(super) async fn publish(&self, exchange: &str, result: &Delivery) -> Result<PublisherConfirm, WatchError> {
        self.ask(self.channel.basic_publish(
            exchange.into(),
            result.routing_key.clone(),
            BasicPublishOptions::default(),
            &result.data,
            result.properties.clone(),
        ))
        .await
    }

    /// Waits until the broker has it.
    pub(super) async fn confirmed(&self, confirm: PublisherConfirm) -> Result<(), WatchError> {
        match self.ask(confirm).await? {
            Confirmation::Ack(_) => Ok(()),
            Confirmation::Nack(_) | Confirmation::NotRequested => Err(WatchError::Refused),
        }
    }
}

async fn within<T>(alarm: &Alarm, answer: impl Future<Output = lapin::Result<T>>) -> Result<T, WatchError> {
    tokio::select! {
        answer = answer => Ok(answer?),
        () = alarm.silence(REPLY_WITHIN) => Err(WatchError::Silent),
    }
}
