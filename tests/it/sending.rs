//! The `send` command: what it queues, prints and says, and its exit code.

use esms_otp_worker::sandbox::Fault;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use crate::program::{Ended, command, run, run_with_input};
use crate::stage::{LIMIT, PHONE, Stage, field};
use crate::support::broker::Broker;
use lapin::types::AMQPValue;

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

fn json_lines(ended: &Ended) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    ended.stdout.lines().map(parse).collect()
}

/// Declares the queue of jobs, and leaves no worker that processes them.
async fn queue_only(stage: &Stage) {
    let mut running = stage.worker().await;
    assert_eq!(running.stop().await, Some(0));
}

fn job(n: u32) -> String {
    json!({"Phone": format!("0901{n:06}"), "MultiChannelTempId": "1234"}).to_string()
}

#[tokio::test]
async fn one_job_from_flags_is_queued_as_a_producer_would() {
    let stage = Stage::new().await;
    queue_only(&stage).await;
    let flags =
        ["send", "--phone", PHONE, "--template", "1234", "--type", "1", "--time-alive", "5", "--expiration", "1m"];
    let ended = run(&flags, &stage.env()).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, "queued 1 job\n"));
    let client = stage.client().await;
    let queued = client.consume(&stage.names.jobs).await.next(LIMIT).await;
    let expected = json!({"Phone": PHONE, "MultiChannelTempId": "1234", "TypeId": "1", "TimeAlive": "5"});
    assert_eq!(queued.json(), expected);
    let properties = &queued.properties;
    assert_eq!(ended.stdout, format!("{}\n", properties.message_id().as_ref().unwrap()));
    assert_eq!(properties.expiration().as_ref().unwrap().as_str(), "60000");
    assert_eq!((properties.delivery_mode(), properties.reply_to()), (&Some(2), &None));
    let seconds = properties.timestamp().expect("a timestamp");
    let millis = properties.headers().as_ref().and_then(|headers| headers.inner().get("timestamp_in_ms").cloned());
    let Some(AMQPValue::LongLongInt(millis)) = millis else { panic!("{millis:?}") };
    assert_eq!(millis as u64 / 1_000, seconds);
}

#[tokio::test]
async fn json_lines_come_from_a_file_or_from_standard_input() {
    let stage = Stage::new().await;
    queue_only(&stage).await;
    // One line is empty, one has the line end of another system, and the last line has no end.
    let jobs = format!("{}\n\n{}\r\n{}", job(1), job(2), job(3));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.jsonl");
    std::fs::write(&path, &jobs).unwrap();
    let from_file = run(&["send", path.to_str().unwrap()], &stage.env()).await;
    let from_input = run_with_input(&["send", "-"], &stage.env(), &jobs).await;
    for ended in [from_file, from_input] {
        assert_eq!((ended.code, ended.stderr.as_str()), (0, "queued 3 jobs\n"));
        assert_eq!(lines(&ended.stdout).len(), 3);
    }
    assert_eq!(Broker::shared().await.queue_depth(&stage.names.jobs).await, Some(6));
}

#[tokio::test]
async fn lines_as_editors_leave_them_are_jobs() {
    let stage = Stage::new().await;
    queue_only(&stage).await;
    // Two files with a byte order mark, joined.
    let jobs = format!("\u{feff}{}\r\n\u{feff}\r\n\u{feff}{}\r\n", job(1), job(2));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.jsonl");
    std::fs::write(&path, &jobs).unwrap();
    for ended in [
        run(&["send", path.to_str().unwrap()], &stage.env()).await,
        run_with_input(&["send", "-"], &stage.env(), &jobs).await,
    ] {
        assert_eq!((ended.code, ended.stderr.as_str()), (0, "queued 2 jobs\n"));
    }
    let client = stage.client().await;
    let queued = client.consume(&stage.names.jobs).await.collect(4, LIMIT).await;
    let bodies: Vec<String> = queued.iter().map(|job| String::from_utf8(job.body.clone()).unwrap()).collect();
    assert_eq!(bodies, [job(1), job(2), job(1), job(2)]);
}

#[tokio::test]
async fn a_file_in_another_encoding_is_named_and_nothing_is_queued() {
    let stage = Stage::new().await;
    queue_only(&stage).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.jsonl");
    let units = |swap: bool| {
        let text = format!("\u{feff}{}\r\n", job(1));
        text.encode_utf16().flat_map(|unit| if swap { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
    };
    for bytes in [units(false), units(true)] as [Vec<u8>; 2] {
        std::fs::write(&path, bytes).unwrap();
        let ended = run(&["send", path.to_str().unwrap()], &stage.env()).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
        assert!(ended.stderr.contains("is UTF-16 text: save it as UTF-8"), "{}", ended.stderr);
    }
    assert_eq!(Broker::shared().await.queue_depth(&stage.names.jobs).await, Some(0));
}

#[tokio::test]
async fn every_job_is_queued_though_nobody_reads_the_ids_any_more() {
    let stage = Stage::new().await;
    queue_only(&stage).await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = command(&["send", "-"], &stage.env()).stdout(writer).spawn().unwrap();
    let jobs: String = (0..1_000).map(|n| job(n) + "\n").collect();
    child.stdin.take().unwrap().write_all(jobs.as_bytes()).await.unwrap();
    let ended = timeout(LIMIT, child.wait_with_output()).await.expect("an end in time").unwrap();
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b"queued 1000 jobs\n"[..]));
    assert_eq!(Broker::shared().await.queue_depth(&stage.names.jobs).await, Some(1_000));
}

#[tokio::test]
async fn with_wait_the_results_are_printed_as_json_lines() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let (_client, mut results) = stage.audience().await;
    let jobs: String = (0..50).map(|n| job(n) + "\n").collect();
    let ended = run_with_input(&["send", "-", "--wait"], &stage.env(), &jobs).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, "queued 50 jobs: 50 accepted\n"));
    let mut printed: Vec<String> = json_lines(&ended).iter().map(|json| json["JobId"].to_string()).collect();
    let published = results.collect(50, LIMIT).await;
    let mut published: Vec<String> = published.iter().map(|result| format!("{:?}", field(result, "JobId"))).collect();
    printed.sort();
    published.sort();
    assert_eq!(printed, published);
    assert_eq!(stage.sandbox.accepted_total(), 50);
}

#[tokio::test]
async fn with_wait_a_job_that_is_not_accepted_is_a_failure() {
    let stage = Stage::new().await;
    stage.sandbox.script(Some("0901000001"), vec![Fault::Code { code: "108".into(), message: String::new() }]);
    let _running = stage.worker().await;
    let jobs = format!("{}\n{}\n", job(1), job(2));
    let ended = run_with_input(&["send", "-", "--wait"], &stage.env(), &jobs).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (1, "queued 2 jobs: 1 accepted, 1 rejected\n"));
    assert_eq!(json_lines(&ended).len(), 2);
}

#[tokio::test]
async fn a_bad_line_is_named_by_its_number_and_the_rest_is_sent() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let bad = json!({"Phone": "09018884x4", "MultiChannelTempId": "1234"});
    let secret = json!({"Phone": PHONE, "ApiKey": "CANARY"});
    let jobs = format!("{}\n\n{bad}\n{}\nno json\n{secret}\n", job(1), job(2));
    let ended = run_with_input(&["send", "-", "--wait"], &stage.env(), &jobs).await;
    assert_eq!(ended.code, 1);
    let said = lines(&ended.stderr);
    assert_eq!(said.len(), 4, "{said:?}");
    for (line, words) in said.iter().zip([
        ["not queued: line 3: ", "Phone"],
        ["not queued: line 5: ", "JSON"],
        ["not queued: line 6: ", "ApiKey"],
        ["queued 2 jobs: 2 accepted; 3 lines are not queued", ""],
    ]) {
        assert!(line.starts_with(words[0]) && line.contains(words[1]), "{line}");
    }
    assert!(!ended.stderr.contains("CANARY") && !ended.stderr.contains("09018884x4"));
    assert_eq!((json_lines(&ended).len(), stage.sandbox.accepted_total()), (2, 2));
}

#[tokio::test]
async fn without_the_queue_it_says_what_to_do() {
    let stage = Stage::new().await;
    for wait in [&["send", "--phone", PHONE][..], &["send", "--phone", PHONE, "--wait"]] {
        let ended = run(wait, &stage.env()).await;
        assert_eq!(ended.code, 1, "{ended:?}");
        let expected = format!("has no queue {}: start a worker first", stage.names.jobs);
        assert!(ended.stderr.contains(&expected) && ended.stderr.lines().count() == 1, "{}", ended.stderr);
    }
}

#[tokio::test]
async fn without_a_broker_it_says_so() {
    let ended = run(&["send", "--phone", PHONE], &[("AMQP_URL", "amqp://guest:CANARY@127.0.0.1:1/%2f")]).await;
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("refused") && !ended.stderr.contains("CANARY"), "{}", ended.stderr);
}

#[tokio::test]
async fn without_a_worker_it_says_how_many_results_are_missing() {
    let stage = Stage::new().await;
    queue_only(&stage).await;
    let jobs = format!("{}\n{}\n", job(1), job(2));
    let ended = run_with_input(&["send", "-", "--wait", "--timeout", "1s"], &stage.env(), &jobs).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (3, ""));
    assert!(ended.stderr.starts_with("queued 2 jobs\n2 without a result in time"), "{}", ended.stderr);
    assert_eq!(Broker::shared().await.queue_depth(&stage.names.jobs).await, Some(2));
}

#[tokio::test]
async fn wrong_usage_is_told_before_anything_is_connected_to() {
    for (args, named) in [
        (&["send"][..], "FILE"),
        (&["send", "-", "--phone", PHONE], "cannot be used with"),
        (&["send", "-", "--template", "1"], "--phone"),
        (&["send", "-", "--timeout", "soon"], "--timeout"),
        (&["send", "-", "--rate", "0"], "--rate"),
        (&["send", "-", "--format", "xml"], "--format"),
        (&["send", "-", "--batch", ""], "--batch"),
        (&["send", "--phone", PHONE, "--batch", "a"], "--batch"),
        (&["send", "-", "--id", "a"], "--phone"),
        (&["send", "--phone", PHONE, "--id", &"x".repeat(201)], "longer than 200 bytes"),
        (&["send", "-", "--amqp-url", "nowhere"], "AMQP_URL"),
    ] {
        let ended = run(args, &[("AMQP_URL", "amqp://192.0.2.1")]).await;
        assert_eq!(ended.code, 2, "{args:?}: {ended:?}");
        assert!(ended.stderr.contains(named), "{args:?}: {ended:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let ended = run(&["send", "/no/such/jobs.jsonl"], &[]).await;
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("cannot read /no/such/jobs.jsonl"), "{}", ended.stderr);
}

/// Reads one line of what the command prints.
async fn next_line(output: &mut (impl AsyncBufReadExt + Unpin)) -> String {
    let mut line = String::new();
    timeout(LIMIT, output.read_line(&mut line)).await.expect("a line in time").unwrap();
    line
}

#[tokio::test]
async fn a_producer_that_pauses_longer_than_the_timeout_loses_no_result() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let patience = std::time::Duration::from_secs(3);
    let mut child = command(&["send", "-", "--wait", "--timeout", "3s"], &stage.env()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    input.write_all(format!("{}\n", job(1)).as_bytes()).await.unwrap();
    assert!(next_line(&mut output).await.contains("accepted"));
    // This does not wait for a condition: the pause itself is tested.
    tokio::time::sleep(patience + patience / 5).await;
    input.write_all(format!("{}\n", job(2)).as_bytes()).await.unwrap();
    assert!(next_line(&mut output).await.contains("accepted"));
    drop(input);
    let ended = timeout(LIMIT, child.wait_with_output()).await.expect("an end in time").unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "queued 2 jobs: 2 accepted\n");
    assert_eq!(ended.status.code(), Some(0));
}
