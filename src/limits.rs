//! Limits on what is sent: to one number, to the numbers that begin with a prefix, and in all.
//!
//! What is counted are OTPs that went out, or may have, by job. A job takes a *place* when it is claimed. While the
//! job is in flight, its place counts until its deadline: it may be attempted until then. Once the job has ended,
//! its place counts from its last attempt on, or is given back where certainly nothing was sent.

pub mod counted;
pub mod settings;
pub mod told;

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::job::phone::Phone;
use crate::job::request::{Kind, OtpRequest};

/// A kind of limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The time between two OTPs to one number.
    Cooldown,
    /// OTPs to one number.
    Phone,
    /// OTPs to numbers that begin alike.
    Prefix,
    /// Numbers that are not served.
    PrefixDenied,
    /// OTPs in all.
    Total,
}

impl Limit {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Cooldown, Self::Phone, Self::Prefix, Self::PrefixDenied, Self::Total];

    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cooldown => "cooldown",
            Self::Phone => "phone",
            Self::Prefix => "prefix",
            Self::PrefixDenied => "prefix_denied",
            Self::Total => "total",
        }
    }
}

/// The beginning of numbers, in international digits. The empty one fits every number, and is written `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix(String);

impl Prefix {
    /// Whether the number, in international digits, begins so.
    pub fn fits(&self, international: &Phone) -> bool {
        international.digits().starts_with(&self.0)
    }

    fn begins_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "*" } else { &self.0 })
    }
}

/// At most so many OTPs in any window of this length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The kind.
    pub limit: Limit,
    /// The most OTPs; at least 1.
    pub most: u32,
    /// The length of the window; at least a second.
    pub window: Duration,
}

/// What is counted together beside the numbers: those that begin with a prefix, or all (`None`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What the numbers begin with.
    pub prefix: Option<Prefix>,
    /// Its rules; at least one.
    pub rules: Vec<Rule>,
}

impl Group {
    /// Its name in the store.
    pub fn name(&self) -> String {
        self.prefix.as_ref().map_or_else(|| "total".to_owned(), Prefix::to_string)
    }
}

/// Every limit. The default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The rules of each number.
    pub number: Vec<Rule>,
    /// The groups by prefix, and the total last.
    pub groups: Vec<Group>,
    allow: Vec<Prefix>,
    deny: Vec<Prefix>,
}

/// The place of a job: what it counts for.
#[derive(Clone, Debug)]
pub struct Place {
    /// The job's id.
    pub id: String,
    /// The number, in international digits.
    pub phone: Phone,
    /// The job may be attempted until then.
    pub until: Instant,
    groups: Vec<usize>,
}

/// Whether a number had been sent an OTP before, within the longest window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It had not.
    New,
    /// It had, or another job for it is in flight.
    Known,
}

impl Seen {
    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Known => "known",
        }
    }
}

/// The rule that holds a job back. [`Limits::held_back`] makes a [`HeldBack`] of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which of the place's rules, counted from 0: those of the number, then those of its groups.
    pub rule: usize,
    /// After this long there is a place again, if no place is given back before.
    pub free_in: Duration,
    /// Whether it depends on a job that is still in flight. Its end may change the answer.
    pub is_in_flight: bool,
}

/// Why a job is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// The kind of limit.
    pub limit: Limit,
    /// For people. It names the setting, and never the number.
    pub reason: String,
    /// After this long another try can succeed, where that is known.
    pub retry_after: Option<Duration>,
    /// Whether it depends on a job that is still in flight.
    pub is_in_flight: bool,
}

impl HeldBack {
    /// `RetryAfter`: whole seconds, never too early.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(|after| (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1))
    }
}

impl Limits {
    /// Limits that serve every number. The group of all must be the last.
    pub const fn of(number: Vec<Rule>, groups: Vec<Group>) -> Self {
        Self { number, groups, allow: Vec::new(), deny: Vec::new() }
    }

    /// Whether anything is counted.
    pub fn count(&self) -> bool {
        !self.number.is_empty() || !self.groups.is_empty()
    }

    /// The place that a job takes until its deadline. `None` if it counts for nothing: no code is sent for it, its
    /// number is not served, or nothing is counted.
    pub fn place(&self, id: &str, request: &OtpRequest, until: Instant) -> Option<Place> {
        if request.kind == Kind::Generate || !self.count() || self.denied(request).is_some() {
            return None;
        }
        let phone = request.phone.international();
        let by_prefix = self.groups.iter().enumerate().filter_map(|(n, group)| group.prefix.as_ref().map(|of| (n, of)));
        let longest = by_prefix.filter(|(_, of)| of.fits(&phone)).max_by_key(|(_, of)| of.0.len());
        let total = self.groups.iter().position(|group| group.prefix.is_none());
        let groups = longest.map(|(n, _)| n).into_iter().chain(total).collect();
        Some(Place { id: id.to_owned(), phone, until, groups })
    }

    /// The groups that a place counts for, with their numbers.
    pub fn groups_of<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = (usize, &'a Group)> {
        place.groups.iter().filter_map(|n| self.groups.get(*n).map(|group| (*n, group)))
    }

    /// The rules that a place is counted under: those of the number, then those of its groups.
    pub fn rules_of<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = &'a Rule> {
        self.number.iter().chain(self.groups_of(place).flat_map(|(_, group)| &group.rules))
    }

    /// How long a place is kept at most.
    pub fn longest(&self) -> Duration {
        self.rules().map(|rule| rule.window).max().unwrap_or_default()
    }

    /// The longest window of this kind.
    pub fn longest_of(&self, limit: Limit) -> Duration {
        self.rules().filter(|rule| rule.limit == limit).map(|rule| rule.window).max().unwrap_or_default()
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.number.iter().chain(self.groups.iter().flat_map(|group| &group.rules))
    }

    /// How many places of one number are kept: with more, no rule would say anything else. One more than the rules
    /// need shows, beside a job in flight, whether the number is known.
    pub fn most_of_a_number(&self) -> u32 {
        self.number.iter().map(|rule| rule.most).max().unwrap_or(1) + 1
    }

    /// Says why a job is not sent. A rule that is not there any more holds nothing back.
    pub fn held_back(&self, place: &Place, verdict: Verdict) -> Option<HeldBack> {
        let rule = self.rules_of(place).nth(verdict.rule)?;
        Some(HeldBack {
            limit: rule.limit,
            reason: self.reason(rule, place),
            retry_after: Some(verdict.free_in),
            is_in_flight: verdict.is_in_flight,
        })
    }

    fn reason(&self, rule: &Rule, place: &Place) -> String {
        let window = humantime::format_duration(rule.window);
        let most = rule.most;
        match rule.limit {
            Limit::Cooldown => format!("OTP_PHONE_COOLDOWN: one OTP to a number in {window}"),
            Limit::Phone => format!("OTP_PHONE_LIMIT: at most {most} to a number in {window}"),
            Limit::Prefix => {
                let prefix = self.groups_of(place).find_map(|(_, group)| group.prefix.clone()).unwrap_or_default();
                format!("OTP_PREFIX_LIMIT: at most {most} to numbers of the prefix {prefix} in {window}")
            }
            // No rule has this kind: see `denied`.
            Limit::PrefixDenied => "OTP_PREFIX_DENY".to_owned(),
            Limit::Total => format!("OTP_TOTAL_LIMIT: at most {most} in all in {window}"),
        }
    }

    /// Why the job's number is not served at all, if it is not.
    pub fn denied(&self, request: &OtpRequest) -> Option<HeldBack> {
        if request.kind == Kind::Generate || (self.allow.is_empty() && self.deny.is_empty()) {
            return None;
        }
        let phone = request.phone.international();
        let any = |prefixes: &[Prefix]| prefixes.iter().any(|prefix| prefix.fits(&phone));
        let reason = if any(&self.deny) {
            "OTP_PREFIX_DENY: numbers of this prefix are not served"
        } else if !self.allow.is_empty() && !any(&self.allow) {
            "OTP_PREFIX_ALLOW: only numbers of other prefixes are served"
        } else {
            return None;
        };
        let (limit, reason) = (Limit::PrefixDenied, reason.to_owned());
        Some(HeldBack { limit, reason, retry_after: None, is_in_flight: false })
    }

    /// The prefix of a number in metrics: the longest that is configured and fits, or nothing.
    pub fn label(&self, phone: &Phone) -> String {
        let phone = phone.international();
        self.prefixes()
            .filter(|prefix| prefix.fits(&phone))
            .max_by_key(|p| p.0.len())
            .map(Prefix::to_string)
            .unwrap_or_default()
    }

    /// Every prefix that is configured.
    pub fn prefixes(&self) -> impl Iterator<Item = &Prefix> {
        let counted = self.groups.iter().filter_map(|group| group.prefix.as_ref());
        counted.chain(&self.allow).chain(&self.deny)
    }
}

#[cfg(test)]
mod tests;
