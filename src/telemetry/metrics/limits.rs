//! The metrics of the limits on what is sent.

use prometheus::IntCounterVec;

use super::maker::Maker;
use crate::limits::{Limit, Limits, Seen};

/// See the module.
#[derive(Debug)]
pub struct LimitMetrics {
    limited: IntCounterVec,
    numbers: IntCounterVec,
}

impl LimitMetrics {
    pub(super) fn new(make: &Maker) -> Result<Self, prometheus::Error> {
        Ok(Self {
            limited: make.counters(
                "otp_limited_total",
                "Jobs that a limit held back, by limit and by the longest configured prefix of their number.",
                &["limit", "prefix"],
            )?,
            numbers: make.counters(
                "otp_numbers_total",
                "OTPs sent, or perhaps sent, while limits are set: to numbers new within the longest window, and to known ones.",
                &["prefix", "seen"],
            )?,
        })
    }

    /// The metrics of these limits are there from the start, so that a first count is seen as an increase.
    pub fn expect(&self, limits: &Limits) {
        let configured = limits.prefixes().map(ToString::to_string);
        for prefix in configured.chain(std::iter::once(String::new())) {
            for limit in Limit::ALL {
                self.limited.with_label_values(&[limit.as_str(), &prefix]);
            }
            for seen in [Seen::New, Seen::Known] {
                self.numbers.with_label_values(&[&prefix, seen.as_str()]);
            }
        }
    }

    /// A limit held a job back. `prefix` is a configured one, or empty.
    pub fn limited(&self, limit: Limit, prefix: &str) {
        self.limited.with_label_values(&[limit.as_str(), prefix]).inc();
    }

    /// An OTP was sent to a number, or may have been. `prefix` is a configured one, or empty.
    pub fn number(&self, prefix: &str, seen: Seen) {
        self.numbers.with_label_values(&[prefix, seen.as_str()]).inc();
    }
}
