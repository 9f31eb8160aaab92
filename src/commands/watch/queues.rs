//! The queues of `watch`, which end with its connection.
//!
//! ```text
//! otp.results == each routing key ==> otp.results.watch ==> our queue, and that of every other watch
//! otp.results.unrouted ==> our queue of copies
//! ```
//!
//! All that run at the same time share one exchange. So a test takes all of them away, and none is another's other queue.

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::types::ShortString;
use lapin::{Connection, Consumer, PublisherConfirm};

use super::lanes::{Lanes, Then, With};
use super::wire::{WatchError, Wire};
use crate::broker::alarm::Alarm;
use crate::broker::settings::BrokerSettings;
use crate::job::result::Outcome;

/// A result that came.
pub(super) enum Came {
    /// To our queue behind the exchange of results.
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
    wire: Wire,
    exchange: String,
    unrouted: String,
    /// The exchange between that of results and our queue.
    shared: String,
    taken: ShortString,
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
        alarm: Alarm,
    ) -> Result<Self, WatchError> {
        let wire = Wire::open(connection, alarm).await?;
        let (exchange, unrouted) = (broker.reply_exchange.clone(), broker.unrouted());
        let copies = match takes_unbound {
            true => None,
            false => {
                let copied = wire.queue().await?;
                wire.bind(&copied, &unrouted, "").await?;
                Some(wire.consume(&copied, true).await?)
            }
        };
        let [caught, taken] = [wire.queue().await?, wire.queue().await?];
        let takes = wire.consume(&taken, false).await?;
        let (shared, lanes) = (format!("{exchange}.watch"), Lanes::new(takes_unbound));
        let queues = Self { wire, exchange, unrouted, shared, taken, takes, copies, caught, lanes };
        queues.subscribe().await?;
        Ok(queues)
    }

    async fn subscribe(&self) -> Result<(), WatchError> {
        if self.copies.is_none() {
            return self.wire.bind(&self.taken, &self.exchange, "otp.*").await;
        }
        self.wire.exchange(&self.shared).await?;
        // First, so that no result comes to an exchange without a queue.
        self.wire.bind(&self.taken, &self.shared, "").await?;
        for outcome in Outcome::ALL {
            self.wire.bind_exchange(&self.shared, &self.exchange, &outcome.routing_key()).await?;
        }
        Ok(())
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

    /// Does what is to be done with a result of our queue.
    pub(super) async fn settle(&mut self, result: &Delivery) -> Result<Option<Then>, WatchError> {
        let then = match self.lanes.with_taken(result.routing_key.as_str()) {
            With::Acknowledge => None,
            With::Test => Some(self.test(result).await?),
            With::GiveBack => {
                self.lanes.will_come_again(id(result));
                let confirm = self.wire.publish(&self.unrouted, result).await?;
                self.wire.confirmed(confirm).await?;
                None
            }
        };
        self.wire.ask(result.ack(BasicAckOptions::default())).await?;
        Ok(then)
    }

    /// Finds out whether another queue gets results with the routing key of this one.
    async fn test(&mut self, result: &Delivery) -> Result<Then, WatchError> {
        let key = result.routing_key.clone();
        self.wire.purge(&self.caught).await?;
        self.wire.bind(&self.caught, &self.unrouted, "").await?;
        self.wire.unbind_exchange(&self.shared, &self.exchange, key.as_str()).await?;
        self.lanes.will_come_again(id(result));
        let confirm = self.wire.publish(&self.exchange, result).await?;
        self.wire.confirmed(confirm).await?;
        // Confirmed: so it is in every queue that gets it.
        let came_back = self.is_caught(result).await?;
        self.wire.unbind(&self.caught, &self.unrouted, "").await?;
        let then = self.lanes.tested(key.as_str(), came_back);
        if then == Then::BindAgain {
            self.wire.bind_exchange(&self.shared, &self.exchange, key.as_str()).await?;
        }
        Ok(then)
    }

    /// Whether the result is among those that came by way of the unrouted exchange.
    async fn is_caught(&self, result: &Delivery) -> Result<bool, WatchError> {
        while let Some(other) = self.wire.get(&self.caught).await? {
            if id(&other) == id(result) && other.data == result.data {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives back what waits in our queue and that nobody else may have.
    pub(super) async fn finish(&mut self) -> Result<(), WatchError> {
        if self.copies.is_none() {
            return Ok(());
        }
        // From here on nothing more comes.
        self.wire.unbind(&self.taken, &self.shared, "").await?;
        self.wire.cancel(&self.takes).await?;
        let mut confirms = Vec::new();
        while let Some(result) = self.takes.next().await {
            confirms.extend(self.give_back(&result?).await?);
        }
        while let Some(result) = self.wire.get(&self.taken).await? {
            confirms.extend(self.give_back(&result).await?);
        }
        for confirm in confirms {
            self.wire.confirmed(confirm).await?;
        }
        Ok(())
    }

    async fn give_back(&self, result: &Delivery) -> Result<Option<PublisherConfirm>, WatchError> {
        let to = match self.lanes.with_taken(result.routing_key.as_str()) {
            With::Acknowledge => return Ok(None),
            // Readers get it once more, or it goes where it would have gone without us.
            With::Test => &self.exchange,
            With::GiveBack => &self.unrouted,
        };
        self.wire.publish(to, result).await.map(Some)
    }
}

fn id(result: &Delivery) -> &str {
    result.properties.message_id().as_ref().map_or("", ShortString::as_str)
}
