//! A collector of traces, as operators run one: OTLP over HTTP, decoded by OTLP's own schema.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span as Wire;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Answers every export and keeps it. The status is 200 until a test sets another.
pub(crate) struct Collector {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    exports: Vec<Export>,
    status: StatusCode,
}

/// One request as it came.
#[derive(Clone)]
pub(crate) struct Export {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A span as it was exported, ids in hexadecimal.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) name: String,
    /// `SpanKind` by its number: 3 client, 4 producer, 5 consumer.
    pub(crate) kind: i32,
    pub(crate) trace_id: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) failed: bool,
    /// The spans that it links to.
    pub(crate) links: Vec<String>,
    pub(crate) took_nanos: u64,
}

impl Collector {
    /// Listens on a free port of loopback.
    pub(crate) async fn start() -> Self {
        let shared = Arc::<Mutex<Shared>>::default();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let app = Router::new().fallback(keep).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.expect("serving") });
        Self { address, shared, server }
    }

    /// The value for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the status that it answers with from now on.
    pub(crate) fn answer(&self, status: StatusCode) {
        lock(&self.shared).status = status;
    }

    /// Every request so far.
    pub(crate) fn exports(&self) -> Vec<Export> {
        lock(&self.shared).exports.clone()
    }

    /// Every span so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let decoded = self.exports().into_iter().map(|export| decode(&export));
        let scopes = decoded.flat_map(|request| request.resource_spans).flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).map(Span::from).collect()
    }

    /// The spans with this name, in the order in which they ended.
    pub(crate) fn named(&self, name: &str) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.name == name);
        spans
    }

    /// The resource attributes, with which the exporter describes itself.
    pub(crate) fn resource(&self) -> BTreeMap<String, String> {
        let decoded =
            self.exports().into_iter().map(|export| decode(&export)).flat_map(|request| request.resource_spans);
        decoded.filter_map(|spans| spans.resource).flat_map(|resource| attributes(resource.attributes)).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn keep(State(shared): State<Arc<Mutex<Shared>>>, request: Request) -> StatusCode {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("a whole body");
    let mut shared = lock(&shared);
    shared.exports.push(Export { path: parts.uri.path().to_owned(), headers: parts.headers, body });
    shared.status
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn decode(export: &Export) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(export.body.clone()).expect("OTLP as protobuf")
}

impl From<Wire> for Span {
    fn from(wire: Wire) -> Self {
        Self {
            name: wire.name,
            kind: wire.kind,
            trace_id: hex(&wire.trace_id),
            id: hex(&wire.span_id),
            parent: hex(&wire.parent_span_id),
            attributes: attributes(wire.attributes),
            failed: wire.status.is_some_and(|status| status.code == 2),
            links: wire.links.iter().map(|link| hex(&link.span_id)).collect(),
            took_nanos: wire.end_time_unix_nano - wire.start_time_unix_nano,
        }
    }
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(truth)) => truth.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
