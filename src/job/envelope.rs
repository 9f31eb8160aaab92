//! The AMQP properties of a job: its id, its deadline, and where its result goes.

use std::fmt;
use std::time::{Duration, SystemTime};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, ShortString};
use tokio::time::Instant;
use uuid::Uuid;

/// The longest job id, in bytes. With `:result` added it must fit AMQP's short string of 255.
pub const LONGEST_ID: usize = 200;

/// The transport puts this character (U+001A, SUBSTITUTE) in place of a byte that is not UTF-8.
pub const SUBSTITUTE: char = '\u{1a}';

/// One moment on both clocks: producers' times are compared with the wall clock, and waits are measured
/// with the monotonic one.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The wall clock.
    pub wall: SystemTime,
    /// The monotonic clock.
    pub instant: Instant,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self { wall: SystemTime::now(), instant: Instant::now() }
    }
}

/// What the properties of a message say: who the job is, where its result goes, when it is too late.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The job's id: the producer's `message_id`, else one made up for this delivery.
    pub id: String,
    /// Whether it is the producer's.
    pub is_named: bool,
    /// Why the producer's `message_id` is refused as an id, if it is.
    pub id_problem: Option<&'static str>,
    /// Copied to the result; the job's id where the producer gave none.
    pub correlation_id: ShortString,
    /// A queue that wants the result too.
    pub reply_to: Option<ShortString>,
    /// The W3C trace context, to be put on the result.
    pub trace: Trace,
    /// The latest moment at which the producer can have created the job, where it says so.
    pub created: Option<SystemTime>,
    /// The moment from which the job is not sent any more.
    pub deadline: Instant,
    /// How often the queue delivered the job before, where it counts.
    pub delivery_count: Option<DeliveryCount>,
}

/// W3C trace context as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The header `traceparent`.
    pub parent: Option<String>,
    /// The header `tracestate`.
    pub state: Option<String>,
}

impl Envelope {
    /// Reads the properties of a message that was received at `received`; `ttl` is `OTP_JOB_TTL`.
    pub fn read(properties: &BasicProperties, received: Moment, ttl: Duration) -> Self {
        let given = properties.message_id().as_ref().filter(|id| !id.as_str().is_empty());
        let id_problem = given.and_then(|id| id_problem(id.as_str()));
        let id = match given {
            Some(id) if id_problem.is_none() => id.to_string(),
            _ => Uuid::new_v4().to_string(),
        };
        let created = created(properties, received.wall);
        Self {
            // The producer knows the job by this id, even if the worker refuses it.
            correlation_id: properties
                .correlation_id()
                .clone()
                // Some clients write an empty one where they mean none.
                .filter(|id| !id.as_str().is_empty())
                .or_else(|| given.cloned())
                .unwrap_or_else(|| ShortString::from(id.as_str())),
            id,
            is_named: given.is_some(),
            id_problem,
            reply_to: properties.reply_to().clone().filter(|queue| !queue.as_str().is_empty()),
            trace: Trace::read(properties),
            created,
            deadline: deadline(created, received, lifetime(properties, ttl)),
            delivery_count: DeliveryCount::read(properties),
        }
    }
}

/// How often a queue delivered a message before this delivery.
///
/// Until RabbitMQ 4.2 the header `x-delivery-count` counts all deliveries that the queue took back. From
/// 4.3 on it counts only those that failed: a message given back with `basic.nack` is not counted. There
/// `x-acquired-count` counts them all. The two must not be compared with each other.
/// See <https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryCount {
    /// `x-delivery-count`, of a broker that sends no `x-acquired-count`.
    Returned(u64),
    /// `x-acquired-count`.
    Acquired(u64),
}

impl DeliveryCount {
    fn read(properties: &BasicProperties) -> Option<Self> {
        match header(properties, "x-acquired-count") {
            Some(count) => whole(count).map(Self::Acquired),
            None => whole(header(properties, "x-delivery-count")?).map(Self::Returned),
        }
    }

    /// Whether `later` is the count of the delivery right after the one with the count `earlier`, so that
    /// nobody else had the message between the two. A first delivery has no count from RabbitMQ 4 on,
    /// and 0 before. False where the queue does not count, or counts in another way than before.
    pub fn follows(earlier: Option<Self>, later: Option<Self>) -> bool {
        match (earlier, later) {
            (None, Some(Self::Returned(later) | Self::Acquired(later))) => later == 1,
            (Some(Self::Returned(earlier)), Some(Self::Returned(later)))
            | (Some(Self::Acquired(earlier)), Some(Self::Acquired(later))) => later.checked_sub(1) == Some(earlier),
            (Some(_), Some(_)) | (_, None) => false,
        }
    }
}

/// As the ledger stores it: `returned:2`, `acquired:2`.
impl fmt::Display for DeliveryCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned(count) => write!(f, "returned:{count}"),
            Self::Acquired(count) => write!(f, "acquired:{count}"),
        }
    }
}

impl DeliveryCount {
    /// Reads what its `Display` writes; none from anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, count) = text.split_once(':')?;
        let count = count.parse().ok()?;
        match kind {
            "returned" => Some(Self::Returned(count)),
            "acquired" => Some(Self::Acquired(count)),
            _ => None,
        }
    }
}

fn whole(count: &AMQPValue) -> Option<u64> {
    match count {
        AMQPValue::LongLongInt(count) => u64::try_from(*count).ok(),
        AMQPValue::LongInt(count) => u64::try_from(*count).ok(),
        AMQPValue::LongUInt(count) => Some(u64::from(*count)),
        _ => None,
    }
}

/// Why a text is refused as a job's id, if it is.
pub fn id_problem(id: &str) -> Option<&'static str> {
    match id {
        _ if id.contains(SUBSTITUTE) => Some("message_id is not UTF-8"),
        _ if id.len() > LONGEST_ID => Some("message_id is longer than 200 bytes"),
        _ => None,
    }
}

/// The latest moment at which the producer can have created the job, so that its age is a floor: AMQP's
/// `timestamp` has whole seconds, and the job may have been created at the end of that second.
///
/// RabbitMQ's own interceptor adds `timestamp_in_ms`. It is more exact where both name the same second, and stands
/// in where there is no `timestamp`. A time of 0 is no time. A time in the future comes from a wrong clock (or is in
/// milliseconds), and is ignored.
fn created(properties: &BasicProperties, now: SystemTime) -> Option<SystemTime> {
    let seconds = properties.timestamp().filter(|seconds| *seconds > 0);
    let millis = header(properties, "timestamp_in_ms").and_then(whole).filter(|millis| *millis > 0);
    let at = |time: Duration| SystemTime::UNIX_EPOCH.checked_add(time).filter(|created| *created <= now);
    match (seconds, millis) {
        (Some(seconds), Some(millis)) if millis / 1_000 == seconds => at(Duration::from_millis(millis)),
        (Some(seconds), _) => {
            let begin = at(Duration::from_secs(seconds))?;
            Some(begin.checked_add(Duration::from_secs(1))?.min(now))
        }
        (None, Some(millis)) => at(Duration::from_millis(millis)),
        (None, None) => None,
    }
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

fn lifetime(properties: &BasicProperties, ttl: Duration) -> Duration {
    let expiration = properties.expiration().as_ref().and_then(|text| text.as_str().parse().ok());
    expiration.map_or(ttl, |milliseconds| ttl.min(Duration::from_millis(milliseconds)))
}

fn deadline(created: Option<SystemTime>, received: Moment, lifetime: Duration) -> Instant {
    let age = created.and_then(|created| received.wall.duration_since(created).ok()).unwrap_or_default();
    received.instant + lifetime.saturating_sub(age)
}

impl Trace {
    fn read(properties: &BasicProperties) -> Self {
        let text = |name: &str| match header(properties, name)? {
            AMQPValue::LongString(text) => printable(text.as_bytes()),
            _ => None,
        };
        Self { parent: text("traceparent"), state: text("tracestate") }
    }
}

/// The specification says that trace headers are short printable ASCII. Anything else is dropped, so that
/// results carry nothing else.
fn printable(bytes: &[u8]) -> Option<String> {
    let fits = (1..=512).contains(&bytes.len()) && bytes.iter().all(|b| (0x20..0x7f).contains(b));
    fits.then(|| String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests;
