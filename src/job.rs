//! The inbound wire type: what a producer publishes, and its decoding. Pure.
//!
//! A job is its body (the V5 request without the credentials) and its AMQP properties. Decoding is
//! lenient where a producer may differ harmlessly, and otherwise names the field and the rule. No
//! error repeats a value: it may be a phone number or a key.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, ShortString};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;
use tokio::time::Instant;
use uuid::Uuid;

use crate::phone::{Phone, PhoneError};

/// The largest body that is read, in bytes. A job is a few hundred; what is larger is no job, and
/// parsing it would cost every other job its time.
pub const LARGEST_BODY: usize = 64 * 1024;

/// The longest job id, in bytes. With `:result` added it must fit AMQP's short string of 255.
pub const LONGEST_ID: usize = 200;

/// What the transport puts where a producer sent a byte that is no UTF-8 (U+001A, SUBSTITUTE).
const UNREADABLE: char = '\u{1a}';

/// What eSMS is asked to do, without the credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OtpRequest {
    /// The receiver.
    pub phone: Phone,
    /// The provider's id of a pair of Zalo and SMS templates.
    pub template_id: String,
    /// Whether that is the worker's default, because the job names none.
    pub template_is_default: bool,
    /// Whether the code is sent or only generated.
    pub kind: Kind,
    /// The life of the code in minutes, where the job says one.
    pub time_alive: Option<u32>,
}

/// eSMS's `TypeId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `"1"`: the code is generated and not sent.
    Generate,
    /// `"2"`: the code is generated and sent.
    Send,
}

impl Kind {
    /// The value on the wire.
    pub const fn type_id(self) -> &'static str {
        match self {
            Kind::Generate => "1",
            Kind::Send => "2",
        }
    }
}

/// When a job arrived, on both clocks: producers' times are compared with the wall clock, waits are
/// made on the monotonic one.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The wall clock.
    pub wall: SystemTime,
    /// The monotonic clock.
    pub instant: Instant,
}

impl Arrival {
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
    pub fn read(properties: &BasicProperties, arrival: Arrival, ttl: Duration) -> Self {
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
        _ if id.contains(UNREADABLE) => Some("message_id is not UTF-8"),
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

fn deadline(made: Option<SystemTime>, arrival: Arrival, lifetime: Duration) -> Instant {
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

/// Why a body cannot be understood: the field and the rule, never a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More bytes than a job can have.
    #[error("the body is larger than {LARGEST_BODY} bytes")]
    TooLarge,
    /// Not UTF-8.
    #[error("the body is not UTF-8 text")]
    NotUtf8,
    /// Not JSON.
    #[error("the body is not valid JSON (line {line}, column {column})")]
    NotJson {
        /// Where reading stopped.
        line: usize,
        /// Where reading stopped.
        column: usize,
    },
    /// JSON, but no object.
    #[error("the body must be a JSON object")]
    NotAnObject,
    /// An object that cannot be read, such as one that names a field twice.
    #[error("the body names a field twice")]
    FieldTwice,
    /// Credentials do not belong on a queue.
    #[error("{0} must not be in a job: the worker has its own credentials, and this one should be revoked")]
    Credentials(&'static str),
    /// A field that must be there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// `Phone`.
    #[error("Phone {0}")]
    Phone(#[from] PhoneError),
    /// A field of the wrong kind or range.
    #[error("{field} must be {rule}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
    },
}

/// The body as it is on the wire. Values stay raw text, so that a number keeps its digits.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(rename = "Phone", borrow)]
    phone: Option<&'a RawValue>,
    #[serde(rename = "MultiChannelTempId", borrow)]
    template_id: Option<&'a RawValue>,
    #[serde(rename = "TypeId", borrow)]
    type_id: Option<&'a RawValue>,
    #[serde(rename = "TimeAlive", borrow)]
    time_alive: Option<&'a RawValue>,
    #[serde(rename = "ApiKey", default, deserialize_with = "present")]
    api_key: bool,
    #[serde(rename = "SecretKey", default, deserialize_with = "present")]
    secret_key: bool,
}

/// A field counts as present whatever its value, `null` too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// Reads a body; `default_template` is `ESMS_TEMPLATE_ID`.
///
/// # Errors
/// [`BodyError`]: the job can never be worked and belongs on the dead-letter exchange.
pub fn decode(body: &[u8], default_template: Option<&str>) -> Result<OtpRequest, BodyError> {
    let wire = parse(body)?;
    if wire.api_key {
        return Err(BodyError::Credentials("ApiKey"));
    }
    if wire.secret_key {
        return Err(BodyError::Credentials("SecretKey"));
    }
    Ok(OtpRequest {
        phone: phone(wire.phone)?,
        template_id: template_id(wire.template_id, default_template)?,
        template_is_default: wire.template_id.is_none(),
        kind: kind(wire.type_id)?,
        time_alive: wire.time_alive.map(time_alive).transpose()?,
    })
}

fn parse(body: &[u8]) -> Result<Wire<'_>, BodyError> {
    if body.len() > LARGEST_BODY {
        return Err(BodyError::TooLarge);
    }
    let text = std::str::from_utf8(body).map_err(|_| BodyError::NotUtf8)?;
    // Looked at first, because serde would also read a struct from an array.
    if !text.trim_start().starts_with('{') {
        return Err(serde_json::from_str::<IgnoredAny>(text).map_or_else(not_json, |_| BodyError::NotAnObject));
    }
    serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => BodyError::FieldTwice,
        _ => not_json(error),
    })
}

/// The parser's own words may repeat a value; only its position is safe to tell.
fn not_json(error: serde_json::Error) -> BodyError {
    BodyError::NotJson { line: error.line(), column: error.column() }
}

/// A JSON value where a string or a number may stand.
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(&'a str),
    Other,
}

impl<'a> Scalar<'a> {
    fn read(raw: &'a RawValue) -> Self {
        let json = raw.get();
        match json.as_bytes().first() {
            Some(b'"') => serde_json::from_str(json).map_or(Scalar::Other, Scalar::Text),
            Some(b'-' | b'0'..=b'9') => Scalar::Number(json),
            _ => Scalar::Other,
        }
    }

    /// The text, or the digits of a whole number.
    fn text_or_whole_number(self) -> Option<Cow<'a, str>> {
        match self {
            Scalar::Text(text) => Some(text),
            Scalar::Number(digits) => whole(digits).then_some(Cow::Borrowed(digits)),
            Scalar::Other => None,
        }
    }
}

fn whole(digits: &str) -> bool {
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn phone(raw: Option<&RawValue>) -> Result<Phone, BodyError> {
    match Scalar::read(raw.ok_or(BodyError::Missing("Phone"))?) {
        Scalar::Text(text) => Ok(Phone::parse(&text)?),
        // A number would already have lost its leading zero.
        Scalar::Number(_) | Scalar::Other => Err(BodyError::Field { field: "Phone", rule: "a string of digits" }),
    }
}

fn template_id(raw: Option<&RawValue>, default: Option<&str>) -> Result<String, BodyError> {
    const FIELD: &str = "MultiChannelTempId";
    let Some(raw) = raw else {
        return default.map(str::to_owned).ok_or(BodyError::Missing(FIELD));
    };
    Scalar::read(raw)
        .text_or_whole_number()
        .filter(|id| !id.trim().is_empty())
        .map(Cow::into_owned)
        .ok_or(BodyError::Field { field: FIELD, rule: "a non-empty string or a whole number" })
}

fn kind(raw: Option<&RawValue>) -> Result<Kind, BodyError> {
    let Some(raw) = raw else { return Ok(Kind::Send) };
    match Scalar::read(raw).text_or_whole_number().as_deref() {
        Some("1") => Ok(Kind::Generate),
        Some("2") => Ok(Kind::Send),
        _ => Err(BodyError::Field { field: "TypeId", rule: "\"1\" or \"2\"" }),
    }
}

fn time_alive(raw: &RawValue) -> Result<u32, BodyError> {
    Scalar::read(raw)
        .text_or_whole_number()
        .filter(|digits| whole(digits))
        .and_then(|digits| digits.parse().ok())
        .filter(|minutes| *minutes > 0)
        .ok_or(BodyError::Field { field: "TimeAlive", rule: "a positive whole number of minutes" })
}

#[cfg(test)]
mod tests;
