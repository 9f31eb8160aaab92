//! Tests of the support code that the other tests use.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::broker::Broker;
use crate::support::client::{Client, DIRECT_REPLY_TO, Job};
use crate::support::metrics::{self, Scrape};
use crate::support::ports;
use crate::support::proxy::{Direction, Proxy};
use crate::support::raw::{self, RawMessage, property};
use crate::support::wait::until;
use crate::support::worker::Worker;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_quorum_queues_message_outlives_a_stopped_and_a_killed_node() {
    let broker = Broker::start().await;
    let client = Client::connect(&broker.url()).await;
    declare_quorum(&client, "kept").await;
    client.publish("kept", Job::new(json!({}))).await;

    broker.stop().await;
    assert!(TcpStream::connect(("127.0.0.1", broker.port())).await.is_err());
    broker.start_again().await;
    until("the message is there after a stop", SOON, async || broker.queue_depth("kept").await == Some(1)).await;

    broker.kill().await;
    broker.start_again().await;
    until("the message is there after a kill", SOON, async || broker.queue_depth("kept").await == Some(1)).await;
}

#[tokio::test]
async fn nothing_is_left_of_a_node_when_its_owner_is_gone() {
    let port = ports::free_block(3);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/private-rabbitmq.sh");
    let mut supervisor =
        Command::new(script).arg(port.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut commands = supervisor.stdin.take().unwrap();
    let mut answers = BufReader::new(supervisor.stdout.take().unwrap()).lines();
    writeln!(commands, "start").unwrap();
    assert_eq!(answers.next().unwrap().unwrap(), format!("ready {port}"));
    let asked = Command::new(script).args([&port.to_string(), "eval", "os:getpid()."]).output().unwrap();
    let answer = String::from_utf8(asked.stdout).unwrap();
    let node: String = answer.chars().filter(char::is_ascii_digit).collect();
    assert!(alive(&node), "{answer}");
    let directory = std::env::temp_dir().join(format!("esms-otp-rabbitmq-{port}"));
    assert!(directory.exists());

    // The kernel does the same for a process that dies.
    drop(commands);
    supervisor.wait().unwrap();

    assert!(!alive(&node));
    assert!(!directory.exists());
    for port in port..port + 3 {
        let epmd_or_node = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
        assert!(epmd_or_node.is_err(), "something listens on {port}");
    }
}

fn alive(pid: &str) -> bool {
    let probe = Command::new("kill").args(["-0", pid]).output();
    probe.is_ok_and(|probe| probe.status.success())
}

#[tokio::test]
async fn a_stalled_proxy_holds_back_the_confirm_of_a_message_that_has_arrived() {
    let broker = Broker::shared().await;
    let proxy = Proxy::start(broker.port()).await;
    let bystander = Client::connect(&broker.url()).await;
    let client = Client::connect(&broker.url_through(proxy.port())).await;
    declare_quorum(&bystander, "stalled").await;

    proxy.stall_named("test-client", Direction::ToClient);
    let publishing = tokio::spawn(async move {
        client.publish("stalled", Job::new(json!({}))).await;
    });
    until("the message has arrived", SOON, async || broker.queue_depth("stalled").await == Some(1)).await;
    // A later message, on another connection, is confirmed before it.
    bystander.publish("stalled", Job::new(json!({}))).await;
    assert!(!publishing.is_finished());

    proxy.resume();
    tokio::time::timeout(SOON, publishing).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stall_for_another_name_holds_nothing_back() {
    let broker = Broker::shared().await;
    let proxy = Proxy::start(broker.port()).await;
    proxy.stall_named("publisher", Direction::Both);
    let client = Client::connect(&broker.url_through(proxy.port())).await;
    declare_quorum(&client, "unstalled").await;
    client.publish("unstalled", Job::new(json!({}))).await;
    assert_eq!((proxy.accepted(), proxy.open()), (1, 1));
}

#[tokio::test]
async fn a_stall_can_be_for_what_a_client_has_said() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(target.local_addr().unwrap().port()).await;
    proxy.stall_matching(b"secret", Direction::Both);
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    let (mut server, _) = target.accept().await.unwrap();
    client.write_all(b"one sec").await.unwrap();
    server.read_exact(&mut [0; 7]).await.unwrap();
    client.write_all(b"ret").await.unwrap();
    let mut held_back = [0; 3];
    let read = server.read_exact(&mut held_back);
    tokio::pin!(read);
    // Without the stall, a loopback connection would have brought the bytes by then.
    let early = tokio::time::timeout(Duration::from_millis(100), &mut read).await;
    assert!(early.is_err());
    proxy.resume();
    tokio::time::timeout(SOON, read).await.unwrap().unwrap();
    assert_eq!(&held_back, b"ret");
}

#[tokio::test]
async fn a_proxy_resets_refuses_and_lets_in_again() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(target.local_addr().unwrap().port()).await;
    let address = (Ipv4Addr::LOCALHOST, proxy.port());

    let mut client = TcpStream::connect(address).await.unwrap();
    let (mut server, _) = target.accept().await.unwrap();
    client.write_all(b"hello").await.unwrap();
    server.read_exact(&mut [0; 5]).await.unwrap();
    proxy.cut().await;
    for side in [&mut client, &mut server] {
        let error = side.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }

    proxy.refuse().await;
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    proxy.accept_again().await;
    TcpStream::connect(address).await.unwrap();
}

#[tokio::test]
async fn raw_bytes_arrive_as_they_were_written() {
    let broker = Broker::shared().await;
    let client = Client::connect(&broker.url()).await;
    declare_quorum(&client, "raw").await;
    let headers =
        raw::table(&[(b"bytes", b'S', raw::long_string(b"\xff\xfe")), (b"nested", b'F', raw::nested_table(3))]);
    let body = vec![b'x'; 300_000];
    RawMessage::new(body.clone())
        .with(property::MESSAGE_ID, raw::short_string("id"))
        .with(property::HEADERS, headers)
        .publish(broker.port(), "raw")
        .await
        .unwrap();

    let message = client.consume("raw").await.next(SOON).await;
    assert_eq!(message.body, body);
    assert_eq!(message.properties.message_id().as_ref().unwrap().as_str(), "id");
    let headers = message.properties.headers().as_ref().unwrap().inner();
    assert_eq!(headers["bytes"], AMQPValue::LongString(b"\xff\xfe".as_slice().into()));
    assert_eq!(depth(&headers["nested"]), 3);
}

fn depth(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::FieldTable(table) => 1 + table.inner().values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[tokio::test]
async fn the_broker_takes_what_a_proper_client_cannot_send() {
    let broker = Broker::shared().await;
    let client = Client::connect(&broker.url()).await;
    declare_quorum(&client, "improper").await;
    let not_utf8 = RawMessage::new("x").with(property::MESSAGE_ID, raw::short_string(b"\xc3\x28"));
    let deep = RawMessage::new("x").with(property::HEADERS, raw::nested_table(1000));
    for message in [not_utf8, deep] {
        message.publish(broker.port(), "improper").await.unwrap();
    }
    assert_eq!(broker.queue_depth("improper").await, Some(2));
}

#[tokio::test]
async fn a_raw_publish_that_the_broker_refuses_says_why() {
    let broker = Broker::shared().await;
    let unknown_type = raw::table(&[(b"key", b'?', vec![])]);
    let refused = RawMessage::new("x").with(property::HEADERS, unknown_type).publish(broker.port(), "nowhere").await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn a_taken_and_unanswered_message_counts_as_unacked_and_not_as_ready() {
    let broker = Broker::shared().await;
    let client = Client::connect(&broker.url()).await;
    declare_quorum(&client, "unacked.quorum").await;
    declare(&client, "unacked.classic", FieldTable::default()).await;
    for queue in ["unacked.quorum", "unacked.classic"] {
        client.publish(queue, Job::new(json!({}))).await;
        assert_eq!(broker.unacked(queue).await, 0, "{queue}");
        let options = BasicGetOptions::default();
        let taken = client.channel().basic_get(queue.into(), options).await;
        assert!(taken.unwrap().is_some());
        assert_eq!(broker.unacked(queue).await, 1, "{queue}");
        assert_eq!(broker.queue_depth(queue).await, Some(0), "{queue}");
    }
    assert_eq!(broker.queue_depth("unacked.none").await, None);
    let listed = broker.ctl(&["list_queues", "--quiet", "name"]).await;
    assert!(listed.contains("unacked.quorum"), "{listed}");
}

#[tokio::test]
async fn a_client_receives_what_is_routed_and_what_is_replied_to_it() {
    let broker = Broker::shared().await;
    let [asking, answering] = [Client::connect(&broker.url()).await, Client::connect(&broker.url()).await];
    let mut questions = answering.results("amq.topic", "question.*").await;
    let mut replies = asking.direct_replies().await;
    let question = Job::for_phone("0901888484", "q1").reply_to(DIRECT_REPLY_TO);
    asking.publish_to("amq.topic", "question.one", question).await;

    let question = questions.next(SOON).await;
    assert_eq!(question.routing_key, "question.one");
    assert_eq!(question.json()["Phone"], "0901888484");
    let reply_to = question.properties.reply_to().clone().unwrap();
    let answer = Job::new(json!("yes")).header("traceparent", "00-1-2-01");
    answering.reply(reply_to.as_str(), answer).await;

    let answer = replies.next(SOON).await;
    assert_eq!(answer.json(), json!("yes"));
    let headers = answer.properties.headers().clone().unwrap();
    assert_eq!(headers.inner()["traceparent"], AMQPValue::LongString("00-1-2-01".into()));
}

#[tokio::test]
async fn a_sample_is_read_by_its_name_and_labels() {
    let text = "# HELP jobs_total Jobs.\n# TYPE jobs_total counter\n\
                jobs_total{outcome=\"accepted\",scope=\"a\"} 3\n\
                jobs_total{outcome=\"failed\",scope=\"a\"} 4\n\
                jobs 1\n";
    let scrape = Scrape::parse(text);
    assert_eq!(scrape.value("jobs_total", &[("outcome", "failed")]), Some(4.0));
    assert_eq!(scrape.value("jobs_total", &[("scope", "a")]), Some(7.0));
    assert_eq!(scrape.value("jobs_total", &[("outcome", "x")]), None);
    assert_eq!(scrape.value("jobs", &[]), Some(1.0));

    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = server.local_addr().unwrap();
    tokio::spawn(async move {
        for seen in 0.. {
            let (mut client, _) = server.accept().await.unwrap();
            assert_ne!(client.read(&mut [0; 1024]).await.unwrap(), 0);
            let answer = format!("HTTP/1.0 200 OK\r\n\r\nseen_total {seen}\n");
            client.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let seen = metrics::wait_for(addr, "seen_total", &[], |seen| seen >= 2.0, SOON).await;
    assert_eq!(seen, 2.0);
}

#[tokio::test]
async fn a_process_is_heard_signalled_and_waited_for() {
    let says = r#"echo '{"fields":{"message":"http listening","addr":"127.0.0.1:9"}}' >&2
                  trap 'echo stopping >&2; exit 3' TERM
                  while :; do sleep 0.05; done"#;
    let mut process = Worker::spawn_command("/bin/sh", &["-c", says], &[]);
    let addr = process.http_addr(SOON).await;
    assert_eq!(addr, "127.0.0.1:9".parse().unwrap());
    // That log line may come before the shell has set its trap, so the signal is sent again and again.
    until("the signal is handled", SOON, async || {
        process.signal("TERM");
        !process.log_containing("stopping").is_empty()
    })
    .await;
    assert_eq!(process.wait_exit(SOON).await, Some(3));

    let mut process = Worker::spawn_command(
        "/bin/sh",
        &["-c", "echo $HTTP_ADDR $GIVEN $HOME. >&2; exec sleep 60"],
        &[("GIVEN", "this")],
    );
    process.wait_for_log("127.0.0.1:0 this .", SOON).await;
    assert_eq!(process.wait_exit(Duration::from_millis(50)).await, None);
    process.signal("KILL");
    assert_eq!(process.wait_exit(SOON).await, Some(128 + 9));
}

async fn declare_quorum(client: &Client, queue: &str) {
    let mut arguments = FieldTable::default();
    let quorum = AMQPValue::LongString("quorum".into());
    arguments.insert("x-queue-type".into(), quorum);
    declare(client, queue, arguments).await;
}

async fn declare(client: &Client, queue: &str, arguments: FieldTable) {
    let options = QueueDeclareOptions::durable();
    let declared = client.channel().queue_declare(queue.into(), options, arguments).await;
    assert!(declared.is_ok(), "{declared:?}");
}
