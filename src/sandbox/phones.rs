//! What the sandbox knows about each phone.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    fault::Fault,
    rules::{Answer, Wanted},
};

/// How many requests of one phone are recorded in full. Later requests are only counted.
pub const STORY_LIMIT: usize = 50;

/// How many requests of all phones together are recorded in full.
const STORIES_LIMIT: usize = 200_000;

/// How many phones the sandbox can know. A request for one more is answered with 503.
const PHONES_LIMIT: usize = 1_000_000;

/// The longest key of a phone, in bytes. The key is the phone as it was sent, cut to this length. So are the other
/// texts of a request that are kept.
pub(crate) const PHONE_BYTES: usize = 32;

/// One V5 request, as it was received.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// When it arrived: RFC 3339, UTC, milliseconds.
    pub at: String,
    /// The fault it drew, in its text form; `none` for no fault.
    pub fault: String,
    /// Whether it was accepted (and counted).
    pub accepted: bool,
    /// The `CodeResult` of its answer, even if a fault withheld the answer. `None` if it was not considered.
    pub code_result: Option<String>,
    /// The `SMSID` of an accepted request.
    pub sms_id: Option<String>,
    /// The one-time password of an accepted request.
    pub code: Option<String>,
}

/// The counts of one phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhoneCount {
    /// The phone, as it was sent.
    pub phone: String,
    /// V5 requests for it, accepted or not.
    pub requests: u64,
    /// Accepted requests: the provider would have charged for a message or generated a code.
    pub accepted: u32,
    /// Accepted requests with `TypeId` 1: a code was generated and not sent.
    pub generated: u32,
    /// The code that CheckCode accepts now.
    pub code: Option<String>,
}

impl Recorded {
    pub(crate) fn now(fault: &Fault, answer: &Answer, code: Option<String>) -> Self {
        Self {
            at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            fault: fault.to_string(),
            accepted: code.is_some(),
            code_result: answer.code_result().map(str::to_owned),
            sms_id: answer.sms_id().map(str::to_owned),
            code,
        }
    }
}

/// A code that CheckCode accepts until the time `until`.
struct LiveCode {
    code: String,
    until: Instant,
}

#[derive(Default)]
struct Phone {
    requests: u64,
    accepted: u32,
    generated: u32,
    live: Option<LiveCode>,
    story: Vec<Arc<Recorded>>,
}

impl Phone {
    fn live_code(&self) -> Option<&str> {
        let live = self.live.as_ref().filter(|live| Instant::now() < live.until)?;
        Some(&live.code)
    }

    fn count(&self, phone: &str) -> PhoneCount {
        PhoneCount {
            phone: phone.to_owned(),
            requests: self.requests,
            accepted: self.accepted,
            generated: self.generated,
            code: self.live_code().map(str::to_owned),
        }
    }
}

/// Every phone that had a request.
#[derive(Default)]
pub(crate) struct Phones {
    phones: BTreeMap<String, Phone>,
    recorded: usize,
}

impl Phones {
    pub(crate) fn len(&self) -> u64 {
        self.phones.len() as u64
    }

    /// Counts a request of the phone and returns its number, from 1. `None` if the phone is new and there
    /// are too many phones already.
    pub(crate) fn nth_request(&mut self, phone: &str) -> Option<u64> {
        if self.phones.len() >= PHONES_LIMIT && !self.phones.contains_key(phone) {
            return None;
        }
        let known = self.phones.entry(phone.to_owned()).or_default();
        known.requests += 1;
        Some(known.requests)
    }

    /// Counts an accepted request and returns how many the phone has now.
    pub(crate) fn accept(&mut self, phone: &str, wanted: &Wanted, code: &str) -> u32 {
        let known = self.phones.entry(phone.to_owned()).or_default();
        known.accepted += 1;
        known.generated += u32::from(!wanted.sent);
        let until = Instant::now() + wanted.time_alive;
        known.live = Some(LiveCode { code: code.to_owned(), until });
        known.accepted
    }

    /// Records the request in full, while there is room.
    pub(crate) fn record(&mut self, phone: &str, recorded: &Arc<Recorded>) {
        let Some(known) = self.phones.get_mut(phone) else {
            return;
        };
        if known.story.len() >= STORY_LIMIT || self.recorded >= STORIES_LIMIT {
            return;
        }
        self.recorded += 1;
        known.story.push(Arc::clone(recorded));
    }

    /// Whether this is the phone's live code. If it is, it cannot be used again.
    pub(crate) fn use_code(&mut self, phone: &str, code: &str) -> bool {
        let Some(known) = self.phones.get_mut(key(phone)) else {
            return false;
        };
        let right = known.live_code() == Some(code);
        if right {
            known.live = None;
        }
        right
    }

    pub(crate) fn accepted(&self, phone: &str) -> u32 {
        self.phones.get(key(phone)).map_or(0, |known| known.accepted)
    }

    pub(crate) fn story(&self, phone: &str) -> Vec<Recorded> {
        let story = self.phones.get(key(phone)).map(|known| known.story.as_slice()).unwrap_or_default();
        story.iter().map(|recorded| recorded.as_ref().clone()).collect()
    }

    pub(crate) fn count(&self, phone: &str) -> Option<PhoneCount> {
        self.phones.get(key(phone)).map(|known| known.count(key(phone)))
    }

    /// The phones with at least this many accepted requests, sorted by phone.
    pub(crate) fn accepted_at_least(&self, times: u32) -> Vec<PhoneCount> {
        let often = self.phones.iter().filter(|(_, known)| known.accepted >= times);
        often.map(|(phone, known)| known.count(phone)).collect()
    }
}

/// The key of a phone. It is cut to [`PHONE_BYTES`], so that a nonsense phone does not take a megabyte.
pub(crate) fn key(phone: &str) -> &str {
    if phone.len() <= PHONE_BYTES {
        return phone;
    }
    let end = (0..=PHONE_BYTES).rev().find(|&end| phone.is_char_boundary(end)).unwrap_or(0);
    phone.get(..end).unwrap_or(phone)
}
