//! A dead letter, read from a delivery. Pure.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, ShortString};
use ring::digest;

use crate::commands::harmless::harmless;
use crate::job::body;
use crate::job::dead;
use crate::job::envelope::{Envelope, Moment};
use crate::job::phone::{Phone, without_numbers};
use crate::job::request::{OtpRequest, logged_id};

/// What a worker would need to know, to read the letter as a job.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// `OTP_JOB_TTL`.
    pub(super) job_ttl: Duration,
    /// `ESMS_TEMPLATE_ID`.
    pub(super) template_id: Option<String>,
}

impl Rules {
    /// For commands that only look: whatever may be a job counts as one.
    pub(super) fn of_any_worker() -> Self {
        Self { job_ttl: Duration::ZERO, template_id: Some("the worker's".into()) }
    }
}

/// See the module.
pub(super) struct Letter {
    /// Its id: the `message_id`, else one that is derived.
    pub(super) id: String,
    /// Whether that is its `message_id`.
    pub(super) is_named: bool,
    /// The job, or why it is none.
    pub(super) job: Result<OtpRequest, String>,
    /// Since when it has been there at the most: when the job was made, or when the broker dropped it.
    pub(super) since: Option<SystemTime>,
    /// Whether a worker would not send it any more.
    pub(super) is_expired: bool,
    /// The `expiration` that its producer gave the job.
    pub(super) expiration: Option<ShortString>,
    /// The properties.
    pub(super) properties: BasicProperties,
    /// The body.
    pub(super) body: Vec<u8>,
}

/// The body holds a phone number, and is not shown.
impl std::fmt::Debug for Letter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Letter").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

impl Letter {
    /// The letter of a delivery.
    pub(super) fn of(delivery: Delivery, rules: &Rules) -> Self {
        Self::read(delivery.properties, delivery.data, Moment::now(), rules)
    }

    /// Reads a message that was taken from its queue at this moment.
    pub(super) fn read(properties: BasicProperties, body: Vec<u8>, taken: Moment, rules: &Rules) -> Self {
        let expiration = dead::expiration(&properties);
        let envelope = match &expiration {
            Some(value) => Envelope::read(&properties.clone().with_expiration(value.clone()), taken, rules.job_ttl),
            None => Envelope::read(&properties, taken, rules.job_ttl),
        };
        let given = properties.message_id().as_ref().map(|id| id.as_str()).filter(|id| !id.is_empty());
        let text = |text: &Option<ShortString>| text.as_ref().map(|text| text.as_str().to_owned());
        let (encoding, kind) = (text(properties.content_encoding()), text(properties.kind()));
        let job = match envelope.id_problem {
            Some(problem) => Err(problem.to_owned()),
            None => body::decode(&body, encoding.as_deref(), kind.as_deref(), rules.template_id.as_deref())
                .map_err(|error| error.to_string()),
        };
        Self {
            id: given.map_or_else(|| derived_id(&properties, &body), str::to_owned),
            is_named: given.is_some(),
            job,
            since: envelope.created.or_else(|| dropped_at(&properties)),
            is_expired: envelope.deadline <= taken.instant,
            expiration,
            properties,
            body,
        }
    }

    /// Why it is a dead letter, in a worker's own words.
    pub(super) fn reason(&self) -> Option<Cow<'_, str>> {
        text(header(&self.properties, dead::REASON)?).filter(|reason| !reason.is_empty())
    }

    /// The reason as people are shown it. A letter that the broker has put there itself says why in the broker's word.
    pub(super) fn shown_reason(&self) -> String {
        let said = self.reason().map(Cow::into_owned);
        let said = said
            .or_else(|| Some(format!("dropped by the broker ({})", death(&self.properties, "reason").and_then(text)?)));
        said.map_or_else(|| "-".to_owned(), |said| harmless(&without_numbers(&said)))
    }

    /// The id without a phone number.
    pub(super) fn logged_id(&self) -> String {
        logged_id(&self.id, self.job.as_ref().ok())
    }

    /// The id as people are shown it.
    pub(super) fn shown_id(&self) -> String {
        harmless(&self.logged_id())
    }

    /// The phone number, masked, also of a job that is wrong elsewhere.
    pub(super) fn shown_phone(&self) -> Option<String> {
        match &self.job {
            Ok(job) => Some(job.phone.to_string()),
            Err(_) => {
                let json: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
                Phone::parse(json.get("Phone")?.as_str()?).ok().map(|phone| phone.to_string())
            }
        }
    }

    /// How old it is at the most.
    pub(super) fn age(&self, now: SystemTime) -> Option<Duration> {
        now.duration_since(self.since?).ok()
    }

    /// Whether an OTP may have gone out for it before it became a dead letter.
    pub(super) fn may_have_sent(&self) -> bool {
        dead::may_have_sent(self.reason().as_deref())
    }
}

/// How often a message was returned to its queue.
pub(super) fn returned(properties: &BasicProperties) -> u64 {
    whole(header(properties, "x-delivery-count"))
}

/// The id of a letter without one: the same each time that it is read. Two letters that are alike in everything that
/// goes into it are one job.
fn derived_id(properties: &BasicProperties, body: &[u8]) -> String {
    let short = |text: &Option<ShortString>| text.as_ref().map_or(String::new(), |text| text.to_string());
    let said = |name: &str| header(properties, name).and_then(text).unwrap_or_default().into_owned();
    let parts = [
        short(properties.correlation_id()),
        short(properties.reply_to()),
        short(properties.app_id()),
        properties.timestamp().unwrap_or_default().to_string(),
        whole(header(properties, "timestamp_in_ms")).to_string(),
        said("traceparent"),
    ];
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts.iter().map(String::as_bytes).chain([body]) {
        // The length comes first, so that two different letters never give the same bytes.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let digits: String = context.finish().as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("letter-{digits}")
}

/// When the broker dropped it, if it did.
fn dropped_at(properties: &BasicProperties) -> Option<SystemTime> {
    match death(properties, "time")? {
        AMQPValue::Timestamp(seconds) => SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(*seconds)),
        _ => None,
    }
}

/// What the broker wrote of the latest time that it dropped the message.
fn death<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    let AMQPValue::FieldArray(deaths) = header(properties, "x-death")? else { return None };
    let AMQPValue::FieldTable(death) = deaths.as_slice().first()? else { return None };
    death.inner().get(name)
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

fn text(value: &AMQPValue) -> Option<Cow<'_, str>> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes())),
        AMQPValue::ShortString(text) => Some(Cow::Borrowed(text.as_str())),
        _ => None,
    }
}

fn whole(value: Option<&AMQPValue>) -> u64 {
    match value {
        Some(AMQPValue::LongLongInt(count)) => u64::try_from(*count).unwrap_or_default(),
        Some(AMQPValue::LongInt(count)) => u64::try_from(*count).unwrap_or_default(),
        Some(AMQPValue::LongUInt(count)) => u64::from(*count),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
