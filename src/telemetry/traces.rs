//! Traces over OTLP: a span for each delivery, for each call of eSMS, and for each result published.
//!
//! While tracing is off, a [`Span`] is empty: no span is made, kept or exported. While it is on, spans wait
//! in a bounded queue for the exporter's own thread. Spans that do not fit are dropped. So a slow or dead
//! collector costs traces and nothing else.

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

/// How long exporting the last spans may take when the worker stops. The worker's other parts may take much
/// longer.
const FLUSH: Duration = Duration::from_secs(2);

/// The name of the service, unless the environment gives another.
const SERVICE: &str = "esms-otp-worker";

/// Makes the spans of deliveries, if tracing is on. The other spans are made from these.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<On>);

#[derive(Clone, Debug)]
struct On {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// Starts exporting traces to the collector of `settings`, if there is one. Exporting needs the runtime
    /// in which this is called.
    ///
    /// # Errors
    /// [`StartError`]: the exporter refuses its settings.
    pub fn start(settings: &TracesSettings) -> Result<Self, StartError> {
        let Some(endpoint) = &settings.endpoint else { return Ok(Self(None)) };
        // The size of the queue and the rest follow the specification's variables and defaults.
        let provider = SdkTracerProvider::builder()
            .with_sampler(settings.sampler.clone())
            .with_resource(resource())
            .with_span_processor(BatchSpanProcessor::builder(export::to(endpoint)?).build())
            .build();
        let tracer = provider.tracer(SERVICE);
        Ok(Self(Some(On { provider, tracer })))
    }

    /// Opens the span of a delivery from `queue`. It is a child of the producer's span, if the producer's
    /// trace context is well-formed.
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

    /// Exports the remaining spans, within two seconds.
    pub async fn end(self) {
        let Some(On { provider, .. }) = self.0 else { return };
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            warn!("the last traces could not be exported");
        }
    }
}

/// The name of the exporting service: from `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, or else our
/// own.
fn resource() -> Resource {
    let given = Resource::builder().build();
    // The SDK uses such a name when nobody has named the service.
    let unnamed = given.get(&Key::new("service.name")).is_none_or(|name| name.as_str().starts_with("unknown_service"));
    let attributes = given.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let resource = Resource::builder_empty()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attributes(attributes);
    if unnamed { resource.with_service_name(SERVICE) } else { resource }.build()
}
