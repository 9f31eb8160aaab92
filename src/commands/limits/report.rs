//! What `limits` says. Pure.

use std::time::Duration;

use crate::job::phone::Phone;
use crate::ledger::counts::{Counted, Forgotten, OfRule};
use crate::limits::{Limits, Place};

/// The lines that are printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) lines: Vec<String>,
}

impl Report {
    /// What is counted for this number. `None`: no limit is set that counts it.
    pub(super) fn of(limits: &Limits, phone: &Phone, counted: Option<(&Place, Counted)>) -> Self {
        let not_served = limits.not_served(phone);
        let mut lines = vec![line("number", &phone.to_string())];
        lines.push(match &not_served {
            Some(held_back) => line("served", &format!("no. {}", held_back.reason)),
            None => line("served", "yes"),
        });
        let mut worst: Option<(String, OfRule)> = None;
        if let Some((place, counted)) = &counted {
            lines.push(line("in flight", &in_flight(counted.in_flight)));
            for (told, of_rule) in limits.told(place).iter().zip(&counted.rules) {
                let count = format!("{} of {}", of_rule.counted, told.most);
                lines.push(line(&told.about, &format!("{count:<16} {}{}", told.rule, more(*of_rule))));
                if worst.as_ref().is_none_or(|(_, worst)| of_rule.free_in > worst.free_in) {
                    worst = Some((setting(&told.rule), *of_rule));
                }
            }
        } else {
            let none = "nothing: no limit that counts it is set. Are these the settings of the workers?";
            lines.push(line("counted", none));
        }
        lines.push(line("next OTP", &next(not_served.is_some(), worst)));
        Self { lines }
    }

    /// What was forgotten.
    pub(super) fn of_reset(phone: &Phone, forgotten: Forgotten) -> Self {
        let mut lines = vec![line("number", &phone.to_string()), line("forgotten", &otps(forgotten.otps))];
        if forgotten.in_flight > 0 {
            let jobs = in_flight(forgotten.in_flight);
            lines.push(line("in flight", &format!("{jobs} of them; what they send counts once they have ended")));
        }
        lines.push(line("kept", "what is counted for its prefix and in all"));
        Self { lines }
    }
}

fn line(about: &str, what: &str) -> String {
    format!("{about:<12} {what}")
}

fn otps(count: u64) -> String {
    match count {
        0 => "nothing: nothing was counted".into(),
        1 => "1 OTP".into(),
        more => format!("{more} OTPs"),
    }
}

fn in_flight(jobs: u64) -> String {
    if jobs == 1 { "1 job".into() } else { format!("{jobs} jobs") }
}

fn more(of_rule: OfRule) -> String {
    let flying = if of_rule.in_flight > 0 { format!("; {} in flight", of_rule.in_flight) } else { String::new() };
    let full =
        if of_rule.free_in.is_zero() { String::new() } else { format!("; full for {}", seconds(of_rule.free_in)) };
    format!("{flying}{full}")
}

fn next(is_denied: bool, worst: Option<(String, OfRule)>) -> String {
    match worst.filter(|(_, rule)| !rule.free_in.is_zero()) {
        _ if is_denied => "none, as long as the number is not served".into(),
        None => "now".into(),
        Some((setting, rule)) => {
            let sooner = if rule.in_flight > 0 { "; sooner if a job in flight sends nothing" } else { "" };
            format!("in {} ({setting}){sooner}", seconds(rule.free_in))
        }
    }
}

/// In whole seconds, never too early.
fn seconds(wait: Duration) -> String {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    humantime::format_duration(Duration::from_secs(whole)).to_string()
}

fn setting(rule: &str) -> String {
    rule.split(':').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
