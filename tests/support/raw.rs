//! AMQP 0-9-1 by hand. It publishes messages that a proper client cannot publish: strings that are not
//! UTF-8, tables nested a thousand deep, types that do not exist.
//!
//! The numbers of methods and properties come from the specification's `amqp0-9-1.xml`.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Property bits of a content header.
pub(crate) mod property {
    pub(crate) const CONTENT_TYPE: u16 = 1 << 15;
    pub(crate) const CONTENT_ENCODING: u16 = 1 << 14;
    pub(crate) const HEADERS: u16 = 1 << 13;
    pub(crate) const DELIVERY_MODE: u16 = 1 << 12;
    pub(crate) const PRIORITY: u16 = 1 << 11;
    pub(crate) const CORRELATION_ID: u16 = 1 << 10;
    pub(crate) const REPLY_TO: u16 = 1 << 9;
    pub(crate) const EXPIRATION: u16 = 1 << 8;
    pub(crate) const MESSAGE_ID: u16 = 1 << 7;
    pub(crate) const TIMESTAMP: u16 = 1 << 6;
    pub(crate) const TYPE: u16 = 1 << 5;
    pub(crate) const USER_ID: u16 = 1 << 4;
    pub(crate) const APP_ID: u16 = 1 << 3;
}

/// A message with its properties as encoded bytes, which are sent unchanged.
#[derive(Clone, Default)]
pub(crate) struct RawMessage {
    properties: BTreeMap<u16, Vec<u8>>,
    body: Vec<u8>,
}

impl RawMessage {
    pub(crate) fn new(body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { body, ..Self::default() }
    }

    /// Sets the property with this bit of [`property`] to an encoded value, for example from
    /// [`short_string`] or [`table`].
    pub(crate) fn with(mut self, property: u16, encoded: Vec<u8>) -> Self {
        self.properties.insert(property, encoded);
        self
    }

    /// Publishes to the default exchange of the broker on this port of
    /// 127.0.0.1, as guest, and waits for the confirm.
    ///
    /// # Errors
    ///
    /// The broker's answer when it does not confirm: a nack, or why it closed the channel or the
    /// connection.
    pub(crate) async fn publish(&self, port: u16, queue: &str) -> Result<(), String> {
        let work = async {
            let mut session = Session::open(port).await?;
            session.publish(queue, self).await
        };
        match tokio::time::timeout(LIMIT, work).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no confirm within {LIMIT:?}")),
        }
    }

    fn header(&self) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend(BASIC.to_be_bytes());
        header.extend(0_u16.to_be_bytes());
        header.extend((self.body.len() as u64).to_be_bytes());
        let flags = self.properties.keys().fold(0, |flags, bit| flags | bit);
        header.extend(flags.to_be_bytes());
        // The values stand in the order of the bits, highest bit first.
        header.extend(self.properties.values().rev().flatten());
        header
    }
}

/// A length of one byte, and the bytes.
///
/// # Panics
///
/// When there are more than 255 bytes.
pub(crate) fn short_string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let length = u8::try_from(bytes.len()).expect("at most 255 bytes");
    [&[length], bytes].concat()
}

/// A length of four bytes, and the bytes.
pub(crate) fn long_string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let length = u32::try_from(bytes.len()).expect("less than 4 GiB");
    [&length.to_be_bytes(), bytes].concat()
}

/// A table of entries. Each entry is a key, a type letter and an encoded value.
pub(crate) fn table(entries: &[(&[u8], u8, Vec<u8>)]) -> Vec<u8> {
    let encode = |(key, kind, value): &(&[u8], u8, Vec<u8>)| [short_string(key), vec![*kind], value.clone()].concat();
    long_string(entries.iter().flat_map(encode).collect::<Vec<_>>())
}

/// A table that holds a table, and so on: `depth` tables, and the innermost is empty. Each takes 7 bytes.
pub(crate) fn nested_table(depth: usize) -> Vec<u8> {
    let entry = b"\x01tF";
    let level = |within: usize| {
        let length = u32::try_from(within * (4 + entry.len())).expect("less than 4 GiB");
        [&length.to_be_bytes()[..], if within > 0 { entry } else { b"" }].concat()
    };
    (0..depth).rev().flat_map(level).collect()
}

/// RabbitMQ needs seconds for a deeply nested table, and longer on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);

const METHOD_FRAME: u8 = 1;
const HEADER_FRAME: u8 = 2;
const BODY_FRAME: u8 = 3;
const FRAME_END: u8 = 0xCE;

const BASIC: u16 = 60;

type Method = (u16, u16);
const START: Method = (10, 10);
const START_OK: Method = (10, 11);
const TUNE: Method = (10, 30);
const TUNE_OK: Method = (10, 31);
const OPEN: Method = (10, 40);
const OPEN_OK: Method = (10, 41);
const CLOSE: Method = (10, 50);
const CHANNEL_OPEN: Method = (20, 10);
const CHANNEL_OPEN_OK: Method = (20, 11);
const CHANNEL_CLOSE: Method = (20, 40);
const PUBLISH: Method = (BASIC, 40);
const ACK: Method = (BASIC, 80);
const NACK: Method = (BASIC, 120);
const CONFIRM_SELECT: Method = (85, 10);
const CONFIRM_SELECT_OK: Method = (85, 11);

/// A connection with one channel, number 1, in confirm mode.
struct Session {
    stream: TcpStream,
    frame_max: usize,
}

impl Session {
    async fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        let mut session = Self { stream, frame_max: 0 };
        session.log_in().await?;
        session.send(1, CHANNEL_OPEN, &short_string("")).await?;
        session.expect(CHANNEL_OPEN_OK).await?;
        session.send(1, CONFIRM_SELECT, &[0]).await?;
        session.expect(CONFIRM_SELECT_OK).await?;
        Ok(session)
    }

    async fn log_in(&mut self) -> io::Result<()> {
        self.stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        self.expect(START).await?;
        let start_ok = [
            table(&[(b"connection_name", b'S', long_string("raw"))]),
            short_string("PLAIN"),
            long_string("\0guest\0guest"),
            short_string("en_US"),
        ];
        self.send(0, START_OK, &start_ok.concat()).await?;
        let tune = self.expect(TUNE).await?;
        self.frame_max = usize::try_from(be_u32(&tune[2..6])).expect("a 64-bit machine");
        // Accept the broker's own limits, and ask for no heartbeat.
        let tune_ok = [&tune[..6], &[0, 0]].concat();
        self.send(0, TUNE_OK, &tune_ok).await?;
        let open = [short_string("/"), short_string(""), vec![0]].concat();
        self.send(0, OPEN, &open).await?;
        self.expect(OPEN_OK).await.map(drop)
    }

    async fn publish(&mut self, queue: &str, message: &RawMessage) -> io::Result<()> {
        let arguments = [vec![0, 0], short_string(""), short_string(queue), vec![0]];
        self.send(1, PUBLISH, &arguments.concat()).await?;
        self.frame(HEADER_FRAME, 1, &message.header()).await?;
        // A frame has 8 bytes around its payload.
        for part in message.body.chunks(self.frame_max - 8) {
            self.frame(BODY_FRAME, 1, part).await?;
        }
        self.expect(ACK).await.map(drop)
    }

    async fn send(&mut self, channel: u16, method: Method, arguments: &[u8]) -> io::Result<()> {
        let mut payload = Vec::new();
        payload.extend(method.0.to_be_bytes());
        payload.extend(method.1.to_be_bytes());
        payload.extend(arguments);
        self.frame(METHOD_FRAME, channel, &payload).await
    }

    async fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![kind];
        frame.extend(channel.to_be_bytes());
        frame.extend(long_string(payload));
        frame.push(FRAME_END);
        self.stream.write_all(&frame).await
    }

    /// Waits for `wanted` and returns its arguments. It skips every other frame. A refusal is an error.
    async fn expect(&mut self, wanted: Method) -> io::Result<Vec<u8>> {
        loop {
            let (kind, payload) = self.read_frame().await?;
            if kind != METHOD_FRAME {
                continue;
            }
            let method = (be_u16(&payload[..2]), be_u16(&payload[2..4]));
            match method {
                _ if method == wanted => return Ok(payload[4..].to_vec()),
                CLOSE | CHANNEL_CLOSE => return Err(closed(&payload[4..])),
                NACK => return Err(io::Error::other("nack")),
                _ => {}
            }
        }
    }

    async fn read_frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 7];
        self.stream.read_exact(&mut head).await?;
        let length = usize::try_from(be_u32(&head[3..])).expect("a 64-bit machine");
        let mut payload = vec![0; length + 1];
        self.stream.read_exact(&mut payload).await?;
        payload.pop();
        Ok((head[0], payload))
    }
}

/// The arguments begin with a code, a length byte and a text of that length.
fn closed(arguments: &[u8]) -> io::Error {
    let length = usize::from(arguments[2]);
    let text = String::from_utf8_lossy(&arguments[3..3 + length]);
    io::Error::other(format!("closed by the broker: {text}"))
}

fn be_u16(bytes: &[u8]) -> u16 {
    u16::from_be_bytes(bytes.try_into().expect("two bytes"))
}

fn be_u32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}
