//! Every rule of the job table: from the producer's bytes to what eSMS receives or the producer is told.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::{Json, Router, routing::post};
use esms_otp_worker::sandbox::Fault;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::stage::{LIMIT, PHONE, Running, Stage, ending, field};
use crate::support::broker::Broker;
use crate::support::client::{Client, Job, Received, Results};
use crate::support::metrics::get;

/// Accepts every request, and keeps it word for word.
struct Recorder {
    url: String,
    seen: Arc<Mutex<Vec<Value>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Recorder {
    async fn start() -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&seen);
        let answer = move |Json(body): Json<Value>| {
            keep.lock().unwrap().push(body);
            std::future::ready(Json(json!({"CodeResult": "100", "SMSID": "recorded", "CountRegenerate": 0})))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/V5", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            axum::serve(listener, Router::new().route("/V5", post(answer))).await.unwrap();
        });
        Self { url, seen, _serving: AbortOnDropHandle::new(serving) }
    }

    fn last(&self) -> Value {
        self.seen.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

/// Publishes jobs one after the other, and gets the result of each.
struct Desk<'a> {
    stage: &'a Stage,
    running: Running,
    client: Client,
    results: Results,
}

impl<'a> Desk<'a> {
    async fn open(stage: &'a Stage) -> Self {
        let running = stage.worker().await;
        let (client, results) = stage.audience().await;
        Self { stage, running, client, results }
    }

    async fn result_of(&mut self, job: Job) -> Received {
        self.client.publish(&self.stage.names.jobs, job).await;
        self.results.next(LIMIT).await
    }

    async fn copies(&self) -> Results {
        self.client.consume(&self.stage.names.dead).await
    }
}

fn id() -> String {
    Uuid::new_v4().to_string()
}

fn request(phone: &str, template: &str) -> Value {
    json!({"ApiKey": "sandbox-key", "SecretKey": "sandbox-secret", "Phone": phone,
        "MultiChannelTempId": template, "TypeId": "2"})
}

fn with(mut json: Value, field: &str, value: impl Into<Value>) -> Value {
    json[field] = value.into();
    json
}

#[tokio::test]
async fn what_producers_write_in_many_ways_reaches_esms_in_one() {
    let recorder = Recorder::start().await;
    let mut stage = Stage::new().await;
    stage.set("ESMS_URL", &recorder.url).set("ESMS_TEMPLATE_ID", "default");
    let mut desk = Desk::open(&stage).await;
    let plain = request(PHONE, "1234");
    let job = json!({"Phone": PHONE, "MultiChannelTempId": "1234"});
    let mut rows = vec![(job.clone(), plain.clone())];
    for (written, digits) in [
        ("84901888484", "84901888484"),
        ("+84901888484", "84901888484"),
        ("0901 888 484", PHONE),
        ("090.188.8484", PHONE),
        ("090-188-84-84", PHONE),
        ("+84 90.188-8484", "84901888484"),
        ("12345678", "12345678"),
        ("123456789012345", "123456789012345"),
    ] {
        rows.push((with(job.clone(), "Phone", written), request(digits, "1234")));
    }
    for (written, template) in [(json!(1234), "1234"), (json!("tổng đài"), "tổng đài"), (json!(0), "0")] {
        rows.push((with(job.clone(), "MultiChannelTempId", written), request(PHONE, template)));
    }
    rows.push((json!({"Phone": PHONE}), request(PHONE, "default")));
    for (written, kind) in [(json!("1"), "1"), (json!("2"), "2"), (json!(1), "1"), (json!(2), "2")] {
        rows.push((with(job.clone(), "TypeId", written), with(plain.clone(), "TypeId", kind)));
    }
    for (written, minutes) in [(json!("5"), "5"), (json!(5), "5"), (json!(1440), "1440")] {
        rows.push((with(job.clone(), "TimeAlive", written), with(plain.clone(), "TimeAlive", minutes)));
    }
    for unknown in [json!("text"), json!(null), json!({"a": [1, {"b": null}]}), json!(1e300)] {
        rows.push((with(job.clone(), "Campaign", unknown), plain.clone()));
    }
    rows.push((with(with(job.clone(), "phone", "1"), "apikeys", "2"), plain.clone()));
    for (body, expected) in rows {
        let result = desk.result_of(Job::new(body.clone()).id(&id())).await;
        assert_eq!(ending(&result), ("accepted".to_owned(), 1, false), "{body}: {result:?}");
        assert_eq!(recorder.last(), expected, "{body}");
    }
    // A number keeps its digits, however many there are. White space around the JSON does not matter.
    let long = format!(" \n{{\"Phone\":\"{PHONE}\",\"MultiChannelTempId\":12345678901234567890123}}\r\n");
    desk.result_of(Job::bytes(long).id(&id())).await;
    assert_eq!(recorder.last(), request(PHONE, "12345678901234567890123"));
}

/// Bodies that are refused, and the words that the reason must contain: the field and its rule.
fn refused_bodies() -> Vec<(String, [&'static str; 2])> {
    let job = json!({"Phone": PHONE, "MultiChannelTempId": "1234"});
    let mut rows = Vec::new();
    for phone in ["1234567", "1234567890123456"] {
        rows.push((with(job.clone(), "Phone", phone), ["Phone", "8 to 15 digits"]));
    }
    for phone in ["", "++84901888484", "0901888484x", "(090)1888484", " 0901888484", "0901888484-", "٠٩٠١٨٨٨٤٨٤"]
    {
        rows.push((with(job.clone(), "Phone", phone), ["Phone", "must be digits"]));
    }
    for phone in [json!(901_888_484), json!(true), json!([PHONE]), json!({"a": PHONE})] {
        rows.push((with(job.clone(), "Phone", phone), ["Phone", "must be a string of digits"]));
    }
    rows.push((json!({"MultiChannelTempId": "1234"}), ["Phone", "missing"]));
    rows.push((with(job.clone(), "Phone", Value::Null), ["Phone", "missing"]));
    rows.push((json!({"Phone": PHONE}), ["MultiChannelTempId", "missing"]));
    for template in [json!(""), json!("  "), json!(1.5), json!(-1), json!(true), json!([]), json!({})] {
        rows.push((with(job.clone(), "MultiChannelTempId", template), ["MultiChannelTempId", "non-empty string"]));
    }
    for kind in [json!("3"), json!(0), json!(""), json!(" 2"), json!("02"), json!(true), json!(["2"])] {
        rows.push((with(job.clone(), "TypeId", kind), ["TypeId", "\"1\" or \"2\""]));
    }
    for minutes in [json!(0), json!("0"), json!(-5), json!("5m"), json!(1.5), json!(""), json!([5]), json!(99e9)] {
        rows.push((with(job.clone(), "TimeAlive", minutes), ["TimeAlive", "positive whole number"]));
    }
    let mut rows: Vec<(String, _)> = rows.into_iter().map(|(body, words)| (body.to_string(), words)).collect();
    for body in ["", "   ", "null_", "{", "{\"Phone\":\"0901888484\"", "{'Phone':'0901888484'}", "Phone=0901888484"] {
        rows.push((body.to_owned(), ["body", "not valid JSON"]));
    }
    for body in ["null", "[]", "\"0901888484\"", "[\"0901888484\",\"1234\"]", "42"] {
        rows.push((body.to_owned(), ["body", "JSON object"]));
    }
    rows.push((format!("{{\"Phone\":\"{PHONE}\",\"Phone\":\"{PHONE}\"}}"), ["body", "twice"]));
    rows
}

#[tokio::test]
async fn what_breaks_a_rule_is_invalid_with_its_reason_and_a_copy_for_people() {
    let stage = Stage::new().await;
    let mut desk = Desk::open(&stage).await;
    let mut copies = desk.copies().await;
    let rows = refused_bodies();
    for (body, words) in &rows {
        let id = id();
        let result = desk.result_of(Job::bytes(body.as_str()).id(&id).correlation_id("mine")).await;
        assert_eq!(ending(&result), ("invalid".to_owned(), 0, false), "{body}: {result:?}");
        assert_eq!(field(&result, "JobId"), id);
        let reason = field(&result, "Reason");
        assert!(words.iter().all(|word| reason.contains(word)), "{body}: {reason}");
        assert!(!reason.contains("1888484"), "{body}: {reason}");
        let copy = copies.next(LIMIT).await;
        assert_eq!(copy.body, body.as_bytes());
        assert_eq!(x_error(&copy), reason);
        assert_eq!(copy.properties.message_id().as_ref().unwrap().as_str(), id);
        assert_eq!(copy.properties.correlation_id().as_ref().unwrap().as_str(), "mine");
        assert_eq!(copy.properties.delivery_mode(), &Some(2));
    }
    desk.running.until_metric("otp_dead_lettered_total", &[], rows.len() as f64).await;
    desk.running.until_metric("otp_jobs_total", &[("outcome", "invalid")], rows.len() as f64).await;
    desk.running.until_settled(&stage.names).await;
    assert_eq!(Broker::shared().await.queue_depth(&stage.names.jobs).await, Some(0));
    assert_eq!(stage.sandbox.stats().requests, 0);
}

fn x_error(copy: &Received) -> String {
    let headers = copy.properties.headers().as_ref().expect("headers");
    let error = headers.inner().get("x-error").and_then(|value| value.as_long_string()).expect("x-error");
    String::from_utf8_lossy(error.as_bytes()).into_owned()
}

#[tokio::test]
async fn credentials_in_a_job_make_it_invalid_and_their_values_are_nowhere() {
    let stage = Stage::new().await;
    let mut desk = Desk::open(&stage).await;
    let mut copies = desk.copies().await;
    let good = format!("\"Phone\":\"{PHONE}\",\"MultiChannelTempId\":\"1\"");
    let mut published = String::new();
    for (body, named) in [
        (format!("{{{good},\"ApiKey\":\"CANARY\"}}"), "ApiKey"),
        (format!("{{{good},\"SecretKey\":\"CANARY\"}}"), "SecretKey"),
        (format!("{{{good},\"SecretKey\":\"CANARY\",\"ApiKey\":\"CANARY\"}}"), "ApiKey"),
        (format!("{{{good},\"ApiKey\":null,\"secretkey\":\"CANARY\"}}"), "ApiKey"),
        (format!("{{{good},\"ApiKey\":{{\"is\":[\"CANARY\"]}}}}"), "ApiKey"),
        (format!("{{{good},\"Api\\u004bey\":\"CANARY\"}}"), "ApiKey"),
        (format!("{{{good},\"ApiKey\":\"CANARY\",\"ApiKey\":\"CANARY\"}}"), "twice"),
        (format!("{{{good},\"ApiKey\":\"CANARY\""), "JSON"),
        (format!("[{{{good},\"ApiKey\":\"CANARY\"}}]"), "object"),
        ("ApiKey=CANARY&SecretKey=CANARY".to_owned(), "JSON"),
    ] {
        let result = desk.result_of(Job::bytes(body.as_str()).id(&id())).await;
        assert_eq!(ending(&result).0, "invalid", "{body}");
        assert!(field(&result, "Reason").contains(named), "{body}: {}", field(&result, "Reason"));
        let copy = copies.next(LIMIT).await;
        published += &format!("{result:?} {copy:?} ");
        published += &format!("{} {} ", String::from_utf8_lossy(&result.body), String::from_utf8_lossy(&copy.body));
    }
    published += &get(desk.running.http, "/metrics").await.1;
    published += &desk.running.process.log().join("\n");
    assert!(!published.contains("CANARY"), "{published}");
    assert_eq!(stage.sandbox.stats().requests, 0);
}

#[tokio::test]
async fn a_message_id_of_200_bytes_is_the_job_s_and_one_of_201_is_invalid() {
    let stage = Stage::new().await;
    let mut desk = Desk::open(&stage).await;
    for longest in ["i".repeat(200), "é".repeat(100)] {
        let result = desk.result_of(Job::for_phone(PHONE, &longest)).await;
        assert_eq!((ending(&result).0, field(&result, "JobId")), ("accepted".to_owned(), longest.clone()));
        assert_eq!(result.properties.message_id().as_ref().unwrap().as_str(), format!("{longest}:result"));
    }
    for too_long in ["i".repeat(201), "é".repeat(101), "i".repeat(255)] {
        let result = desk.result_of(Job::for_phone(PHONE, &too_long)).await;
        assert_eq!(ending(&result), ("invalid".to_owned(), 0, false));
        let reason = field(&result, "Reason");
        assert!(reason.contains("message_id") && reason.contains("200 bytes"), "{reason}");
        assert_eq!(result.properties.correlation_id().as_ref().unwrap().as_str(), too_long);
    }
    assert_eq!(stage.sandbox.accepted(PHONE), 2);
}

#[tokio::test]
async fn a_job_without_an_id_gets_one_and_its_repeat_is_another_job() {
    let stage = Stage::new().await;
    let mut desk = Desk::open(&stage).await;
    let body = json!({"Phone": PHONE, "MultiChannelTempId": "1234"});
    let mut ids = std::collections::BTreeSet::new();
    for job in [Job::new(body.clone()), Job::new(body.clone()), Job::new(body.clone()).id(""), Job::new(body).id("")] {
        let result = desk.result_of(job).await;
        assert_eq!(ending(&result).0, "accepted");
        assert_eq!(result.properties.correlation_id().as_ref().unwrap().as_str(), field(&result, "JobId"));
        ids.insert(field(&result, "JobId"));
    }
    assert_eq!(ids.len(), 4, "{ids:?}");
    assert_eq!(stage.sandbox.accepted(PHONE), 4);
}

#[tokio::test]
async fn a_repeat_gets_the_same_result_again_and_is_sent_once() {
    let stage = Stage::new().await;
    let mut desk = Desk::open(&stage).await;
    let first = desk.result_of(Job::for_phone(PHONE, "a-job").correlation_id("first")).await;
    // Written differently, but the same job.
    let written = json!({"TypeId": 2, "MultiChannelTempId": 1234, "Phone": "0901.888.484", "Campaign": 7});
    for (job, asked_as) in [
        (Job::for_phone(PHONE, "a-job").correlation_id("second"), "second"),
        (Job::new(written).id("a-job").correlation_id("third"), "third"),
    ] {
        // A result is published before its job is acknowledged. Without this wait, a repeat could join the
        // job that is still in flight.
        desk.running.until_metric("otp_jobs_in_flight", &[], 0.0).await;
        let again = desk.result_of(job).await;
        assert_eq!((&again.routing_key, &again.body), (&first.routing_key, &first.body));
        assert_eq!(again.properties.message_id(), first.properties.message_id());
        assert_eq!(again.properties.correlation_id().as_ref().unwrap().as_str(), asked_as);
    }
    assert_eq!(stage.sandbox.accepted(PHONE), 1);
    desk.running.until_metric("otp_redeliveries_total", &[("found", "done")], 2.0).await;
    desk.running.until_metric("otp_jobs_total", &[("outcome", "accepted")], 1.0).await;
}

#[tokio::test]
async fn another_job_under_a_used_id_is_invalid_and_says_so() {
    let stage = Stage::new().await;
    let mut desk = Desk::open(&stage).await;
    assert_eq!(ending(&desk.result_of(Job::for_phone(PHONE, "a-job")).await).0, "accepted");
    let others = [
        json!({"Phone": "0901888485", "MultiChannelTempId": "1234"}),
        json!({"Phone": PHONE, "MultiChannelTempId": "1235"}),
        json!({"Phone": PHONE, "MultiChannelTempId": "1234", "TypeId": "1"}),
        json!({"Phone": PHONE, "MultiChannelTempId": "1234", "TimeAlive": 5}),
    ];
    for other in others {
        let result = desk.result_of(Job::new(other).id("a-job")).await;
        assert_eq!(ending(&result), ("invalid".to_owned(), 0, false));
        assert!(field(&result, "Reason").contains("message_id was used before"), "{result:?}");
    }
    assert_eq!(stage.sandbox.accepted_total(), 1);
    assert_eq!(Broker::shared().await.queue_depth(&stage.names.dead).await, Some(4));
}

#[tokio::test]
async fn repeats_while_the_job_is_in_flight_join_it_and_another_job_does_not() {
    let stage = Stage::new().await;
    stage.sandbox.script(None, vec![Fault::Hold]);
    let mut desk = Desk::open(&stage).await;
    desk.client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    tokio::time::timeout(LIMIT, stage.sandbox.wait_until_held(1)).await.unwrap();
    let other = desk.result_of(Job::for_phone("0901888485", "a-job")).await;
    assert_eq!(ending(&other).0, "invalid");
    desk.client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    desk.running.until_metric("otp_redeliveries_total", &[("found", "in_flight")], 1.0).await;
    stage.sandbox.release_held();
    let results = desk.results.collect(2, LIMIT).await;
    assert_eq!(results.len(), 2);
    assert!(results.iter().all(|result| result.body == results[0].body && ending(result).0 == "accepted"));
    assert_eq!(stage.sandbox.accepted_total(), 1);
    desk.running.until_settled(&stage.names).await;
}

fn ago(seconds: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(seconds)
}

#[tokio::test]
async fn a_job_past_its_deadline_is_never_sent() {
    let mut stage = Stage::new().await;
    stage.set("OTP_JOB_TTL", "1m");
    let mut desk = Desk::open(&stage).await;
    let minute = Duration::from_secs(60);
    for job in [
        Job::for_phone(PHONE, "older-than-the-ttl").timestamp(ago(62)),
        Job::for_phone(PHONE, "the-ttl-is-the-smaller").timestamp(ago(62)).expiration(60 * minute),
        Job::for_phone(PHONE, "the-expiration-is-the-smaller").timestamp(ago(31)).expiration(minute / 2),
        Job::for_phone(PHONE, "from-1970").timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(1)),
    ] {
        let result = desk.result_of(job).await;
        assert_eq!(ending(&result), ("expired".to_owned(), 0, false), "{result:?}");
        assert!(field(&result, "Reason").contains("deadline"));
    }
    assert_eq!(stage.sandbox.stats().requests, 0);
}

#[tokio::test]
async fn a_job_without_a_time_or_with_one_to_come_counts_from_its_arrival() {
    let mut stage = Stage::new().await;
    stage.set("OTP_JOB_TTL", "1m");
    let mut desk = Desk::open(&stage).await;
    let to_come = SystemTime::now() + Duration::from_secs(3600);
    let in_milliseconds = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000_000);
    for job in [
        Job::for_phone(PHONE, "no-time"),
        Job::for_phone(PHONE, "young").timestamp(ago(2)),
        Job::for_phone(PHONE, "to-come").timestamp(to_come),
        Job::for_phone(PHONE, "in-milliseconds").timestamp(in_milliseconds),
        Job::for_phone(PHONE, "beyond-all-time").with(|properties| properties.with_timestamp(u64::MAX)),
    ] {
        let result = desk.result_of(job).await;
        assert_eq!(ending(&result), ("accepted".to_owned(), 1, false), "{result:?}");
    }
    // The deadline does come: half a second after the arrival it ends the retries.
    stage.sandbox.script(None, vec![Fault::Status { code: 503, retry_after: None }; 1000]);
    let result = desk.result_of(Job::for_phone(PHONE, "short").expiration(Duration::from_millis(500))).await;
    assert_eq!(ending(&result).0, "expired");
    assert!(ending(&result).1 > 0);
}
