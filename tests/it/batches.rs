//! `send` with many jobs: CSV, batches that are repeated, a rate, an alarm of the broker, and output for programs.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use esms_otp_worker::sandbox::Fault;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use crate::program::{Ended, command, run, run_with_input, terminal};
use crate::stage::{LIMIT, PHONE, Stage};
use crate::support::broker::Broker;
use crate::support::wait::until;

fn phone(n: usize) -> String {
    format!("0901{n:06}")
}

fn csv(numbers: impl IntoIterator<Item = usize>) -> String {
    let rows = numbers.into_iter().map(|n| format!("{},1234\n", phone(n)));
    "Phone,MultiChannelTempId\n".to_owned() + &rows.collect::<String>()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

async fn batch(stage: &Stage, input: &str) -> Ended {
    run_with_input(&["send", "-", "--format", "csv", "--batch", "a-batch", "--wait"], &stage.env(), input).await
}

#[tokio::test]
async fn a_csv_file_as_a_spreadsheet_writes_it_is_sent() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("people.csv");
    let rows = format!("\u{feff}Name;Phone;MultiChannelTempId\r\n\"A; B\";{};1234\r\nC;901000002;1234\r\n", phone(1));
    std::fs::write(&path, rows).unwrap();
    let ended = run(&["send", path.to_str().unwrap(), "--wait"], &stage.env()).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    let said: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("not queued: line 3: Phone was changed by a spreadsheet"), "{}", said[0]);
    assert_eq!(said[1], "queued 1 job: 1 accepted; 1 line is not queued");
    assert_eq!((stage.sandbox.accepted(&phone(1)), stage.sandbox.accepted_total()), (1, 1));
}

#[tokio::test]
async fn a_file_without_names_of_columns_sends_nothing_and_says_what_it_needs() {
    let stage = Stage::new().await;
    let ended = batch(&stage, "0901000001,1234\n").await;
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
    assert!(ended.stderr.contains("the first line must name the columns, and one of them Phone"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_batch_of_10_000_that_is_killed_at_half_and_repeated_sends_each_phone_one_otp() {
    const ALL: usize = 10_000;
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("people.csv");
    std::fs::write(&path, csv(0..ALL)).unwrap();
    let args = ["send", path.to_str().unwrap(), "--batch", "a-batch", "--wait"];
    // Nobody reads the errors of the first run.
    let mut first = command(&args, &stage.env()).stderr(Stdio::null()).spawn().unwrap();
    let mut results = BufReader::new(first.stdout.take().unwrap()).lines();
    for _ in 0..ALL / 2 {
        timeout(LIMIT, results.next_line()).await.expect("a result in time").unwrap().expect("a result");
    }
    first.kill().await.unwrap();
    // At least half was sent, and what was queued beyond that is worked meanwhile.
    assert!(stage.sandbox.accepted_total() >= (ALL / 2) as u64);
    let mut second = command(&args, &stage.env());
    let second = second.stdin(Stdio::null()).spawn().unwrap().wait_with_output();
    let second = timeout(4 * LIMIT, second).await.expect("an end in time").unwrap();
    let said = String::from_utf8_lossy(&second.stderr).lines().last().map(str::to_owned);
    assert_eq!((said.as_deref(), second.status.code()), (Some("queued 10000 jobs: 10000 accepted"), Some(0)));
    let answered: BTreeSet<String> = json_lines(&String::from_utf8_lossy(&second.stdout))
        .iter()
        .map(|result| result["JobId"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(answered.len(), ALL);
    assert_eq!((stage.sandbox.accepted_total() as usize, stage.sandbox.duplicates()), (ALL, vec![]));
}

#[tokio::test]
async fn a_batch_that_was_edited_sends_only_what_is_new() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let ended = batch(&stage, &csv([1, 2, 3, 3])).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, "queued 4 jobs: 4 accepted\n"));
    // Other order, one less, two new, and a third time the number that stood there twice. The new ones as JSON.
    let lines = [4, 3, 3, 1, 3, 5]
        .map(|n| json!({"MultiChannelTempId": 1234, "Phone": format!("+84901{n:06}")}).to_string() + "\n");
    let args = ["send", "-", "--batch", "a-batch", "--wait"];
    let ended = run_with_input(&args, &stage.env(), &lines.concat()).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, "queued 6 jobs: 6 accepted\n"));
    let sent = |n: usize| stage.sandbox.accepted(&phone(n)) + stage.sandbox.accepted(&format!("84901{n:06}"));
    assert_eq!([1, 2, 3, 4, 5].map(sent), [1, 1, 3, 1, 1]);
}

#[tokio::test]
async fn a_pipe_is_read_once() {
    let stage = Stage::new().await;
    assert_eq!(stage.worker().await.stop().await, Some(0));
    let args = ["send", "/dev/stdin", "--format", "csv"];
    let ended = run_with_input(&args, &stage.env(), &csv(0..3)).await;
    assert_eq!((ended.code, ended.stderr.as_str(), ended.stdout.lines().count()), (0, "queued 3 jobs\n", 3));
}

#[tokio::test]
async fn with_wait_nothing_is_late_before_everything_is_queued() {
    let stage = Stage::new().await;
    assert_eq!(stage.worker().await.stop().await, Some(0));
    let args = ["send", "-", "--format", "csv", "--wait", "--rate", "10", "--timeout", "300ms"];
    let ended = run_with_input(&args, &stage.env(), &csv(0..10)).await;
    assert!(ended.stderr.starts_with("queued 10 jobs\n10 without a result in time"), "{ended:?}");
    assert_eq!(ended.code, 3);
}

#[tokio::test]
async fn a_full_queue_is_told_with_how_much_is_on_it() {
    let mut stage = Stage::new().await;
    assert_eq!(stage.worker().await.stop().await, Some(0));
    let client = stage.client().await;
    let name = format!("{}.small", stage.names.jobs);
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(50));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let durable = QueueDeclareOptions::durable();
    client.channel().queue_declare(name.as_str().into(), durable, arguments).await.unwrap();
    stage.set("OTP_QUEUE", &name);
    let ended = run_with_input(&["send", "-", "--format", "csv"], &stage.env(), &csv(0..400)).await;
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr.contains("the queue may be full. Start workers, or send the rest later"), "{}", ended.stderr);
    let depth = Broker::shared().await.queue_depth(&name).await.unwrap() as usize;
    assert_eq!(ended.stdout.lines().count(), depth, "each that is queued has its id printed");
    assert!(ended.stderr.contains(&format!("{depth} jobs are queued already")), "{}", ended.stderr);
}

#[tokio::test]
async fn the_id_of_one_job_can_be_given_and_its_repeat_is_recognised() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    for _ in 0..2 {
        let ended =
            run(&["send", "--phone", PHONE, "--template", "1", "--id", "login-42", "--wait"], &stage.env()).await;
        assert_eq!((ended.code, json_lines(&ended.stdout)[0]["JobId"].as_str()), (0, Some("login-42")), "{ended:?}");
    }
    assert_eq!(stage.sandbox.accepted_total(), 1);
}

#[tokio::test]
async fn no_more_jobs_a_second_are_queued_than_wanted() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let began = Instant::now();
    let args = ["send", "-", "--format", "csv", "--rate", "20", "--wait"];
    let ended = run_with_input(&args, &stage.env(), &csv(0..41)).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, "queued 41 jobs: 41 accepted\n"));
    // The first goes at once, and the rest one every 50 ms. A tenth of a second may be made up for.
    assert!(began.elapsed() >= Duration::from_millis(1_900), "{:?}", began.elapsed());
}

#[tokio::test]
async fn for_programs_everything_is_json() {
    let stage = Stage::new().await;
    let refused = || Fault::Code { code: "108".into(), message: String::new() };
    stage.sandbox.script(Some(&phone(2)), vec![refused(), refused()]);
    let _running = stage.worker().await;
    let input = csv([1]) + "x,1234\n" + &format!("{},1234\n", phone(2));
    for wait in [&[][..], &["--wait"]] {
        let args = [&["send", "-", "--format", "csv", "--json"][..], wait].concat();
        let ended = run_with_input(&args, &stage.env(), &input).await;
        let (out, told) = (json_lines(&ended.stdout), json_lines(&ended.stderr));
        assert_eq!((ended.code, out.len(), told.len()), (1, 2, 2), "{ended:?}");
        assert_eq!((&told[0]["Event"], &told[0]["Line"]), (&json!("refused"), &json!(3)));
        let outcomes = if wait.is_empty() { Value::Null } else { json!({"accepted": 1, "rejected": 1}) };
        assert_eq!(told[1], json!({"Event": "ended", "Queued": 2, "Refused": 1, "Outcomes": outcomes, "Missing": 0}));
        // In the order of the confirms.
        let lines: BTreeSet<Option<u64>> = out.iter().map(|line| line["Line"].as_u64()).collect();
        assert!(!wait.is_empty() || lines == BTreeSet::from([Some(2), Some(4)]), "{out:?}");
    }
}

#[tokio::test]
async fn on_a_terminal_results_are_a_table() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let (mut ours, theirs) = terminal();
    let args = ["send", "--phone", PHONE, "--template", "1", "--id", "login-42", "--wait"];
    let mut child = command(&args, &[&stage.env()[..], &[("TERM", "xterm")]].concat());
    let child = child.stdin(Stdio::null()).stdout(theirs.try_clone().unwrap()).stderr(Stdio::piped()).spawn().unwrap();
    let ended = timeout(LIMIT, child.wait_with_output()).await.expect("an end in time").unwrap();
    assert!(ended.status.success(), "{ended:?}");
    drop(theirs);
    let mut shown = [0; 4096];
    let read = ours.read(&mut shown).unwrap();
    let shown = String::from_utf8_lossy(&shown[..read]).into_owned();
    for part in ["time (UTC)", "\x1b[32maccepted", "  100  ", "login-42"] {
        assert!(shown.contains(part), "{part:?}: {shown:?}");
    }
}

/// Reads lines until one has the words.
async fn line_with(lines: &mut (impl AsyncBufReadExt + Unpin), words: &str) -> String {
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        let read = timeout(LIMIT, lines.read_line(&mut line)).await.expect("a line in time").unwrap();
        assert!(read > 0, "no line with {words}");
    }
    line
}

#[tokio::test]
async fn an_alarm_of_the_broker_is_told_and_waited_for() {
    let broker = Broker::start().await;
    let stage = Stage::on(&broker.url()).await;
    assert_eq!(stage.worker().await.stop().await, Some(0));
    let watermark = async |share: &str| {
        broker.eval(&format!("vm_memory_monitor:set_vm_memory_high_watermark({share}).")).await;
    };
    watermark("0.0").await;
    until("the alarm", LIMIT, async || broker.eval("rabbit_alarm:get_alarms().").await.contains("memory")).await;
    let mut child = command(&["send", "-", "--format", "csv"], &stage.env()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap());
    input.write_all(csv(0..1_000).as_bytes()).await.unwrap();
    drop(input);
    line_with(&mut told, "short of memory or disk").await;
    watermark("0.4").await;
    line_with(&mut told, "the broker takes messages again").await;
    line_with(&mut told, "queued 1000 jobs").await;
    let status = timeout(LIMIT, child.wait()).await.expect("an end in time").unwrap();
    assert_eq!((status.code(), broker.queue_depth(&stage.names.jobs).await), (Some(0), Some(1_000)));
}

#[tokio::test]
async fn an_interrupted_batch_says_that_the_same_command_goes_on() {
    let stage = Stage::new().await;
    assert_eq!(stage.worker().await.stop().await, Some(0));
    for (batch, hint) in [
        (&["--batch", "a-batch"][..], "Give the same command again to go on: it sends nobody twice"),
        (&[], "With --batch NAME it sends nobody twice"),
    ] {
        let args = [&["send", "-", "--format", "csv"][..], batch].concat();
        let mut child = command(&args, &stage.env()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut ids = BufReader::new(child.stdout.take().unwrap()).lines();
        input.write_all(csv(0..3).as_bytes()).await.unwrap();
        for _ in 0..3 {
            timeout(LIMIT, ids.next_line()).await.expect("an id in time").unwrap().expect("an id");
        }
        // The input goes on: the end has another reason.
        let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let ended = timeout(LIMIT, child.wait_with_output()).await.expect("an end in time").unwrap();
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(3), "{told}");
        assert!(told.contains("interrupted\n3 jobs are queued already. ") && told.contains(hint), "{told}");
        drop(input);
    }
}
