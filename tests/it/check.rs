//! `check` prints a line for each part. It names each fault and its remedy.

use lapin::options::ExchangeDeclareOptions;
use lapin::types::FieldTable;

use crate::broker_failures::permissions::{Permissions, with_user};
use crate::program::{Ended, run};
use crate::stage::{LIMIT, Stage};
use crate::support::broker::Broker;
use crate::support::client::Job;
use crate::support::redis::Redis;

/// A stage with a Redis that keeps its data.
async fn stage() -> (Stage, Redis) {
    let (mut stage, redis) = (Stage::new().await, Redis::start().await);
    stage.set("OTP_LEDGER_URL", &redis.url()).set("OTP_PHONE_LIMIT", "3/10m,10/24h");
    (stage, redis)
}

async fn check(stage: &Stage) -> Ended {
    run(&["check"], &stage.env()).await
}

/// The line of a part, with its hint.
fn line(ended: &Ended, part: &str) -> String {
    let mut lines = ended.stdout.lines().skip_while(|line| !line.starts_with(part));
    let first = lines.next().unwrap_or_else(|| panic!("no line of {part}: {ended:?}"));
    let more = lines.take_while(|line| line.starts_with(' '));
    std::iter::once(first).chain(more).collect::<Vec<_>>().join("\n")
}

/// Checks that exactly this part failed, and that its line contains all of `said`.
fn assert_failed(ended: &Ended, part: &str, said: &[&str]) {
    assert_eq!(ended.code, 1, "{ended:?}");
    let failed: Vec<&str> = ended.stdout.lines().filter(|line| line.contains(" FAILED ")).collect();
    assert_eq!(failed.len(), 1, "{}", ended.stdout);
    let line = line(ended, part);
    assert!(line.contains("FAILED") && line.contains("hint:"), "{line}");
    for said in said {
        assert!(line.contains(said), "{said} is not in: {line}");
    }
}

/// Checks that this part is only warned of, that the command succeeds, and that it fails when it is strict.
async fn assert_warned(stage: &Stage, part: &str, said: &[&str]) -> Ended {
    let ended = check(stage).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(!ended.stdout.contains("FAILED"), "{}", ended.stdout);
    let line = line(&ended, part);
    assert!(line.contains(" warning ") && line.contains("hint:"), "{line}");
    for said in said {
        assert!(line.contains(said), "{said} is not in: {line}");
    }
    assert_eq!(run(&["check", "--strict"], &stage.env()).await.code, 1);
    ended
}

#[tokio::test]
async fn where_all_is_well_every_part_says_so() {
    let (stage, _redis) = stage().await;
    let ended = check(&stage).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let parts = ["settings", "limits", "broker", "topology", "permissions", "ledger", "credentials", "clock"];
    assert_eq!(ended.stdout.lines().count(), parts.len(), "{}", ended.stdout);
    for part in parts {
        assert!(line(&ended, part).contains(" ok "), "{}", ended.stdout);
    }
    assert!(line(&ended, "credentials").contains("VND"));
    assert_eq!(stage.sandbox.stats().requests, 0, "nothing was sent");
    // The objects that `check` declared are those that `run` needs.
    let _running = stage.worker().await;
}

#[tokio::test]
async fn a_wrong_password_of_the_broker_is_named_without_being_shown() {
    let (mut stage, _redis) = stage().await;
    let url = stage.url.replace("guest:guest", "guest:wrong-canary");
    let ended = check(stage.set("AMQP_URL", &url)).await;
    assert_failed(&ended, "broker", &["ACCESS_REFUSED", "AMQP_URL"]);
    assert!(line(&ended, "topology").contains("not tried"));
    assert!(!ended.stdout.contains("canary") && !ended.stderr.contains("canary"));
}

#[tokio::test]
async fn an_exchange_of_another_kind_is_named_with_both_kinds() {
    let (stage, _redis) = stage().await;
    let client = stage.client().await;
    let (kind, options) = (lapin::ExchangeKind::Direct, ExchangeDeclareOptions { durable: true, ..Default::default() });
    let name = stage.names.results.as_str();
    client.channel().exchange_declare(name.into(), kind, options, FieldTable::default()).await.unwrap();
    assert_failed(&check(&stage).await, "topology", &[name, "direct", "topic", "OTP_TOPOLOGY"]);
}

#[tokio::test]
async fn wrong_keys_are_named_as_esms_names_them() {
    let (mut stage, _redis) = stage().await;
    let ended = check(stage.set("ESMS_SECRET_KEY", "wrong-canary")).await;
    assert_failed(&ended, "credentials", &["101", "ESMS_API_KEY"]);
    assert!(!ended.stdout.contains("canary"));
}

#[tokio::test]
async fn an_esms_that_cannot_be_reached_is_a_warning() {
    let (mut stage, _redis) = stage().await;
    stage.set("ESMS_URL", "http://127.0.0.1:1/V5");
    let ended = assert_warned(&stage, "credentials", &["did not answer", "ESMS_URL"]).await;
    assert!(line(&ended, "clock").contains("not tried"));
}

#[tokio::test]
async fn a_redis_that_cannot_be_reached_is_a_warning_whatever_is_done_without_it() {
    let (mut stage, redis) = stage().await;
    redis.stop().await;
    for on_error in ["send", "hold"] {
        stage.set("OTP_LEDGER_ON_ERROR", on_error);
        assert_warned(&stage, "ledger", &[&redis.port().to_string(), "OTP_LEDGER_URL"]).await;
    }
}

#[tokio::test]
async fn a_redis_that_wants_another_password_is_a_failure() {
    let (mut stage, redis) = stage().await;
    let url = format!("redis://worker:wrong-canary@127.0.0.1:{}/0", redis.port());
    let ended = check(stage.set("OTP_LEDGER_URL", &url)).await;
    assert_failed(&ended, "ledger", &["OTP_LEDGER_URL"]);
    assert!(!ended.stdout.contains("canary"));
}

#[tokio::test]
async fn a_broker_that_cannot_be_reached_is_a_warning() {
    let (mut stage, _redis) = stage().await;
    stage.set("AMQP_URL", "amqp://guest:canary@127.0.0.1:1/%2f");
    let ended = assert_warned(&stage, "broker", &["cannot reach", "AMQP_URL"]).await;
    assert!(line(&ended, "topology").contains("not tried") && !ended.stdout.contains("canary"));
}

#[tokio::test]
async fn what_a_cluster_sets_for_all_programs_is_a_warning() {
    let (mut stage, _redis) = stage().await;
    stage.set("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317").set("LOG_FORMAT", "text");
    let ended = assert_warned(&stage, "settings", &["LOG_FORMAT"]).await;
    assert!(ended.stdout.contains("OTEL_EXPORTER_OTLP_ENDPOINT: is an address for gRPC"), "{}", ended.stdout);
}

#[tokio::test]
async fn a_redis_that_forgets_is_warned_of_and_is_no_failure() {
    let (stage, redis) = stage().await;
    redis.cli(&["CONFIG", "SET", "appendonly", "no"]).await;
    let ended = check(&stage).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let line = line(&ended, "ledger");
    assert!(line.contains("warning") && line.contains("appendonly yes"), "{line}");
}

#[tokio::test]
async fn that_no_limit_is_set_for_a_number_is_warned_of_with_what_an_hour_can_cost() {
    let (mut stage, _redis) = stage().await;
    assert!(line(&check(&stage).await, "limits").contains("at most 10 OTPs"));
    stage.unset("OTP_PHONE_LIMIT");
    assert_warned(&stage, "limits", &["no limit is set for a number", "Nothing bounds", "eSMS contract"]).await;
    stage.set("OTP_RATE_LIMIT", "50");
    assert_warned(&stage, "limits", &["Up to 180000 OTPs", "OTP_RATE_LIMIT", "OTP_PHONE_COOLDOWN"]).await;
    stage.set("OTP_PHONE_COOLDOWN", "60s");
    assert!(line(&check(&stage).await, "limits").contains(" ok "));
}

#[tokio::test]
async fn a_wrong_setting_is_told_before_anything_is_tried() {
    let (mut stage, _redis) = stage().await;
    let ended = check(stage.set("OTP_CONCURRENCY", "many")).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    assert!(ended.stderr.contains("OTP_CONCURRENCY"), "{}", ended.stderr);
}

/// A user with these permissions, on a broker where the objects are declared and hold a job and a dead letter.
async fn with_permissions(write: &str, read: &str) -> (Ended, Stage) {
    let (mut stage, user) = with_user().await;
    let client = stage.client().await;
    client.publish(&stage.names.jobs, Job::for_phone("0901888484", "a-job")).await;
    user.allow(Permissions { configure: "^$".into(), write: write.into(), read: read.into() }).await;
    let ended = check(stage.set("OTP_TOPOLOGY", "check")).await;
    let (broker, names) = (Broker::shared().await, &stage.names);
    assert_eq!(broker.queue_depth(&names.jobs).await, Some(1), "no job was taken");
    for queue in [&names.unrouted, &names.dead, &names.dropped] {
        assert_eq!(broker.queue_depth(queue).await, Some(0), "no message was left");
    }
    let job = client.consume(&names.jobs).await.next(LIMIT).await;
    assert!(
        job.properties.headers().as_ref().is_none_or(|headers| headers.inner().is_empty()),
        "it was never delivered"
    );
    (ended, stage)
}

#[tokio::test]
async fn permissions_that_are_missing_are_named_with_what_they_are_for() {
    let (ended, stage) = with_permissions("^$", "^$").await;
    let names = &stage.names;
    let said = ["take jobs", "take dropped jobs", "publish results", "publish dead letters", "publish replies"];
    assert_failed(&ended, "permissions", &said);
    assert_failed(&ended, "permissions", &[&names.jobs, &names.dropped, &names.results, &names.dead, "amq.default"]);
    let (ended, _stage) = with_permissions(".*", ".*").await;
    assert!(line(&ended, "permissions").contains(" ok "), "{}", ended.stdout);
}

#[tokio::test]
async fn a_user_that_may_not_reply_is_warned_of_and_is_no_failure() {
    let (ended, _stage) = with_permissions("^[^a].*$|^a[^m].*$", ".*").await;
    let line = line(&ended, "permissions");
    assert!(line.contains("warning") && line.contains("amq.default") && !line.contains("results:"), "{line}");
    assert_eq!(ended.code, 0, "{ended:?}");
}
