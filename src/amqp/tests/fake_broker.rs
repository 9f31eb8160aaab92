//! A minimal broker: it can open a connection and deliver hostile messages.

use amq_protocol::{
    frame::{AMQPFrame, WriteContext, gen_frame, parse_frame},
    protocol::{AMQPClass, basic, channel, connection},
};
use lapin::types::{AMQPValue, FieldTable};
use rustls::ServerConfig;
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::oneshot,
};
use tokio_rustls::TlsAcceptor;

use crate::amqp::stream::Socket;

/// The bodies delivered to a consumer. All but the last come after properties that lapin cannot parse.
pub(super) const BODIES: [&[u8]; 4] = [b"bad id", b"bad key", b"deep", b"good"];

/// Serves one connection.
pub(super) struct FakeBroker {
    pub(super) port: u16,
    client_properties: oneshot::Receiver<String>,
}

impl FakeBroker {
    pub(super) async fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        Self::of_cluster(None, tls).await
    }

    /// A broker that says the name of its cluster, as RabbitMQ does.
    pub(super) async fn of_cluster(cluster: Option<&'static str>, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (told, client_properties) = oneshot::channel();
        tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.expect("a client");
            let socket: Box<dyn Socket> = match tls {
                None => Box::new(tcp),
                Some(config) => match TlsAcceptor::from(config).accept(tcp).await {
                    Ok(stream) => Box::new(stream),
                    Err(_) => return,
                },
            };
            let mut peer = Peer { socket, unparsed: Vec::new() };
            let _ = told.send(peer.greet(cluster).await);
            peer.open().await;
            peer.serve().await;
        });
        Self { port, client_properties }
    }

    pub(super) async fn client_properties(&mut self) -> String {
        (&mut self.client_properties).await.expect("a client that introduced itself")
    }
}

/// The port of a broker that closes the connection instead of opening it.
pub(super) async fn refusing(code: u16, text: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.expect("a client");
        let mut peer = Peer { socket: Box::new(tcp), unparsed: Vec::new() };
        peer.greet(None).await;
        let close = connection::Close { reply_code: code, reply_text: text.into(), class_id: 0, method_id: 0 };
        peer.say(connection::AMQPMethod::Close(close)).await;
        while peer.hear().await.is_some() {}
    });
    port
}

struct Peer {
    socket: Box<dyn Socket>,
    unparsed: Vec<u8>,
}

impl Peer {
    /// Runs the handshake up to connection.start-ok, and returns the client properties in it.
    async fn greet(&mut self, cluster: Option<&str>) -> String {
        let mut protocol = [0; 8];
        self.socket.read_exact(&mut protocol).await.expect("a protocol header");
        let mut server_properties = FieldTable::default();
        if let Some(name) = cluster {
            server_properties.insert("cluster_name".into(), AMQPValue::LongString(name.into()));
        }
        let start = connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties,
            mechanisms: "PLAIN".into(),
            locales: "en_US".into(),
        };
        self.say(connection::AMQPMethod::Start(start)).await;
        match self.hear().await {
            Some(AMQPClass::Connection(connection::AMQPMethod::StartOk(ok))) => readable(&ok.client_properties),
            other => panic!("not start-ok: {other:?}"),
        }
    }

    async fn open(&mut self) {
        let tune = connection::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 };
        self.say(connection::AMQPMethod::Tune(tune)).await;
        self.hear().await.expect("tune-ok");
        self.hear().await.expect("open");
        self.say(connection::AMQPMethod::OpenOk(connection::OpenOk {})).await;
    }

    async fn serve(&mut self) {
        while let Some(method) = self.hear().await {
            match method {
                AMQPClass::Channel(channel::AMQPMethod::Open(_)) => {
                    self.answer(AMQPClass::Channel(channel::AMQPMethod::OpenOk(channel::OpenOk {}))).await;
                }
                AMQPClass::Basic(basic::AMQPMethod::Qos(_)) => {
                    self.answer(AMQPClass::Basic(basic::AMQPMethod::QosOk(basic::QosOk {}))).await;
                }
                AMQPClass::Basic(basic::AMQPMethod::Consume(consume)) => {
                    let ok = basic::ConsumeOk { consumer_tag: consume.consumer_tag };
                    self.answer(AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(ok))).await;
                    self.deliver_all().await;
                }
                AMQPClass::Connection(connection::AMQPMethod::Close(_)) => {
                    self.say(connection::AMQPMethod::CloseOk(connection::CloseOk {})).await;
                }
                _ => {}
            }
        }
    }

    async fn deliver_all(&mut self) {
        let deep = (0..1000).fold(Vec::new(), |inner, _| {
            [&b"\x01aF"[..], &u32::try_from(inner.len()).expect("a size").to_be_bytes(), &inner[..]].concat()
        });
        let deep = [&u32::try_from(deep.len()).expect("a size").to_be_bytes(), &deep[..]].concat();
        self.deliver(1, 1 << 7, b"\x03\xff\xfea").await;
        self.deliver(2, 1 << 13, b"\0\0\0\x03\x01\xffV").await;
        self.deliver(3, 1 << 13, &deep).await;
        self.deliver(4, 1 << 7, b"\x02id").await;
    }

    async fn deliver(&mut self, delivery_tag: u64, flags: u16, properties: &[u8]) {
        let body = BODIES[usize::try_from(delivery_tag).expect("an index") - 1];
        let deliver = basic::Deliver {
            consumer_tag: "tag".into(),
            delivery_tag,
            redelivered: false,
            exchange: "".into(),
            routing_key: "jobs".into(),
        };
        self.answer(AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver))).await;
        let payload = [
            &[0, 60, 0, 0][..],
            &u64::try_from(body.len()).expect("a size").to_be_bytes(),
            &flags.to_be_bytes(),
            properties,
        ]
        .concat();
        let size = u32::try_from(payload.len()).expect("a size").to_be_bytes();
        self.write(&[&[2, 0, 1][..], &size, &payload, &[0xCE]].concat()).await;
        self.write(&written(&AMQPFrame::Body(1, body.to_vec()))).await;
    }

    async fn say(&mut self, method: connection::AMQPMethod) {
        self.write(&written(&AMQPFrame::Method(0, AMQPClass::Connection(method)))).await;
    }

    async fn answer(&mut self, method: AMQPClass) {
        self.write(&written(&AMQPFrame::Method(1, method))).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.expect("a client that reads");
        self.socket.flush().await.expect("a client that reads");
    }

    /// The next method, or nothing after the client has hung up.
    async fn hear(&mut self) -> Option<AMQPClass> {
        loop {
            if let Ok((rest, frame)) = parse_frame(&self.unparsed[..]) {
                self.unparsed = rest.to_vec();
                if let AMQPFrame::Method(_, method) = frame {
                    return Some(method);
                }
            } else if self.socket.read_buf(&mut self.unparsed).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}

fn readable(table: &FieldTable) -> String {
    table.inner().iter().fold(String::new(), |text, (key, value)| match value {
        AMQPValue::LongString(value) => format!("{text}{key}={value};"),
        AMQPValue::FieldTable(inner) => {
            format!("{text}{key}={{{}}};", readable(inner))
        }
        other => format!("{text}{key}={other:?};"),
    })
}

fn written(frame: &AMQPFrame) -> Vec<u8> {
    gen_frame(frame)(WriteContext::from(Vec::new())).expect("a frame").into_inner().0
}
