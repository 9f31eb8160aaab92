//! What a collector of traces receives, and that it cannot disturb the jobs.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};

use axum::http::StatusCode;
use esms_otp_worker::sandbox::Fault;
use lapin::types::AMQPValue;
use serde_json::json;

use crate::stage::{LIMIT, PHONE, Stage, ending};
use crate::support::client::{Job, Received};
use crate::support::collector::{Collector, Span};
use crate::support::wait::until;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PRODUCER: &str = "00f067aa0ba902b7";
const OTHER_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

const CLIENT_KIND: i32 = 3;
const PRODUCER_KIND: i32 = 4;
const CONSUMER_KIND: i32 = 5;

/// A stage with workers that export to a collector.
async fn traced() -> (Stage, Collector) {
    let (mut stage, collector) = (Stage::new().await, Collector::start().await);
    stage.set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url());
    (stage, collector)
}

fn traceparent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{PRODUCER}-{flags}")
}

fn header(message: &Received, name: &str) -> Option<String> {
    let headers = message.properties.headers().as_ref()?;
    headers.inner().get(name).and_then(AMQPValue::as_long_string).map(ToString::to_string)
}

/// The result of one job. The worker is stopped, so every span is exported.
async fn one_job(stage: &Stage, job: Job) -> Received {
    let mut running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, job).await;
    let result = results.next(LIMIT).await;
    running.until_settled(&stage.names).await;
    assert_eq!(running.stop().await, Some(0));
    result
}

fn process(stage: &Stage) -> String {
    format!("process {}", stage.names.jobs)
}

fn publish(stage: &Stage) -> String {
    format!("publish {}", stage.names.results)
}

fn only(mut spans: Vec<Span>) -> Span {
    assert_eq!(spans.len(), 1, "{spans:#?}");
    spans.remove(0)
}

fn are(expected: &[(&str, &str)]) -> BTreeMap<String, String> {
    expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn of_delivery(stage: &Stage, outcome: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut expected = are(&[
        ("messaging.system", "rabbitmq"),
        ("messaging.operation.type", "process"),
        ("messaging.operation.name", "process"),
        ("messaging.destination.name", &stage.names.jobs),
        ("messaging.message.id", "a-job"),
    ]);
    expected.extend(are(outcome));
    expected
}

fn of_call(stage: &Stage, number: &str, ended: &[(&str, &str)]) -> BTreeMap<String, String> {
    let address = stage.sandbox.addr();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let url = stage.sandbox.send_url();
    let path = url.strip_prefix(&stage.sandbox.url()).expect("a path").to_owned();
    let mut expected = are(&[
        ("http.request.method", "POST"),
        ("url.scheme", "http"),
        ("url.path", &path),
        ("server.address", &host),
        ("server.port", &port),
        ("otp.attempt", number),
    ]);
    expected.extend(are(ended));
    expected
}

#[tokio::test]
async fn one_trace_links_the_producer_the_worker_each_call_and_the_result() {
    let (stage, collector) = traced().await;
    stage.sandbox.script(None, vec![Fault::Status { code: 500, retry_after: None }, Fault::None]);
    let job = Job::for_phone(PHONE, "a-job").header("traceparent", &traceparent(TRACE, "01"));
    let result = one_job(&stage, job.header("tracestate", "vendor=1")).await;
    assert_eq!(ending(&result), ("accepted".to_owned(), 2, true));

    let spans = collector.spans();
    assert_eq!(spans.len(), 4, "{spans:#?}");
    assert!(spans.iter().all(|span| span.trace_id == TRACE), "{spans:#?}");
    let delivery = only(collector.named(&process(&stage)));
    assert_eq!((delivery.kind, delivery.parent.as_str(), delivery.failed), (CONSUMER_KIND, PRODUCER, false));
    let outcome = [("otp.outcome", "accepted"), ("otp.attempts", "2"), ("otp.may_be_duplicate", "true")];
    assert_eq!(delivery.attributes, of_delivery(&stage, &outcome));

    let calls = collector.named("POST");
    assert_eq!(calls.len(), 2, "{calls:#?}");
    assert!(calls.iter().all(|call| call.kind == CLIENT_KIND && call.parent == delivery.id), "{calls:#?}");
    let fault = [("http.response.status_code", "500"), ("otp.class", "ambiguous"), ("error.type", "500")];
    assert_eq!((&calls[0].attributes, calls[0].failed), (&of_call(&stage, "1", &fault), true));
    let answer = [("http.response.status_code", "200"), ("otp.class", "answered"), ("otp.code_result", "100")];
    assert_eq!((&calls[1].attributes, calls[1].failed), (&of_call(&stage, "2", &answer), false));
    assert!(delivery.took_nanos >= calls[0].took_nanos + calls[1].took_nanos, "{spans:#?}");

    let published = only(collector.named(&publish(&stage)));
    assert_eq!((published.kind, &published.parent, published.failed), (PRODUCER_KIND, &delivery.id, false));
    let expected = are(&[
        ("messaging.system", "rabbitmq"),
        ("messaging.operation.type", "send"),
        ("messaging.operation.name", "publish"),
        ("messaging.destination.name", &stage.names.results),
        ("messaging.rabbitmq.destination.routing_key", "otp.accepted"),
        ("messaging.message.id", "a-job:result"),
    ]);
    assert_eq!(published.attributes, expected);
    assert_eq!(header(&result, "traceparent"), Some(format!("00-{TRACE}-{}-01", published.id)));
    assert_eq!(header(&result, "tracestate").as_deref(), Some("vendor=1"));
}

#[tokio::test]
async fn a_job_that_does_not_end_well_is_an_error_in_its_trace() {
    let (stage, collector) = traced().await;
    let words = "canary-words";
    stage.sandbox.script(None, vec![Fault::Code { code: "103".into(), message: words.into() }]);
    one_job(&stage, Job::for_phone(PHONE, "a-job")).await;
    let delivery = only(collector.named(&process(&stage)));
    let outcome = [
        ("otp.outcome", "rejected"),
        ("otp.attempts", "1"),
        ("otp.may_be_duplicate", "false"),
        ("error.type", "rejected"),
    ];
    assert_eq!((delivery.attributes, delivery.failed), (of_delivery(&stage, &outcome), true));
    let call = only(collector.named("POST"));
    let answer = [
        ("http.response.status_code", "200"),
        ("otp.class", "answered"),
        ("otp.code_result", "103"),
        ("error.type", "code_result"),
    ];
    assert_eq!((call.attributes, call.failed), (of_call(&stage, "1", &answer), true));
}

#[tokio::test]
async fn without_a_well_formed_traceparent_a_trace_begins_here() {
    for given in [None, Some(traceparent(&TRACE.to_uppercase(), "01")), Some("no-trace".to_owned())] {
        let (stage, collector) = traced().await;
        let mut job = Job::for_phone(PHONE, "a-job").header("tracestate", "vendor=1");
        if let Some(given) = &given {
            job = job.header("traceparent", given);
        }
        let result = one_job(&stage, job).await;
        let delivery = only(collector.named(&process(&stage)));
        assert_eq!(delivery.parent, "", "{given:?}");
        assert_ne!(delivery.trace_id, TRACE);
        let published = only(collector.named(&publish(&stage)));
        let continued = format!("00-{}-{}-01", delivery.trace_id, published.id);
        assert_eq!(header(&result, "traceparent"), Some(continued), "{given:?}");
        assert_eq!(header(&result, "tracestate"), None, "it is the state of no trace");
    }
}

#[tokio::test]
async fn a_job_that_cannot_be_understood_is_traced_too() {
    let (stage, collector) = traced().await;
    let result =
        one_job(&stage, Job::bytes("no job").id("a-job").header("traceparent", &traceparent(TRACE, "01"))).await;
    let delivery = only(collector.named(&process(&stage)));
    assert_eq!((delivery.trace_id.as_str(), delivery.parent.as_str(), delivery.failed), (TRACE, PRODUCER, true));
    assert_eq!(delivery.attributes["otp.outcome"], "invalid");
    let published = only(collector.named(&publish(&stage)));
    assert_eq!(header(&result, "traceparent"), Some(format!("00-{TRACE}-{}-01", published.id)));
}

#[tokio::test]
async fn a_producer_that_does_not_sample_is_heeded() {
    let (stage, collector) = traced().await;
    let job = Job::for_phone(PHONE, "a-job").header("traceparent", &traceparent(TRACE, "00"));
    let result = one_job(&stage, job).await;
    assert!(collector.spans().is_empty());
    let continued = header(&result, "traceparent").expect("a traceparent");
    assert!(continued.starts_with(&format!("00-{TRACE}-")) && continued.ends_with("-00"), "{continued}");
}

#[tokio::test]
async fn a_delivery_that_joins_a_job_in_flight_has_a_trace_of_its_own_that_links_to_it() {
    let (stage, collector) = traced().await;
    stage.sandbox.script(None, vec![Fault::Hold]);
    let mut running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let job = |trace| Job::for_phone(PHONE, "a-job").header("traceparent", &traceparent(trace, "01"));
    client.publish(&stage.names.jobs, job(TRACE)).await;
    stage.sandbox.wait_until_held(1).await;
    client.publish(&stage.names.jobs, job(OTHER_TRACE)).await;
    running.until_metric("otp_redeliveries_total", &[("found", "in_flight")], 1.0).await;
    stage.sandbox.release_held();
    let results = [results.next(LIMIT).await, results.next(LIMIT).await];
    running.until_settled(&stage.names).await;
    assert_eq!(running.stop().await, Some(0));

    let of =
        |trace: &str| only(collector.named(&process(&stage)).into_iter().filter(|s| s.trace_id == trace).collect());
    let (worked, joined) = (of(TRACE), of(OTHER_TRACE));
    assert_eq!((worked.links.len(), &joined.links), (0, &vec![worked.id.clone()]));
    assert_eq!(worked.attributes, joined.attributes);
    let call = only(collector.named("POST"));
    assert_eq!((&call.trace_id, &call.parent), (&worked.trace_id, &worked.id));
    for (result, delivery) in results.iter().zip([&worked, &joined]) {
        let published =
            only(collector.named(&publish(&stage)).into_iter().filter(|s| s.parent == delivery.id).collect());
        assert_eq!(header(result, "traceparent"), Some(format!("00-{}-{}-01", delivery.trace_id, published.id)));
    }
}

#[tokio::test]
async fn a_delivery_that_goes_back_to_the_queue_has_no_outcome() {
    let (stage, collector) = traced().await;
    stage.sandbox.script(None, vec![Fault::Status { code: 503, retry_after: Some("25".into()) }]);
    let mut running = stage.worker().await;
    let client = stage.client().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    running.until_metric("otp_jobs_waiting_retry", &[], 1.0).await;
    assert_eq!(running.stop().await, Some(0));
    let delivery = only(collector.named(&process(&stage)));
    assert_eq!((delivery.attributes, delivery.failed), (of_delivery(&stage, &[]), false));
    let call = only(collector.named("POST"));
    let ended = [("http.response.status_code", "503"), ("otp.class", "not_sent"), ("error.type", "503")];
    assert_eq!((call.attributes, call.failed), (of_call(&stage, "1", &ended), true));
    assert!(collector.named(&publish(&stage)).is_empty());
}

#[tokio::test]
async fn without_an_endpoint_nothing_is_exported_and_the_result_carries_the_jobs_own_context() {
    let (mut stage, collector) = traced().await;
    stage.set("OTEL_EXPORTER_OTLP_ENDPOINT", "").set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &collector.url());
    stage.set("OTP_TRACE_PROPAGATE_TO_ESMS", "true");
    let (given, state) = (traceparent(TRACE, "01"), "vendor=1");
    let job = Job::for_phone(PHONE, "a-job").header("traceparent", &given).header("tracestate", state);
    let result = one_job(&stage, job).await;
    assert_eq!(header(&result, "traceparent"), Some(given));
    assert_eq!(header(&result, "tracestate").as_deref(), Some(state));
    assert!(collector.exports().is_empty());
}

#[tokio::test]
async fn the_standard_variables_name_the_service_and_authorise_the_exporter() {
    let (mut stage, collector) = traced().await;
    let nested = format!("{}/otlp/", collector.url());
    stage.set("OTEL_EXPORTER_OTLP_ENDPOINT", &nested);
    one_job(&stage, Job::for_phone(PHONE, "a-job")).await;
    let resource = collector.resource();
    assert_eq!(resource["service.name"], "esms-otp-worker");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    let export = collector.exports().remove(0);
    assert_eq!(export.path, "/otlp/v1/traces");
    assert_eq!(export.headers["content-type"], "application/x-protobuf");

    let (mut stage, collector) = traced().await;
    stage.set("OTEL_SERVICE_NAME", "otp-in-hanoi").set("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=otp-0");
    stage.set("OTEL_EXPORTER_OTLP_HEADERS", "api-key=the%20key");
    one_job(&stage, Job::for_phone(PHONE, "a-job")).await;
    let resource = collector.resource();
    assert_eq!([&resource["service.name"], &resource["k8s.pod.name"]], ["otp-in-hanoi", "otp-0"]);
    assert_eq!(collector.exports()[0].headers["api-key"], "the key");
}

#[tokio::test]
async fn esms_is_told_of_the_trace_only_where_that_is_asked_for() {
    for asked in [false, true] {
        let (mut stage, collector) = traced().await;
        // It answers with a status alone. That is a refusal, so it is never called again.
        let esms = Collector::start().await;
        esms.answer(StatusCode::NOT_FOUND);
        stage.set("ESMS_URL", &esms.url());
        if asked {
            stage.set("OTP_TRACE_PROPAGATE_TO_ESMS", "true");
        }
        let job = Job::for_phone(PHONE, "a-job").header("traceparent", &traceparent(TRACE, "01"));
        let result = one_job(&stage, job.header("tracestate", "vendor=1")).await;
        assert_eq!(ending(&result), ("failed".to_owned(), 1, false));
        let call = only(collector.named("POST"));
        let headers = esms.exports().remove(0).headers;
        let told = headers.get("traceparent").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(told, asked.then(|| format!("00-{TRACE}-{}-01", call.id)));
        assert!(headers.get("tracestate").is_none() && headers.get("baggage").is_none());
    }
}

/// `secrecy.rs` also looks for phones, keys and other words of a job's publishers and of eSMS.
#[tokio::test]
async fn no_template_no_query_and_no_word_of_esms_is_exported() {
    let (mut stage, collector) = traced().await;
    stage.set("ESMS_URL", &format!("{}?token=canary-query#canary-fragment", stage.sandbox.send_url()));
    let message = "canary-message".to_owned();
    stage.sandbox.script(None, vec![Fault::Code { code: "104".into(), message }]);
    let body = json!({"Phone": PHONE, "MultiChannelTempId": "canary-template", "canary-field": "canary-value"});
    let result = one_job(&stage, Job::new(body).id("a-job").header("other", "canary-header")).await;
    assert_eq!(ending(&result).0, "rejected");
    assert_eq!(collector.spans().len(), 3);
    for export in collector.exports() {
        let text = String::from_utf8_lossy(&export.body).into_owned();
        for secret in ["canary", "901888484", "sandbox-key", "sandbox-secret"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
}

#[tokio::test]
async fn a_collector_that_never_answers_holds_up_no_job_and_no_stop() {
    const JOBS: usize = 50;
    let mut stage = Stage::new().await;
    // The kernel accepts connections to it, and then nobody ever answers.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    stage.set("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", silent.local_addr().unwrap()));
    // A queue that is full at once.
    stage.set("OTEL_BSP_MAX_QUEUE_SIZE", "4").set("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2");
    let mut running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let jobs = (0..JOBS).map(|n| Job::for_phone(PHONE, &format!("job-{n}")));
    client.publish_all(&stage.names.jobs, jobs).await;
    assert_eq!(results.collect(JOBS, LIMIT).await.len(), JOBS);
    assert_eq!(running.stop().await, Some(0));
    // The limit on flushing ended the wait, and not the export's own limit.
    assert_eq!(running.process.log_containing("the last traces could not be exported").len(), 1);
}

#[tokio::test]
async fn a_collector_that_refuses_is_told_of_once_and_its_return_too() {
    let (mut stage, collector) = traced().await;
    stage.set("OTEL_BSP_SCHEDULE_DELAY", "20");
    collector.answer(StatusCode::UNAUTHORIZED);
    let mut running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    for n in 0..3 {
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, &format!("job-{n}"))).await;
        assert_eq!(ending(&results.next(LIMIT).await).0, "accepted");
        until("another export", LIMIT, async || collector.exports().len() > n).await;
    }
    let told = running.process.wait_for_log("traces are lost", LIMIT).await;
    assert!(told.contains("401") && told.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{told}");
    collector.answer(StatusCode::OK);
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "later")).await;
    running.process.wait_for_log("traces are exported again", LIMIT).await;
    assert_eq!(running.stop().await, Some(0));
    assert_eq!(running.process.log_containing("traces are lost").len(), 1);
}
