//! What `check` says of the limits: what can be sent within an hour, to one number and in all. Pure.

use std::time::Duration;

use super::finding::{Finding, warning};
use crate::limits::{Limits, Rule};

const HOUR: Duration = Duration::from_secs(3600);

/// What stands beside the limits, and changes what they mean.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside {
    /// The time between two calls of one worker, if its rate is limited.
    pub(super) interval: Option<Duration>,
    /// Calls a second of all workers, if they are limited.
    pub(super) shared_limit: Option<f64>,
    /// Whether each worker counts for itself.
    pub(super) is_in_memory: bool,
}

/// The limits. That none is set for a number is worth a warning: the bill is how others hear of it.
pub(super) fn of_limits(limits: &Limits, beside: Beside) -> Finding {
    let total = limits.groups.iter().find(|group| group.prefix.is_none());
    let total = total.and_then(|group| most_in_an_hour(&group.rules));
    match most_in_an_hour(&limits.number) {
        Some(most) => Finding::Good(limited(most, total, beside)),
        None => warning(
            format!(
                "no limit is set for a number. {}; each costs what your eSMS contract says",
                bound(in_all(total, beside), beside)
            ),
            "set OTP_PHONE_COOLDOWN (such as 60s) and OTP_PHONE_LIMIT (such as 3/10m,10/24h), and OTP_TOTAL_LIMIT as a cap on all",
        ),
    }
}

fn limited(most: u64, total: Option<u64>, beside: Beside) -> String {
    let of_all = total.map_or_else(
        || "OTP_TOTAL_LIMIT is not set, so new numbers are not bounded".to_owned(),
        |total| format!("all together {total}"),
    );
    let alone = if beside.is_in_memory { ". With OTP_LEDGER_URL=memory: each worker counts for itself" } else { "" };
    format!("in an hour a number gets at most {most} OTPs; {of_all}{alone}")
}

/// The most OTPs in an hour that all workers together can send, and the setting that says so.
fn in_all(total: Option<u64>, beside: Beside) -> Option<(u64, &'static str)> {
    let by_rate =
        beside.shared_limit.map(|limit| ((limit * HOUR.as_secs_f64()).round() as u64, "OTP_SHARED_RATE_LIMIT × 3600"));
    total.map(|total| (total, "OTP_TOTAL_LIMIT")).into_iter().chain(by_rate).min()
}

/// How many OTPs an hour can cost.
fn bound(total: Option<(u64, &str)>, beside: Beside) -> String {
    let by_rate = beside.interval.map(|interval| (HOUR.as_secs_f64() / interval.as_secs_f64()).round());
    let alone = if beside.is_in_memory { " by each worker" } else { "" };
    match (by_rate, total) {
        (None, None) => "Nothing bounds how many OTPs somebody can have sent in an hour".into(),
        (Some(rate), None) => format!("Up to {rate} OTPs can go out in an hour by each worker (OTP_RATE_LIMIT × 3600)"),
        (None, Some((total, by))) => format!("Up to {total} OTPs can go out in an hour{alone} ({by})"),
        (Some(rate), Some((total, by))) => format!(
            "Up to {rate} OTPs can go out in an hour by each worker (OTP_RATE_LIMIT × 3600), and up to {total}{} ({by})",
            if beside.is_in_memory { alone } else { " in all" }
        ),
    }
}

/// The most OTPs that all of these rules allow in an hour, wherever the hour begins. `None` without a rule.
fn most_in_an_hour(rules: &[Rule]) -> Option<u64> {
    let of_rule = |rule: &Rule| {
        let windows = HOUR.as_millis().div_ceil(rule.window.as_millis().max(1)).max(1);
        u64::from(rule.most).saturating_mul(u64::try_from(windows).unwrap_or(u64::MAX))
    };
    rules.iter().map(of_rule).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::reader::Reader;
    use crate::settings::table::Setting;

    fn said(given: &[(&str, &str)], interval: Option<u64>, is_in_memory: bool) -> (bool, String) {
        let source = |setting: &Setting| {
            given.iter().find(|(name, _)| *name == setting.env).map(|(_, value)| (*value).to_owned())
        };
        let limits = Limits::from_reader(&mut Reader::new(&source));
        let beside = Beside { interval: interval.map(Duration::from_millis), shared_limit: None, is_in_memory };
        match of_limits(&limits, beside) {
            Finding::Good(what) => (false, what),
            Finding::Warning { why, hint } => {
                assert!(hint.contains("OTP_PHONE_COOLDOWN") && hint.contains("OTP_PHONE_LIMIT"), "{hint}");
                (true, why)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_a_limit_for_a_number_it_warns_of_what_an_hour_can_cost() {
        let total = [("OTP_TOTAL_LIMIT", "1000/20m,100000/24h"), ("OTP_PREFIX_LIMIT", "84:5/1m")];
        for (given, interval, is_in_memory, expected) in [
            (&[][..], None, false, "Nothing bounds how many OTPs"),
            (
                &[][..],
                Some(20),
                false,
                "Up to 180000 OTPs can go out in an hour by each worker (OTP_RATE_LIMIT × 3600);",
            ),
            (&total[..], None, false, "Up to 3000 OTPs can go out in an hour (OTP_TOTAL_LIMIT);"),
            (&total[..], None, true, "Up to 3000 OTPs can go out in an hour by each worker (OTP_TOTAL_LIMIT);"),
            (&total[..], Some(1_000), false, "by each worker (OTP_RATE_LIMIT × 3600), and up to 3000 in all"),
        ] {
            let (is_warning, why) = said(given, interval, is_in_memory);
            assert!(is_warning && why.contains(expected), "{why}");
            assert!(why.ends_with("; each costs what your eSMS contract says"), "{why}");
        }
    }

    #[test]
    fn the_limit_of_all_calls_bounds_what_an_hour_can_cost() {
        for (total, expected) in [
            (None, Some((180_000, "OTP_SHARED_RATE_LIMIT × 3600"))),
            (Some(1_000_000), Some((180_000, "OTP_SHARED_RATE_LIMIT × 3600"))),
            (Some(1_000), Some((1_000, "OTP_TOTAL_LIMIT"))),
        ] {
            let beside = Beside { interval: None, shared_limit: Some(50.0), is_in_memory: false };
            assert_eq!(in_all(total, beside), expected);
        }
    }

    #[test]
    fn with_one_it_says_what_an_hour_allows() {
        for (given, expected) in [
            (&[("OTP_PHONE_COOLDOWN", "60s")][..], "a number gets at most 60 OTPs; OTP_TOTAL_LIMIT is not set"),
            (&[("OTP_PHONE_LIMIT", "3/10m,10/24h")], "a number gets at most 10 OTPs"),
            (&[("OTP_PHONE_COOLDOWN", "7m"), ("OTP_PHONE_LIMIT", "50/1h")], "a number gets at most 9 OTPs"),
            (&[("OTP_PHONE_COOLDOWN", "48h"), ("OTP_TOTAL_LIMIT", "100/24h")], "at most 1 OTPs; all together 100"),
        ] {
            let (is_warning, what) = said(given, None, false);
            assert!(!is_warning && what.contains(expected) && !what.contains("memory"), "{what}");
        }
        assert!(said(&[("OTP_PHONE_COOLDOWN", "60s")], None, true).1.contains("each worker counts for itself"));
    }
}
