//! What producers' clients do to a job: times in whole seconds, compressed bodies, empty properties, odd headers.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable};
use serde_json::{Value, json};

use crate::stage::{LIMIT, PHONE, Stage, ending, field};
use crate::support::client::Job;
use crate::support::metrics::Scrape;

fn accepted() -> (String, u64, bool) {
    ("accepted".into(), 1, false)
}

fn body() -> Value {
    json!({"Phone": PHONE, "MultiChannelTempId": "1234"})
}

/// AMQP's timestamps have whole seconds: this job was made in this second, and may live for half a second.
#[tokio::test]
async fn a_job_with_half_a_second_to_live_is_sent_by_an_idle_worker() {
    let stage = Stage::new().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    for n in 0..20 {
        let job = Job::for_phone(PHONE, &format!("job-{n}"));
        let job = job.timestamp(SystemTime::now()).expiration(Duration::from_millis(500));
        client.publish(&stage.names.jobs, job).await;
        assert_eq!(ending(&results.next(LIMIT).await), accepted(), "{n}");
    }
    running.until_settled(&stage.names).await;
    // The time on the queue is a floor: what may be rounding is not counted.
    let waited = Scrape::of(running.http).await.value("otp_job_queue_seconds_sum", &[]).expect("a sum");
    assert!(waited < 20.0 * 0.4, "20 jobs that did not wait: {waited} s");
}

#[tokio::test]
async fn a_job_whose_time_is_wrong_by_hours_says_how_old_it_seems() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let seven_hours_ago = SystemTime::now() - Duration::from_secs(7 * 3600);
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "late").timestamp(seven_hours_ago)).await;
    let result = results.next(LIMIT).await;
    assert_eq!(ending(&result).0, "expired");
    let reason = field(&result, "Reason");
    assert!(reason.contains("6h 59m 59s") || reason.contains("7h"), "{reason}");
    assert!(reason.contains("time zone"), "{reason}");
}

#[tokio::test]
async fn times_that_say_nothing_count_from_arrival() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs();
    for timestamp in [0, now * 1_000, now + 3_600, u64::from(u32::MAX)] {
        let job = Job::for_phone(PHONE, &format!("at-{timestamp}")).with(|it| it.with_timestamp(timestamp));
        client.publish(&stage.names.jobs, job).await;
        assert_eq!(ending(&results.next(LIMIT).await), accepted(), "{timestamp}");
    }
}

#[tokio::test]
async fn an_empty_correlation_id_is_none() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job").correlation_id("")).await;
    let result = results.next(LIMIT).await;
    assert_eq!(result.properties.correlation_id().as_ref().map(|id| id.as_str()), Some("a-job"));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[tokio::test]
async fn a_body_is_read_however_a_serialiser_or_a_client_has_packed_it() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let text = body().to_string();
    let amqp_1_0 = [&[0x00, 0x53, 0x77, 0xa1, text.len() as u8], text.as_bytes()].concat();
    let jobs = [
        Job::bytes(format!("\u{feff}{text}")),
        Job::bytes(gzip(text.as_bytes())).with(|it| it.with_content_encoding("gzip".into())),
        Job::bytes(text.clone()).with(|it| it.with_content_encoding("utf-8".into())),
        Job::bytes(amqp_1_0).with(|it| it.with_type("amqp-1.0".into())),
        Job::bytes(text.replace('}', r#","TimeAlive":5.0,"TypeId":2.0}"#)),
    ];
    for (n, job) in jobs.into_iter().enumerate() {
        client.publish(&stage.names.jobs, job.id(&format!("job-{n}"))).await;
        assert_eq!(ending(&results.next(LIMIT).await), accepted(), "{n}");
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_unpacked_is_invalid_and_says_so() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let bomb = gzip(&vec![b' '; 10 * 1024 * 1024]);
    let cut = gzip(body().to_string().as_bytes())[..20].to_vec();
    let encoding = "content_encoding must be absent, identity, utf-8 or gzip: the body cannot be read";
    for (n, (bytes, encoding, reason)) in [
        (b"\xce\xb2\xcf".to_vec(), "br", encoding),
        (cut, "gzip", "the body is gzip that is cut short or damaged"),
        (bomb, "gzip", "the body is larger than 65536 bytes"),
    ]
    .into_iter()
    .enumerate()
    {
        let job = Job::bytes(bytes).id(&format!("job-{n}")).with(|it| it.with_content_encoding(encoding.into()));
        client.publish(&stage.names.jobs, job).await;
        let result = results.next(LIMIT).await;
        assert_eq!((ending(&result).0.as_str(), field(&result, "Reason").as_str()), ("invalid", reason));
    }
}

#[tokio::test]
async fn a_reply_to_the_workers_own_queues_is_not_sent() {
    let stage = Stage::new().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    for queue in [&stage.names.jobs, &stage.names.dropped, &stage.names.dead, &stage.names.unrouted] {
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, queue).reply_to(queue)).await;
        assert_eq!(ending(&results.next(LIMIT).await), accepted());
    }
    running.until_settled(&stage.names).await;
    // A result that came back as a job would have ended as invalid.
    assert_eq!(running.metric("otp_jobs_total", &[("outcome", "invalid")]).await, 0.0);
    assert_eq!(running.process.log_containing("reply_to names a queue of the worker").len(), 4);
}

#[tokio::test]
async fn headers_of_every_type_copies_and_a_priority_do_not_matter() {
    let stage = Stage::new().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let mut headers = FieldTable::default();
    let array: FieldArray = vec![AMQPValue::LongInt(1), AMQPValue::Void].into();
    for (name, value) in [
        ("bool", AMQPValue::Boolean(true)),
        ("i8", AMQPValue::ShortShortInt(-1)),
        ("i16", AMQPValue::ShortInt(-1)),
        ("u32", AMQPValue::LongUInt(7)),
        ("f32", AMQPValue::Float(1.5)),
        ("f64", AMQPValue::Double(1.5)),
        ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 })),
        ("time", AMQPValue::Timestamp(7)),
        ("bytes", AMQPValue::ByteArray(vec![0, 255].into())),
        ("array", AMQPValue::FieldArray(array)),
        ("table", AMQPValue::FieldTable(FieldTable::default())),
        ("void", AMQPValue::Void),
        ("x-delivery-count", AMQPValue::LongString("many".into())),
        ("BCC", AMQPValue::FieldArray(vec![AMQPValue::LongString("nowhere".into())].into())),
    ] {
        headers.insert(name.into(), value);
    }
    let job = Job::for_phone(PHONE, "a-job").with(|it| it.with_headers(headers).with_priority(9));
    client.publish(&stage.names.jobs, job).await;
    assert_eq!(ending(&results.next(LIMIT).await), accepted());
    running.until_settled(&stage.names).await;
}

#[tokio::test]
async fn a_number_that_is_the_id_is_masked_in_the_log() {
    let stage = Stage::new().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    for id in [PHONE, "otp-84901888484"] {
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, id)).await;
        assert_eq!(ending(&results.next(LIMIT).await), accepted());
    }
    running.until_settled(&stage.names).await;
    let log = running.process.log().join("\n");
    assert!(!log.contains("901888484") && log.contains("otp-84******484"), "{log}");
}
