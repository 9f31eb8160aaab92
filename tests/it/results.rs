//! What a consumer of results sees: every property, every field, every metric.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use esms_otp_worker::sandbox::Fault;
use futures_util::future::join_all;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::stage::{LIMIT, PHONE, Stage, ending, field};
use crate::support::broker::Broker;
use crate::support::client::{Client, DIRECT_REPLY_TO, Job, Received, Results};
use crate::support::metrics::Scrape;
use crate::support::wait::eventually;

/// How long to wait for one reply. The worker itself tries for 3 s.
const ONE_REPLY: Duration = Duration::from_secs(5);

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Checks the properties that a result has wherever it is published.
fn assert_properties(result: &Received, id: &str, correlation_id: &str, since: u64) {
    let properties = &result.properties;
    let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(|value| value.to_string());
    assert_eq!(text(properties.message_id()), Some(format!("{id}:result")));
    assert_eq!(text(properties.correlation_id()), Some(correlation_id.to_owned()));
    assert_eq!(text(properties.content_type()), Some("application/json".to_owned()));
    assert_eq!(text(properties.kind()), Some("otp.result.v1".to_owned()));
    assert_eq!(text(properties.app_id()), Some("esms-otp-worker".to_owned()));
    assert_eq!(properties.delivery_mode(), &Some(2));
    let timestamp = properties.timestamp().expect("a timestamp");
    assert!((since..=now()).contains(&timestamp), "{timestamp} is not from {since} to {}", now());
    for absent in [properties.expiration(), properties.reply_to(), properties.user_id(), properties.cluster_id()] {
        assert_eq!(absent, &None);
    }
}

fn headers(result: &Received) -> Vec<(String, String)> {
    let headers = result.properties.headers().clone().unwrap_or_default();
    let text = |value: &lapin::types::AMQPValue| value.as_long_string().map(ToString::to_string).unwrap_or_default();
    headers.inner().iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

#[tokio::test]
async fn a_result_carries_every_property_the_contract_names() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let since = now();
    let traced = Job::for_phone(PHONE, "traced")
        .correlation_id("mine")
        .header("traceparent", TRACEPARENT)
        .header("tracestate", "vendor=1")
        .header("other", "not copied");
    client.publish(&stage.names.jobs, traced).await;
    let result = results.next(LIMIT).await;
    assert_properties(&result, "traced", "mine", since);
    assert_eq!(result.routing_key, "otp.accepted");
    let expected = [("traceparent", TRACEPARENT), ("tracestate", "vendor=1")];
    assert_eq!(headers(&result), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));

    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "plain")).await;
    let result = results.next(LIMIT).await;
    assert_properties(&result, "plain", "plain", since);
    assert_eq!(headers(&result), []);
}

#[tokio::test]
async fn a_reply_goes_to_the_queue_in_reply_to_and_to_the_exchange() {
    let stage = Stage::new().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let mine = client
        .channel()
        .queue_declare("".into(), QueueDeclareOptions::exclusive(), FieldTable::default())
        .await
        .unwrap();
    let mut mine_results = client.consume(mine.name().as_str()).await;
    let mut direct = client.direct_replies().await;
    let since = now();
    for (n, (reply_to, replies)) in
        [(mine.name().as_str(), &mut mine_results), (DIRECT_REPLY_TO, &mut direct)].into_iter().enumerate()
    {
        let id = format!("job-{n}");
        client
            .publish(
                &stage.names.jobs,
                Job::for_phone(PHONE, &id).reply_to(reply_to).header("traceparent", TRACEPARENT),
            )
            .await;
        let (reply, result) = (replies.next(LIMIT).await, results.next(LIMIT).await);
        assert_eq!((field(&reply, "JobId"), &reply.body), (id.clone(), &result.body));
        assert_properties(&reply, &id, &id, since);
        assert_eq!(headers(&reply), [("traceparent".to_owned(), TRACEPARENT.to_owned())]);
    }
    running.until_metric("otp_results_published_total", &[("status", "confirmed")], 4.0).await;
}

#[tokio::test]
async fn a_refused_job_is_replied_to_as_well() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let client = stage.client().await;
    let mut direct = client.direct_replies().await;
    client.publish(&stage.names.jobs, Job::bytes("no job").id("a-job").reply_to(DIRECT_REPLY_TO)).await;
    let reply = direct.next(LIMIT).await;
    assert_eq!((field(&reply, "JobId"), field(&reply, "Outcome")), ("a-job".to_owned(), "invalid".to_owned()));
}

#[tokio::test]
async fn a_reply_to_that_is_gone_is_counted_and_is_no_failure() {
    let stage = Stage::new().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job").reply_to("gone")).await;
    assert_eq!(ending(&results.next(LIMIT).await).0, "accepted");
    running.until_metric("otp_results_published_total", &[("status", "returned")], 1.0).await;
    running.process.wait_for_log("reply_to is gone", LIMIT).await;
    running.until_settled(&stage.names).await;
    assert_eq!(Broker::shared().await.queue_depth(&stage.names.jobs).await, Some(0));
    assert_eq!(running.metric("otp_results_published_total", &[("status", "confirmed")]).await, 1.0);
}

#[tokio::test]
async fn a_reply_to_that_breaks_the_broker_harms_no_other_job() {
    let stage = Stage::new().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let mut direct = client.direct_replies().await;
    let bad =
        ["amq.rabbitmq.reply-to.g1h2AA==.x", "amq.rabbitmq.reply-to.", "amq.rabbitmq.reply-to.x.y", "\u{0}", "é "];
    for (n, reply_to) in bad.iter().enumerate() {
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, &format!("bad-{n}")).reply_to(reply_to)).await;
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, &format!("good-{n}")).reply_to(DIRECT_REPLY_TO)).await;
    }
    let found = results.collect(2 * bad.len(), LIMIT).await;
    let ids: BTreeSet<String> = found.iter().map(|result| field(result, "JobId")).collect();
    assert_eq!(ids.len(), 2 * bad.len(), "{ids:?}");
    assert!(found.iter().all(|result| ending(result).0 == "accepted"));
    running.until_settled(&stage.names).await;
    assert_eq!(stage.sandbox.accepted_total(), 2 * bad.len() as u64);
    // The replies to other jobs share a connection with the messages that break it. The worker tries them
    // again for a while, and counts each one that it could not publish.
    let replied = replies_until_they_work(&stage, &client, &mut direct).await;
    let replied = replied.iter().filter(|id| id.starts_with("good")).count();
    let failed = running.metric("otp_results_published_total", &[("status", "failed")]).await;
    assert!(replied as f64 + failed >= bad.len() as f64, "{replied} and {failed} that failed");
}

/// Publishes jobs until one of them gets its reply, because a reply may still be lost with the connection.
/// Returns the ids of the other jobs that got a reply.
async fn replies_until_they_work(stage: &Stage, client: &Client, direct: &mut Results) -> BTreeSet<String> {
    let (mut replied, mut tried) = (BTreeSet::new(), 0);
    eventually("replies work again", LIMIT, async || {
        tried += 1;
        let probe = format!("after-{tried}");
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, &probe).reply_to(DIRECT_REPLY_TO)).await;
        while let Some(reply) = direct.collect(1, ONE_REPLY).await.pop() {
            let id = field(&reply, "JobId");
            if id == probe {
                return Some(());
            }
            replied.insert(id);
        }
        None
    })
    .await;
    replied
}

/// The result without the parts that differ from run to run. These parts are checked first.
fn shape(result: &Received) -> Value {
    let mut json = result.json();
    let completed_at = json["CompletedAt"].as_str().expect("CompletedAt").to_owned();
    let when = humantime::parse_rfc3339(&completed_at).expect("a time");
    assert!(completed_at.len() == "2026-11-23T01:23:45.678Z".len() && completed_at.ends_with('Z'), "{completed_at}");
    assert!(when.elapsed().unwrap_or_default() < 2 * LIMIT);
    for unsettled in ["CompletedAt", "Reason", "SMSID"] {
        if let Some(value) = json.get_mut(unsettled) {
            assert!(value.as_str().is_some_and(|text| !text.is_empty()), "{unsettled}");
            *value = json!("…");
        }
    }
    json
}

#[tokio::test]
async fn each_outcome_has_exactly_the_json_of_the_contract() {
    let mut stage = Stage::new().await;
    stage.set("OTP_ON_AMBIGUOUS", "give-up");
    let _running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let job = |outcome: &str| Job::for_phone(PHONE, outcome);
    let refusal = Fault::Code { code: "108".into(), message: "Phone not valid".into() };
    let not_found = Fault::Status { code: 404, retry_after: None };
    for (fault, job, expected) in [
        (
            Some(Fault::None),
            job("accepted"),
            json!({"CodeResult": "100", "SMSID": "…", "CountRegenerate": 0, "Attempts": 1}),
        ),
        (
            Some(refusal),
            job("rejected"),
            json!({"CodeResult": "108", "CountRegenerate": 0, "ErrorMessage": "Phone not valid", "Reason": "…",
                "Attempts": 1}),
        ),
        (Some(not_found), job("failed"), json!({"Reason": "…", "Attempts": 1})),
        (Some(Fault::ResetAfter), job("unknown"), json!({"Reason": "…", "Attempts": 1})),
        (None, job("expired").timestamp(UNIX_EPOCH + Duration::from_secs(1)), json!({"Reason": "…", "Attempts": 0})),
        (None, Job::bytes("{}").id("invalid"), json!({"Reason": "…", "Attempts": 0})),
    ] {
        stage.sandbox.script(None, fault.into_iter().collect());
        client.publish(&stage.names.jobs, job).await;
        let result = results.next(LIMIT).await;
        let outcome = ending(&result).0;
        let mut expected = expected;
        for (name, value) in [
            ("JobId", json!(outcome)),
            ("Outcome", json!(outcome)),
            ("MayBeDuplicate", json!(false)),
            ("CompletedAt", json!("…")),
        ] {
            expected[name] = value;
        }
        assert_eq!(shape(&result), expected);
    }
}

/// Every metric with the labels it has from the start, as the contract lists them.
const METRICS: &[(&str, &str, &[&str])] = &[
    ("otp_jobs_total", "outcome", &["accepted", "rejected", "failed", "unknown", "expired", "invalid", "limited"]),
    ("otp_code_results_total", "code", &["100", "101", "103", "108", "160", "other"]),
    (
        "otp_code_results_total",
        "scope",
        &["none", "account", "recipient", "request", "template", "throttle", "unknown"],
    ),
    ("otp_attempts_total", "class", &["answered", "not_sent", "ambiguous", "refused"]),
    ("otp_attempt_duration_seconds_count", "class", &["answered", "not_sent", "ambiguous", "refused"]),
    (
        "otp_job_duration_seconds_count",
        "outcome",
        &["accepted", "rejected", "failed", "unknown", "expired", "invalid", "limited"],
    ),
    ("otp_job_queue_seconds_count", "", &[]),
    ("otp_jobs_in_flight", "", &[]),
    ("otp_jobs_waiting_retry", "", &[]),
    ("otp_redeliveries_total", "found", &["new", "in_flight", "done"]),
    ("otp_may_be_duplicate_total", "", &[]),
    ("otp_limited_total", "limit", &["cooldown", "phone", "prefix", "prefix_denied", "total"]),
    ("otp_numbers_total", "seen", &["new", "known"]),
    ("otp_results_published_total", "status", &["confirmed", "returned", "failed"]),
    ("otp_dead_lettered_total", "", &[]),
    ("otp_ledger_errors_total", "", &[]),
    ("otp_log_lines_dropped_total", "", &[]),
    ("esms_balance_vnd", "", &[]),
    ("otp_broker_connected", "", &[]),
    ("otp_broker_connections_total", "", &[]),
    ("otp_circuit_open", "", &[]),
    ("otp_rate_limited_seconds_total", "", &[]),
    ("otp_rate_found", "", &[]),
    ("otp_build_info", "version", &[env!("CARGO_PKG_VERSION")]),
    ("otp_build_info", "revision", &[]),
];

#[tokio::test]
async fn every_metric_and_label_of_the_contract_is_there_and_no_other() {
    let mut stage = Stage::new().await;
    let running = stage.worker_with_every_metric().await;
    let scrape = Scrape::of(running.http).await;
    for (name, label, values) in METRICS {
        assert!(scrape.value(name, &[]).is_some(), "{name}");
        for value in *values {
            assert!(scrape.value(name, &[(label, value)]).is_some(), "{name}{{{label}={value}}}");
        }
        let known = |series: &str| label.is_empty() || series.contains(&format!("{label}=\""));
        let samples = scrape.text().lines().filter(|line| line.starts_with(&format!("{name}{{")));
        assert!(samples.clone().all(known), "{name} without {label}");
    }
    let listed: BTreeSet<&str> = METRICS.iter().map(|(name, ..)| name.trim_end_matches("_count")).collect();
    let types = scrape.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let found: BTreeSet<&str> = types.filter(|name| !name.starts_with("process_")).collect();
    assert_eq!(found, listed);
}

#[tokio::test]
async fn the_metrics_count_what_happened() {
    let stage = Stage::new().await;
    let made = SystemTime::now() - Duration::from_secs(20);
    stage.sandbox.script(None, vec![Fault::ResetAfter, Fault::None]);
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job").timestamp(made)).await;
    assert_eq!(ending(&results.next(LIMIT).await), ("accepted".to_owned(), 2, true));
    running.until_metric("otp_job_duration_seconds_count", &[("outcome", "accepted")], 1.0).await;
    running.until_metric("otp_jobs_in_flight", &[], 0.0).await;
    let scrape = Scrape::of(running.http).await;
    for (name, labels, value) in [
        ("otp_jobs_total", &[("outcome", "accepted")][..], 1.0),
        ("otp_code_results_total", &[("code", "100")], 1.0),
        ("otp_attempts_total", &[("class", "answered")], 1.0),
        ("otp_attempts_total", &[("class", "ambiguous")], 1.0),
        ("otp_attempt_duration_seconds_count", &[], 2.0),
        ("otp_job_queue_seconds_count", &[], 1.0),
        ("otp_jobs_waiting_retry", &[], 0.0),
        ("otp_may_be_duplicate_total", &[], 1.0),
        ("otp_results_published_total", &[("status", "confirmed")], 1.0),
        ("otp_results_published_total", &[("status", "returned")], 0.0),
        ("otp_dead_lettered_total", &[], 0.0),
        ("otp_broker_connected", &[], 1.0),
        // The connections of the consumer and of the publisher. No job asked for a reply.
        ("otp_broker_connections_total", &[], 2.0),
    ] {
        assert_eq!(scrape.value(name, labels), Some(value), "{name} {labels:?}");
    }
    let queued = scrape.value("otp_job_queue_seconds_sum", &[]).unwrap();
    // At least so long: the timestamp may be of the end of its second.
    assert!((19.0..20.0 + LIMIT.as_secs_f64()).contains(&queued), "{queued}");
}

#[tokio::test]
async fn as_many_calls_are_under_way_and_as_many_jobs_are_held_as_the_settings_allow() {
    let mut stage = Stage::new().await;
    stage
        .set("OTP_CONCURRENCY", "512")
        .set("OTP_PREFETCH", "550")
        .set("ESMS_TIMEOUT", "2m")
        .set("OTP_SHUTDOWN_GRACE", "3m");
    stage.sandbox.script(None, vec![Fault::Hold; 512]);
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let jobs = (0..600).map(|n| Job::for_phone(&format!("0901{n:06}"), &format!("job-{n}")));
    join_all(jobs.map(|job| client.publish(&stage.names.jobs, job))).await;
    timeout(LIMIT, stage.sandbox.wait_until_held(512)).await.expect("512 calls at once");
    running.until_metric("otp_jobs_in_flight", &[], 550.0).await;
    assert_eq!(Broker::shared().await.unacked(&stage.names.jobs).await, 550);
    assert_eq!(stage.sandbox.stats().requests, 512, "no call beyond the limit");
    stage.sandbox.release_held();
    let results = results.collect(600, LIMIT).await;
    assert_eq!(results.len(), 600);
    assert_eq!(stage.sandbox.accepted_total(), 600);
    assert_eq!(stage.sandbox.duplicates(), []);
}
