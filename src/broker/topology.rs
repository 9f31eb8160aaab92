//! The objects on the broker: which ones there are, why, and how they are declared.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};
use tokio::time::timeout;

use super::REPLY_WITHIN;
use super::bounds::{Bounds, Unbounded, quoted};
use super::settings::{BrokerSettings, TopologyMode};

/// After this many deliveries the broker assumes that a job kills its worker, and drops it.
const DELIVERY_LIMIT: i32 = 20;

/// One object on the broker.
#[derive(Clone, Debug)]
pub enum Object {
    /// A durable exchange.
    Exchange {
        /// Its name.
        name: String,
        /// Its type.
        kind: ExchangeKind,
        /// Its arguments.
        arguments: FieldTable,
    },
    /// A durable queue.
    Queue {
        /// Its name.
        name: String,
        /// Its arguments.
        arguments: FieldTable,
    },
    /// A queue's binding to the fanout exchange of the same name.
    Binding {
        /// The name of both.
        name: String,
    },
}

impl Object {
    fn describe(&self) -> String {
        match self {
            Object::Exchange { name, .. } => format!("exchange {name}"),
            Object::Queue { name, .. } => format!("queue {name}"),
            Object::Binding { name } => format!("binding of queue {name}"),
        }
    }

    fn forbidden(&self, refusal: Refusal) -> Difference {
        Difference::Forbidden { object: self.describe(), words: refusal.words }
    }

    fn another(&self, words: String, vhost: &str) -> Difference {
        let deleted_by = match self {
            Object::Queue { name, .. } => {
                Some(format!("rabbitmqctl delete_queue --vhost {} --if-empty {}", quoted(vhost), quoted(name)))
            }
            Object::Exchange { .. } | Object::Binding { .. } => None,
        };
        Difference::Another { object: self.describe(), words, deleted_by }
    }
}

/// Why the objects could not be declared or checked.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The broker's objects differ, are missing or are forbidden. Trying again will not help.
    #[error("the broker's objects are not as this worker needs them:\n  {}", .0.join("\n  "))]
    Differs(Vec<String>),
    /// The connection was lost while declaring. Trying again may help.
    #[error("connection lost while declaring: {0}")]
    Lost(#[from] lapin::Error),
    /// The broker did not answer in time. Trying again may help.
    #[error("the broker did not answer in time while declaring")]
    Silent,
}

/// Every object. Each comes after the objects it needs.
pub fn objects(broker: &BrokerSettings) -> Vec<Object> {
    let unrouted = broker.unrouted();
    let mut objects = Vec::new();
    objects.extend(kept(&unrouted, bounded(Bounds::UNROUTED)));
    objects.extend(kept(&broker.dead_letter, bounded(Bounds::DEAD)));
    objects.extend(kept(&broker.dropped, work_queue(&broker.dead_letter)));
    objects.push(Object::Exchange {
        name: broker.reply_exchange.clone(),
        kind: ExchangeKind::Topic,
        // A result that no queue is bound for is kept, not lost.
        arguments: table([("alternate-exchange", text(&unrouted))]),
    });
    objects.push(Object::Queue { name: broker.queue.clone(), arguments: work_queue(&broker.dropped) });
    objects
}

/// A fanout exchange with a queue of the same name.
fn kept(name: &str, arguments: FieldTable) -> [Object; 3] {
    [
        Object::Exchange { name: name.into(), kind: ExchangeKind::Fanout, arguments: FieldTable::default() },
        Object::Queue { name: name.into(), arguments },
        Object::Binding { name: name.into() },
    ]
}

/// A queue that only people read. It must not fill the broker's disk when nobody does.
fn bounded(bounds: Bounds) -> FieldTable {
    let mut arguments = quorum();
    for (name, value) in bounds.arguments() {
        arguments.insert(name.into(), value);
    }
    arguments
}

fn quorum() -> FieldTable {
    // Quorum queues are replicated. They are the only kind that counts deliveries and dead-letters at least
    // once.
    table([("x-queue-type", text("quorum"))])
}

fn work_queue(dead_letters_to: &str) -> FieldTable {
    table([
        ("x-queue-type", text("quorum")),
        ("x-dead-letter-exchange", text(dead_letters_to)),
        // The default strategy loses a dead letter when its target is away for a moment.
        ("x-dead-letter-strategy", text("at-least-once")),
        // at-least-once requires this. The other overflow mode silently drops the head of the queue.
        ("x-overflow", text("reject-publish")),
        ("x-delivery-limit", AMQPValue::LongInt(DELIVERY_LIMIT)),
    ])
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn table<const N: usize>(arguments: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert(name.into(), value);
    }
    table
}

/// Declares or checks every object, as `broker.topology` says. Returns the queues that have no bounds.
///
/// # Errors
/// [`TopologyError::Differs`] with every difference, not only the first.
pub async fn prepare(connection: &Connection, broker: &BrokerSettings) -> Result<Vec<Unbounded>, TopologyError> {
    let passive = match broker.topology {
        TopologyMode::Skip => return Ok(Vec::new()),
        TopologyMode::Check => true,
        TopologyMode::Declare => false,
    };
    // Whoever holds it waits for the broker, and each answer has a limit.
    let _alone = broker.declaring.lock().await;
    let (mut differences, mut unbounded) = (Vec::new(), Vec::new());
    let mut channel = open_channel(connection).await?;
    for object in objects(broker) {
        match declared(&mut channel, connection, &object, passive).await? {
            None => {}
            Some(difference) => match without_bounds(&object, broker) {
                None => differences.push(told(&object, &difference)),
                // A queue of version 0.1.0 is taken as it is. Nobody else can change its arguments, either.
                Some((older, found)) => match declared(&mut channel, connection, &older, passive).await? {
                    None => unbounded.push(found),
                    Some(difference) => differences.push(told(&older, &difference)),
                },
            },
        }
    }
    let _ = timeout(REPLY_WITHIN, channel.close(200, "done".into())).await;
    if differences.is_empty() { Ok(unbounded) } else { Err(TopologyError::Differs(differences)) }
}

/// What differs from the objects that are there, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It is not there.
    Missing(String),
    /// It is there, and it is another. The text is the broker's.
    Another {
        /// What it is, and its name.
        object: String,
        /// The broker's own words.
        words: String,
        /// The command that deletes it, if it is a queue that is empty.
        deleted_by: Option<String>,
    },
    /// A queue of an older version, which is taken as it is.
    Unbounded(Unbounded),
    /// The user may not ask.
    Forbidden {
        /// What it is, and its name.
        object: String,
        /// The broker's own words.
        words: String,
    },
}

/// Compares every exchange and queue with those that are there, and declares none that is missing. The protocol cannot
/// ask for bindings.
///
/// # Errors
/// The connection was lost, or the broker does not answer.
pub async fn differences(connection: &Connection, broker: &BrokerSettings) -> Result<Vec<Difference>, TopologyError> {
    let (mut differences, vhost) = (Vec::new(), broker.addresses.first().vhost);
    let mut channel = open_channel(connection).await?;
    for object in objects(broker).iter().filter(|object| !matches!(object, Object::Binding { .. })) {
        let missing = declared(&mut channel, connection, object, true).await?;
        if let Some(refusal) = missing {
            let found =
                if refusal.is_forbidden { object.forbidden(refusal) } else { Difference::Missing(object.describe()) };
            differences.push(found);
            continue;
        }
        // It is there, so that this declares nothing: the broker only compares.
        let Some(refusal) = declared(&mut channel, connection, object, false).await? else { continue };
        if refusal.is_forbidden {
            differences.push(object.forbidden(refusal));
            continue;
        }
        let older = match without_bounds(object, broker) {
            Some((older, found)) if declared(&mut channel, connection, &older, false).await?.is_none() => Some(found),
            _ => None,
        };
        differences.push(older.map_or_else(|| object.another(refusal.words, &vhost), Difference::Unbounded));
    }
    let _ = timeout(REPLY_WITHIN, channel.close(200, "done".into())).await;
    Ok(differences)
}

/// What the broker says to a declaration that it does not take.
struct Refusal {
    is_forbidden: bool,
    words: String,
}

/// Declares or checks one object. Returns how it differs from what is there, if it does.
async fn declared(
    channel: &mut Channel,
    connection: &Connection,
    object: &Object,
    passive: bool,
) -> Result<Option<Refusal>, TopologyError> {
    let answer = timeout(REPLY_WITHIN, declare(channel, object, passive)).await;
    match answer.map_err(|_| TopologyError::Silent)? {
        Ok(()) => Ok(None),
        Err(error) if is_difference(&error, passive) => {
            // A refused declaration closes its channel.
            *channel = open_channel(connection).await?;
            Ok(Some(Refusal { is_forbidden: is_forbidden(&error), words: words(&error) }))
        }
        Err(error) => Err(error.into()),
    }
}

/// The queue as version 0.1.0 declared it, where it has bounds now.
fn without_bounds(object: &Object, broker: &BrokerSettings) -> Option<(Object, Unbounded)> {
    let Object::Queue { name, .. } = object else { return None };
    let bounds = match name {
        name if *name == broker.unrouted() => Bounds::UNROUTED,
        name if *name == broker.dead_letter => Bounds::DEAD,
        _ => return None,
    };
    let older = Object::Queue { name: name.clone(), arguments: quorum() };
    let vhost = broker.addresses.first().vhost;
    Some((older, Unbounded { queue: name.clone(), vhost, bounds }))
}

async fn open_channel(connection: &Connection) -> Result<Channel, TopologyError> {
    Ok(timeout(REPLY_WITHIN, connection.create_channel()).await.map_err(|_| TopologyError::Silent)??)
}

async fn declare(channel: &Channel, object: &Object, passive: bool) -> lapin::Result<()> {
    match object.clone() {
        Object::Exchange { name, kind, arguments } => {
            let options = ExchangeDeclareOptions { passive, durable: true, ..Default::default() };
            channel.exchange_declare(name.into(), kind, options, arguments).await
        }
        Object::Queue { name, arguments } => {
            let options = QueueDeclareOptions { passive, durable: true, ..Default::default() };
            channel.queue_declare(name.into(), options, arguments).await.map(drop)
        }
        // The protocol cannot ask for a binding without creating it.
        Object::Binding { .. } if passive => Ok(()),
        Object::Binding { name } => {
            let options = QueueBindOptions::default();
            channel.queue_bind(name.as_str().into(), name.into(), "".into(), options, FieldTable::default()).await
        }
    }
}

/// Whether the error means that an object is wrong or missing, and not only away for a moment. If a queue's
/// node is down, a declaration also gets "not found", but a passive check does not.
fn is_difference(error: &lapin::Error, passive: bool) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else { return false };
    match error.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::ACCESSREFUSED) => true,
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => passive,
        AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => false,
    }
}

/// Whether the user lacks a permission.
fn is_forbidden(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else { return false };
    matches!(error.kind(), AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED))
}

fn told(object: &Object, refusal: &Refusal) -> String {
    format!("{}: {}", object.describe(), refusal.words)
}

/// The broker's own text. It names the object, the argument and both values.
fn words(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        _ => error.to_string(),
    }
}
