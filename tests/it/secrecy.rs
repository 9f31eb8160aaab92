//! Canaries, and the places where they must never appear: every log line, metric, trace, result and error.

use std::collections::BTreeSet;

use esms_otp_worker::sandbox::{Fault, Sandbox, Settings};
use lapin::types::AMQPValue;
use serde_json::json;
use uuid::Uuid;

use crate::program::run;
use crate::stage::{LIMIT, Running, Stage, field};
use crate::support::broker::Broker;
use crate::support::client::{Job, Received};
use crate::support::collector::Collector;
use crate::support::metrics::get;
use crate::support::proxy::Proxy;
use crate::support::raw::{RawMessage, long_string, property, table};
use crate::support::wait::until;

const API_KEY: &str = "canary-api-key-4f1d";
const SECRET_KEY: &str = "canary-secret-key-9b7e";
const PASSWORD: &str = "canary-pass/word+c3a5";
const PASSWORD_IN_URL: &str = "canary-pass%2Fword%2Bc3a5";
const IN_A_JOB: &str = "canary-in-a-job-77d2";
const SECRETS: [&str; 5] = [API_KEY, SECRET_KEY, PASSWORD, PASSWORD_IN_URL, IN_A_JOB];

/// The first digits of every phone here. Two more digits follow. This is the national part, after `84` or
/// `0`.
const PHONES: &str = "9876543";

fn phone(n: usize) -> String {
    format!("0{PHONES}{n:02}")
}

/// Every form in which a text may leak: as it is, and as the bytes that `Debug` or a dump shows.
fn forms(text: &str) -> Vec<String> {
    let joined = |each: fn(&u8) -> String, by: &str| text.as_bytes().iter().map(each).collect::<Vec<_>>().join(by);
    vec![
        text.to_owned(),
        joined(|byte| format!("{byte}"), ", "),
        joined(|byte| format!("{byte}"), ","),
        joined(|byte| format!("{byte:02x}"), ""),
        joined(|byte| format!("{byte:02X}"), ""),
        joined(|byte| format!("{byte:02x}"), " "),
        joined(|byte| format!("\\x{byte:02x}"), ""),
        joined(|byte| format!("{byte:#x}"), ", "),
    ]
}

fn assert_silent(place: &str, text: &str, canaries: &[&str]) {
    let lower = text.to_lowercase();
    for form in canaries.iter().flat_map(|canary| forms(canary)) {
        let found = lower.find(&form.to_lowercase());
        let around = found.map(|at| lower.chars().skip(at.saturating_sub(200)).take(600).collect::<String>());
        assert!(found.is_none(), "{form} in {place}: …{}…", around.unwrap_or_default());
    }
}

/// Everything that can go wrong with a call, and answers that repeat the request in every field.
fn faults(phone: &str) -> Vec<Fault> {
    let national = phone.trim_start_matches('0');
    let echo = json!({"CodeResult": format!("{API_KEY}{phone}"), "SMSID": format!("{SECRET_KEY} {phone}"),
        "CountRegenerate": {"ApiKey": API_KEY, "Phone": phone}, "ErrorMessage": format!("{phone} {SECRET_KEY}")});
    let number = format!(
        r#"{{"CodeResult":{national},"SMSID":{national},"CountRegenerate":{national},"ErrorMessage":{national}}}"#
    );
    let raw = |body: String| Fault::Raw { status: 200, content_type: "application/json".into(), body };
    let status = |code| Fault::Status { code, retry_after: Some(phone.to_owned()) };
    vec![
        Fault::None,
        Fault::Latency { ms: 1 },
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::HangBefore,
        Fault::HangAfter,
        status(302),
        status(404),
        status(500),
        Fault::StatusAfter { code: 502 },
        Fault::Html,
        Fault::HtmlAfter,
        Fault::CutJson,
        Fault::EmptyBody,
        Fault::JsonArray,
        Fault::NoCodeResult,
        Fault::HugeBody { mib: 1 },
        Fault::CodeNumber,
        Fault::NullFields,
        Fault::MissingFields,
        Fault::ExtraFields,
        Fault::Code { code: "103".into(), message: format!("no money for {phone}, +84{}", national) },
        Fault::Code { code: "160".into(), message: format!("84{} is busy", national) },
        Fault::EchoSecrets,
        Fault::Code { code: "99".into(), message: with_separators(national) },
        raw(echo.to_string()),
        raw(number),
        raw(format!("<html><p>{API_KEY} {SECRET_KEY} {phone}, {}</p></html>", with_separators(national))),
        raw(format!("{API_KEY}\u{0}{phone}")),
        Fault::AnswerStatus { code: 203 },
        Fault::ManyHeaders { lines: 120 },
        Fault::Gzip,
        Fault::LongLength,
        Fault::CutChunk,
        Fault::ProxyLost,
        Fault::NoUpstream,
        Fault::SlowBody { ms: 2_000 },
        Fault::Status { code: 503, retry_after: None },
        // Holds all calls for half a minute, so it comes last, and only one does.
        status(429),
    ]
}

/// The number of seven digits and two, as eSMS or a page may write it.
fn with_separators(national: &str) -> String {
    let (head, rest) = national.split_at(3);
    let (middle, last) = rest.split_at(3);
    format!("(+84) {head} - {middle}.{last} is {head}.{middle}.{last}")
}

/// Bodies that no worker can read, and bodies with content that does not belong on a queue.
fn refused_bodies() -> Vec<Vec<u8>> {
    let phone = phone(99);
    let national = phone.trim_start_matches('0');
    let text = [
        format!("{{\"Phone\":\"{phone}x\",\"MultiChannelTempId\":\"1\"}}"),
        format!("{{\"Phone\":{},\"MultiChannelTempId\":\"1\"}}", national),
        format!("{{\"Phone\":\"{phone}\",\"MultiChannelTempId\":\"1\",\"TypeId\":\"{phone}\"}}"),
        format!("{{\"Phone\":\"{phone}\",\"MultiChannelTempId\":\"1\",\"TimeAlive\":\"{phone}m\"}}"),
        format!("{{\"Phone\":\"{phone}\",\"MultiChannelTempId\":[\"{phone}\"]}}"),
        format!("{{\"Phone\":\"{phone}\",\"{phone}"),
        format!("{{\"Phone\":\"{phone}\",\"Phone\":\"{phone}\"}}"),
        format!("{phone} {phone}"),
        format!("{{\"Phone\":\"{phone}\",\"MultiChannelTempId\":\"1\",\"ApiKey\":\"{IN_A_JOB}\"}}"),
        format!("{{\"Phone\":\"{phone}\",\"MultiChannelTempId\":\"1\",\"secretkey\":\"{IN_A_JOB}\",\"ApiKey\":1}}"),
        format!("{{\"ApiKey\":\"{IN_A_JOB}"),
        format!("{{\"Phone\":\"{phone}\",\"ApiKey\\u0020\":\"{IN_A_JOB}\", cut"),
    ];
    let mut bodies: Vec<Vec<u8>> = text.into_iter().map(String::into_bytes).collect();
    bodies.push([phone.as_bytes(), b"\xFF\xFE", format!("ApiKey={IN_A_JOB}").as_bytes()].concat());
    bodies
}

/// A broker user with the canary as its password.
async fn user_with_canary() -> String {
    let broker = Broker::shared().await;
    let user = Uuid::new_v4().simple().to_string();
    broker.ctl(&["add_user", &user, PASSWORD]).await;
    broker.ctl(&["set_permissions", "-p", "/", &user, ".*", ".*", ".*"]).await;
    user
}

/// A stage behind a proxy. Every secret of the stage is a canary.
async fn stage_with_canaries(format: &str) -> (Stage, Proxy) {
    let broker = Broker::shared().await;
    let proxy = Proxy::start(broker.port()).await;
    let mut stage = Stage::new().await;
    let keys = Settings { api_key: API_KEY.into(), secret_key: SECRET_KEY.into(), ..Settings::default() };
    stage.sandbox = Sandbox::start(keys).await.unwrap();
    let url = format!("amqp://{}:{PASSWORD_IN_URL}@127.0.0.1:{}/%2f", user_with_canary().await, proxy.port());
    let esms = stage.sandbox.send_url();
    for (name, value) in [
        ("AMQP_URL", url.as_str()),
        ("ESMS_URL", &esms),
        ("ESMS_API_KEY", API_KEY),
        ("ESMS_SECRET_KEY", SECRET_KEY),
        ("RUST_LOG", "trace"),
        ("RUST_BACKTRACE", "full"),
        ("LOG_FORMAT", format),
        ("ESMS_CONNECT_TIMEOUT", "900ms"),
        ("ESMS_TIMEOUT", "1s"),
        ("OTP_RETRY_MAX_ELAPSED", "2s"),
    ] {
        stage.set(name, value);
    }
    (stage, proxy)
}

async fn start(stage: &Stage) -> Running {
    let process = stage.spawn();
    let line = process.wait_for_log("http listening", LIMIT).await;
    let http = line.split(['"', '=', ' ']).find_map(|word| word.parse().ok()).expect("an address");
    let running = Running { process, http };
    running.until_ready().await;
    running
}

/// Publishes jobs that meet every fault, jobs that cannot be read, repeats, and dropped jobs. Returns how
/// many results there will be.
async fn play_everything(stage: &Stage, client: &crate::support::client::Client) -> usize {
    let jobs = &stage.names.jobs;
    let mut expected = 0;
    for n in 0..faults(&phone(0)).len() {
        let fault = faults(&phone(n)).swap_remove(n);
        stage.sandbox.script(Some(&phone(n)), vec![fault.clone(), fault]);
        client.publish(jobs, Job::for_phone(&phone(n), &format!("job-{n}"))).await;
        expected += 1;
    }
    client.publish(jobs, Job::for_phone(&phone(98), "job-0")).await;
    expected += 1;
    for body in refused_bodies() {
        client.publish(jobs, Job::bytes(body)).await;
        expected += 1;
    }
    let death = table(&[(b"reason", b'S', long_string(IN_A_JOB))]);
    let deaths = table(&[(b"x-death", b'A', long_string([b"F".to_vec(), death].concat()))]);
    let dropped = RawMessage::new(refused_bodies()[0].clone()).with(property::HEADERS, deaths.clone());
    dropped.publish(Broker::shared().await.port(), &stage.names.dropped).await.unwrap();
    let good = json!({"Phone": phone(97), "MultiChannelTempId": "1"}).to_string();
    let dropped = RawMessage::new(good).with(property::HEADERS, deaths);
    dropped.publish(Broker::shared().await.port(), &stage.names.dropped).await.unwrap();
    expected + 2
}

/// Everything of a message except its body.
fn properties(message: &Received) -> String {
    let headers = message.properties.headers().clone().unwrap_or_default();
    let text = |value: &AMQPValue| value.as_long_string().map(ToString::to_string);
    let texts: Vec<_> = headers.inner().iter().map(|(name, value)| format!("{name}: {:?}", text(value))).collect();
    format!("{:?} {texts:?} {}", message.properties, message.routing_key)
}

async fn nobody_reads_a_canary(format: &str) {
    let (mut stage, proxy) = stage_with_canaries(format).await;
    let collector = Collector::start().await;
    stage.set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url());
    let mut running = start(&stage).await;
    let client = stage.client().await;
    let mut results = client.results(&stage.names.results, "otp.*").await;
    let mut copies = client.consume(&stage.names.dead).await;
    let expected = play_everything(&stage, &client).await;
    let results = results.collect(expected, LIMIT).await;
    assert_eq!(results.len(), expected, "{:?}", results.iter().map(|r| field(r, "JobId")).collect::<Vec<_>>());
    proxy.refuse().await;
    proxy.cut().await;
    running.until_not_ready().await;
    proxy.accept_again().await;
    running.until_ready().await;
    let (_, metrics) = get(running.http, "/metrics").await;
    #[cfg(target_os = "linux")]
    assert_silent(
        "cmdline",
        &std::fs::read_to_string(format!("/proc/{}/cmdline", running.process.pid())).unwrap(),
        &SECRETS,
    );
    assert_eq!(running.stop().await, Some(0));
    until("the last line is read", LIMIT, async || !running.process.log_containing("stopped").is_empty()).await;

    let everyone: Vec<&str> = SECRETS.into_iter().chain([PHONES]).collect();
    let log = running.process.log();
    // The log has a line about the end of nearly every job, so the canaries were near.
    assert!(log.iter().filter(|line| line.contains("job ended")).count() >= expected - 1, "{log:#?}");
    for line in &log {
        assert_silent("the log", line, &everyone);
        // The numbers with separators: `(+84) 987 - 654.3`.
        assert!(!line.contains("987 - 654") && !line.contains("987.654"), "{line}");
    }
    assert_silent("the metrics", &metrics, &everyone);
    assert!(collector.spans().len() >= 3 * faults(&phone(0)).len(), "every job and call was traced");
    for export in collector.exports() {
        assert_silent("a trace", &String::from_utf8_lossy(&export.body), &everyone);
    }
    for result in &results {
        assert_silent("a result", &String::from_utf8_lossy(&result.body), &everyone);
        assert!(!String::from_utf8_lossy(&result.body).contains("987."), "a number with separators");
        assert_silent("a result's properties", &properties(result), &everyone);
    }
    // A copy has the producer's own body, which people must see. The reason comes from the worker.
    let copies = copies.collect(refused_bodies().len() + 3, LIMIT).await;
    assert_eq!(copies.len(), refused_bodies().len() + 3);
    for copy in &copies {
        assert_silent("a copy", &String::from_utf8_lossy(&copy.body), &SECRETS);
        let error = copy.properties.headers().as_ref().and_then(|headers| headers.inner().get("x-error"));
        assert_silent("x-error", &error.unwrap().as_long_string().unwrap().to_string(), &everyone);
    }
    let outcomes: BTreeSet<String> = results.iter().map(|result| field(result, "Outcome")).collect();
    assert!(outcomes.len() >= 5, "all kinds of ends were looked at: {outcomes:?}");
}

#[tokio::test]
async fn nobody_reads_a_canary_in_json_log_lines_or_anything_published() {
    nobody_reads_a_canary("json").await;
}

#[tokio::test]
async fn nobody_reads_a_canary_in_pretty_log_lines_either() {
    nobody_reads_a_canary("pretty").await;
}

#[tokio::test]
async fn settings_that_are_wrong_or_explained_do_not_repeat_a_secret() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("amqp://user:{PASSWORD_IN_URL}@[::1]/%2f")).unwrap();
    let path = file.path().to_str().unwrap();
    let url = format!("amqp://user:{PASSWORD_IN_URL}@:nowhere:/x y");
    let esms = format!("https://{API_KEY}:{SECRET_KEY}@rest.esms.vn/");
    for (args, env) in [
        (&["run"][..], &[("AMQP_URL", url.as_str()), ("ESMS_API_KEY", API_KEY)][..]),
        (&["run"], &[("AMQP_URL_FILE", path), ("ESMS_SECRET_KEY", SECRET_KEY)]),
        (&["run"], &[("ESMS_API_KEY", API_KEY), ("ESMS_API_KEY_FILE", path)]),
        (&["run"], &[("ESMS_URL", esms.as_str())]),
        (&["run", "--esms-api-key", API_KEY, "--esms-secret-key", SECRET_KEY, "--concurrency", "0"], &[]),
        (&["run", "--amqp-url", &url], &[]),
        (&["send", "-", "--amqp-url", &url], &[]),
        (&["run", "--help"], &[("ESMS_API_KEY", API_KEY), ("ESMS_SECRET_KEY", SECRET_KEY), ("AMQP_URL", url.as_str())]),
        (&["send", "--help"], &[("AMQP_URL", url.as_str())]),
    ] {
        let ended = run(args, env).await;
        assert!(!ended.stdout.is_empty() || !ended.stderr.is_empty());
        assert_silent(&format!("{args:?}"), &(ended.stdout + &ended.stderr), &SECRETS);
    }
}
