//! The body of a job: the V5 request without the credentials, and its decoding.
//!
//! Decoding is lenient where producers may differ without harm. Otherwise the error names the field and
//! the rule. No error repeats a value: the value may be a phone number or a key.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;

use super::phone::{Phone, PhoneError};

/// The largest body that is read, in bytes. A job has a few hundred. A larger body is no job, and
/// parsing it would take time from every other job.
pub const LARGEST_BODY: usize = 64 * 1024;

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

/// Why a body cannot be understood: the field and the rule, never a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More bytes than a job can have.
    #[error("the body is larger than {LARGEST_BODY} bytes")]
    TooLarge,
    /// Bytes that are no text, with a `content_encoding` that is not known.
    #[error("content_encoding must be absent, identity, utf-8 or gzip: the body cannot be read")]
    Encoding,
    /// It begins as gzip, and does not go on so.
    #[error("the body is gzip that is cut short or damaged")]
    NotGzip,
    /// A body of AMQP 1.0 that is neither text nor bytes.
    #[error("the body is an AMQP 1.0 value other than a string or binary: send the JSON text as one of these")]
    Amqp10,
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

/// The body's fields. Values stay raw text, so that a number keeps its digits.
#[derive(Deserialize)]
struct Body<'a> {
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

/// A field counts as present with any value, `null` included.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// Reads a body; `default_template` is `ESMS_TEMPLATE_ID`.
///
/// # Errors
/// [`BodyError`]: the job can never be worked and belongs on the dead-letter exchange.
pub fn decode(body: &[u8], default_template: Option<&str>) -> Result<OtpRequest, BodyError> {
    let fields = parse(body)?;
    if fields.api_key {
        return Err(BodyError::Credentials("ApiKey"));
    }
    if fields.secret_key {
        return Err(BodyError::Credentials("SecretKey"));
    }
    Ok(OtpRequest {
        phone: phone(fields.phone)?,
        template_id: template_id(fields.template_id, default_template)?,
        template_is_default: fields.template_id.is_none(),
        kind: kind(fields.type_id)?,
        time_alive: fields.time_alive.map(time_alive).transpose()?,
    })
}

fn parse(body: &[u8]) -> Result<Body<'_>, BodyError> {
    if body.len() > LARGEST_BODY {
        return Err(BodyError::TooLarge);
    }
    let text = std::str::from_utf8(body).map_err(|_| BodyError::NotUtf8)?;
    // Some serialisers write a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // Checked first, because serde would also read a struct from an array.
    if !text.trim_start().starts_with('{') {
        return Err(serde_json::from_str::<IgnoredAny>(text).map_or_else(not_json, |_| BodyError::NotAnObject));
    }
    serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => BodyError::FieldTwice,
        _ => not_json(error),
    })
}

/// The parser's own message may repeat a value. Only the position is safe to publish.
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

    /// The text, or the digits of a whole number. Some serialisers write a whole number as `5.0`.
    fn text_or_whole_number(self) -> Option<Cow<'a, str>> {
        match self {
            Scalar::Text(text) => Some(text),
            Scalar::Number(number) => {
                let (digits, fraction) = number.split_once('.').unwrap_or((number, "0"));
                let is_whole = whole(digits) && !fraction.is_empty() && fraction.bytes().all(|digit| digit == b'0');
                is_whole.then_some(Cow::Borrowed(digits))
            }
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
        // A JSON number has lost its leading zero already.
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

/// The id as logs and spans show it. Some producers take the phone number as the id, and it is masked there.
pub fn logged_id(id: &str, request: Option<&OtpRequest>) -> String {
    match (request, Phone::parse(id)) {
        (_, Ok(phone)) => phone.to_string(),
        (Some(request), Err(_)) => request.phone.masked_in(id),
        (None, Err(_)) => without_numbers_of_vietnam(id),
    }
}

/// The id of a message that is no job may hold a number, too: with the separators of an id around it, and with the form of
/// one of Vietnam, so that times and counts stay what they are.
fn without_numbers_of_vietnam(id: &str) -> String {
    let mut shown = String::with_capacity(id.len());
    for part in id.split_inclusive(|char: char| !char.is_alphanumeric()) {
        let (word, end) = part.split_at(part.trim_end_matches(|char: char| !char.is_alphanumeric()).len());
        match Phone::parse(word) {
            Ok(phone) if is_of_vietnam(word) => shown.push_str(&phone.to_string()),
            Ok(_) | Err(_) => shown.push_str(word),
        }
        shown.push_str(end);
    }
    shown
}

fn is_of_vietnam(digits: &str) -> bool {
    (digits.starts_with('0') && matches!(digits.len(), 10 | 11))
        || (digits.starts_with("84") && matches!(digits.len(), 11 | 12))
        || (digits.starts_with("0084") && matches!(digits.len(), 13 | 14))
}

#[cfg(test)]
mod tests;
