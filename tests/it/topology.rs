//! The objects on the broker: declared as the contract describes them, and compared with those that are
//! there.

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

use crate::stage::{LIMIT, PHONE, Stage, ending};
use crate::support::broker::Broker;
use crate::support::client::Job;

/// What `rabbitmqctl` lists about the objects of this stage, in the order of their names.
async fn listed(stage: &Stage, list: &[&str]) -> Vec<Value> {
    let text = Broker::shared().await.ctl(&[&["-q", "--formatter", "json"], list].concat()).await;
    let all: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let prefix = stage.names.jobs.trim_end_matches("jobs");
    let name = |object: &Value| object.get("name").or(object.get("source_name"))?.as_str().map(str::to_owned);
    let mut ours: Vec<Value> =
        all.into_iter().filter(|object| name(object).is_some_and(|name| name.starts_with(prefix))).collect();
    ours.sort_by_key(name);
    ours
}

fn text(name: &str, value: &str) -> Value {
    json!([name, "longstr", value])
}

#[tokio::test]
async fn the_objects_declared_are_exactly_those_of_the_contract() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let names = &stage.names;

    let queue = |name: &str, arguments: Vec<Value>| json!({"name": name, "durable": true, "auto_delete": false, "arguments": arguments, "policy": ""});
    let quorum = || text("x-queue-type", "quorum");
    let gibibyte = || json!(["x-max-length-bytes", "signedint", 1024 * 1024 * 1024]);
    let week = json!(["x-message-ttl", "signedint", 7 * 24 * 3600 * 1000]);
    let drop_head = || text("x-overflow", "drop-head");
    let work = |dead_letters_to: &str| {
        vec![
            text("x-dead-letter-exchange", dead_letters_to),
            text("x-dead-letter-strategy", "at-least-once"),
            json!(["x-delivery-limit", "signedint", 20]),
            text("x-overflow", "reject-publish"),
            quorum(),
        ]
    };
    assert_eq!(
        listed(&stage, &["list_queues", "name", "durable", "auto_delete", "arguments", "policy"]).await,
        [
            queue(&names.dead, vec![gibibyte(), drop_head(), quorum()]),
            queue(&names.dropped, work(&names.dead)),
            queue(&names.jobs, work(&names.dropped)),
            queue(&names.unrouted, vec![gibibyte(), week, drop_head(), quorum()]),
        ]
    );

    let exchange = |name: &str, kind: &str, arguments: Vec<Value>| json!({"name": name, "type": kind, "durable": true, "auto_delete": false, "internal": false, "arguments": arguments, "policy": ""});
    assert_eq!(
        listed(
            &stage,
            &["list_exchanges", "name", "type", "durable", "auto_delete", "internal", "arguments", "policy"]
        )
        .await,
        [
            exchange(&names.dead, "fanout", vec![]),
            exchange(&names.dropped, "fanout", vec![]),
            exchange(&names.results, "topic", vec![text("alternate-exchange", &names.unrouted)]),
            exchange(&names.unrouted, "fanout", vec![]),
        ]
    );

    let bound = |name: &str| json!({"source_name": name, "destination_name": name, "destination_kind": "queue", "arguments": []});
    assert_eq!(
        listed(&stage, &["list_bindings", "source_name", "destination_name", "destination_kind", "arguments"]).await,
        [bound(&names.dead), bound(&names.dropped), bound(&names.unrouted)]
    );
}

/// Waits until the worker ends by itself, with exit code 3. Returns the error that it logs.
async fn refuses_to_start(stage: &Stage) -> String {
    let mut process = stage.spawn();
    let code = process.wait_exit(LIMIT).await;
    assert_eq!(code, Some(3), "{}", process.log().join("\n"));
    let last: Value = serde_json::from_str(process.log().last().expect("a log")).expect("a JSON line");
    assert_eq!(last["level"], "ERROR");
    last["fields"]["error"].as_str().or(last["error"].as_str()).expect("an error").to_owned()
}

async fn declare_queue(stage: &Stage, name: &str, arguments: &[(&str, AMQPValue)]) {
    try_to_declare(stage, name, arguments, false).await.expect("declared");
}

async fn try_to_declare(
    stage: &Stage,
    name: &str,
    arguments: &[(&str, AMQPValue)],
    passive: bool,
) -> Result<(), String> {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    let options = QueueDeclareOptions { durable: true, passive, ..QueueDeclareOptions::default() };
    let client = stage.client().await;
    let declared = client.channel().queue_declare(name.into(), options, table).await;
    declared.map(drop).map_err(|error| error.to_string())
}

/// The arguments of the queues that version 0.1.0 declared without bounds.
fn of_version_0_1_0() -> [(&'static str, AMQPValue); 1] {
    [("x-queue-type", AMQPValue::LongString("quorum".into()))]
}

#[tokio::test]
async fn every_object_that_differs_is_named_with_both_values_and_exit_code_3() {
    let stage = Stage::new().await;
    let names = &stage.names;
    let long = |text: &str| AMQPValue::LongString(text.into());
    let work = [
        ("x-queue-type", long("quorum")),
        ("x-dead-letter-exchange", long(&names.dropped)),
        ("x-dead-letter-strategy", long("at-least-once")),
        ("x-overflow", long("reject-publish")),
        ("x-delivery-limit", AMQPValue::LongInt(5)),
    ];
    declare_queue(&stage, &names.jobs, &work).await;
    declare_queue(&stage, &names.dead, &[]).await;
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let client = stage.client().await;
    let exchange = client.channel().exchange_declare(
        names.results.as_str().into(),
        ExchangeKind::Direct,
        options,
        FieldTable::default(),
    );
    exchange.await.expect("declared");

    let said = refuses_to_start(&stage).await;
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    for (object, argument, values) in [
        (format!("queue {}: ", names.jobs), "x-delivery-limit", ["'20'", "'5'"]),
        (format!("queue {}: ", names.dead), "x-queue-type", ["'quorum'", "none"]),
        (format!("exchange {}: ", names.results), "type", ["'topic'", "'direct'"]),
    ] {
        let line = lines.iter().find(|line| line.starts_with(&object)).unwrap_or_else(|| panic!("{object} in {said}"));
        assert!(line.contains(argument) && values.iter().all(|value| line.contains(value)), "{line}");
    }
    assert_eq!(lines.len(), 5, "a heading, three objects, and what to do: {said}");
}

#[tokio::test]
async fn checking_names_every_object_that_is_missing_and_makes_none() {
    let mut stage = Stage::new().await;
    stage.set("OTP_TOPOLOGY", "check");
    let said = refuses_to_start(&stage).await;
    let names = &stage.names;
    for name in [&names.unrouted, &names.dead, &names.dropped, &names.results] {
        assert!(said.contains(&format!("exchange {name}: NOT_FOUND")), "{name} in {said}");
    }
    for name in [&names.unrouted, &names.dead, &names.dropped, &names.jobs] {
        assert!(said.contains(&format!("queue {name}: NOT_FOUND")), "{name} in {said}");
        assert_eq!(Broker::shared().await.queue_depth(name).await, None);
    }
}

#[tokio::test]
async fn with_the_objects_there_the_worker_works_whether_it_checks_them_or_not() {
    let mut stage = Stage::new().await;
    assert_eq!(stage.worker().await.stop().await, Some(0), "they are declared");
    for mode in ["check", "skip"] {
        stage.set("OTP_TOPOLOGY", mode);
        let (mut running, result) = stage.play(vec![]).await;
        assert_eq!(ending(&result), ("accepted".into(), 1, false), "{mode}");
        assert_eq!(running.stop().await, Some(0), "{mode}");
    }
}

#[tokio::test]
async fn without_a_check_a_missing_exchange_or_queue_is_named_and_waited_for() {
    let mut stage = Stage::new().await;
    stage.set("OTP_TOPOLOGY", "skip");
    let waiting = stage.spawn();
    let said = waiting.wait_for_log("NOT_FOUND", LIMIT).await;
    assert!(said.contains("no exchange"), "{said}");
    let client = stage.client().await;
    for exchange in [&stage.names.results, &stage.names.dead] {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let (kind, none) = (ExchangeKind::Topic, FieldTable::default());
        client.channel().exchange_declare(exchange.as_str().into(), kind, options, none).await.expect("declared");
    }
    let said = waiting.wait_for_log("no queue", LIMIT).await;
    assert!(said.contains("NOT_FOUND") && said.contains(&stage.names.jobs), "{said}");
    for exchange in [&stage.names.results, &stage.names.dead] {
        client.channel().exchange_delete(exchange.as_str().into(), Default::default()).await.expect("deleted");
    }
    stage.set("OTP_TOPOLOGY", "declare");
    assert_eq!(stage.worker().await.stop().await, Some(0), "they are declared");
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    assert_eq!(ending(&results.next(LIMIT).await), ("accepted".into(), 1, false));
}

/// What the shell makes of a command whose arguments are all in single quotes or have no blanks.
fn words(command: &str) -> Vec<String> {
    let quoted = command.split('\'').enumerate();
    quoted
        .flat_map(|(nth, part)| match nth % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
        .collect()
}

#[tokio::test]
async fn queues_of_version_0_1_0_are_taken_as_they_are_and_the_policy_that_is_named_bounds_them_and_loses_nothing() {
    let broker = Broker::shared().await;
    let stage = Stage::new().await;
    let (names, client) = (&stage.names, stage.client().await);
    let old = [&names.dead, &names.unrouted];
    for queue in old {
        declare_queue(&stage, queue, &of_version_0_1_0()).await;
        client.publish(queue, Job::bytes("kept")).await;
    }
    let mut running = stage.worker().await;
    let mut policies = Vec::new();
    for queue in old {
        let found = |line: &String| line.contains("without bounds") && line.contains(&format!("\"queue\":\"{queue}\""));
        let said: Vec<String> = running.process.log().into_iter().filter(found).collect();
        assert_eq!(said.len(), 1, "{queue}: {said:?}");
        let line: Value = serde_json::from_str(&said[0]).expect("JSON");
        assert_eq!(line["level"], "WARN");
        let command = words(line["set_policy"].as_str().expect("a command"));
        assert_eq!(command[0], "rabbitmqctl");
        broker.ctl(&command[1..].iter().map(String::as_str).collect::<Vec<_>>()).await;
        policies.push(json!({"name": queue, "policy": format!("{queue}-bounds")}));
    }
    let bounded = listed(&stage, &["list_queues", "name", "policy"]).await;
    assert!(policies.iter().all(|policy| bounded.contains(policy)), "{bounded:?}");
    assert_eq!(bounded.iter().filter(|queue| queue["policy"] != "").count(), 2, "no other queue: {bounded:?}");
    assert_eq!(running.stop().await, Some(0));

    let _again = stage.worker().await;
    let results = client.publish(&names.jobs, Job::bytes("no job"));
    results.await;
    for queue in old {
        let mut kept = client.consume(queue).await;
        assert_eq!(kept.next(LIMIT).await.body, b"kept");
        kept.next(LIMIT).await;
    }
}

/// docs/operating.md says what follows from it for a worker of version 0.1.0 that is started beside such queues.
#[tokio::test]
async fn queues_that_this_version_made_cannot_be_declared_as_version_0_1_0_did_but_can_be_checked() {
    let stage = Stage::new().await;
    let names = &stage.names;
    let mut running = stage.worker().await;
    for queue in [&names.dead, &names.unrouted] {
        let said = try_to_declare(&stage, queue, &of_version_0_1_0(), false).await.expect_err("refused");
        assert!(said.contains("PRECONDITION_FAILED") && said.contains("received none but current is"), "{said}");
        assert_eq!(try_to_declare(&stage, queue, &of_version_0_1_0(), true).await, Ok(()));
    }
    assert_eq!(running.stop().await, Some(0));

    // Once they are deleted, version 0.1.0 can declare them, and this version takes them.
    let client = stage.client().await;
    for queue in [&names.dead, &names.unrouted] {
        client.channel().queue_delete(queue.as_str().into(), Default::default()).await.expect("deleted");
        declare_queue(&stage, queue, &of_version_0_1_0()).await;
    }
    assert_eq!(stage.worker().await.stop().await, Some(0));
}
