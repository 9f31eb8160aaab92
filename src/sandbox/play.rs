//! Plays a fault: turns the decision about a request into bytes on the wire.

use std::{convert::Infallible, io::Write, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::{connection::Connection, fault::Fault, pages, records::Arrival, shared::Shared, wire};

/// The most pieces of a slow body.
const PIECES: u32 = 16;

/// Envoy's words when the connection to the server broke after the request.
const LOST: &str = "upstream connect error or disconnect/reset before headers. reset reason: connection termination";

const FAST: Compression = Compression::fast();

const MIB: usize = 1024 * 1024;

/// The largest huge body, in MiB.
const HUGE_LIMIT: u32 = 1024;

/// Waits as the fault says, and then answers or resets the connection.
pub(crate) async fn play(shared: &Arc<Shared>, connection: &Connection, told: Arrival, wants_json: bool) -> Response {
    // The shortest wait of a timer is a millisecond.
    if !told.latency.is_zero() {
        tokio::time::sleep(told.latency).await;
    }
    match &told.fault {
        Fault::Latency { ms } => tokio::time::sleep(Duration::from_millis(*ms)).await,
        Fault::Hold => hold(shared, &shared.holds).await,
        Fault::HangBefore | Fault::HangAfter => {
            hold(shared, &shared.hangs).await;
            connection.reset();
        }
        Fault::ResetBefore | Fault::ResetAfter => connection.reset(),
        _ => {}
    }
    let answer = told.answer.json();
    if let Some(bytes) = wire::bytes(&told.fault, &text(&answer)) {
        connection.send_instead(bytes);
        return carrier(shared, &told.fault);
    }
    match told.fault {
        Fault::XmlUnlessAsked if !wants_json => xml(&answer),
        fault => response(&fault, answer),
    }
}

/// The response that hyper believes it sends. The connection is closed after it.
fn carrier(shared: &Arc<Shared>, fault: &Fault) -> Response {
    let shared = Arc::clone(shared);
    let mut response = match fault {
        // The body does not end before it is released, so the connection stays open.
        Fault::OpenEnd => Body::from_stream(stream::once(async move {
            hold(&shared, &shared.hangs).await;
            Ok::<_, Infallible>(Bytes::new())
        })),
        _ => Body::empty(),
    }
    .into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn hold(shared: &Arc<Shared>, release: &watch::Sender<()>) {
    // Subscribe before counting: a test that waits for the count may release at once.
    let mut released = release.subscribe();
    let _held = shared.enter(|records| &mut records.held);
    // This fails only if the sender is gone, and then nothing can release the request.
    let _ = released.changed().await;
}

/// The fields of the answer, as the fault has them.
fn fields(fault: &Fault, mut answer: Map<String, Value>) -> Map<String, Value> {
    match fault {
        Fault::NoCodeResult => drop(answer.remove("CodeResult")),
        Fault::CodeNumber => answer = with_code_number(answer),
        Fault::NullFields => answer = with_nulls(answer),
        Fault::MissingFields => answer.retain(|name, _| name == "CodeResult"),
        Fault::ExtraFields => {
            answer.insert("Campaign".into(), json!({"Id": 7, "Tags": [null, true]}));
            answer.insert("codeResult".into(), json!("999"));
        }
        _ => {}
    }
    answer
}

/// What remains of the fault once its waits are over. The bytes of some were sent by hand before.
fn response(fault: &Fault, answer: Map<String, Value>) -> Response {
    let answer = fields(fault, answer);
    match fault {
        Fault::Status { code, retry_after } => status(*code, retry_after.as_deref()),
        Fault::StatusAfter { code } => status(*code, None),
        Fault::Html | Fault::HtmlAfter => pages::html(StatusCode::OK, "Down for maintenance."),
        Fault::CutJson => cut_short(text(&answer)),
        Fault::EmptyBody => body(Body::empty()),
        Fault::JsonArray => body(json!([answer]).to_string()),
        Fault::HugeBody { mib } => body(Body::from_stream(huge(&answer, *mib))),
        Fault::AnswerStatus { code } => (known_status(*code), object(&answer)).into_response(),
        Fault::ByteOrderMark => body(format!("\u{feff}{}", text(&answer))),
        Fault::TrailingComment => body(format!("{}\r\n<!-- 0.012 s, cache MISS -->\r\n", text(&answer))),
        Fault::Gzip => encoded("gzip", GzEncoder::new(Vec::new(), FAST), &answer, GzEncoder::finish),
        Fault::Deflate => encoded("deflate", ZlibEncoder::new(Vec::new(), FAST), &answer, ZlibEncoder::finish),
        Fault::ProxyLost => raw(503, "text/plain", LOST),
        Fault::NoUpstream => raw(503, "text/plain", "no healthy upstream"),
        Fault::Raw { status, content_type, body } => raw(*status, content_type, body),
        Fault::SlowBody { ms } => slow(text(&answer), Duration::from_millis(*ms)),
        Fault::None
        | Fault::NoCodeResult
        | Fault::CodeNumber
        | Fault::NullFields
        | Fault::MissingFields
        | Fault::ExtraFields
        | Fault::ManyHeaders { .. }
        | Fault::ControlByte
        | Fault::SpaceBeforeColon
        | Fault::FoldedHeader
        | Fault::UntilClose
        | Fault::LongLength
        | Fault::OpenEnd
        | Fault::CutChunks
        | Fault::CutChunk
        | Fault::XmlUnlessAsked
        | Fault::Latency { .. }
        | Fault::ResetBefore
        | Fault::ResetAfter
        | Fault::HangBefore
        | Fault::HangAfter
        | Fault::Hold
        | Fault::Code { .. }
        | Fault::EchoSecrets => object(&answer),
    }
}

/// A JSON answer as the provider gives it. The status is 200, even for a refusal.
pub(crate) fn object(answer: &Map<String, Value>) -> Response {
    body(text(answer))
}

fn text(answer: &Map<String, Value>) -> String {
    Value::Object(answer.clone()).to_string()
}

fn body(body: impl Into<Body>) -> Response {
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    ([(header::CONTENT_TYPE, json)], body.into()).into_response()
}

/// The status, or 500 if the code is not a valid final status.
fn known_status(code: u16) -> StatusCode {
    match StatusCode::from_u16(code) {
        Ok(status) if !status.is_informational() => status,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn status(code: u16, retry_after: Option<&str>) -> Response {
    let status = known_status(code);
    let mut response = pages::html(status, "The server encountered an error.");
    if let Some(Ok(value)) = retry_after.map(HeaderValue::from_str) {
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    if status.is_redirection() {
        let elsewhere = HeaderValue::from_static(pages::REDIRECTED);
        response.headers_mut().insert(header::LOCATION, elsewhere);
    }
    response
}

fn raw(status: u16, content_type: &str, body: &str) -> Response {
    let mut response = (known_status(status), body.to_owned()).into_response();
    if let Ok(value) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

/// The answer, compressed.
fn encoded<E: Write>(
    name: &'static str,
    mut encoder: E,
    answer: &Map<String, Value>,
    finish: fn(E) -> std::io::Result<Vec<u8>>,
) -> Response {
    // Writing to memory cannot fail.
    let _ = encoder.write_all(text(answer).as_bytes());
    let mut response = body(finish(encoder).unwrap_or_default());
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    response
}

/// The answer as WCF writes it in XML.
fn xml(answer: &Map<String, Value>) -> Response {
    let fields: String = answer
        .iter()
        .map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("<{name}>{value}</{name}>")
        })
        .collect();
    raw(200, "application/xml; charset=utf-8", &format!("<SendResult>{fields}</SendResult>"))
}

fn with_code_number(mut answer: Map<String, Value>) -> Map<String, Value> {
    let code = answer.get("CodeResult").and_then(Value::as_str).and_then(|code| code.parse().ok());
    if let Some(code) = code {
        answer.insert("CodeResult".into(), Value::Number(code));
    }
    answer
}

fn with_nulls(mut answer: Map<String, Value>) -> Map<String, Value> {
    for field in ["SMSID", "CountRegenerate", "ErrorMessage"] {
        answer.insert(field.into(), Value::Null);
    }
    answer
}

fn announced(length: usize, rest: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static) -> Response {
    let mut response = body(Body::from_stream(rest));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// Announces the whole length, sends half, and closes.
fn cut_short(text: String) -> Response {
    let length = text.len();
    let half = Bytes::from(text).slice(..length / 2);
    let broken = async {
        // When a body fails, hyper throws away the bytes that it has not flushed. It flushes when the body
        // has nothing more for the moment, so this waits once before it fails.
        tokio::task::yield_now().await;
        Err(std::io::ErrorKind::UnexpectedEof.into())
    };
    announced(length, stream::iter([Ok(half)]).chain(stream::once(broken)))
}

/// Sends the headers at once, and then the body in pieces.
fn slow(text: String, total: Duration) -> Response {
    let length = text.len();
    let text = Bytes::from(text);
    let piece = length.div_ceil(PIECES as usize).max(1);
    let starts: Vec<usize> = (0..length).step_by(piece).collect();
    let pause = total / u32::try_from(starts.len()).unwrap_or(PIECES).max(1);
    let pieces = stream::iter(starts).then(move |start| {
        let piece = text.slice(start..length.min(start + piece));
        async move {
            tokio::time::sleep(pause).await;
            Ok(piece)
        }
    });
    announced(length, pieces)
}

/// A valid answer with a field of this many MiB. The field is made while it is sent.
fn huge(answer: &Map<String, Value>, mib: u32) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    let mut head = text(answer);
    head.pop();
    head.push_str(r#","Padding":""#);
    let padding = Bytes::from(vec![b'x'; MIB]);
    let padding = (0..mib.min(HUGE_LIMIT)).map(move |_| padding.clone());
    let pieces = std::iter::once(Bytes::from(head)).chain(padding).chain(std::iter::once(Bytes::from_static(br#""}"#)));
    stream::iter(pieces.map(Ok))
}
