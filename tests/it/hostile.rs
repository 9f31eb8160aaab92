//! Messages that no producer should publish, but somebody does. They harm nobody else, and each gets its
//! result.

use esms_otp_worker::sandbox::Fault;
use serde_json::json;

use crate::stage::{LIMIT, PHONE, Running, Stage, ending, field};
use crate::support::broker::Broker;
use crate::support::client::{Client, Job, Received, Results};
use crate::support::raw::{RawMessage, long_string, nested_table, property, short_string, table};

/// A worker that must keep the connections with which it began.
struct Siege {
    stage: Stage,
    running: Running,
    client: Client,
    results: Results,
    copies: Results,
    connections: f64,
    good: u32,
}

impl Siege {
    async fn lay() -> Self {
        let stage = Stage::new().await;
        let running = stage.worker().await;
        let (client, results) = stage.audience().await;
        let copies = client.consume(&stage.names.dead).await;
        let connections = running.metric("otp_broker_connections_total", &[]).await;
        Self { stage, running, client, results, copies, connections, good: 0 }
    }

    /// Publishes a hostile job and returns its result. Then checks that a good job gets its result on the
    /// same connections. Returns `None` when the broker itself refuses such a message, which differs
    /// between versions of RabbitMQ.
    async fn throw(&mut self, what: &str, message: RawMessage) -> Option<Received> {
        let port = Broker::shared().await.port();
        let result = match message.publish(port, &self.stage.names.jobs).await {
            Ok(()) => Some(self.results.next(LIMIT).await),
            Err(why) if why.contains("closed by the broker") => None,
            Err(why) => panic!("{what}: {why}"),
        };
        self.good += 1;
        let id = format!("good-{}", self.good);
        self.client.publish(&self.stage.names.jobs, Job::for_phone("0901888400", &id)).await;
        let good = self.results.next(LIMIT).await;
        assert_eq!((field(&good, "JobId"), ending(&good).0), (id, "accepted".to_owned()), "after {what}");
        let connections = self.running.metric("otp_broker_connections_total", &[]).await;
        assert_eq!(connections, self.connections, "{what} broke a connection");
        result
    }

    /// The same for a job that must be sent like any other.
    async fn sent(&mut self, what: &str, message: RawMessage) {
        if let Some(result) = self.throw(what, message).await {
            assert_eq!(ending(&result), ("accepted".to_owned(), 1, false), "{what}");
        }
    }

    /// The same for a body that cannot be understood. Returns the result, and the copy that is kept for
    /// people.
    async fn refused(&mut self, what: &str, message: RawMessage) -> Option<(Received, Received)> {
        let result = self.throw(what, message).await?;
        assert_eq!(ending(&result), ("invalid".to_owned(), 0, false), "{what}");
        Some((result, self.copies.next(LIMIT).await))
    }

    async fn end(mut self) {
        self.running.until_settled(&self.stage.names).await;
        assert_eq!(self.running.stop().await, Some(0));
        assert_eq!(Broker::shared().await.queue_depth(&self.stage.names.jobs).await, Some(0));
    }
}

fn good_body() -> Vec<u8> {
    json!({"Phone": PHONE, "MultiChannelTempId": "1234"}).to_string().into_bytes()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[tokio::test]
async fn bodies_that_are_no_job_are_refused_however_large_deep_or_garbled() {
    let mut siege = Siege::lay().await;
    let mib = 1024 * 1024;
    let good = String::from_utf8(good_body()).unwrap();
    let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    let within = |depth: usize| {
        let inner = String::from_utf8(nested(depth)).unwrap();
        format!("{{\"Phone\":\"{PHONE}\",\"MultiChannelTempId\":{inner}}}").into_bytes()
    };
    for (what, body, reason) in [
        ("10 MiB of JSON", format!("{{\"x\":\"{}\"}}", "y".repeat(10 * mib)).into_bytes(), "larger than"),
        ("10 MiB of nothing", vec![0xFF; 10 * mib], "larger than"),
        ("nesting of 100,000", nested(100_000), "larger than"),
        ("nesting of 30,000", nested(30_000), "JSON"),
        ("half a nesting", vec![b'['; 60_000], "JSON"),
        ("a nested field", within(30_000), "MultiChannelTempId"),
        ("60,000 open objects", b"{\"a\":".repeat(12_000), "JSON"),
        ("UTF-16", utf16(&good), "JSON"),
        ("UTF-16 with a mark", utf16(&format!("\u{feff}{good}")), "UTF-8"),
        ("bytes that are no UTF-8", b"{\"Phone\":\"\xC3\x28\xFF\"}".to_vec(), "UTF-8"),
        ("half a surrogate", b"{\"Phone\":\"\\ud800\"}".to_vec(), "Phone"),
        ("nothing", Vec::new(), "JSON"),
        ("zeros", vec![0; 1000], "JSON"),
        ("a long number", format!("{{\"TimeAlive\":{}}}", "9".repeat(60_000)).into_bytes(), "Phone is missing"),
    ] {
        let (result, copy) = siege.refused(what, RawMessage::new(body.clone())).await.expect(what);
        assert!(field(&result, "Reason").contains(reason), "{what}: {}", field(&result, "Reason"));
        let withheld = copy.body.starts_with(b"[withheld");
        assert!(copy.body == body || withheld, "{what}: a copy of {} bytes", copy.body.len());
    }
    siege.end().await;
}

/// Headers that some producer has written, and worse ones.
fn hostile_headers() -> Vec<(String, Vec<u8>)> {
    let mut rows = vec![
        ("1,000 tables within each other".to_owned(), nested_table(1_000)),
        ("3,000 tables within each other".to_owned(), nested_table(3_000)),
        ("a name that is not UTF-8".to_owned(), table(&[(b"\xFF\xFE", b'S', long_string("x"))])),
        ("a value that is not UTF-8".to_owned(), table(&[(b"traceparent", b'S', long_string(b"\xFF\xFE"))])),
        ("no name".to_owned(), table(&[(b"", b'S', long_string("x"))])),
        ("one name twice".to_owned(), table(&[(b"a", b'V', vec![]), (b"a", b't', vec![1])])),
        ("120 KB in one value".to_owned(), table(&[(b"big", b'S', long_string(vec![b'x'; 120_000]))])),
        ("a table that ends early".to_owned(), long_string(b"\x01aS\x00\x00\x00\xFFx")),
        (
            "traces that are none".to_owned(),
            table(&[(b"traceparent", b'I', vec![0; 4]), (b"tracestate", b'F', table(&[]))]),
        ),
    ];
    let many: Vec<_> = (0..8_000).map(|n| format!("name-{n:05}")).collect();
    let entries: Vec<(&[u8], u8, Vec<u8>)> = many.iter().map(|name| (name.as_bytes(), b't', vec![1])).collect();
    rows.push(("8,000 names".to_owned(), table(&entries)));
    // Every field type that a client writes, and some that no client writes.
    for (kind, size) in [
        (b't', 1),
        (b'b', 1),
        (b'B', 1),
        (b's', 2),
        (b'u', 2),
        (b'U', 2),
        (b'I', 4),
        (b'i', 4),
        (b'l', 8),
        (b'L', 8),
        (b'f', 4),
        (b'd', 8),
        (b'D', 5),
        (b'T', 8),
        (b'V', 0),
        (b'x', 4),
        (b'A', 4),
        (b'F', 4),
        (b'S', 4),
        (b'?', 0),
    ] {
        rows.push((format!("a field of type {}", kind as char), table(&[(b"field", kind, vec![0; size])])));
    }
    rows
}

#[tokio::test]
async fn hostile_headers_on_a_good_job_do_not_keep_it_from_being_sent() {
    let mut siege = Siege::lay().await;
    let mut rows = hostile_headers();
    // As deep as fits into a frame. The broker itself needs seconds for it, so there is only one.
    rows.push(("15,000 tables within each other".to_owned(), nested_table(15_000)));
    for (what, headers) in rows {
        let message = RawMessage::new(good_body()).with(property::HEADERS, headers);
        siege.sent(&what, message).await;
    }
    siege.end().await;
}

#[tokio::test]
async fn hostile_headers_on_a_job_that_is_refused_do_not_keep_its_copy_from_people() {
    let mut siege = Siege::lay().await;
    let mut rows = hostile_headers();
    // With the reason added, the copy's headers would not fit into the one frame that they must be in.
    let full = 128 * 1024 - 8 - 14 - 4;
    let value = long_string(vec![b'x'; full - 4 - 4 - 1]);
    rows.push(("headers that fill their frame".to_owned(), table(&[(b"big", b'S', value)])));
    for (what, headers) in rows {
        let message = RawMessage::new("no job").with(property::HEADERS, headers);
        let Some((result, copy)) = siege.refused(&what, message).await else { continue };
        let error = copy.properties.headers().as_ref().and_then(|headers| headers.inner().get("x-error").cloned());
        let error = error.and_then(|error| error.as_long_string().map(ToString::to_string));
        assert_eq!(error, Some(field(&result, "Reason")), "{what}");
    }
    siege.end().await;
}

#[tokio::test]
async fn hostile_properties_are_told_to_the_producer_or_do_not_matter() {
    let mut siege = Siege::lay().await;
    let garbled = || short_string(b"\xC3\x28\xFF");
    let good = || RawMessage::new(good_body());
    let result = siege.throw("a garbled id", good().with(property::MESSAGE_ID, garbled())).await.expect("a result");
    assert_eq!(ending(&result).0, "invalid");
    assert_eq!(field(&result, "Reason"), "message_id is not UTF-8");
    for (what, bit) in [
        ("content_type", property::CONTENT_TYPE),
        ("content_encoding", property::CONTENT_ENCODING),
        ("correlation_id", property::CORRELATION_ID),
        ("type", property::TYPE),
        ("app_id", property::APP_ID),
    ] {
        siege.sent(what, good().with(bit, garbled())).await;
    }
    for (what, bit, value) in [
        ("delivery mode 0", property::DELIVERY_MODE, vec![0]),
        ("priority 255", property::PRIORITY, vec![255]),
        ("a time beyond all time", property::TIMESTAMP, vec![255; 8]),
        ("a correlation id of 255 bytes", property::CORRELATION_ID, short_string([b'c'; 255])),
        ("an empty correlation id", property::CORRELATION_ID, short_string("")),
    ] {
        siege.sent(what, good().with(bit, value)).await;
    }
    siege.end().await;
}

#[tokio::test]
async fn a_garbled_reply_to_does_not_keep_the_result_from_the_exchange() {
    let stage = Stage::new().await;
    let running = stage.worker().await;
    let (_client, mut results) = stage.audience().await;
    for reply_to in [&b"\xFF\xFE"[..], &[b'r'; 255], b"\x00"] {
        let message = RawMessage::new(good_body()).with(property::REPLY_TO, short_string(reply_to));
        message.publish(Broker::shared().await.port(), &stage.names.jobs).await.unwrap();
        assert_eq!(ending(&results.next(LIMIT).await).0, "accepted");
    }
    running.until_settled(&stage.names).await;
}

/// An `x-death` header in the form that the broker writes, but written by somebody else.
fn forged_death(reason: &str) -> Vec<u8> {
    let death = table(&[
        (b"count", b'l', 1_i64.to_be_bytes().to_vec()),
        (b"reason", b'S', long_string(reason)),
        (b"queue", b'S', long_string("otp.jobs")),
    ]);
    table(&[(b"x-death", b'A', long_string([b"F".to_vec(), death].concat()))])
}

#[tokio::test]
async fn a_forged_death_on_the_queue_of_jobs_means_nothing() {
    let mut siege = Siege::lay().await;
    let count = |count: i64| table(&[(b"x-delivery-count", b'l', count.to_be_bytes().to_vec())]);
    for (what, headers) in [
        ("a forged expiry", forged_death("expired")),
        ("a forged limit", forged_death("delivery_limit")),
        ("a forged nonsense", forged_death("{\"CANARY\"}")),
        ("a death that is no list", table(&[(b"x-death", b'S', long_string("expired"))])),
        ("an empty list of deaths", table(&[(b"x-death", b'A', long_string(""))])),
        ("a forged delivery count", count(19)),
        ("a negative delivery count", count(-1)),
        ("the largest delivery count", count(i64::MAX)),
    ] {
        let message = RawMessage::new(good_body()).with(property::HEADERS, headers);
        siege.sent(what, message).await;
    }
    siege.end().await;
}

#[tokio::test]
async fn a_forged_delivery_count_does_not_upset_a_repeat() {
    let stage = Stage::new().await;
    stage.sandbox.script(None, vec![Fault::Hold]);
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    tokio::time::timeout(LIMIT, stage.sandbox.wait_until_held(1)).await.unwrap();
    let largest = table(&[(b"x-delivery-count", b'l', i64::MAX.to_be_bytes().to_vec())]);
    let repeat = RawMessage::new(good_body()).with(property::MESSAGE_ID, short_string("a-job"));
    repeat.with(property::HEADERS, largest).publish(Broker::shared().await.port(), &stage.names.jobs).await.unwrap();
    running.until_metric("otp_redeliveries_total", &[("found", "in_flight")], 1.0).await;
    stage.sandbox.release_held();
    let results = results.collect(2, LIMIT).await;
    assert_eq!(results.len(), 2);
    assert!(results.iter().all(|result| ending(result) == ("accepted".to_owned(), 1, false)));
}
