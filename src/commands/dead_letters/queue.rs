//! The queue of dead letters. Every letter that is taken is held, until it is acknowledged or given back.
//!
//! Letters are consumed, and not asked for one by one: RabbitMQ keeps a consumer for each message that `basic.get` leaves
//! unacknowledged, and 20,000 of them took 44 s where consuming took half a second.
//!
//! # Looking must lose nothing
//!
//! A quorum queue counts in `x-delivery-count` how often a message was returned, and RabbitMQ 4 drops one that was returned more than
//! 20 times, unless the queue or a policy says otherwise. So a letter that was returned some times is renewed: a copy of
//! it is published, confirmed, and only then is the letter acknowledged. From RabbitMQ 4.3 on a `basic.nack` counts for
//! nothing, and a channel that is closed still does; so letters are given back by one `basic.nack`.
//! See <https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>.

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use indicatif::ProgressBar;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::protocol::AMQPSoftError;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, Consumer};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::copy;
use super::error::{Failed, refusal};
use super::letter::{Letter, returned};
use super::outstanding::{Held, Outstanding};
use super::publishing::{Answer, Publisher};
use crate::broker::settings::BrokerSettings;
use crate::broker::{REPLY_WITHIN, close};
use crate::commands::shell::say;

/// A letter that was returned so often is renewed. RabbitMQ's limit is 20: a policy may have set a lower one, and a command
/// that is killed returns letters, too.
const RENEWED_AT: u64 = 2;

/// How many letters one channel holds. After so many another channel is opened.
const HELD_BY_CHANNEL: u16 = 5_000;

/// After this long without a letter it is asked whether there are more.
const IDLE: Duration = Duration::from_millis(500);

/// After this long without a letter, while none waits, others have the rest.
const OTHERS_HAVE_IT: Duration = Duration::from_secs(3);

/// How many copies are published at a time.
const RENEWED_AT_ONCE: usize = 100;

/// How long renewing may take.
const RENEWED_WITHIN: Duration = Duration::from_secs(60);

/// How long letters that were given back may take to be there again.
const BACK_WITHIN: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Queue {
    name: String,
    connection: Connection,
    /// The broker's cluster, if it says its name.
    pub(super) cluster: Option<String>,
    /// For questions.
    channel: Channel,
    /// Each holds letters; the last takes more.
    takers: Vec<Taker>,
    /// Cancelled when no more letters are to be taken.
    stop: CancellationToken,
    /// How many letters there were at the beginning.
    pub(super) there: u32,
    /// How many of them are taken at the most.
    total: u32,
    /// How many were taken.
    pub(super) taken: u32,
}

struct Taker {
    channel: Channel,
    consumer: Consumer,
    outstanding: Outstanding,
    /// How many letters it may hold.
    room: usize,
}

/// Where a letter is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    taker: usize,
    tag: u64,
}

impl Queue {
    /// Connects, and asks how many letters there are. At most so many are taken.
    pub(super) async fn open(broker: &BrokerSettings, most: u32, stop: CancellationToken) -> Result<Self, Failed> {
        let opened = broker.connect("esms-otp-worker dead-letters").await?;
        let channel = answered(opened.connection.create_channel()).await?;
        let mut queue = Self {
            name: broker.dead_letter.clone(),
            connection: opened.connection,
            cluster: opened.cluster,
            channel,
            takers: Vec::new(),
            stop,
            there: 0,
            total: 0,
            taken: 0,
        };
        queue.there = queue.ready().await?;
        queue.total = queue.there.min(most);
        Ok(queue)
    }

    /// How many letters another command holds: they were there at the beginning, and did not come. To be asked after the
    /// last one.
    pub(super) const fn held_by_others(&self) -> u32 {
        self.total - self.taken
    }

    /// How many letters are there and not held by anybody.
    async fn ready(&self) -> Result<u32, Failed> {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let asking = self.channel.queue_declare(self.name.as_str().into(), options, FieldTable::default());
        match timeout(REPLY_WITHIN, asking).await.map_err(|_| Failed::Silent)? {
            Ok(queue) => Ok(queue.message_count()),
            Err(error) => match refusal(&error) {
                Some((AMQPSoftError::NOTFOUND, _)) => Err(Failed::NoQueue(self.name.clone())),
                _ => Err(error.into()),
            },
        }
    }

    /// The next letter; nothing once all that were there at the beginning were taken, or others have the rest. It is held.
    pub(super) async fn next(&mut self) -> Result<Option<(Place, Delivery)>, Failed> {
        if self.taken >= self.total {
            return Ok(None);
        }
        let since = Instant::now();
        loop {
            let taker = self.taker().await?;
            let taking = timeout(IDLE, self.takers[taker].consumer.next());
            match self.stop.run_until_cancelled(taking).await.ok_or(Failed::Interrupted)? {
                Ok(Some(delivery)) => {
                    let delivery = delivery?;
                    let tag = delivery.delivery_tag;
                    self.takers[taker].outstanding.hold(tag, Held::GoesBack);
                    self.taken += 1;
                    return Ok(Some((Place { taker, tag }, delivery)));
                }
                Ok(None) => return Err(Failed::Cancelled),
                Err(_) => match self.ready().await? {
                    0 if since.elapsed() > OTHERS_HAVE_IT => return Ok(None),
                    _ if since.elapsed() > REPLY_WITHIN => return Err(Failed::Silent),
                    _ => {}
                },
            }
        }
    }

    /// The channel that takes the next letter.
    async fn taker(&mut self) -> Result<usize, Failed> {
        if self.takers.last().is_none_or(|taker| taker.outstanding.len() >= taker.room) {
            let channel = answered(self.connection.create_channel()).await?;
            let room = u16::try_from(self.total - self.taken).unwrap_or(u16::MAX).clamp(1, HELD_BY_CHANNEL);
            answered(channel.basic_qos(room, BasicQosOptions::default())).await?;
            let options = BasicConsumeOptions::default();
            let consuming = channel.basic_consume(self.name.as_str().into(), "".into(), options, FieldTable::default());
            let consumer = answered(consuming).await?;
            self.takers.push(Taker { channel, consumer, outstanding: Outstanding::default(), room: room.into() });
        }
        Ok(self.takers.len() - 1)
    }

    /// The letter stays: it goes back at the end, or is renewed then.
    pub(super) fn keep(&mut self, place: Place, letter: Letter) {
        self.takers[place.taker].keep(place.tag, letter.properties, letter.body);
    }

    /// Acknowledges letters: they are gone.
    pub(super) async fn remove(&mut self, places: &[Place]) -> Result<(), Failed> {
        for (n, taker) in self.takers.iter_mut().enumerate() {
            let tags = places.iter().filter(|place| place.taker == n).map(|place| place.tag).collect();
            for ack in taker.outstanding.settle(tags) {
                answered(taker.channel.basic_ack(ack.tag, BasicAckOptions { multiple: ack.is_multiple })).await?;
            }
        }
        Ok(())
    }

    /// Gives back all that is held, renewed where that is due, and closes the connection.
    pub(super) async fn end(mut self, broker: &BrokerSettings) -> Result<(), Failed> {
        let ended = self.give_back(broker).await;
        close(&self.connection).await;
        ended
    }

    async fn give_back(&mut self, broker: &BrokerSettings) -> Result<(), Failed> {
        // First no taker takes any more, or the next would get what the first gives back.
        for taker in &mut self.takers {
            taker.stop().await?;
        }
        if self.takers.iter().any(|taker| taker.outstanding.has_any_to_renew())
            && let Err(why) = self.renew(broker).await
        {
            say(&format!("letters that were looked at often could not be renewed: {why}"));
            say("RabbitMQ 4 drops a letter that was looked at more than 20 times: mend this, and then look again");
        }
        let mut held = 0;
        for taker in &self.takers {
            held += taker.outstanding.len();
            answered(taker.channel.basic_nack(0, BasicNackOptions { multiple: true, requeue: true })).await?;
        }
        self.until_back(u32::try_from(held).unwrap_or(u32::MAX)).await
    }

    /// Publishes a copy of each letter that was returned often, and removes that letter.
    async fn renew(&mut self, broker: &BrokerSettings) -> Result<(), Failed> {
        let mut publisher = Publisher::open(broker, CancellationToken::new(), ProgressBar::hidden()).await?;
        let renewed = timeout(RENEWED_WITHIN, self.renew_with(&mut publisher)).await.unwrap_or(Err(Failed::Silent));
        publisher.close().await;
        renewed
    }

    async fn renew_with(&mut self, publisher: &mut Publisher) -> Result<(), Failed> {
        let mut is_refused = false;
        for taker in 0..self.takers.len() {
            let due = self.takers[taker].outstanding.take_renewed();
            for some in due.chunks(RENEWED_AT_ONCE) {
                let copies = some.iter().map(|(_, given, body)| (copy::of_letter(given), body.as_slice())).collect();
                let answers = publisher.publish(&self.name, copies).await?;
                let taken = some.iter().zip(&answers).filter(|(_, answer)| **answer == Answer::Taken);
                let taken: Vec<Place> = taken.map(|((tag, ..), _)| Place { taker, tag: *tag }).collect();
                is_refused |= taken.len() < some.len();
                self.remove(&taken).await?;
            }
        }
        if is_refused { Err(Failed::Full(self.name.clone())) } else { Ok(()) }
    }

    /// What the channel does not pass on at once it would lose with its end: see [`Outstanding::settle`]. It passes
    /// acknowledgements on before what is given back after them. Another command may take the letters at once.
    async fn until_back(&self, held: u32) -> Result<(), Failed> {
        let until = Instant::now() + BACK_WITHIN;
        while self.ready().await? < held && Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Taker {
    fn keep(&mut self, tag: u64, properties: BasicProperties, body: Vec<u8>) {
        let is_renewed = returned(&properties) >= RENEWED_AT;
        let held = if is_renewed { Held::IsRenewed(Box::new((properties, body))) } else { Held::GoesBack };
        self.outstanding.hold(tag, held);
    }

    /// Takes no more. What the broker had sent already was not looked at, and is returned all the same.
    async fn stop(&mut self) -> Result<(), Failed> {
        answered(self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default())).await?;
        while let Some(Some(Ok(unread))) = self.consumer.next().now_or_never() {
            self.keep(unread.delivery_tag, unread.properties, unread.data);
        }
        Ok(())
    }
}

async fn answered<T>(request: impl Future<Output = lapin::Result<T>>) -> Result<T, Failed> {
    Ok(timeout(REPLY_WITHIN, request).await.map_err(|_| Failed::Silent)??)
}
