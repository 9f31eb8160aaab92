//! The settings of the limits.

use std::time::Duration;

use super::{Group, Limit, Limits, Prefix, Rule};
use crate::settings::reader::Reader;
use crate::settings::table::{self as settings, Setting};

/// The most OTPs to one number that a rule may allow: the time of each is kept.
const MOST_TO_A_NUMBER: u32 = 1_000;

/// The most OTPs that a rule may allow to a prefix, or in all.
const MOST: u32 = 1_000_000_000;

/// The shortest window. Shorter ones are what the rate limits are for.
const SHORTEST: Duration = Duration::from_secs(1);

/// The most prefixes of one setting: each of them is a label of metrics.
const MOST_PREFIXES: usize = 100;

impl Limits {
    pub(crate) fn from_reader(reader: &mut Reader<'_>) -> Self {
        let mut number = cooldown(reader);
        number.extend(number_rules(reader));
        let mut groups = by_prefix(reader);
        groups.extend(total(reader));
        let allow = prefixes(reader, &settings::OTP_PREFIX_ALLOW);
        let deny = prefixes(reader, &settings::OTP_PREFIX_DENY);
        if let Some(never) = allow.iter().find(|allowed| deny.iter().any(|denied| allowed.begins_with(denied))) {
            let rule = format!("allows {never}, and OTP_PREFIX_DENY denies every number that begins so");
            reader.mistake(&settings::OTP_PREFIX_ALLOW, rule);
        }
        let limits = Self { number, groups, allow, deny };
        limits.check_overlap(reader);
        limits
    }

    /// A rule that can never hold anything back was meant otherwise.
    fn check_overlap(&self, reader: &mut Reader<'_>) {
        let cooldown = self.longest_of(Limit::Cooldown);
        if self.number.iter().any(|rule| rule.limit == Limit::Phone && rule.window <= cooldown) {
            let rule = "must have windows longer than OTP_PHONE_COOLDOWN: within it there is one OTP at most";
            reader.mistake(&settings::OTP_PHONE_LIMIT, rule);
        }
        let is_useless = |prefix: &Prefix| {
            let is_denied = self.deny.iter().any(|denied| prefix.begins_with(denied));
            let meets = |allowed: &Prefix| prefix.begins_with(allowed) || allowed.begins_with(prefix);
            is_denied || !(self.allow.is_empty() || self.allow.iter().any(meets))
        };
        if let Some(useless) = self.groups.iter().filter_map(|group| group.prefix.as_ref()).find(|of| is_useless(of)) {
            let rule = format!("limits {useless}, of which OTP_PREFIX_ALLOW and OTP_PREFIX_DENY let no number through");
            reader.mistake(&settings::OTP_PREFIX_LIMIT, rule);
        }
    }
}

/// Nothing, where the setting is not given.
fn given<T: Default>(reader: &mut Reader<'_>, setting: &Setting, parse: impl Fn(&str) -> Result<T, String>) -> T {
    reader.given(setting).and_then(|_| reader.parsed(setting, parse)).unwrap_or_default()
}

fn cooldown(reader: &mut Reader<'_>) -> Vec<Rule> {
    given(reader, &settings::OTP_PHONE_COOLDOWN, |text| {
        Ok(vec![Rule { limit: Limit::Cooldown, most: 1, window: window(text.trim())? }])
    })
}

fn number_rules(reader: &mut Reader<'_>) -> Vec<Rule> {
    given(reader, &settings::OTP_PHONE_LIMIT, |text| {
        let rules: Result<_, String> = entries(text).map(|entry| rule(entry, Limit::Phone, MOST_TO_A_NUMBER)).collect();
        without_overlap(rules?)
    })
}

fn total(reader: &mut Reader<'_>) -> Option<Group> {
    given(reader, &settings::OTP_TOTAL_LIMIT, |text| {
        let rules: Result<_, String> = entries(text).map(|entry| rule(entry, Limit::Total, MOST)).collect();
        Ok(Some(Group { prefix: None, rules: without_overlap(rules?)? }))
    })
}

fn by_prefix(reader: &mut Reader<'_>) -> Vec<Group> {
    given(reader, &settings::OTP_PREFIX_LIMIT, |text| {
        let mut groups: Vec<Group> = Vec::new();
        for entry in entries(text) {
            let (of, rest) = entry.split_once(':').ok_or("must be entries such as 84:2000/1m or *:20/1m")?;
            let of = if of.trim() == "*" { Prefix::default() } else { prefix(of.trim())? };
            let rule = rule(rest, Limit::Prefix, MOST)?;
            match groups.iter_mut().find(|group| group.prefix.as_ref() == Some(&of)) {
                Some(group) => group.rules.push(rule),
                None => groups.push(Group { prefix: Some(of), rules: vec![rule] }),
            }
        }
        if groups.len() > MOST_PREFIXES {
            return Err(format!("must name at most {MOST_PREFIXES} prefixes"));
        }
        groups.into_iter().map(|Group { prefix, rules }| Ok(Group { prefix, rules: without_overlap(rules)? })).collect()
    })
}

fn prefixes(reader: &mut Reader<'_>, setting: &Setting) -> Vec<Prefix> {
    given(reader, setting, |text| {
        let mut prefixes = entries(text).map(prefix).collect::<Result<Vec<_>, _>>()?;
        prefixes.sort();
        for pair in prefixes.windows(2) {
            // Sorted, a prefix comes just before those that begin with it.
            if pair[1].begins_with(&pair[0]) {
                return Err(format!("must not overlap: numbers that begin with {} begin with {}", pair[1], pair[0]));
            }
        }
        if prefixes.len() > MOST_PREFIXES {
            return Err(format!("must name at most {MOST_PREFIXES} prefixes"));
        }
        Ok(prefixes)
    })
}

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

/// A prefix is shown in metrics, results and logs, so it must not be a whole number: these have 8 digits or more.
const LONGEST_PREFIX: usize = 7;

fn prefix(text: &str) -> Result<Prefix, String> {
    let is_prefix = (1..=LONGEST_PREFIX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    // After Vietnam's 84 there is no 0 in international digits.
    if is_prefix && !text.starts_with('0') && !text.starts_with("840") {
        return Ok(Prefix(text.to_owned()));
    }
    Err(format!("must be prefixes of at most {LONGEST_PREFIX} international digits, such as 84 or 8490, not 090"))
}

/// `3/10m`: at most 3 in any 10 minutes.
fn rule(entry: &str, limit: Limit, most: u32) -> Result<Rule, String> {
    let (count, length) = entry.split_once('/').ok_or("must be limits such as 3/10m")?;
    let count = count.trim().parse().ok().filter(|count| (1..=most).contains(count));
    let most = count.ok_or_else(|| format!("must allow a whole number of OTPs from 1 to {most}"))?;
    Ok(Rule { limit, most, window: window(length.trim())? })
}

fn window(text: &str) -> Result<Duration, String> {
    let window = humantime::parse_duration(text).ok().filter(|window| *window >= SHORTEST);
    window.ok_or_else(|| "must have a window of at least 1s, such as 60s, 10m or 24h".to_owned())
}

/// Rules from the shortest window to the longest. A longer window that allows no more makes the shorter one useless.
fn without_overlap(mut rules: Vec<Rule>) -> Result<Vec<Rule>, String> {
    rules.sort_by_key(|rule| rule.window);
    for pair in rules.windows(2) {
        if pair[1].most <= pair[0].most || pair[1].window == pair[0].window {
            let text = |rule: &Rule| format!("{}/{}", rule.most, humantime::format_duration(rule.window));
            return Err(format!(
                "must allow more in a longer window than in a shorter one: {} and {} overlap",
                text(&pair[0]),
                text(&pair[1])
            ));
        }
    }
    Ok(rules)
}
