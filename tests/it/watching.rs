//! `watch`: what it shows, and that it takes results from nobody.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use esms_otp_worker::sandbox::Fault;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout};
use tokio::time::timeout;

use crate::program::{command, run};
use crate::stage::{LIMIT, PHONE, Stage, field};
use crate::support::broker::Broker;
use crate::support::client::{Client, Job};
use crate::support::wait::until;

/// A `watch` that runs.
struct Watch {
    child: Child,
    shown: Lines<BufReader<ChildStdout>>,
    said: Lines<BufReader<ChildStderr>>,
    /// Jobs whose results were shown.
    seen: BTreeSet<String>,
}

impl Watch {
    /// Started, and all its queues are bound.
    async fn start(stage: &Stage, flags: &[&str]) -> Self {
        let args = [&["watch"][..], flags].concat();
        let mut child = command(&args, &stage.env()).stdin(Stdio::null()).spawn().expect("the program");
        let shown = BufReader::new(child.stdout.take().expect("its output")).lines();
        let said = BufReader::new(child.stderr.take().expect("its errors")).lines();
        let mut watch = Self { child, shown, said, seen: BTreeSet::new() };
        assert!(watch.next_said().await.starts_with(&format!("watching {}; Ctrl-C ends", stage.names.results)));
        watch
    }

    async fn next_shown(&mut self) -> String {
        timeout(LIMIT, self.shown.next_line()).await.expect("a line in time").unwrap().expect("a line")
    }

    async fn next_said(&mut self) -> String {
        timeout(LIMIT, self.said.next_line()).await.expect("a line in time").unwrap().expect("a line")
    }

    /// The ids of so many jobs whose results come next. It must print JSON. RabbitMQ may refuse a result that is on its way
    /// to a queue that ends, and the worker then publishes it once more: repeats count once.
    async fn ids(&mut self, count: usize) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        while ids.len() < count {
            let json: Value = serde_json::from_str(&self.next_shown().await).expect("JSON");
            let id = json["JobId"].as_str().expect("an id").to_owned();
            if self.seen.insert(id.clone()) {
                ids.insert(id);
            }
        }
        ids
    }

    /// Interrupts it. Returns its exit code and what it had not told yet.
    async fn end(mut self) -> (Option<i32>, Vec<String>) {
        let pid = rustix::process::Pid::from_raw(self.child.id().expect("a process") as i32).expect("an id");
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
        let status = timeout(LIMIT, self.child.wait()).await.expect("an end in time").expect("a child");
        let mut rest = Vec::new();
        while let Ok(Some(line)) = self.shown.next_line().await {
            rest.push(line);
        }
        while let Ok(Some(line)) = self.said.next_line().await {
            rest.push(line);
        }
        (status.code(), rest)
    }
}

/// The numbers of jobs, as ids that sort like them.
fn ids(numbers: std::ops::Range<usize>) -> BTreeSet<String> {
    numbers.map(|n| format!("job-{n:04}")).collect()
}

async fn publish(client: &Client, stage: &Stage, numbers: std::ops::Range<usize>) {
    let jobs = ids(numbers).into_iter().map(|id| Job::for_phone(PHONE, &id));
    client.publish_all(&stage.names.jobs, jobs).await;
}

/// How many results are in the unrouted queue.
async fn unrouted(stage: &Stage) -> u32 {
    Broker::shared().await.queue_depth(&stage.names.unrouted).await.expect("the queue")
}

#[tokio::test]
async fn where_others_read_it_shows_every_result_and_they_get_every_result_too() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let mut watch = Watch::start(&stage, &["--json"]).await;
    publish(&client, &stage, 0..1).await;
    assert_eq!(watch.ids(1).await, ids(0..1));
    // The first came twice to the others, under the same message_id: it was the test.
    let repeats = results.collect(2, LIMIT).await;
    assert_eq!(repeats.len(), 2);
    assert!(repeats.iter().all(|repeat| field(repeat, "JobId") == "job-0000"));
    assert_eq!(repeats[0].properties, repeats[1].properties);
    publish(&client, &stage, 1..200).await;
    assert_eq!(watch.ids(199).await, ids(1..200));
    let read = results.collect(199, LIMIT).await;
    assert_eq!(read.iter().map(|result| field(result, "JobId")).collect::<BTreeSet<_>>(), ids(1..200));
    assert_eq!((unrouted(&stage).await, watch.end().await), (0, (Some(0), vec![])));
}

#[tokio::test]
async fn where_nobody_reads_it_shows_copies_and_every_result_is_kept() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let client = stage.client().await;
    let mut watch = Watch::start(&stage, &["--json"]).await;
    publish(&client, &stage, 0..100).await;
    assert_eq!(watch.ids(100).await, ids(0..100));
    let said = watch.next_said().await;
    assert!(said.starts_with("no other queue is bound") && said.contains("otp.accepted"), "{said}");
    assert!(said.contains("--take-unbound"), "{said}");
    publish(&client, &stage, 100..200).await;
    assert_eq!(watch.ids(100).await, ids(100..200));
    assert_eq!(watch.end().await, (Some(0), vec![]), "nothing else is shown or said");
    let kept = client.consume(&stage.names.unrouted).await.collect(200, LIMIT).await;
    assert_eq!(kept.iter().map(|result| field(result, "JobId")).collect::<BTreeSet<_>>(), ids(0..200));
}

#[tokio::test]
async fn each_outcome_is_found_out_about_by_itself() {
    let stage = Stage::new().await;
    stage.sandbox.script(None, vec![Fault::Code { code: "108".into(), message: String::new() }; 2]);
    let _running = stage.worker().await;
    let client = stage.client().await;
    let _accepted = client.results(&stage.names.results, "otp.accepted").await;
    let mut watch = Watch::start(&stage, &["--json"]).await;
    for n in 0..4 {
        publish(&client, &stage, n..n + 1).await;
        assert_eq!(watch.ids(1).await, ids(n..n + 1));
    }
    let said = watch.next_said().await;
    assert!(said.contains("otp.rejected"), "{said}");
    assert_eq!(watch.end().await, (Some(0), vec![]));
    until("the two rejected ones are kept", LIMIT, async || unrouted(&stage).await == 2).await;
}

#[tokio::test]
async fn with_take_unbound_it_says_that_what_it_shows_is_not_kept() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let client = stage.client().await;
    let args = ["watch", "--json", "--take-unbound", "--count", "3"];
    let mut watch = Watch::start(&stage, &args[1..]).await;
    publish(&client, &stage, 0..3).await;
    assert_eq!(watch.ids(3).await, ids(0..3));
    let status = timeout(LIMIT, watch.child.wait()).await.expect("an end in time").unwrap();
    assert_eq!((status.code(), unrouted(&stage).await), (Some(0), 0));
}

#[tokio::test]
async fn a_table_shows_what_the_filters_let_through() {
    let stage = Stage::new().await;
    let refused = |code: &str| Fault::Code { code: code.into(), message: "no".into() };
    stage.sandbox.script(None, vec![refused("108"), Fault::None, refused("110"), refused("108")]);
    let _running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let mut watch = Watch::start(
        &stage,
        &["--outcome", "rejected,failed", "--code", "108", "--id", "job-0003", "--id", "job-0000"],
    )
    .await;
    for n in 0..4 {
        publish(&client, &stage, n..n + 1).await;
        // One after the other, so that each meets its fault. One is a repeat, for it was the test.
        results.collect(if n == 0 { 2 } else { 1 }, LIMIT).await;
    }
    assert_eq!(watch.next_shown().await, "time (UTC)    outcome    code  attempts  job");
    for id in ["job-0000", "job-0003"] {
        let row = watch.next_shown().await;
        assert!(row.contains("rejected     108         1") && row.contains(id), "{row}");
    }
    assert_eq!(watch.end().await, (Some(0), vec![]));
}

#[tokio::test]
async fn several_at_once_show_everything_and_take_nothing() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let client = stage.client().await;
    let mut watches = [Watch::start(&stage, &["--json"]).await, Watch::start(&stage, &["--json"]).await];
    // Both find out at the same time that nobody else reads.
    publish(&client, &stage, 0..1).await;
    for watch in &mut watches {
        assert_eq!(watch.ids(1).await, ids(0..1));
    }
    publish(&client, &stage, 1..50).await;
    for watch in &mut watches {
        assert_eq!(watch.ids(49).await, ids(1..50));
    }
    // One comes later, and the first two go on.
    let [first, second] = watches;
    assert_eq!(first.end().await.0, Some(0));
    let mut watches = [second, Watch::start(&stage, &["--json", "--outcome", "accepted"]).await];
    publish(&client, &stage, 50..51).await;
    for watch in &mut watches {
        assert_eq!(watch.ids(1).await, ids(50..51));
    }
    publish(&client, &stage, 51..100).await;
    for watch in &mut watches {
        assert_eq!(watch.ids(49).await, ids(51..100));
    }
    for watch in watches {
        assert_eq!(watch.end().await.0, Some(0));
    }
    let mut kept = client.consume(&stage.names.unrouted).await;
    let mut all = BTreeSet::new();
    while all.len() < 100 {
        all.insert(field(&kept.next(LIMIT).await, "JobId"));
    }
    assert_eq!(all, ids(0..100));
}

#[tokio::test]
async fn what_it_has_not_come_to_when_it_ends_is_kept() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let client = stage.client().await;
    for first in [0, 100, 200] {
        let mut watch = Watch::start(&stage, &["--json", "--count", "1"]).await;
        publish(&client, &stage, first..first + 100).await;
        watch.ids(1).await;
        let status = timeout(LIMIT, watch.child.wait()).await.expect("an end in time").unwrap();
        assert_eq!(status.code(), Some(0));
    }
    let mut kept = client.consume(&stage.names.unrouted).await;
    let mut all = BTreeSet::new();
    while all.len() < 300 {
        all.insert(field(&kept.next(LIMIT).await, "JobId"));
    }
    assert_eq!(all, ids(0..300));
}

/// A pipe that nobody reads from is full after some results.
#[tokio::test]
async fn while_nobody_reads_its_output_results_are_given_back() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let client = stage.client().await;
    let watch = Watch::start(&stage, &["--json"]).await;
    publish(&client, &stage, 0..2_000).await;
    let invalid = (0..5).map(|_| Job::bytes("no job"));
    client.publish_all(&stage.names.jobs, invalid).await;
    until("all are kept", LIMIT, async || unrouted(&stage).await >= 2_005).await;
    drop(watch);
}

#[tokio::test]
async fn it_ends_when_nobody_reads_its_output_any_more() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let (client, _results) = stage.audience().await;
    let mut watch = Watch::start(&stage, &["--json"]).await;
    publish(&client, &stage, 0..1).await;
    watch.next_shown().await;
    let Watch { mut child, shown, .. } = watch;
    drop(shown);
    publish(&client, &stage, 1..3).await;
    let status = timeout(LIMIT, child.wait()).await.expect("an end in time").unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn killed_it_leaves_no_queue_and_no_binding() {
    let stage = Stage::new().await;
    let _running = stage.worker().await;
    let client = stage.client().await;
    let mut watch = Watch::start(&stage, &["--json"]).await;
    publish(&client, &stage, 0..1).await;
    watch.ids(1).await;
    watch.next_said().await;
    watch.child.kill().await.unwrap();
    // Its queues end with its connection.
    let broker = Broker::shared().await;
    let bindings = format!(
        "length(rabbit_binding:list_for_source(rabbit_misc:r(<<\"/\">>, exchange, <<\"{}\">>))).",
        stage.names.unrouted
    );
    until("its binding is gone", LIMIT, async || broker.eval(&bindings).await == "1").await;
    publish(&client, &stage, 1..3).await;
    until("all three are kept", LIMIT, async || unrouted(&stage).await == 3).await;
}

#[tokio::test]
async fn what_is_missing_or_lost_is_told_with_what_to_do() {
    let stage = Stage::new().await;
    let ended = run(&["watch"], &stage.env()).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
    assert!(ended.stderr.contains("start a worker first"), "{}", ended.stderr);
    let ended = run(&["watch", "--outcome", "fine"], &stage.env()).await;
    assert!(ended.code == 2 && ended.stderr.contains("accepted"), "{ended:?}");
    let ended = run(&["watch", "--count", "0"], &stage.env()).await;
    assert!(ended.code == 2 && ended.stderr.contains("--count"), "{ended:?}");

    let broker = Broker::start().await;
    let stage = Stage::on(&broker.url()).await;
    let _running = stage.worker().await;
    let watch = Watch::start(&stage, &[]).await;
    broker.kill().await;
    let mut child = watch.child;
    let status = timeout(LIMIT, child.wait()).await.expect("an end in time").unwrap();
    let mut said = watch.said;
    let line = timeout(Duration::from_secs(5), said.next_line()).await.expect("a line").unwrap().expect("a line");
    assert!(status.code() == Some(1) && line.contains("broker"), "{line}");
}
