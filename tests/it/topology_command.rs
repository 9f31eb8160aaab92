//! `topology` prints the broker's objects for others, declares them, and says what differs. `health` asks a worker.

use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::broker_failures::permissions::{Permissions, with_user};
use crate::program::{Ended, run};
use crate::stage::{LIMIT, Stage, ending};
use crate::support::broker::Broker;
use crate::support::leash::Scratch;

async fn topology(stage: &Stage, args: &[&str]) -> Ended {
    run(&[&["topology"], args].concat(), &stage.env()).await
}

async fn declare_queue(stage: &Stage, name: &str, arguments: &[(&str, AMQPValue)]) {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    stage.client().await.channel().queue_declare(name.into(), options, table).await.expect("declared");
}

#[tokio::test]
async fn the_printed_definitions_are_imported_and_a_worker_that_only_checks_starts_on_them() {
    let mut stage = Stage::new().await;
    let printed = topology(&stage, &[]).await;
    assert_eq!(printed.code, 0, "{printed:?}");
    let scratch = Scratch::new().unwrap();
    let file = scratch.file("definitions.json");
    std::fs::write(&file, &printed.stdout).unwrap();
    Broker::shared().await.ctl(&["import_definitions", file.to_str().unwrap()]).await;

    let ended = topology(&stage, &["diff"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.stdout, "every exchange and queue is there, and as it must be\n");
    stage.set("OTP_TOPOLOGY", "check");
    let (mut running, result) = stage.play(vec![]).await;
    assert_eq!(ending(&result), ("accepted".into(), 1, false));
    assert_eq!(running.stop().await, Some(0));
    // A worker that declares finds nothing to refuse: bindings and all.
    stage.set("OTP_TOPOLOGY", "declare");
    assert_eq!(stage.worker().await.stop().await, Some(0));
}

#[tokio::test]
async fn what_is_missing_is_named_and_not_made_and_then_applied() {
    let stage = Stage::new().await;
    let ended = topology(&stage, &["diff"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    let names = &stage.names;
    for object in [format!("queue {}", names.jobs), format!("exchange {}", names.results)] {
        let line = format!("{object} is missing\n    esms-otp-worker topology apply\n");
        assert!(ended.stdout.contains(&line), "{line} is not in: {}", ended.stdout);
    }
    assert_eq!(ended.stdout.matches(" is missing\n").count(), 8, "{}", ended.stdout);
    assert_eq!(Broker::shared().await.queue_depth(&names.jobs).await, None);

    let ended = topology(&stage, &["apply"]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "every exchange, queue and binding is there\n"), "{ended:?}");
    assert_eq!(topology(&stage, &["diff"]).await.code, 0);
}

#[tokio::test]
async fn an_argument_that_differs_is_named_with_what_to_do() {
    let stage = Stage::new().await;
    assert_eq!(topology(&stage, &["apply"]).await.code, 0);
    let (jobs, dead) = (&stage.names.jobs, &stage.names.dead);
    for queue in [jobs, dead] {
        stage.client().await.channel().queue_delete(queue.as_str().into(), Default::default()).await.expect("deleted");
    }
    let long = |text: &str| AMQPValue::LongString(text.into());
    let work = [
        ("x-queue-type", long("quorum")),
        ("x-dead-letter-exchange", long(&stage.names.dropped)),
        ("x-dead-letter-strategy", long("at-least-once")),
        ("x-overflow", long("reject-publish")),
        ("x-delivery-limit", AMQPValue::LongInt(5)),
    ];
    declare_queue(&stage, jobs, &work).await;
    // As version 0.1.0 declared it.
    declare_queue(&stage, dead, &[("x-queue-type", long("quorum"))]).await;

    let ended = topology(&stage, &["diff"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    for part in [
        format!("queue {jobs} is another: "),
        "x-delivery-limit".into(),
        format!("rabbitmqctl delete_queue --vhost '/' --if-empty '{jobs}'\n"),
        format!("queue {dead} was declared without bounds by an older version"),
        format!("    rabbitmqctl set_policy --vhost '/' '{dead}-bounds'"),
    ] {
        let plain = ended.stdout.replace("--apply-to queues ", "");
        assert!(plain.contains(&part), "{part} is not in: {}", ended.stdout);
    }
    assert!(!ended.stdout.contains("is missing"), "{}", ended.stdout);
    let ended = topology(&stage, &["apply"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("x-delivery-limit"), "{ended:?}");
}

/// Nobody must be told to delete a queue because of a permission.
#[tokio::test]
async fn who_may_not_declare_is_told_that_nothing_is_compared() {
    let (stage, user) = with_user().await;
    user.allow(Permissions::to_work(&stage.names)).await;
    let ended = topology(&stage, &["diff"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_eq!(ended.stdout.matches(" cannot be compared: ").count(), 8, "{}", ended.stdout);
    for wrong in ["delete", "is missing", "is another"] {
        assert!(!ended.stdout.contains(wrong), "{wrong} is in: {}", ended.stdout);
    }
}

#[tokio::test]
async fn custom_resources_are_printed_for_the_cluster_that_is_named() {
    let stage = Stage::new().await;
    let ended = topology(&stage, &["--format", "messaging-topology", "--cluster", "rabbit"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let list: Value = serde_json::from_str(&ended.stdout).unwrap();
    let items = list["items"].as_array().unwrap();
    let kinds = ["Exchange", "Queue", "Binding"].map(|kind| items.iter().filter(|item| item["kind"] == kind).count());
    assert_eq!(kinds, [4, 4, 3]);
    assert_eq!(items[0]["spec"]["rabbitmqClusterReference"], json!({"name": "rabbit"}));
}

#[tokio::test]
async fn a_broker_that_is_away_and_a_wrong_name_end_with_their_codes() {
    let mut stage = Stage::new().await;
    stage.set("AMQP_URL", "amqp://127.0.0.1:1/");
    for word in ["apply", "diff"] {
        let ended = topology(&stage, &[word]).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{ended:?}");
        assert!(ended.stderr.contains("127.0.0.1:1"), "{ended:?}");
    }
    assert_eq!(topology(&stage, &["--queue", &"x".repeat(300)]).await.code, 2);
    assert_eq!(topology(&stage, &["--format", "yaml"]).await.code, 2);
    for cluster in ["", "-x", "X", "x\u{1b}"] {
        assert_eq!(topology(&stage, &["--cluster", cluster]).await.code, 2, "{cluster}");
    }
}

#[tokio::test]
async fn health_says_whether_a_worker_is_alive_and_ready() {
    let mut stage = Stage::new().await;
    let mut running = stage.worker().await;
    let addr = running.http.to_string();
    let health = async |args: &[&str], addr: &str| run(&[&["health"], args].concat(), &[("HTTP_ADDR", addr)]).await;
    for args in [&[][..], &["--ready"]] {
        let ended = health(args, &addr).await;
        assert_eq!((ended.code, ended.stdout + &ended.stderr), (0, String::new()), "{args:?}");
    }
    assert_eq!(running.stop().await, Some(0));
    let ended = health(&[], &addr).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("/livez does not answer"), "{ended:?}");
    assert_eq!(health(&[], "localhost").await.code, 2);

    // Alive, and not ready while it has no broker.
    stage.set("AMQP_URL", "amqp://127.0.0.1:1/");
    let waiting = stage.spawn();
    let addr = waiting.http_addr(LIMIT).await.to_string();
    assert_eq!(health(&[], &addr).await.code, 0);
    let ended = health(&["--ready"], &addr).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("/readyz says: HTTP/1.1 503"), "{ended:?}");
}

#[tokio::test]
async fn health_waits_two_seconds_for_a_stranger_who_says_nothing_whole() {
    let stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = stranger.local_addr().unwrap().to_string();
    let dripping = tokio::spawn(async move {
        let (mut stream, _) = stranger.accept().await.unwrap();
        while stream.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(200)).await;
        }
    });
    let ended = timeout(LIMIT, run(&["health"], &[("HTTP_ADDR", &addr)])).await.expect("an end");
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("nothing whole came within 2 s"), "{ended:?}");
    timeout(LIMIT, dripping).await.expect("it hung up").unwrap();
}
