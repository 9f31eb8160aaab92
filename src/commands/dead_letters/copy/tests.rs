use super::super::letter::Rules;
use super::*;
use crate::job::envelope::Moment;
use lapin::types::{AMQPValue, FieldArray};
use std::time::Duration;

fn full() -> BasicProperties {
    let mut headers = FieldTable::default();
    for name in ["x-error", "traceparent", "tracestate", "CC", "BCC", "x-first-death-queue", "x-last-death-reason"] {
        headers.insert(name.into(), AMQPValue::LongString("a".into()));
    }
    for name in ["x-delivery-count", "x-acquired-count", "timestamp_in_ms"] {
        headers.insert(name.into(), AMQPValue::LongLongInt(7));
    }
    headers.insert("x-death".into(), AMQPValue::FieldArray(FieldArray::default()));
    BasicProperties::default()
        .with_headers(headers)
        .with_message_id("id".into())
        .with_correlation_id("c".into())
        .with_reply_to("replies".into())
        .with_timestamp(5)
        .with_expiration("60000".into())
        .with_content_type("application/json".into())
        .with_content_encoding("gzip".into())
        .with_type("otp.job".into())
        .with_app_id("shop".into())
        .with_priority(3)
        .with_user_id("guest".into())
        .with_delivery_mode(1)
}

fn letter(properties: BasicProperties) -> Letter {
    let rules = Rules { job_ttl: Duration::from_secs(300), template_id: None };
    Letter::read(properties, b"{}".to_vec(), Moment::now(), &rules)
}

fn names(properties: &BasicProperties) -> Vec<&str> {
    properties.headers().iter().flat_map(|headers| headers.inner().keys()).map(ShortString::as_str).collect()
}

#[test]
fn a_job_is_as_its_producer_published_it() {
    let job = of_job(&letter(full()), "id", false);
    assert_eq!(names(&job), ["timestamp_in_ms", "traceparent", "tracestate"]);
    let expected = full().with_delivery_mode(2);
    assert_eq!(job.message_id(), expected.message_id());
    assert_eq!(job.correlation_id(), expected.correlation_id());
    assert_eq!(job.reply_to(), expected.reply_to());
    assert_eq!((job.timestamp(), job.expiration()), (expected.timestamp(), expected.expiration()));
    assert_eq!((job.content_type(), job.content_encoding()), (expected.content_type(), expected.content_encoding()));
    assert_eq!((job.kind(), job.app_id(), job.priority()), (expected.kind(), expected.app_id(), expected.priority()));
    // The broker refuses that of another user.
    assert_eq!((job.user_id(), job.delivery_mode()), (&None, &Some(2)));
}

#[test]
fn a_fresh_job_has_no_old_lifetime() {
    let job = of_job(&letter(full()), "id", true);
    assert_eq!(names(&job), ["traceparent", "tracestate"]);
    assert_eq!((job.timestamp(), job.expiration()), (&None, &None));
}

#[test]
fn the_expiration_that_the_worker_kept_is_that_of_the_job_again() {
    for (kept, own, restored) in [
        (Some("60000"), None, Some("60000")),
        (Some("60000"), Some("70000"), Some("70000")),
        // The broker would refuse these.
        (Some("4294967296"), None, None),
        (Some("-1"), None, None),
        (Some("soon"), Some("70000"), Some("70000")),
        (Some(""), None, None),
        (None, None, None),
    ] {
        let mut properties = BasicProperties::default();
        if let Some(kept) = kept {
            let mut headers = FieldTable::default();
            headers.insert("x-expiration".into(), AMQPValue::LongString(kept.into()));
            properties = properties.with_headers(headers);
        }
        if let Some(own) = own {
            properties = properties.with_expiration(own.into());
        }
        let job = of_job(&letter(properties.clone()), "id", false);
        assert_eq!(job.expiration().as_ref().map(ShortString::as_str), restored, "{kept:?} {own:?}");
        assert!(names(&job).is_empty(), "{kept:?}");
        let fresh = of_job(&letter(properties.clone()), "id", true);
        assert_eq!((fresh.expiration(), names(&fresh).len()), (&None, 0), "{kept:?}");
        // The letter itself must not expire.
        let renewed = of_letter(&properties);
        assert_eq!(
            (names(&renewed).len(), renewed.expiration().is_some()),
            (usize::from(kept.is_some()), own.is_some())
        );
    }
}

#[test]
fn the_result_of_a_job_with_a_new_id_still_has_the_old_one_as_its_correlation() {
    let correlation = |properties: BasicProperties| {
        of_job(&letter(properties), "id:again", false).correlation_id().as_ref().map(ToString::to_string)
    };
    let named = BasicProperties::default().with_message_id("id".into());
    assert_eq!(correlation(named.clone()).as_deref(), Some("id"));
    assert_eq!(correlation(named.with_correlation_id("c".into())).as_deref(), Some("c"));
    assert_eq!(correlation(BasicProperties::default()), None);
}

#[test]
fn a_direct_reply_to_is_dead_by_now() {
    for (queue, stays) in [("amq.rabbitmq.reply-to", false), ("amq.rabbitmq.reply-to.g2dk", false), ("replies", true)] {
        let job = of_job(&letter(BasicProperties::default().with_reply_to(queue.into())), "id", false);
        assert_eq!(job.reply_to().is_some(), stays, "{queue}");
    }
}

#[test]
fn a_renewed_letter_is_the_letter_but_for_the_counts() {
    let copy = of_letter(&full());
    let kept = [
        "timestamp_in_ms",
        "traceparent",
        "tracestate",
        "x-death",
        "x-error",
        "x-first-death-queue",
        "x-last-death-reason",
    ];
    assert_eq!(names(&copy), kept);
    let expected = full();
    assert_eq!(copy.message_id(), expected.message_id());
    assert_eq!((copy.correlation_id(), copy.reply_to()), (expected.correlation_id(), expected.reply_to()));
    assert_eq!((copy.timestamp(), copy.expiration()), (expected.timestamp(), expected.expiration()));
    assert_eq!((copy.user_id(), copy.delivery_mode()), (&None, &Some(2)));
}
