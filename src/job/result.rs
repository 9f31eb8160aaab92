//! The result event: what is published about a job after its end.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::envelope::Trace;

/// How a job ended, and so whether an OTP may have gone out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// eSMS took the request (`CodeResult` 100). Sent: yes.
    Accepted,
    /// eSMS answered with another `CodeResult`. Sent: no.
    Rejected,
    /// eSMS was not reached, or refused at the HTTP level, and no attempt was ambiguous. Sent: no.
    Failed,
    /// An attempt was ambiguous and no later answer showed whether it was sent. Sent: maybe.
    Unknown,
    /// The deadline passed first, and no attempt was ambiguous. Sent: no.
    Expired,
    /// The job cannot be understood. Sent: no.
    Invalid,
    /// A limit on what may be sent held it back. Sent: no.
    Limited,
}

impl Outcome {
    /// Every outcome, in the order of [`Outcome::index`].
    pub const ALL: [Outcome; 7] = [
        Outcome::Accepted,
        Outcome::Rejected,
        Outcome::Failed,
        Outcome::Unknown,
        Outcome::Expired,
        Outcome::Invalid,
        Outcome::Limited,
    ];

    /// The word on the wire, in routing keys and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Accepted => "accepted",
            Outcome::Rejected => "rejected",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown",
            Outcome::Expired => "expired",
            Outcome::Invalid => "invalid",
            Outcome::Limited => "limited",
        }
    }

    /// The routing key of results with it.
    pub fn routing_key(self) -> String {
        format!("otp.{}", self.as_str())
    }

    /// The place in [`Outcome::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// eSMS's own words, unchanged, except that the receiver's number and the credentials are masked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// `CodeResult`.
    pub code: String,
    /// `SMSID`.
    pub sms_id: Option<String>,
    /// `CountRegenerate`, whatever JSON it was.
    pub count_regenerate: Option<Box<RawValue>>,
    /// `ErrorMessage`.
    pub error_message: Option<String>,
}

/// How a job ended and what is known of it, before it has a wire form.
#[derive(Clone, Debug)]
pub struct Ending {
    /// The outcome.
    pub outcome: Outcome,
    /// What eSMS said last, if it said anything.
    pub answer: Option<Answer>,
    /// Why, for people; absent when accepted.
    pub reason: Option<String>,
    /// Calls of eSMS that were begun.
    pub attempts: u32,
    /// Whether an attempt before the last was ambiguous.
    pub may_be_duplicate: bool,
    /// When another try can succeed, in seconds from the end, where that is known.
    pub retry_after: Option<u64>,
    /// The run that ended: 1, and one more each time that the producer published the job again and it was tried
    /// anew.
    pub run: u32,
}

impl Outcome {
    /// Whether the job is tried anew when its producer publishes it again: nothing was sent, and eSMS has not
    /// answered.
    pub const fn may_be_tried_anew(self) -> bool {
        match self {
            Outcome::Failed | Outcome::Expired | Outcome::Limited => true,
            Outcome::Accepted | Outcome::Rejected | Outcome::Unknown | Outcome::Invalid => false,
        }
    }

    /// Whether an OTP went out, or may have.
    pub const fn may_have_sent(self) -> bool {
        match self {
            Outcome::Accepted | Outcome::Unknown => true,
            Outcome::Rejected | Outcome::Failed | Outcome::Expired | Outcome::Invalid | Outcome::Limited => false,
        }
    }
}

impl Ending {
    /// An ending without any attempt.
    pub fn without_attempt(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self {
            outcome,
            answer: None,
            reason: Some(reason.into()),
            attempts: 0,
            may_be_duplicate: false,
            retry_after: None,
            run: 1,
        }
    }

    /// The result event of the job `id`. It is made once, and every copy that is published is this one.
    pub fn into_event(self, id: &str, completed_at: SystemTime) -> ResultEvent {
        let answer = self.answer.unwrap_or_default();
        let body = EventBody {
            job_id: id,
            outcome: self.outcome,
            code_result: Some(answer.code).filter(|code| !code.is_empty()),
            sms_id: answer.sms_id,
            count_regenerate: answer.count_regenerate,
            error_message: answer.error_message,
            reason: self.reason,
            attempts: self.attempts,
            may_be_duplicate: self.may_be_duplicate,
            retry_after: self.retry_after,
            completed_at: humantime::format_rfc3339_millis(completed_at).to_string(),
        };
        // Strings, numbers and parsed JSON always have a JSON form.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        // Without spare capacity, because the ledger may keep it for a day.
        let body = Bytes::from(body.into_boxed_slice());
        ResultEvent {
            outcome: self.outcome,
            attempts: self.attempts,
            may_be_duplicate: self.may_be_duplicate,
            run: self.run,
            body,
        }
    }
}

/// The body of a result event.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EventBody<'a> {
    job_id: &'a str,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    code_result: Option<String>,
    #[serde(rename = "SMSID", skip_serializing_if = "Option::is_none")]
    sms_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count_regenerate: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    attempts: u32,
    may_be_duplicate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    completed_at: String,
}

/// A result ready to be published, as often as it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultEvent {
    /// The outcome, which is in the routing key too.
    pub outcome: Outcome,
    /// The `Attempts` that the event says.
    pub attempts: u32,
    /// Whether the event says `MayBeDuplicate`.
    pub may_be_duplicate: bool,
    /// The run of the job that ended so, from 1 on.
    pub run: u32,
    /// The JSON.
    pub body: Bytes,
}

/// The parts of a body that metrics and routing need, too.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    outcome: Outcome,
    attempts: u32,
    may_be_duplicate: bool,
}

impl ResultEvent {
    /// The event of this run with this body; nothing if the body is not that of an event.
    pub fn read(body: Bytes, run: u32) -> Option<Self> {
        let Summary { outcome, attempts, may_be_duplicate } = serde_json::from_slice(&body).ok()?;
        Some(Self { outcome, attempts, may_be_duplicate, run, body })
    }

    /// The `message_id` of the result of the job `id`: the same for every copy, and another for every run.
    pub fn message_id(&self, id: &str) -> String {
        if self.run <= 1 { format!("{id}:result") } else { format!("{id}:result:{}", self.run) }
    }

    /// Whether it takes the place of `earlier`: nothing was sent by that, and this is of a later run or says that
    /// something may have been.
    pub fn says_more_than(&self, earlier: &Self) -> bool {
        let later = self.run > earlier.run || !self.outcome.may_be_tried_anew();
        earlier.outcome.may_be_tried_anew() && later
    }

    /// Whether an OTP went out, or may have, by any attempt.
    pub const fn may_have_sent(&self) -> bool {
        self.outcome.may_have_sent() || self.may_be_duplicate
    }

    /// Whether the person may have got an OTP more by the sending that ended with `other`, and this result does
    /// not say so.
    pub fn hides_a_second_otp_of(&self, other: &Self) -> bool {
        // The other knows of an OTP beside its own, or this one certainly sent one.
        let may_be_second = other.may_be_duplicate || (self.outcome == Outcome::Accepted && other.may_have_sent());
        let hides_one = self.outcome == Outcome::Rejected && other.outcome == Outcome::Accepted;
        let hides_second = self.outcome.may_have_sent() && may_be_second;
        !self.may_be_duplicate && (hides_one || hides_second) && self != other
    }

    /// The same result, which says `MayBeDuplicate`.
    pub fn as_duplicate(self) -> Self {
        // The other values stay as they are, to the letter.
        let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(&self.body).unwrap_or_default();
        if let Ok(yes) = RawValue::from_string("true".to_owned()) {
            fields.insert("MayBeDuplicate".to_owned(), yes);
        }
        // A map of values that were parsed always has a JSON form.
        let body = serde_json::to_vec(&fields).unwrap_or_default();
        Self { may_be_duplicate: true, body: Bytes::from(body.into_boxed_slice()), ..self }
    }

    /// `otp.<outcome>`.
    pub fn routing_key(&self) -> String {
        self.outcome.routing_key()
    }
}

/// The properties of a result. `message_id` is [`ResultEvent::message_id`].
pub fn properties(message_id: &str, correlation_id: &ShortString, trace: &Trace, now: SystemTime) -> BasicProperties {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_type("otp.result.v1".into())
        .with_app_id("esms-otp-worker".into())
        // Persistent: a result must outlive the broker's restart.
        .with_delivery_mode(2)
        .with_message_id(ShortString::from(message_id))
        .with_correlation_id(correlation_id.clone())
        .with_timestamp(seconds);
    match trace_headers(trace) {
        Some(headers) => properties.with_headers(headers),
        None => properties,
    }
}

fn trace_headers(trace: &Trace) -> Option<FieldTable> {
    let mut headers = FieldTable::default();
    for (name, value) in [("traceparent", &trace.parent), ("tracestate", &trace.state)] {
        if let Some(value) = value {
            headers.insert(name.into(), AMQPValue::LongString(LongString::from(value.as_str())));
        }
    }
    (!headers.inner().is_empty()).then_some(headers)
}

#[cfg(test)]
mod tests;
