//! Each row of the table of a job's AMQP properties.

use super::*;
use lapin::types::{FieldTable, LongString};

/// The wall clock at arrival, in seconds.
const NOW: u64 = 1_800_000_000;

const TTL: Duration = Duration::from_secs(300);

fn arrival() -> Moment {
    Moment { wall: SystemTime::UNIX_EPOCH + Duration::from_secs(NOW), instant: Instant::now() }
}

fn envelope(properties: BasicProperties) -> Envelope {
    Envelope::read(&properties, arrival(), TTL)
}

fn with_id(id: &str) -> BasicProperties {
    BasicProperties::default().with_message_id(id.into())
}

fn with_header(name: &str, value: AMQPValue) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert(name.into(), value);
    BasicProperties::default().with_headers(headers)
}

/// How long after its arrival a job may still be sent.
fn time_left(timestamp: Option<u64>, expiration: Option<&str>) -> Duration {
    time_left_at(arrival(), timestamp, expiration)
}

fn time_left_at(arrival: Moment, timestamp: Option<u64>, expiration: Option<&str>) -> Duration {
    let mut properties = BasicProperties::default();
    if let Some(timestamp) = timestamp {
        properties = properties.with_timestamp(timestamp);
    }
    if let Some(expiration) = expiration {
        properties = properties.with_expiration(expiration.into());
    }
    Envelope::read(&properties, arrival, TTL).deadline - arrival.instant
}

const S: fn(u64) -> Duration = Duration::from_secs;

#[test]
fn the_message_id_is_the_jobs_id() {
    let envelope = envelope(with_id("5f0c"));
    assert_eq!((envelope.id.as_str(), envelope.id_problem), ("5f0c", None));
}

#[test]
fn without_a_message_id_one_is_made_up_for_each_delivery() {
    for properties in [BasicProperties::default(), with_id("")] {
        let (one, other) = (envelope(properties.clone()), envelope(properties));
        assert_eq!(one.id_problem, None);
        assert!(Uuid::parse_str(&one.id).is_ok());
        assert_ne!(one.id, other.id);
        assert_eq!(one.correlation_id.as_str(), one.id);
    }
}

#[test]
fn an_id_may_have_200_bytes_and_no_more() {
    for id in ["a".repeat(200), "ế".repeat(66) + "ab"] {
        let envelope = envelope(with_id(&id));
        assert_eq!((envelope.id, envelope.id_problem), (id, None));
    }
    for id in ["a".repeat(201), "a".repeat(255), "ế".repeat(67)] {
        let envelope = envelope(with_id(&id));
        assert_eq!(envelope.id_problem, Some("message_id is longer than 200 bytes"));
        assert!(Uuid::parse_str(&envelope.id).is_ok(), "the refused id is not the ledger's key");
        assert_eq!(envelope.correlation_id.as_str(), id, "its producer knows the job by it");
    }
}

#[test]
fn an_id_that_was_not_utf8_is_refused() {
    for id in ["\u{1a}", "job-\u{1a}\u{1a}-7"] {
        let envelope = envelope(with_id(id));
        assert_eq!(envelope.id_problem, Some("message_id is not UTF-8"));
        assert_ne!(envelope.id, id, "two ids that differ in the lost bytes would be one");
    }
}

#[test]
fn the_correlation_id_is_copied_and_defaults_to_the_jobs_id() {
    assert_eq!(envelope(with_id("a").with_correlation_id("c".into())).correlation_id.as_str(), "c");
    assert_eq!(envelope(with_id("a")).correlation_id.as_str(), "a");
    let longest = "c".repeat(255);
    assert_eq!(envelope(with_id("a").with_correlation_id(longest.as_str().into())).correlation_id.as_str(), longest);
}

#[test]
fn the_reply_goes_where_the_producer_says_and_nowhere_else() {
    let reply_to = |queue: &str| envelope(BasicProperties::default().with_reply_to(queue.into())).reply_to;
    assert_eq!(reply_to("answers"), Some("answers".into()));
    assert_eq!(reply_to("amq.rabbitmq.reply-to.g1h.x=="), Some("amq.rabbitmq.reply-to.g1h.x==".into()));
    assert_eq!(reply_to(""), None);
    assert_eq!(envelope(BasicProperties::default()).reply_to, None);
}

/// A timestamp has whole seconds: the job may have been made at the end of that second.
#[test]
fn the_deadline_is_the_end_of_the_timestamps_second_and_the_time_to_live() {
    assert_eq!(time_left(Some(NOW), None), TTL);
    assert_eq!(time_left(Some(NOW - 1), None), TTL);
    assert_eq!(time_left(Some(NOW - 100), None), S(201));
    assert_eq!(time_left(Some(NOW - 300), None), S(1));
    for too_old in [NOW - 301, NOW - 10_000, 1] {
        assert_eq!(time_left(Some(too_old), None), S(0), "{too_old}");
    }
}

#[test]
fn the_smaller_of_time_to_live_and_expiration_counts() {
    assert_eq!(time_left(Some(NOW - 4), Some("10000")), S(7));
    assert_eq!(time_left(Some(NOW - 4), Some("600000")), S(297));
    assert_eq!(time_left(Some(NOW - 11), Some("10000")), S(0));
    assert_eq!(time_left(Some(NOW), Some("1")), Duration::from_millis(1));
}

#[test]
fn a_job_with_half_a_second_to_live_has_it_wherever_in_the_second_it_was_made() {
    for into_the_second in [0, 250, 500, 999] {
        let received = Moment { wall: arrival().wall + Duration::from_millis(into_the_second), ..arrival() };
        assert_eq!(time_left_at(received, Some(NOW), Some("500")), Duration::from_millis(500), "{into_the_second}");
    }
}

#[test]
fn a_timestamp_of_nought_is_none() {
    assert_eq!(time_left(Some(0), None), TTL);
    assert_eq!(envelope(BasicProperties::default().with_timestamp(0)).created, None);
}

fn with_millis(timestamp: Option<u64>, millis: i64) -> BasicProperties {
    let properties = with_header("timestamp_in_ms", AMQPValue::LongLongInt(millis));
    timestamp.map_or(properties.clone(), |timestamp| properties.with_timestamp(timestamp))
}

#[test]
fn milliseconds_refine_a_timestamp_of_the_same_second_and_stand_in_for_none() {
    let at = |millis: u64| Some(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
    let millis = |seconds: u64, millis: u64| (seconds * 1_000 + millis) as i64;
    for (timestamp, given, created) in [
        (Some(NOW - 7), millis(NOW - 7, 250), at((NOW - 7) * 1_000 + 250)),
        (None, millis(NOW - 7, 250), at((NOW - 7) * 1_000 + 250)),
        // Of another second, such as that of a message that was moved: the timestamp counts.
        (Some(NOW - 7), millis(NOW - 3, 250), at((NOW - 6) * 1_000)),
        (Some(NOW - 7), -1, at((NOW - 6) * 1_000)),
        (Some(NOW - 7), 0, at((NOW - 6) * 1_000)),
        // In the future, or no time.
        (None, millis(NOW + 1, 0), None),
        (None, i64::MAX, None),
        (None, 0, None),
        (None, -1, None),
    ] {
        assert_eq!(envelope(with_millis(timestamp, given)).created, created, "{timestamp:?} {given}");
    }
}

#[test]
fn without_a_timestamp_time_counts_from_arrival() {
    assert_eq!(time_left(None, None), TTL);
    assert_eq!(time_left(None, Some("10000")), S(10));
    assert_eq!(time_left(None, Some("600000")), TTL);
}

#[test]
fn a_timestamp_to_come_says_nothing() {
    for to_come in [NOW + 1, NOW * 1000, NOW * 1_000_000, u64::from(u32::MAX) + 1, i64::MAX as u64, u64::MAX] {
        assert_eq!(time_left(Some(to_come), None), TTL, "{to_come}");
        assert_eq!(time_left(Some(to_come), Some("10000")), S(10), "{to_come}");
        assert_eq!(envelope(BasicProperties::default().with_timestamp(to_come)).created, None, "{to_come}");
    }
}

#[test]
fn an_expiration_of_nothing_is_no_time_at_all() {
    assert_eq!(time_left(None, Some("0")), S(0));
    assert_eq!(time_left(Some(NOW), Some("000")), S(0));
}

#[test]
fn an_expiration_that_is_no_number_or_too_large_leaves_the_time_to_live() {
    for text in ["", " ", "abc", "-1", "1.5", "10s", "1e3", "10000 ", "18446744073709551615", "99999999999999999999999"]
    {
        assert_eq!(time_left(None, Some(text)), TTL, "{text}");
    }
}

#[test]
fn part_of_a_second_counts() {
    let arrival = Moment { wall: arrival().wall + Duration::from_millis(1_250), ..arrival() };
    assert_eq!(time_left_at(arrival, Some(NOW), None), Duration::from_millis(299_750));
    assert_eq!(time_left_at(arrival, Some(NOW), Some("250")), S(0));
}

#[test]
fn the_time_it_was_created_is_the_end_of_its_second_and_not_after_its_arrival() {
    let created = |timestamp: u64| envelope(BasicProperties::default().with_timestamp(timestamp)).created;
    assert_eq!(created(NOW - 7), Some(SystemTime::UNIX_EPOCH + S(NOW - 6)));
    assert_eq!(created(NOW), Some(SystemTime::UNIX_EPOCH + S(NOW)));
    assert_eq!(envelope(BasicProperties::default()).created, None);
}

#[test]
fn trace_context_is_read_from_the_headers() {
    let mut headers = FieldTable::default();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    headers.insert("traceparent".into(), AMQPValue::LongString(parent.into()));
    headers.insert("tracestate".into(), AMQPValue::LongString("a=1,b=2".into()));
    let trace = envelope(BasicProperties::default().with_headers(headers)).trace;
    assert_eq!(trace, Trace { parent: Some(parent.into()), state: Some("a=1,b=2".into()) });
    assert_eq!(envelope(BasicProperties::default()).trace, Trace::default());
}

#[test]
fn trace_context_that_is_no_short_printable_text_is_dropped() {
    let text = |bytes: &[u8]| AMQPValue::LongString(LongString::from(bytes));
    for value in [
        text(b""),
        text(&[b'a'; 513]),
        text(b"a\nb"),
        text(b"a\x7f"),
        text(b"\xff"),
        AMQPValue::LongInt(1),
        AMQPValue::Void,
    ] {
        for name in ["traceparent", "tracestate"] {
            assert_eq!(envelope(with_header(name, value.clone())).trace, Trace::default(), "{value:?}");
        }
    }
    assert_eq!(envelope(with_header("tracestate", text(&[b'a'; 512]))).trace.state, Some("a".repeat(512)));
}

#[test]
fn the_delivery_count_is_read_where_the_queue_counts() {
    let count = |value: AMQPValue| envelope(with_header("x-delivery-count", value)).delivery_count;
    assert_eq!(count(AMQPValue::LongLongInt(0)), Some(DeliveryCount::Returned(0)));
    assert_eq!(count(AMQPValue::LongLongInt(i64::MAX)), Some(DeliveryCount::Returned(i64::MAX as u64)));
    assert_eq!(count(AMQPValue::LongInt(3)), Some(DeliveryCount::Returned(3)));
    assert_eq!(count(AMQPValue::LongUInt(3)), Some(DeliveryCount::Returned(3)));
    for other in
        [AMQPValue::LongLongInt(-1), AMQPValue::LongInt(-1), AMQPValue::LongString("3".into()), AMQPValue::Void]
    {
        assert_eq!(count(other), None);
    }
    assert_eq!(envelope(BasicProperties::default()).delivery_count, None);
}

#[test]
fn the_count_of_all_deliveries_is_taken_before_the_count_of_those_that_failed() {
    for (acquired, expected) in [
        (AMQPValue::LongLongInt(3), Some(DeliveryCount::Acquired(3))),
        // Not the other count instead: it may be lower than what happened.
        (AMQPValue::LongString("3".into()), None),
    ] {
        let mut headers = FieldTable::default();
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(1));
        headers.insert("x-acquired-count".into(), acquired);
        let properties = BasicProperties::default().with_headers(headers);
        assert_eq!(envelope(properties).delivery_count, expected);
    }
}

#[test]
fn only_counts_of_one_kind_that_differ_by_one_show_that_nobody_else_had_the_message() {
    use DeliveryCount::{Acquired, Returned};
    for (earlier, later, follows) in [
        (None, Some(Returned(1)), true),
        (Some(Returned(0)), Some(Returned(1)), true),
        (Some(Returned(4)), Some(Returned(5)), true),
        (None, Some(Acquired(1)), true),
        (Some(Acquired(1)), Some(Acquired(2)), true),
        // Somebody had it in between.
        (None, Some(Returned(2)), false),
        (Some(Acquired(1)), Some(Acquired(3)), false),
        // Given back on RabbitMQ 4.3: only one of its counts shows it.
        (Some(Acquired(1)), Some(Acquired(1)), false),
        (Some(Returned(1)), Some(Returned(1)), false),
        (None, Some(Returned(0)), false),
        // The broker was upgraded in between: the old count left some deliveries out.
        (Some(Returned(1)), Some(Acquired(2)), false),
        (Some(Acquired(1)), Some(Returned(2)), false),
        // The queue does not count.
        (None, None, false),
        (Some(Returned(1)), None, false),
    ] {
        assert_eq!(DeliveryCount::follows(earlier, later), follows, "{earlier:?} {later:?}");
    }
}

#[test]
fn a_delivery_count_is_stored_with_its_kind() {
    for count in [DeliveryCount::Returned(0), DeliveryCount::Returned(u64::MAX), DeliveryCount::Acquired(7)] {
        assert_eq!(DeliveryCount::parse(&count.to_string()), Some(count));
    }
    for other in ["", "7", "returned", "returned:", "returned:-1", "acquired:x", "other:1"] {
        assert_eq!(DeliveryCount::parse(other), None, "{other}");
    }
}
