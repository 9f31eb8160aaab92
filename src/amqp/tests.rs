use super::*;
use fake_broker::{FakeBroker, refusing};
use futures_util::StreamExt;
use lapin::{
    options::{BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
};

mod fake_broker;
mod silence;

fn no_tls() -> Arc<ClientConfig> {
    crate::tls::client_config(Some(crate::tls::loopback::authority().0.as_bytes())).expect("a configuration")
}

fn uri(scheme: &str, port: u16) -> AMQPUri {
    format!("{scheme}://guest:secret@localhost:{port}/%2f").parse().expect("a URI")
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

/// An address that refuses connections and that nobody else can take.
pub(super) fn bound_only() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

async fn failure(port: u16) -> ConnectError {
    let error = connect(&uri("amqp", port), &no_tls(), "test").await.expect_err("no connection");
    let text = format!("{error} {error:?}");
    assert!(text.contains(&format!("localhost:{port}")) && !text.contains("secret"), "{text}");
    error
}

#[tokio::test]
async fn hostile_messages_do_not_keep_the_next_from_arriving() {
    let broker = FakeBroker::start(None).await;
    let connection = connect(&uri("amqp", broker.port), &no_tls(), "test").await.expect("a connection").connection;
    let channel = connection.create_channel().await.expect("a channel");
    channel.basic_qos(9, BasicQosOptions::default()).await.expect("a prefetch");
    let consume =
        channel.basic_consume("jobs".into(), "tag".into(), BasicConsumeOptions::default(), FieldTable::default());
    let deliveries = consume.await.expect("a consumer").take(fake_broker::BODIES.len());
    let bodies = deliveries.map(|delivery| delivery.expect("a delivery").data).collect::<Vec<_>>().await;
    assert_eq!(bodies, fake_broker::BODIES);
    connection.close(200, "done".into()).await.expect("an orderly end");
}

/// Two clusters may be behind one `AMQP_URL`, and a worker has several connections.
#[tokio::test]
async fn each_connection_says_to_which_cluster_it_leads() {
    let mut opened = Vec::new();
    for cluster in [Some("rabbit@one"), Some("rabbit@two"), None] {
        let broker = FakeBroker::of_cluster(cluster, None).await;
        let connected = connect(&uri("amqp", broker.port), &no_tls(), "test").await.expect("a connection");
        opened.push((cluster, connected));
    }
    for (cluster, connected) in &opened {
        assert_eq!(connected.cluster.as_deref(), *cluster);
    }
}

#[tokio::test]
async fn the_broker_is_told_who_connects_and_what_it_can_do() {
    let mut broker = FakeBroker::start(None).await;
    let connection =
        connect(&uri("amqp", broker.port), &no_tls(), "otp-worker 7").await.expect("a connection").connection;
    assert_eq!(connection.configuration().heartbeat(), HEARTBEAT);
    assert_eq!(connection.configuration().frame_max(), FRAME_MAX);
    let told = broker.client_properties().await;
    for said in ["otp-worker 7", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), "authentication_failure_close"] {
        assert!(told.contains(said), "{said} in {told}");
    }
}

#[tokio::test]
async fn a_broker_of_a_private_ca_is_reached_over_tls() {
    let (ca_pem, config) = crate::tls::loopback::authority();
    let broker = FakeBroker::start(Some(config)).await;
    let tls = crate::tls::client_config(Some(ca_pem.as_bytes())).expect("a configuration");
    let connection = connect(&uri("amqps", broker.port), &tls, "test").await.expect("a connection").connection;
    assert!(connection.status().connected());
}

#[tokio::test]
async fn a_broker_of_an_unknown_ca_is_refused() {
    let broker = FakeBroker::start(Some(crate::tls::loopback::authority().1)).await;
    let error = connect(&uri("amqps", broker.port), &no_tls(), "test").await.expect_err("refused");
    assert!(matches!(&error, ConnectError::Tls { .. }), "{error:?}");
    assert!(error.to_string().contains("AMQP_CA_FILE"), "{error}");
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_unreachable() {
    let (_bound, address) = bound_only();
    let port = address.port();
    let error = failure(port).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn refused_credentials_are_told_from_other_failures() {
    let error = failure(refusing(403, "ACCESS_REFUSED - Login was refused").await).await;
    assert!(matches!(error, ConnectError::Credentials { .. }), "{error:?}");
}

#[tokio::test]
async fn a_closed_virtual_host_is_told_from_other_failures() {
    let error = failure(refusing(530, "NOT_ALLOWED - vhost / not found").await).await;
    assert!(matches!(&error, ConnectError::Vhost { vhost, .. } if vhost == "/"), "{error:?}");
}

#[tokio::test]
async fn a_broker_in_trouble_is_none_of_these() {
    let error = failure(refusing(541, "INTERNAL_ERROR").await).await;
    assert!(matches!(error, ConnectError::Other { .. }), "{error:?}");
}

#[tokio::test]
async fn a_port_that_does_not_speak_amqp_is_recognised() {
    let (listener, port) = listener().await;
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.expect("a client");
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("an answer");
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    });
    let error = failure(port).await;
    assert!(error.to_string().contains("not AMQP 0-9-1"), "{error}");
}

#[tokio::test]
async fn a_broker_that_hangs_up_is_no_connection() {
    let (listener, port) = listener().await;
    tokio::spawn(async move { drop(listener.accept().await) });
    let error = failure(port).await;
    assert!(matches!(error, ConnectError::Other { .. }), "{error:?}");
}
