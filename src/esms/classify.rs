//! What an attempt means: each way in which it can end belongs to one class. Pure.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::{self, Look, Page};
use crate::job::result::Answer;

/// What was seen of one attempt.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A reply came, at least its status and headers.
    Reply {
        /// The HTTP status.
        status: u16,
        /// The header `Retry-After`, as text.
        retry_after: Option<String>,
        /// The body, or what came of it.
        body: Bytes,
        /// How the body ended.
        end: End,
    },
    /// No byte of the request was written: nothing can have reached eSMS.
    NotWritten(String),
    /// The request was written, or a part of it, and then no reply came.
    NoReply(String),
}

/// How a body ended.
#[derive(Clone, Debug)]
pub enum End {
    /// As announced.
    Whole,
    /// It is longer than an answer can be, and was not read further.
    TooLong,
    /// Too early, for this reason.
    Cut(String),
}

impl Seen {
    /// The HTTP status, if a reply came.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Seen::Reply { status, .. } => Some(*status),
            Seen::NotWritten(_) | Seen::NoReply(_) => None,
        }
    }
}

/// What an attempt means.
#[derive(Clone, Debug)]
pub enum Class {
    /// eSMS answered, and the answer is final.
    Answered(Answer),
    /// eSMS answered with a code that means "not sent, try later".
    AnsweredTryLater(Answer),
    /// Nothing was sent. eSMS may have asked to wait for `not_before`.
    NotSent {
        /// What happened, for people.
        why: String,
        /// From the header `Retry-After`.
        not_before: Option<Duration>,
    },
    /// The request may have been taken.
    Ambiguous {
        /// What happened, for people.
        why: String,
    },
    /// As ambiguous, because something was answered that is no answer of eSMS.
    Unreadable {
        /// What happened, for people.
        why: String,
        /// What was answered.
        page: Page,
    },
    /// Refused at the HTTP level: nothing was sent, and trying again would not help.
    Refused {
        /// What happened, for people.
        why: String,
    },
}

/// The class as metrics count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClassName {
    /// `answered`
    Answered,
    /// `not_sent`
    NotSent,
    /// `ambiguous`
    Ambiguous,
    /// `refused`
    Refused,
}

impl ClassName {
    /// Every class, in the order of [`ClassName::index`].
    pub const ALL: [ClassName; 4] = [ClassName::Answered, ClassName::NotSent, ClassName::Ambiguous, ClassName::Refused];

    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            ClassName::Answered => "answered",
            ClassName::NotSent => "not_sent",
            ClassName::Ambiguous => "ambiguous",
            ClassName::Refused => "refused",
        }
    }

    /// The place in [`ClassName::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl Class {
    /// The class as metrics count it.
    pub const fn name(&self) -> ClassName {
        match self {
            Class::Answered(_) | Class::AnsweredTryLater(_) => ClassName::Answered,
            Class::NotSent { .. } => ClassName::NotSent,
            Class::Ambiguous { .. } | Class::Unreadable { .. } => ClassName::Ambiguous,
            Class::Refused { .. } => ClassName::Refused,
        }
    }

    /// eSMS's answer, if it gave one.
    pub const fn answer(&self) -> Option<&Answer> {
        match self {
            Class::Answered(answer) | Class::AnsweredTryLater(answer) => Some(answer),
            Class::NotSent { .. } | Class::Ambiguous { .. } | Class::Unreadable { .. } | Class::Refused { .. } => None,
        }
    }
}

/// What `seen` means. `retry_codes` is `ESMS_RETRY_CODES`; `now` is for a `Retry-After` that is a date.
pub fn classify(seen: Seen, retry_codes: &BTreeSet<String>, now: SystemTime) -> Class {
    match seen {
        Seen::NotWritten(why) => Class::NotSent { why, not_before: None },
        Seen::NoReply(why) => Class::Ambiguous { why },
        Seen::Reply { status: status @ 200..=299, body, end, .. } => match answer(&body) {
            Some(answer) if retry_codes.contains(&answer.code) => Class::AnsweredTryLater(answer),
            Some(answer) => Class::Answered(answer),
            None => unanswered(status, body, end),
        },
        Seen::Reply { status: status @ (408 | 425 | 429 | 503), body, .. } if was_lost(&body) => {
            Class::Ambiguous { why: format!("HTTP {status} of a proxy that lost the request on the way") }
        }
        Seen::Reply { status: status @ (408 | 425 | 429 | 503), retry_after, .. } => Class::NotSent {
            why: format!("HTTP {status}"),
            not_before: retry_after.and_then(|header| not_before(&header, now)),
        },
        Seen::Reply { status: status @ 300..=499, .. } => Class::Refused { why: refusal(status) },
        // 5xx, and statuses that no server should send here: eSMS may have taken the request.
        Seen::Reply { status, .. } => Class::Ambiguous { why: format!("HTTP {status}") },
    }
}

/// A 2xx without an answer in it. What was cut short may have become an answer, unless it began as something else.
fn unanswered(status: u16, body: Bytes, end: End) -> Class {
    let page = Page::new(body);
    match (end, page.look) {
        (End::Cut(why), Look::Empty | Look::Json | Look::Binary) => {
            Class::Ambiguous { why: format!("HTTP {status}, and the body was cut short: {why}") }
        }
        (End::Cut(_), Look::Html | Look::LoginPage | Look::Xml | Look::Text) | (End::Whole | End::TooLong, _) => {
            let why = format!("HTTP {status} without a CodeResult in it: {}", page.look.as_str());
            Class::Unreadable { why, page }
        }
    }
}

/// The words of proxies that had passed the request on, or may have, before they answered for the server.
const LOST: [&str; 7] = [
    // Envoy, and so Istio and most service meshes: the same words for a connection that was never made and for one
    // that broke after the request.
    "disconnect/reset before headers",
    // Varnish, and Fastly, which is made of it: the server did not answer, or not in time.
    "backend fetch failed",
    "backend read error",
    "backend write error",
    "first byte timeout",
    "between bytes timeout",
    // Akamai: the server closed the connection without an answer.
    "zero size object",
];

/// Whether a proxy says that it lost the request on the way. Then eSMS may have it.
fn was_lost(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).to_lowercase();
    LOST.iter().any(|words| text.contains(words))
}

fn refusal(status: u16) -> String {
    match status {
        300..=399 => {
            format!("HTTP {status}: a redirect, not followed because it would carry the credentials; check ESMS_URL")
        }
        404 | 405 => format!("HTTP {status}: check ESMS_URL"),
        _ => format!("HTTP {status}"),
    }
}

/// A body with a `CodeResult` is an answer. With two of them it is not: they may contradict each other.
#[derive(Deserialize)]
struct Code<'a> {
    #[serde(rename = "CodeResult", borrow)]
    code: &'a RawValue,
}

/// The other fields of an answer. The provider's pages list strings; numbers and nulls are read, too. If these
/// fields cannot be read, only they are lost: a slip of the provider must not make an answer ambiguous.
#[derive(Default, Deserialize)]
struct Words<'a> {
    #[serde(rename = "SMSID", borrow)]
    sms_id: Option<&'a RawValue>,
    #[serde(rename = "CountRegenerate")]
    count_regenerate: Option<Box<RawValue>>,
    #[serde(rename = "ErrorMessage", borrow)]
    error_message: Option<&'a RawValue>,
}

fn answer(body: &[u8]) -> Option<Answer> {
    let object = body::object(body)?;
    let found: Code<'_> = serde_json::from_str(object.get()).ok()?;
    let said: Words<'_> = serde_json::from_str(object.get()).unwrap_or_default();
    Some(Answer {
        code: string_or_digits(found.code)?,
        sms_id: said.sms_id.map(words),
        count_regenerate: said.count_regenerate,
        error_message: said.error_message.map(words),
    })
}

/// A code: the content of a string, or the digits of a number.
pub(super) fn string_or_digits(raw: &RawValue) -> Option<String> {
    let json = raw.get();
    let number = !json.is_empty() && json.bytes().all(|byte| byte.is_ascii_digit());
    let code = if number { json.to_owned() } else { serde_json::from_str::<String>(json).ok()? };
    (!code.trim().is_empty()).then_some(code)
}

/// The content of a string, or the JSON of any other value. Both are unchanged.
fn words(raw: &RawValue) -> String {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
}

/// `Retry-After` as seconds or as a date (RFC 9110, 10.2.3); anything else says nothing.
pub fn not_before(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that is too large still means: not within this job's lifetime.
        return Some(Duration::from_secs(header.parse().unwrap_or(u64::from(u32::MAX)).min(u64::from(u32::MAX))));
    }
    let date = httpdate::parse_http_date(header).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests;
