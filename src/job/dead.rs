//! Why a job is kept for people, as the header `x-error` says it, and what follows from the words.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, ShortString};

/// The header of a dead letter that says why it is one.
pub const REASON: &str = "x-error";

/// The header of a dead letter that keeps the job's `expiration`. The property itself would make the letter expire.
pub const EXPIRATION: &str = "x-expiration";

/// How the reason begins where the broker gave a job up.
pub const GIVEN_UP: &str = "the broker gave the job up";

/// The reason of a job that made its workers panic.
pub const PANICKED: &str = "the worker panicked while it worked this job, and it is not tried again";

/// Whether an OTP may have gone out for a job with this reason. Without one, the broker has put it there itself, or
/// somebody else has.
pub fn may_have_sent(reason: Option<&str>) -> bool {
    reason.is_none_or(|reason| reason.starts_with(GIVEN_UP) || reason == PANICKED)
}

/// The `expiration` that its producer gave a job: the property, else the header that a worker keeps, else what the
/// broker wrote when it dropped the job. What the broker would refuse as an `expiration` is none.
pub fn expiration(properties: &BasicProperties) -> Option<ShortString> {
    let headers = properties.headers().as_ref();
    let kept = || in_header(headers?.inner().get(EXPIRATION)?);
    let dropped = || {
        let AMQPValue::FieldArray(deaths) = headers?.inner().get("x-death")? else { return None };
        let AMQPValue::FieldTable(death) = deaths.as_slice().first()? else { return None };
        in_header(death.inner().get("original-expiration")?)
    };
    properties.expiration().clone().or_else(kept).or_else(dropped)
}

fn in_header(value: &AMQPValue) -> Option<ShortString> {
    let AMQPValue::LongString(text) = value else { return None };
    let text = str::from_utf8(text.as_bytes()).ok()?;
    let is_good = text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u32>().is_ok() && text.len() <= 10;
    is_good.then(|| ShortString::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::types::{FieldArray, FieldTable};

    fn table(name: &str, value: AMQPValue) -> FieldTable {
        let mut table = FieldTable::default();
        table.insert(name.into(), value);
        table
    }

    #[test]
    fn the_expiration_is_found_where_it_is_kept() {
        let text = |text: &str| AMQPValue::LongString(text.into());
        let dropped = |kept: &str| {
            let deaths = FieldArray::from(vec![AMQPValue::FieldTable(table("original-expiration", text(kept)))]);
            BasicProperties::default().with_headers(table("x-death", AMQPValue::FieldArray(deaths)))
        };
        let kept = |kept: &str| BasicProperties::default().with_headers(table(EXPIRATION, text(kept)));
        for (properties, expected) in [
            (BasicProperties::default(), None),
            (BasicProperties::default().with_expiration("5".into()), Some("5")),
            (kept("60000"), Some("60000")),
            (kept("60000").with_expiration("5".into()), Some("5")),
            (dropped("60000"), Some("60000")),
            (dropped("60000").with_expiration("5".into()), Some("5")),
            (kept("4294967295"), Some("4294967295")),
            // The broker would refuse these.
            (kept("4294967296"), None),
            (kept("-1"), None),
            (kept("+1"), None),
            (kept("soon"), None),
            (kept(""), None),
            (kept(&"1".repeat(300)), None),
            (dropped("soon"), None),
        ] {
            assert_eq!(expiration(&properties).as_ref().map(ShortString::as_str), expected, "{properties:?}");
        }
    }

    #[test]
    fn only_a_job_that_was_refused_was_certainly_not_sent() {
        for (reason, may) in [
            (None, true),
            (Some("the broker gave the job up (delivered over the limit); an attempt may have been made"), true),
            (Some(PANICKED), true),
            (Some("Phone is missing"), false),
            (Some("message_id was used before, for another job"), false),
        ] {
            assert_eq!(may_have_sent(reason), may, "{reason:?}");
        }
    }
}
