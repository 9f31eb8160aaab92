//! The places of the limits in Redis: which keys and numbers the scripts are given, and what they answer.
//!
//! | key under the prefix | kind | holds |
//! |---|---|---|
//! | `number:<hash>` | sorted set | the places of one number: hashes of the jobs, by the time from which each counts |
//! | `limit:<group>:flying` | sorted set | jobs in flight of a prefix or of all, by their deadlines |
//! | `limit:<group>:<window>` | hash | OTPs sent in each sixtieth of the window |

use std::sync::Arc;
use std::time::Duration;

use redis::ScriptInvocation;
use tokio::time::Instant;

use super::fingerprint::Keyring;
use super::home::Prefix;
use super::store::{Claim, StoreError};
use crate::job::phone::Phone;
use crate::limits::{Limits, Place, Seen, Verdict};

/// See the module.
#[derive(Debug)]
pub(super) struct Places {
    limits: Arc<Limits>,
    prefix: Prefix,
    keyring: Arc<Keyring>,
}

impl Places {
    pub(super) const fn new(limits: Arc<Limits>, prefix: Prefix, keyring: Arc<Keyring>) -> Self {
        Self { limits, prefix, keyring }
    }

    /// The key of a number's places. The number is in international digits.
    pub(super) fn key_of(&self, phone: &Phone) -> String {
        self.prefix.number(&self.keyring.hash("number", phone.digits()))
    }

    /// Adds to a call what `places.lua` reads. A job that counts for nothing adds nothing.
    pub(super) fn add(&self, call: &mut ScriptInvocation<'_>, place: Option<&Place>) {
        let Some(place) = place else { return };
        let rules = self.limits.number.iter().map(|rule| (rule.most, rule.window));
        call.key(self.key_of(&place.phone))
            .arg(self.keyring.hash("job", &place.id))
            .arg(millis_until(place.until))
            .arg(self.limits.most_of_a_number())
            .arg(millis(self.limits.longest()));
        add_rules(call, rules);
        for (_, group) in self.limits.groups_of(place) {
            let name = group.name();
            call.key(self.prefix.limit(&name, "flying"));
            for rule in &group.rules {
                call.key(self.prefix.limit(&name, &millis(rule.window).to_string()));
            }
            add_rules(call, group.rules.iter().map(|rule| (rule.most, rule.window)));
        }
    }

    /// The claim of a job that a limit holds back: the rule (counted from 1), the ms until there is a place, and
    /// whether that depends on a job in flight.
    pub(super) fn held_back(&self, place: Option<&Place>, said: &[u8], reruns: u32) -> Result<Claim, StoreError> {
        let verdict = std::str::from_utf8(said).ok().and_then(|said| {
            let mut parts = said.split(':').map(|part| part.parse::<u64>().ok());
            let (rule, free_in, in_flight) = (parts.next()??, parts.next()??, parts.next()??);
            let rule = usize::try_from(rule.checked_sub(1)?).ok()?;
            Some(Verdict { rule, free_in: Duration::from_millis(free_in), is_in_flight: in_flight == 1 })
        });
        let held_back = place.zip(verdict).and_then(|(place, verdict)| self.limits.held_back(place, verdict));
        held_back
            .map(|held_back| Claim::Limited(held_back, reruns))
            .ok_or_else(|| StoreError::Unreadable("it names a limit that is not set".into()))
    }
}

fn add_rules(call: &mut ScriptInvocation<'_>, rules: impl ExactSizeIterator<Item = (u32, Duration)>) {
    call.arg(rules.len());
    for (most, window) in rules {
        call.arg(most).arg(millis(window));
    }
}

/// Less than 0 where it has passed.
fn millis_until(at: Instant) -> i64 {
    let (ahead, behind) = (millis(at.saturating_duration_since(Instant::now())), millis(at.elapsed()));
    i64::try_from(ahead).unwrap_or(i64::MAX).saturating_sub(i64::try_from(behind).unwrap_or(i64::MAX))
}

/// What `finish.lua` says of a number.
pub(super) fn seen(said: &[u8]) -> Option<Seen> {
    [Seen::New, Seen::Known].into_iter().find(|seen| seen.as_str().as_bytes() == said)
}

/// Whole milliseconds, as the scripts are given them.
pub(super) fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
