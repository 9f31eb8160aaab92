use super::*;
use lapin::types::{FieldArray, FieldTable};

const JOB: &str = r#"{"Phone":"0901888484","MultiChannelTempId":"1"}"#;

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn with(headers: &[(&str, AMQPValue)]) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert((*name).into(), value.clone());
    }
    BasicProperties::default().with_headers(table)
}

/// What the broker itself writes when it drops a message.
fn dropped_by_broker() -> BasicProperties {
    let mut death = FieldTable::default();
    death.insert("reason".into(), text("delivery_limit"));
    death.insert("time".into(), AMQPValue::Timestamp(1_700_000_000));
    let deaths = FieldArray::from(vec![AMQPValue::FieldTable(death)]);
    with(&[("x-death", AMQPValue::FieldArray(deaths))])
}

fn read(properties: BasicProperties, body: &str) -> Letter {
    let rules = Rules { job_ttl: Duration::from_secs(300), template_id: None };
    Letter::read(properties, body.into(), Moment::now(), &rules)
}

#[test]
fn a_letter_says_why_since_when_and_whom() {
    let reason = "message_id was used before, for another job";
    let properties = with(&[("x-error", text(reason))]).with_message_id("a".into()).with_timestamp(1_700_000_000);
    let letter = read(properties, JOB);
    assert_eq!((letter.id.as_str(), letter.is_named, letter.shown_id().as_str()), ("a", true, "a"));
    assert_eq!((letter.shown_reason().as_str(), letter.may_have_sent()), (reason, false));
    assert_eq!(letter.shown_phone().as_deref(), Some("*******484"));
    // To the end of that second.
    assert_eq!(letter.since, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_001)));
    assert!(letter.is_expired && letter.job.is_ok());
}

#[test]
fn a_letter_is_expired_when_its_producer_would_say_so() {
    let taken = Moment::now();
    let age = |seconds: u64| taken.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() - seconds;
    for (kept, seconds, is_expired) in [
        (Some("60000"), 62, true),
        (Some("60000"), 30, false),
        (Some("0"), 2, true),
        (Some("600000"), 302, true),
        (Some("soon"), 62, false),
        (None, 62, false),
        (None, 302, true),
    ] {
        let headers: Vec<_> = kept.iter().map(|kept| ("x-expiration", text(kept))).collect();
        let letter = read(with(&headers).with_timestamp(age(seconds)), JOB);
        assert_eq!(letter.is_expired, is_expired, "{kept:?} {seconds}");
    }
}

#[test]
fn a_letter_of_the_brokers_own_says_why_and_since_when() {
    let letter = read(dropped_by_broker(), JOB);
    assert_eq!(letter.shown_reason(), "dropped by the broker (delivery_limit)");
    assert_eq!(letter.since, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
    assert!(letter.may_have_sent() && !letter.is_expired);
}

#[test]
fn a_letter_that_says_nothing_is_told_as_far_as_it_is_known() {
    let letter = read(BasicProperties::default(), "no JSON");
    assert_eq!((letter.shown_reason().as_str(), letter.shown_phone(), letter.since), ("-", None, None));
    assert!(letter.job.is_err() && letter.may_have_sent() && !letter.is_named);
    // It is no job, and its number is masked all the same.
    let letter = read(BasicProperties::default(), r#"{"Phone":"0901888484"}"#);
    assert_eq!(letter.job.as_ref().err().map(String::as_str), Some("MultiChannelTempId is missing"));
    assert_eq!(letter.shown_phone().as_deref(), Some("*******484"));
}

#[test]
fn a_hostile_letter_shows_nothing_that_a_terminal_obeys_and_no_number() {
    let properties = with(&[("x-error", text("to 0901 888 484\u{1b}[J\u{202e}"))]).with_message_id("0901888484".into());
    let letter = read(properties, JOB);
    assert_eq!(letter.shown_reason(), "to **** *** ***\\u{1b}[J\\u{202e}");
    assert_eq!(letter.shown_id(), "*******484");
    let properties = BasicProperties::default().with_message_id("a\u{1b}[2J 0901888484".into());
    assert_eq!(read(properties, JOB).shown_id(), "a\\u{1b}[2J 0******484");
    for id in ["x".repeat(201), format!("a{}", '\u{1a}')] {
        let letter = read(BasicProperties::default().with_message_id(id.as_str().into()), JOB);
        assert!(letter.job.is_err() && letter.is_named && letter.id == id);
    }
}

#[test]
fn a_letter_without_an_id_has_the_same_each_time_and_another_than_others() {
    let plain = || with(&[("x-error", text("a"))]).with_correlation_id("c".into()).with_timestamp(5);
    let id = |properties: BasicProperties, body: &str| read(properties, body).id;
    let first = id(plain(), JOB);
    assert!(first.starts_with("letter-") && first.len() == 39, "{first}");
    // How often it was looked at, and what is said of it, is not part of it. An empty id is none.
    let counted = with(&[("x-error", text("b")), ("x-delivery-count", AMQPValue::LongLongInt(7))]);
    assert_eq!(id(counted.with_correlation_id("c".into()).with_timestamp(5), JOB), first);
    assert_eq!(id(plain().with_message_id("".into()), JOB), first);
    let with_trace = with(&[("traceparent", text("00-1"))]).with_correlation_id("c".into()).with_timestamp(5);
    for other in [
        id(plain(), r#"{"Phone":"0901888485","MultiChannelTempId":"1"}"#),
        id(plain().with_correlation_id("d".into()), JOB),
        id(plain().with_timestamp(6), JOB),
        id(plain().with_reply_to("q".into()), JOB),
        id(with_trace, JOB),
    ] {
        assert_ne!(other, first);
    }
}

#[test]
fn how_often_it_was_returned_is_counted_by_the_broker() {
    for (count, expected) in
        [(AMQPValue::LongLongInt(7), 7), (AMQPValue::LongInt(7), 7), (AMQPValue::LongLongInt(-7), 0), (text("7"), 0)]
    {
        assert_eq!(returned(&with(&[("x-delivery-count", count)])), expected);
    }
    assert_eq!(returned(&BasicProperties::default()), 0);
}
