//! `Retry-After`: seconds or a date. The wait is never too long for the clock.
//!
//! The input is the header's value.

use esms_otp_worker::esms::classify::not_before;
use std::time::{Duration, Instant, SystemTime};

/// The last moment that an HTTP date can name, in seconds: the end of the year 9999.
const LAST_DATE: u64 = 253_402_300_799;

pub fn holds(input: &[u8]) {
    let header = String::from_utf8_lossy(input);
    let mut waits = Vec::new();
    for now in [0, 1_800_000_000, LAST_DATE] {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        let wait = not_before(&header, now);
        assert_eq!(wait, expected(header.trim(), now));
        assert_eq!(not_before(&format!(" {header}\t"), now), wait, "spaces around make a difference");
        if let Some(wait) = wait {
            assert!(wait <= Duration::from_secs(LAST_DATE));
            assert!(Instant::now().checked_add(wait).is_some(), "the retry loop adds it to the clock");
        }
        waits.push(wait);
    }
    assert!(waits.is_sorted_by(|earlier, later| earlier >= later), "the later the shorter: {waits:?}");
}

fn expected(header: &str, now: SystemTime) -> Option<Duration> {
    if !header.is_empty() && header.chars().all(|c| c.is_ascii_digit()) {
        let seconds =
            header.bytes().fold(0u32, |all, digit| all.saturating_mul(10).saturating_add((digit - b'0').into()));
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = httpdate::parse_http_date(header).ok()?;
    let written = httpdate::fmt_http_date(date);
    assert_eq!(httpdate::parse_http_date(&written).ok(), Some(date), "{written}");
    Some(if date <= now { Duration::ZERO } else { date.duration_since(now).expect("a later date") })
}
