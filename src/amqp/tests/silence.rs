//! A silent broker blocks neither the caller nor lapin's thread.

use super::*;
use std::{future::poll_fn, pin::Pin, time::Instant as Clock};
use tokio::{
    io::{DuplexStream, duplex},
    net::TcpStream,
};

const SOON: Limits = Limits {
    reach: reach::Limits { tcp: Duration::from_secs(5), tls: Duration::from_millis(200) },
    handshake: Duration::from_millis(200),
};

/// Accepts connections, and never sends anything on them.
async fn silent_broker() -> (tokio::sync::mpsc::UnboundedReceiver<TcpStream>, u16) {
    let (listener, port) = listener().await;
    let (accepted, connections) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let _ = accepted.send(tcp);
        }
    });
    (connections, port)
}

/// Reads until the client hangs up. By then lapin's thread has dropped its stream.
async fn hung_up(mut tcp: TcpStream) {
    let mut said = Vec::new();
    let end = tcp.read_to_end(&mut said);
    let _ = timeout(Duration::from_secs(20), end).await.expect("the client hangs up");
}

fn lapin_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("the threads of this process");
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
    tasks.flatten().filter_map(|task| name(task).ok()).filter(|name| name.trim() == "lapin-io-loop").count()
}

#[tokio::test]
async fn a_silent_broker_costs_no_thread() {
    const ATTEMPTS: usize = 12;
    let (mut connections, port) = silent_broker().await;
    for _ in 0..ATTEMPTS {
        let error = connect_within(SOON, &uri("amqp", port), &no_tls(), "test").await.expect_err("silence");
        assert!(matches!(&error, ConnectError::Timeout { step: "the AMQP handshake", .. }), "{error:?}");
        hung_up(connections.recv().await.expect("the connection")).await;
    }
    // Other tests have lapin threads too, but not for long.
    let deadline = Clock::now() + Duration::from_secs(20);
    while lapin_threads() >= ATTEMPTS / 2 {
        assert!(Clock::now() < deadline, "{} threads are left", lapin_threads());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_attempt_that_is_given_up_costs_no_thread() {
    let (mut connections, port) = silent_broker().await;
    let (uri, tls) = (uri("amqp", port), no_tls());
    let tcp = tokio::select! {
        _ = connect_within(SOON, &uri, &tls, "test") => panic!("the broker is silent"),
        tcp = async {
            let mut tcp = connections.recv().await.expect("the connection");
            tcp.read_exact(&mut [0; 8]).await.expect("lapin's protocol header");
            tcp
        } => tcp,
    };
    hung_up(tcp).await;
}

#[tokio::test]
async fn a_broker_silent_before_tls_is_not_waited_for() {
    let (_connections, port) = silent_broker().await;
    let error = connect_within(SOON, &uri("amqps", port), &no_tls(), "test").await.expect_err("silence");
    assert!(matches!(&error, ConnectError::Timeout { step: "the TLS handshake", .. }), "{error:?}");
}

const OPEN_OK: &[u8] = &[1, 0, 0, 0, 0, 0, 5, 0, 10, 0, 41, 0, 0xCE];
const HEARTBEAT_FRAME: &[u8] = &[8, 0, 0, 0, 0, 0, 0, 0xCE];

fn stream(silence: Option<u64>) -> (DuplexStream, SievedStream) {
    let (broker, socket) = duplex(1024);
    let patience =
        Patience { open_by: Instant::now() + Duration::from_secs(10), silence: silence.map(Duration::from_secs) };
    (broker, SievedStream::new(Box::new(socket), Sieve::new(FRAME_MAX), patience))
}

async fn read(stream: &mut SievedStream) -> io::Result<usize> {
    let mut buffer = [0; 64];
    poll_fn(|cx| futures_io::AsyncRead::poll_read(Pin::new(&mut *stream), cx, &mut buffer)).await
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_not_opened_in_time_fails() {
    let start = Instant::now();
    let (mut broker, mut stream) = stream(None);
    broker.write_all(HEARTBEAT_FRAME).await.expect("room");
    assert_eq!(read(&mut stream).await.expect("the heartbeat"), HEARTBEAT_FRAME.len());
    let error = read(&mut stream).await.expect_err("silence");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_open_connection_lives_as_long_as_something_is_heard() {
    let (mut broker, mut stream) = stream(Some(30));
    broker.write_all(OPEN_OK).await.expect("room");
    assert_eq!(read(&mut stream).await.expect("open-ok"), OPEN_OK.len());
    for _ in 0..10 {
        tokio::time::advance(Duration::from_secs(25)).await;
        broker.write_all(HEARTBEAT_FRAME).await.expect("room");
        assert_eq!(read(&mut stream).await.expect("a heartbeat"), HEARTBEAT_FRAME.len());
    }
    let start = Instant::now();
    let error = read(&mut stream).await.expect_err("silence");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(start.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn without_heartbeats_an_open_connection_may_be_silent() {
    let (mut broker, mut stream) = stream(None);
    broker.write_all(OPEN_OK).await.expect("room");
    read(&mut stream).await.expect("open-ok");
    let day = Duration::from_secs(24 * 3600);
    assert!(timeout(day, read(&mut stream)).await.is_err());
}
