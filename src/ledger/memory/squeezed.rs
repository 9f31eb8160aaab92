//! The body of a result in fewer bytes, for a ledger that keeps hundreds of thousands of them. Lossless. Pure.
//!
//! | byte | stands for |
//! |---|---|
//! | 0 | the job's id |
//! | 1 and on | a phrase of [`PHRASES`] |
//! | [`UUID`] | a UUID in lower case; its 16 bytes follow |
//! | [`PLAIN`] | the byte after it |
//! | 32 to 255 | itself |
//!
//! JSON has no bytes below 32 but between its values, and there ours has none at all.

use bytes::Bytes;
use uuid::Uuid;

use super::name::{UUID_TEXT, uuid_at};

/// What results have in common, each before what it begins with.
const PHRASES: [&str; 15] = [
    "{\"JobId\":\"",
    "\",\"Outcome\":\"accepted\",\"CodeResult\":\"100\",\"SMSID\":\"",
    "\",\"Outcome\":\"",
    "\",\"CodeResult\":\"",
    "\",\"SMSID\":\"",
    "\",\"CountRegenerate\":",
    "\",\"ErrorMessage\":\"",
    "\",\"Reason\":\"",
    "\",\"Attempts\":1,\"MayBeDuplicate\":false,\"CompletedAt\":\"",
    "\",\"Attempts\":",
    ",\"Attempts\":1,\"MayBeDuplicate\":false,\"CompletedAt\":\"",
    ",\"Attempts\":",
    ",\"MayBeDuplicate\":false,",
    ",\"MayBeDuplicate\":true,",
    "\"CompletedAt\":\"",
];

/// Before the bytes of a UUID.
const UUID: u8 = 31;

/// Before a byte that would mean something else.
const PLAIN: u8 = 30;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Squeezed(Box<[u8]>);

impl Squeezed {
    /// The body of a result of the job `id`.
    pub(super) fn new(body: &[u8], id: &str) -> Self {
        let (mut squeezed, mut rest) = (Vec::with_capacity(64), body);
        while let Some(first) = rest.first() {
            let (token, length) = token(rest, id.as_bytes());
            match token {
                Token::Id => squeezed.push(0),
                Token::Phrase(number) => squeezed.push(number),
                Token::Uuid(uuid) => {
                    squeezed.push(UUID);
                    squeezed.extend_from_slice(uuid.as_bytes());
                }
                Token::Byte if *first < b' ' => squeezed.extend([PLAIN, *first]),
                Token::Byte => squeezed.push(*first),
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        Self(squeezed.into_boxed_slice())
    }

    /// The body, with the same `id`.
    pub(super) fn body(&self, id: &str) -> Bytes {
        let mut body = Vec::with_capacity(self.0.len() + 256);
        let mut rest = self.0.iter();
        while let Some(byte) = rest.next() {
            match *byte {
                0 => body.extend_from_slice(id.as_bytes()),
                UUID => {
                    let bytes = rest.as_slice().first_chunk().copied().unwrap_or_default();
                    body.extend_from_slice(Uuid::from_bytes(bytes).hyphenated().to_string().as_bytes());
                    rest = rest.as_slice().get(bytes.len()..).unwrap_or_default().iter();
                }
                PLAIN => body.extend(rest.next()),
                number if number < b' ' => {
                    let phrase = PHRASES.get(usize::from(number) - 1).copied().unwrap_or_default();
                    body.extend_from_slice(phrase.as_bytes());
                }
                byte => body.push(byte),
            }
        }
        Bytes::from(body.into_boxed_slice())
    }
}

enum Token {
    Id,
    Phrase(u8),
    Uuid(Uuid),
    Byte,
}

/// What `rest` begins with, and how long that is.
fn token(rest: &[u8], id: &[u8]) -> (Token, usize) {
    if !id.is_empty() && rest.starts_with(id) {
        return (Token::Id, id.len());
    }
    match rest.first() {
        Some(b'{' | b'"' | b',') => {
            let phrases = PHRASES.iter().zip(1..).find(|(phrase, _)| rest.starts_with(phrase.as_bytes()));
            phrases.map_or((Token::Byte, 1), |(phrase, number)| (Token::Phrase(number), phrase.len()))
        }
        Some(b'0'..=b'9' | b'a'..=b'f') => {
            uuid_at(rest).map_or((Token::Byte, 1), |uuid| (Token::Uuid(uuid), UUID_TEXT))
        }
        Some(_) | None => (Token::Byte, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn length(body: &str, id: &str) -> usize {
        let squeezed = Squeezed::new(body.as_bytes(), id);
        assert_eq!(squeezed.body(id), body.as_bytes(), "{body}");
        squeezed.0.len()
    }

    #[test]
    fn an_accepted_result_needs_less_than_fifty_bytes() {
        let id = "5f0c6c3e-2d43-4b53-a7b5-0f5b5f0f8f10";
        let body = format!(
            r#"{{"JobId":"{id}","Outcome":"accepted","CodeResult":"100","SMSID":"00c0ffee-0000-4000-8000-00000000000a","Attempts":1,"MayBeDuplicate":false,"CompletedAt":"2026-11-26T07:01:02.123Z"}}"#
        );
        assert!(length(&body, id) < 50, "{}", length(&body, id));
    }

    #[test]
    fn whatever_the_body_it_comes_back() {
        for body in ["", "{}", "\u{0}\u{1}\u{1e}\u{1f}~", "00C0FFEE-0000-4000-8000-00000000000A", "à 😀", "00c0ffee-"]
        {
            for id in ["", "a", "{", "00c0ffee-0000-4000-8000-00000000000a"] {
                length(body, id);
            }
        }
        proptest!(|(body in "[{}\",:a-f0-9\u{0}-\u{1f}à-]{0,80}", id in "[a-f0-9,\"]{0,4}")| {
            length(&body, &id);
        });
        proptest!(|(body in prop::collection::vec(any::<u8>(), 0..200), id in ".{0,3}")| {
            prop_assert_eq!(Squeezed::new(&body, &id).body(&id), body);
        });
    }

    #[test]
    fn every_phrase_is_found_and_none_hides_another() {
        for phrase in PHRASES {
            assert_eq!(length(phrase, "id"), 1, "{phrase}");
        }
    }
}
