//! eSMS's answers: each reply gets its class from the contract's table, and eSMS's words stay verbatim.
//!
//! The input is a line with the status and optionally `Retry-After`, such as `429 7`, and then the body.

use super::json::{self, Object};
use bytes::Bytes;
use esms_otp_worker::esms::classify::{Class, End, Seen, classify, not_before};
use esms_otp_worker::job::result::{Answer, Ending, Outcome};
use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

/// The only code that is retried, as in the default settings.
const TRY_LATER: &str = "160";

struct Reply<'a> {
    status: u16,
    retry_after: Option<&'a str>,
    body: &'a [u8],
}

pub fn holds(input: &[u8]) {
    let Some(reply) = Reply::read(input) else { return };
    match (reply.status, reply.class(), reply.code()) {
        (200..=299, Class::Answered(answer), Some(code)) => {
            assert_ne!(code, TRY_LATER);
            is_verbatim(&answer, &code, &reply);
        }
        (200..=299, Class::AnsweredTryLater(answer), Some(code)) => {
            assert_eq!(code, TRY_LATER);
            is_verbatim(&answer, &code, &reply);
        }
        (200..=299, Class::Unreadable { why, .. }, None) => {
            assert!(why.starts_with(&format!("HTTP {} without a CodeResult in it: ", reply.status)));
        }
        (408 | 425 | 429 | 503, Class::NotSent { why, not_before }, _) => {
            assert_eq!((why, not_before), (format!("HTTP {}", reply.status), reply.wait()));
        }
        (408 | 425 | 429 | 503, Class::Ambiguous { why }, _) => {
            assert_eq!(why, format!("HTTP {} of a proxy that lost the request on the way", reply.status));
        }
        (300..=499, Class::Refused { why }, _) => repeats_nothing(&why, reply.status),
        (..=199 | 500.., Class::Ambiguous { why }, _) => repeats_nothing(&why, reply.status),
        (status, class, code) => panic!("HTTP {status} with CodeResult {code:?} is {class:?}"),
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

impl<'a> Reply<'a> {
    fn read(input: &'a [u8]) -> Option<Self> {
        let end = input.iter().position(|byte| *byte == b'\n')?;
        let line = std::str::from_utf8(&input[..end]).ok()?;
        let (status, retry_after) = line.split_once(' ').map_or((line, None), |(status, rest)| (status, Some(rest)));
        Some(Self { status: status.parse().ok()?, retry_after, body: &input[end + 1..] })
    }

    fn class(&self) -> Class {
        let seen = Seen::Reply {
            status: self.status,
            retry_after: self.retry_after.map(str::to_owned),
            body: Bytes::copy_from_slice(self.body),
            end: End::Whole,
        };
        classify(seen, &BTreeSet::from([TRY_LATER.to_owned()]), now())
    }

    fn wait(&self) -> Option<Duration> {
        self.retry_after.and_then(|header| not_before(header, now()))
    }

    /// The object that the body begins with. It ends at the first brace at which it can be read.
    fn object(&self) -> Option<Object> {
        let text = self.text();
        let text = text.trim_start_matches('\u{feff}').trim_start();
        text.match_indices('}').find_map(|(at, _)| Object::read(&text[..=at]))
    }

    /// UTF-8, or UTF-16 as .NET writes it.
    fn text(&self) -> String {
        let order: fn([u8; 2]) -> u16 = match self.body {
            [0xff, 0xfe, ..] | [b'{', 0, ..] => u16::from_le_bytes,
            [0xfe, 0xff, ..] | [0, b'{', ..] => u16::from_be_bytes,
            _ => return String::from_utf8_lossy(self.body).into_owned(),
        };
        let units: Vec<u16> = self.body.chunks_exact(2).map(|pair| order([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&units)
    }

    /// The `CodeResult`, if there is exactly one. A second one could contradict it.
    fn code(&self) -> Option<String> {
        let object = self.object()?;
        let mut codes = object.all("CodeResult");
        let (code, None) = (codes.next()?, codes.next()) else { return None };
        let digits = code.bytes().all(|byte| byte.is_ascii_digit());
        let code = if digits { code.to_owned() } else { json::string(code)? };
        (!code.trim().is_empty()).then_some(code)
    }
}

/// A field that is there only once must have eSMS's words. An answer with a field named twice is still an
/// answer.
fn is_verbatim(answer: &Answer, code: &str, reply: &Reply<'_>) {
    let object = reply.object().expect("an answer is an object");
    assert_eq!(answer.code, code);
    let names = ["SMSID", "ErrorMessage", "CountRegenerate"];
    if names.iter().all(|name| object.all(name).count() <= 1) {
        let [sms_id, message, count] = names.map(|name| object.first(name).filter(|value| *value != "null"));
        let words = |value: &str| json::string(value).unwrap_or_else(|| value.to_owned());
        assert_eq!(answer.sms_id, sms_id.map(words));
        assert_eq!(answer.error_message, message.map(words));
        assert_eq!(answer.count_regenerate.as_ref().map(|json| json.get()), count);
    }
    is_published_whole(answer);
}

fn is_published_whole(answer: &Answer) {
    let mut ending = Ending::without_attempt(Outcome::Rejected, "refused");
    ending.answer = Some(answer.clone());
    let event = ending.into_event("id", now());
    let event = std::str::from_utf8(&event.body).ok().and_then(Object::read).expect("a result is an object");
    let text = |name: &str| event.first(name).and_then(json::string);
    assert_eq!(text("CodeResult").as_ref(), Some(&answer.code));
    assert_eq!(text("SMSID"), answer.sms_id);
    assert_eq!(text("ErrorMessage"), answer.error_message);
    assert_eq!(event.first("CountRegenerate"), answer.count_regenerate.as_ref().map(|json| json.get()));
}

/// The reason may end up in a result. So it may contain the status, but nothing else of the reply.
fn repeats_nothing(why: &str, status: u16) {
    let bare = Reply { status, retry_after: None, body: b"" }.class();
    let (Class::Refused { why: expected } | Class::Ambiguous { why: expected }) = bare else {
        panic!("HTTP {status} without a body is {bare:?}");
    };
    assert_eq!(why, expected);
    assert!(why.starts_with(&format!("HTTP {status}")));
}
