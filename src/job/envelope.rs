//! The AMQP properties of a job: its id, its deadline, and where its result goes.

use std::time::{Duration, SystemTime};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, ShortString};
use tokio::time::Instant;
use uuid::Uuid;

/// The longest job id, in bytes. With `:result` added it must fit AMQP's short string of 255.
pub const LONGEST_ID: usize = 200;

/// The transport puts this character (U+001A, SUBSTITUTE) where a producer sent a byte that is no UTF-8.
pub const SUBSTITUTE: char = '\u{1a}';

/// When a job arrived, on both clocks: producers' times are compared with the wall clock, waits are
/// made on the monotonic one.
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
    /// Why the producer's `message_id` cannot be the id, where it cannot.
    pub id_problem: Option<&'static str>,
    /// Copied to the result; the job's id where the producer gave none.
    pub correlation_id: ShortString,
    /// A queue that wants the result too.
    pub reply_to: Option<ShortString>,
    /// The W3C trace context, to be put on the result.
    pub trace: Trace,
    /// When the producer made the job, unless it did not say or said a time to come.
    pub made: Option<SystemTime>,
    /// The moment from which the job is not sent any more.
    pub deadline: Instant,
    /// The queue's own count of the job's deliveries, where it counts: one more with each.
    pub delivery_count: Option<u64>,
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
    /// Reads the properties of a message that arrived at `arrival`; `ttl` is `OTP_JOB_TTL`.
    pub fn read(properties: &BasicProperties, arrival: Moment, ttl: Duration) -> Self {
        let given = properties.message_id().as_ref().filter(|id| !id.as_str().is_empty());
        let id_problem = given.and_then(|id| id_problem(id.as_str()));
        let id = match given {
            Some(id) if id_problem.is_none() => id.to_string(),
            _ => Uuid::new_v4().to_string(),
        };
        let made = made(properties, arrival.wall);
        Self {
            // A refused id still is what the producer knows the job by.
            correlation_id: properties
                .correlation_id()
                .clone()
                .or_else(|| given.cloned())
                .unwrap_or_else(|| ShortString::from(id.as_str())),
            id,
            is_named: given.is_some(),
            id_problem,
            reply_to: properties.reply_to().clone().filter(|queue| !queue.as_str().is_empty()),
            trace: Trace::read(properties),
            made,
            deadline: deadline(made, arrival, lifetime(properties, ttl)),
            delivery_count: delivery_count(properties),
        }
    }
}

/// RabbitMQ 4.3 counts every delivery in `x-acquired-count`, and in `x-delivery-count` only those that
/// failed; before it, the latter counts all that were taken back.
fn delivery_count(properties: &BasicProperties) -> Option<u64> {
    let headers = properties.headers().as_ref()?.inner();
    let count = headers.get("x-acquired-count").or_else(|| headers.get("x-delivery-count"))?;
    match count {
        AMQPValue::LongLongInt(count) => u64::try_from(*count).ok(),
        AMQPValue::LongInt(count) => u64::try_from(*count).ok(),
        AMQPValue::LongUInt(count) => Some(u64::from(*count)),
        _ => None,
    }
}

fn id_problem(id: &str) -> Option<&'static str> {
    match id {
        _ if id.contains(SUBSTITUTE) => Some("message_id is not UTF-8"),
        _ if id.len() > LONGEST_ID => Some("message_id is longer than 200 bytes"),
        _ => None,
    }
}

/// A time to come is a producer's wrong clock (or milliseconds): it says nothing.
fn made(properties: &BasicProperties, now: SystemTime) -> Option<SystemTime> {
    let seconds = (*properties.timestamp())?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).filter(|made| *made <= now)
}

fn lifetime(properties: &BasicProperties, ttl: Duration) -> Duration {
    let expiration = properties.expiration().as_ref().and_then(|text| text.as_str().parse().ok());
    expiration.map_or(ttl, |milliseconds| ttl.min(Duration::from_millis(milliseconds)))
}

fn deadline(made: Option<SystemTime>, arrival: Moment, lifetime: Duration) -> Instant {
    let age = made.and_then(|made| arrival.wall.duration_since(made).ok()).unwrap_or_default();
    arrival.instant + lifetime.saturating_sub(age)
}

impl Trace {
    fn read(properties: &BasicProperties) -> Self {
        let header = |name: &str| {
            let headers = properties.headers().as_ref()?;
            match headers.inner().get(name)? {
                AMQPValue::LongString(text) => printable(text.as_bytes()),
                _ => None,
            }
        };
        Self { parent: header("traceparent"), state: header("tracestate") }
    }
}

/// Trace headers are short printable ASCII by their specification; what is not is dropped, so that
/// nothing else is carried into results.
fn printable(bytes: &[u8]) -> Option<String> {
    let fits = (1..=512).contains(&bytes.len()) && bytes.iter().all(|b| (0x20..0x7f).contains(b));
    fits.then(|| String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests;
