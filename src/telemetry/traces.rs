//! Traces over OTLP: a span for each delivery, for each call of eSMS, and for each result published.
//!
//! While tracing is off a [`Span`] is nothing: none is made, kept or exported. While it is on, spans wait
//! for a thread of the exporter's own in a queue with an end; what does not fit is dropped, so that a
//! slow or dead collector costs traces and nothing else.

mod export;
pub mod settings;
mod span;
mod w3c;

use std::time::Duration;

use opentelemetry::trace::{SpanKind, TraceContextExt as _, TracerProvider as _};
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracer, SdkTracerProvider};
use tracing::warn;

use crate::job::envelope::Trace;
pub use export::StartError;
use settings::TracesSettings;
pub use span::Span;

/// What the last spans may take when the worker stops, which is well within what its other parts may take.
const FLUSH: Duration = Duration::from_secs(2);

/// The name of the service where nobody gives it another.
const SERVICE: &str = "esms-otp-worker";

/// Makes the spans of deliveries, if tracing is on. The others are made from them.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<On>);

#[derive(Clone, Debug)]
struct On {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// Traces to the collector of `settings`, or none. Exporting needs the runtime that this is called in.
    ///
    /// # Errors
    /// [`StartError`]: the exporter refuses its settings.
    pub fn start(settings: &TracesSettings) -> Result<Self, StartError> {
        let Some(endpoint) = &settings.endpoint else { return Ok(Self(None)) };
        // The sampler, the size of the queue and the rest have the specification's variables and defaults.
        let provider = SdkTracerProvider::builder()
            .with_resource(resource())
            .with_span_processor(BatchSpanProcessor::builder(export::to(endpoint)?).build())
            .build();
        let tracer = provider.tracer(SERVICE);
        Ok(Self(Some(On { provider, tracer })))
    }

    /// The span of a delivery from `queue`: a child of the producer's, where its context is well-formed.
    pub fn delivery(&self, queue: &str, id: &str, trace: &Trace) -> Span {
        let Some(on) = &self.0 else { return Span::default() };
        let parent = w3c::parent(trace);
        let parent = parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let attributes = vec![
            KeyValue::new("messaging.system", "rabbitmq"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.operation.name", "process"),
            KeyValue::new("messaging.destination.name", queue.to_owned()),
            KeyValue::new("messaging.message.id", id.to_owned()),
        ];
        Span::open(&on.tracer, &parent, SpanKind::Consumer, format!("process {queue}"), attributes)
    }

    /// Exports what is still there, within two seconds.
    pub async fn end(self) {
        let Some(On { provider, .. }) = self.0 else { return };
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            warn!("the last traces could not be exported");
        }
    }
}

/// Who exports: what `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say, and else our name.
fn resource() -> Resource {
    let given = Resource::builder().build();
    // What the SDK says where nobody has named the service.
    let unnamed = given.get(&Key::new("service.name")).is_none_or(|name| name.as_str().starts_with("unknown_service"));
    let attributes = given.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let resource = Resource::builder_empty()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attributes(attributes);
    if unnamed { resource.with_service_name(SERVICE) } else { resource }.build()
}
