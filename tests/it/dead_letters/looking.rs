//! `list` and `show`: what they say, that they are harmless, and that looking loses nothing.

use serde_json::Value;

use super::{GIVEN_UP, REFUSED, aged, assert_said, dead_letters, kept, letter, letters_left, settings, stage};
use crate::program::{command, run, terminal};
use crate::stage::{LIMIT, PHONE, Stage, ending};
use crate::support::broker::Broker;
use crate::support::client::Job;
use crate::support::raw::{RawMessage, long_string, property, short_string, table};

/// The columns of each line.
fn rows(stdout: &str) -> Vec<Vec<&str>> {
    stdout.lines().map(|line| line.split('\t').collect()).collect()
}

#[tokio::test]
async fn a_job_that_a_worker_cannot_understand_is_listed_and_shown_with_the_reason() {
    let (stage, _redis) = stage().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let job = Job::new(serde_json::json!({"Phone": PHONE})).id("a-job").correlation_id("login-7");
    client.publish(&stage.names.jobs, aged(job, 100)).await;
    assert_eq!(ending(&results.next(LIMIT).await).0, "invalid");
    running.until_settled(&stage.names).await;

    let listed = dead_letters(&stage, &["list"]).await;
    let rows = rows(&listed.stdout);
    assert_eq!(rows.len(), 1, "{listed:?}");
    assert_eq!(rows[0][1..], [REFUSED, "a-job", "*******484", "22"], "{listed:?}");
    assert!(rows[0][0].starts_with("1m "), "{listed:?}");
    assert_said(&listed, 0, &["1 letter shown of 1"]);

    let shown = dead_letters(&stage, &["show", "a-job"]).await;
    assert_said(
        &shown,
        0,
        &[
            "job            a-job",
            "reason         MultiChannelTempId is missing",
            "phone          *******484",
            "correlation_id login-7",
            "\"Phone\": \"*******484\"",
            "requeue        leaves it here: MultiChannelTempId is missing",
        ],
    );
    assert!(!shown.stdout.contains(PHONE) && !shown.stdout.contains("still wrong"), "{shown:?}");
    assert_said(&dead_letters(&stage, &["show", "another"]).await, 1, &["there is no letter with the id another"]);

    // With the template that the workers have now it is a job.
    let ended = dead_letters(&stage, &["show", "a-job", "--esms-template-id", "1", "--job-ttl", "1h"]).await;
    assert_said(&ended, 0, &["requeue        sends it: the ledger knows nothing of it"]);
    let ended = dead_letters(&stage, &["show", "a-job", "--esms-template-id", "1", "--job-ttl", "1m"]).await;
    assert_said(&ended, 0, &["requeue        lets it end expired", "with --fresh: sends it"]);
    assert_eq!(letters_left(&stage).await, 1);
}

#[tokio::test]
async fn letters_are_listed_by_age_and_chosen_by_id_reason_and_age() {
    let (stage, _redis) = stage().await;
    kept(
        &stage,
        [
            aged(letter(1, "new", REFUSED), 60),
            aged(letter(2, "old", GIVEN_UP), 90_000),
            letter(3, "ageless", "Phone is missing"),
            aged(letter(4, "older", REFUSED), 172_900),
        ],
    )
    .await;
    for (args, ids) in [
        (&[][..], &["older", "old", "new", "ageless"][..]),
        (&["--reason", "is missing"], &["older", "new", "ageless"]),
        (&["--older-than", "1h"], &["older", "old"]),
        (&["--newer-than", "1h"], &["new"]),
        (&["--id", "new", "--id", "ageless"], &["new", "ageless"]),
        (&["--id", "new", "--reason", "gave"], &[]),
    ] {
        let listed = dead_letters(&stage, &[&["list"], args].concat()).await;
        assert_eq!(listed.code, 0, "{listed:?}");
        let found: Vec<&str> = rows(&listed.stdout).iter().map(|row| row[2]).collect();
        assert_eq!(found, ids, "{args:?}");
    }
    let limited = dead_letters(&stage, &["list", "--limit", "3"]).await;
    assert_eq!(rows(&limited.stdout).len(), 3);
    assert_said(&limited, 0, &["3 letters shown of 4", "1 were not looked at", "--limit 4"]);

    let listed = dead_letters(&stage, &["list", "--json"]).await;
    let json: Vec<Value> = listed.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!((&json[0]["JobId"], &json[0]["Reason"]), (&"older".into(), &REFUSED.into()));
    assert_eq!((&json[0]["Phone"], &json[3]["AgeSeconds"]), (&"*******004".into(), &Value::Null));
    assert!(json[0]["AgeSeconds"].as_u64() >= Some(172_800), "{}", json[0]);
    assert_eq!(letters_left(&stage).await, 4);
}

#[tokio::test]
async fn on_a_terminal_it_is_a_table() {
    let (stage, _redis) = stage().await;
    kept(&stage, [aged(letter(1, "a-job", REFUSED), 7_300)]).await;
    let (mut ours, theirs) = terminal();
    let mut child = command(&["dead-letters", "list"], &settings(&stage));
    let child = child.stdout(theirs).spawn().expect("the program");
    let ended = tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("its end").expect("a child");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let mut seen = String::new();
    while seen.lines().count() < 2 || !seen.ends_with('\n') {
        let mut some = [0; 4096];
        let count = std::io::Read::read(&mut ours, &mut some).expect("a terminal");
        seen.push_str(&String::from_utf8_lossy(&some[..count]));
    }
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[0], "AGE    REASON                         JOB ID  PHONE       BYTES", "{seen}");
    assert_eq!(lines[1], "2h 1m  MultiChannelTempId is missing  a-job   *******001  50", "{seen}");
}

/// RabbitMQ 4 drops a message that was returned more than 20 times. RabbitMQ 3 does so where a policy says it.
#[tokio::test]
async fn fifty_looks_lose_no_letter() {
    let (stage, _redis) = stage().await;
    let (broker, dead) = (Broker::shared().await, &stage.names.dead);
    let pattern = format!("^{dead}$");
    broker.ctl(&["set_policy", dead, &pattern, r#"{"delivery-limit":20}"#, "--apply-to", "queues"]).await;
    kept(&stage, (0..8).map(|n| aged(letter(n, &format!("id-{n}"), REFUSED), 1_000).correlation_id("c"))).await;
    for look in 0..50 {
        // In each way that looks, and in one that is not looked at to its end.
        let args = match look % 5 {
            0 => &["list"][..],
            1 => &["list", "--reason", "missing", "--limit", "3"],
            2 => &["show", "id-7"],
            3 => &["requeue", "--id", "nobody", "--dry-run"],
            _ => &["purge", "--id", "nobody", "--yes"],
        };
        let ended = dead_letters(&stage, args).await;
        assert_eq!(letters_left(&stage).await, 8, "look {look}: {ended:?}");
    }
    let listed = dead_letters(&stage, &["list"]).await;
    let mut ids: Vec<&str> = rows(&listed.stdout).iter().map(|row| row[2]).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["id-0", "id-1", "id-2", "id-3", "id-4", "id-5", "id-6", "id-7"]);
    let shown = dead_letters(&stage, &["show", "id-7"]).await;
    assert_said(&shown, 0, &["correlation_id c", "reason         MultiChannelTempId is missing", "age            16m"]);
    broker.ctl(&["clear_policy", dead]).await;
}

#[tokio::test]
async fn hostile_letters_are_shown_harmless_and_without_a_number() {
    let (stage, _redis) = stage().await;
    let port = Broker::shared().await.port();
    let body = format!("{{\"Phone\":\"{PHONE}\",\u{1b}[2J\u{202e} {PHONE}");
    let reason = format!("to {PHONE}\u{1b}]0;title\u{7}\u{9b}31m\r\n\u{202e}");
    let id = format!("id\u{1b}[2J\t\u{202e}{PHONE}");
    let headers: [(&[u8], u8, Vec<u8>); 2] =
        [(b"x-error", b'S', long_string(reason)), (b"\x1b[31m", b'S', long_string(PHONE))];
    let hostile = RawMessage::new(body)
        .with(property::HEADERS, table(&headers))
        .with(property::CORRELATION_ID, short_string(format!("\u{1b}c{PHONE}")))
        .with(property::MESSAGE_ID, short_string(b"\xff\xfe\x1b[2J"));
    hostile.publish(port, &stage.names.dead).await.expect("published");
    kept(
        &stage,
        [Job::for_phone(PHONE, &id)
            .header("x-error", "x")
            .with(|properties| properties.with_app_id("\u{1b}[2J".into()))],
    )
    .await;
    kept(&stage, [Job::bytes(vec![0xff; 100_000]), Job::for_phone(PHONE, PHONE).header("x-error", "")]).await;

    for args in [&["list"][..], &["list", "--json"]] {
        let listed = dead_letters(&stage, args).await;
        assert_harmless(&listed.stdout);
        assert_eq!(listed.stdout.lines().count(), 4, "{listed:?}");
    }
    let listed = dead_letters(&stage, &["list"]).await;
    let ids: Vec<String> = rows(&listed.stdout).iter().map(|row| row[2].to_owned()).collect();
    assert!(ids.contains(&"*******484".to_owned()), "{ids:?}");
    // What is shown is taken for an id, too.
    for id in &ids {
        let shown = dead_letters(&stage, &["show", id]).await;
        assert_eq!(shown.code, 0, "{id}: {shown:?}");
        assert_harmless(&shown.stdout);
    }
    let shown = dead_letters(&stage, &["show", "no such\u{1b}[2J"]).await;
    assert_eq!(shown.code, 1);
    assert_harmless(&shown.stderr);
    assert_eq!(letters_left(&stage).await, 4);
}

fn assert_harmless(text: &str) {
    let is_bad = |c: char| (c.is_control() && c != '\n' && c != '\t') || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!text.contains(is_bad), "{text:?}");
    assert!(!text.contains(&PHONE[1..]), "{text}");
}

#[tokio::test]
async fn where_there_is_no_queue_or_no_broker_it_says_what_to_do() {
    let mut stage = Stage::new().await;
    let words = [&["list"][..], &["show", "a"], &["requeue", "--all"], &["purge", "--all", "--yes"]];
    for args in words {
        let ended = dead_letters(&stage, args).await;
        assert_said(&ended, 1, &["the broker has no queue", &stage.names.dead, "topology apply"]);
    }
    stage.set("AMQP_URL", "amqp://127.0.0.1:1/");
    for args in words {
        assert_said(&dead_letters(&stage, args).await, 1, &["127.0.0.1:1"]);
    }
}

#[tokio::test]
async fn wrong_usage_is_told_before_anything_is_connected_to() {
    let nowhere = [("AMQP_URL", "amqp://127.0.0.1:1/")];
    for (args, said) in [
        (&["requeue"][..], "--all"),
        (&["requeue", "--fresh"], "--all"),
        (&["requeue", "--all", "--id", "a"], "--id"),
        (&["requeue", "--all", "--new-id"], "OTP_LEDGER_URL"),
        (&["requeue", "--all", "--job-ttl", "soon"], "OTP_JOB_TTL"),
        (&["purge"], "--all"),
        (&["purge", "--all"], "give --yes"),
        (&["list", "--limit", "0"], "--limit"),
        (&["list", "--older-than", "old"], "--older-than"),
        (&["show"], "ID"),
        (&["frob"], "frob"),
    ] {
        let ended = run(&[&["dead-letters"], args].concat(), &nowhere).await;
        assert_said(&ended, 2, &[said]);
        assert!(!ended.stderr.contains("127.0.0.1:1"), "{args:?}: {ended:?}");
    }
    assert_said(&run(&["dead-letters"], &nowhere).await, 2, &["requeue"]);
}
