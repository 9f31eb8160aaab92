//! The spans and their attributes. No attribute reveals a person, a key, a template or eSMS's own text.

use std::borrow::Cow;
use std::sync::Arc;

use opentelemetry::trace::{SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::SdkTracer;
use reqwest::Url;

use super::w3c;
use crate::esms::classify::Class;
use crate::esms::codes;
use crate::job::envelope::Trace;
use crate::job::result::{Outcome, ResultEvent};

/// An open span, or nothing while tracing is off. It ends when it is told to end, or else when its last copy
/// is dropped.
// One pointer in size, because every delivery carries it, traced or not.
#[derive(Clone, Debug, Default)]
pub struct Span(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    tracer: SdkTracer,
    context: Context,
}

impl Span {
    pub(super) fn open(
        tracer: &SdkTracer,
        parent: &Context,
        kind: SpanKind,
        name: String,
        attributes: Vec<KeyValue>,
    ) -> Self {
        let span = tracer.span_builder(name).with_kind(kind).with_attributes(attributes);
        let context = Context::new().with_span(span.start_with_context(tracer, parent));
        Self(Some(Arc::new(Open { tracer: tracer.clone(), context })))
    }

    /// Opens the span of a call of eSMS for this delivery. `number` is the number of the attempt.
    pub fn call(&self, url: &Url, number: u32) -> Self {
        let Some(open) = &self.0 else { return Self::default() };
        let mut attributes = vec![
            KeyValue::new("http.request.method", "POST"),
            KeyValue::new("server.address", url.host_str().unwrap_or_default().to_owned()),
            KeyValue::new("url.scheme", url.scheme().to_owned()),
            KeyValue::new("url.path", url.path().to_owned()),
            KeyValue::new("otp.attempt", i64::from(number)),
        ];
        attributes.extend(url.port_or_known_default().map(|port| KeyValue::new("server.port", i64::from(port))));
        Self::open(&open.tracer, &open.context, SpanKind::Client, "POST".to_owned(), attributes)
    }

    /// Ends the span of a call. `status` is the HTTP status, if one came, and `class` is how the call ended.
    pub fn called(&self, status: Option<u16>, class: &Class) {
        let Some(open) = &self.0 else { return };
        open.set("otp.class", class.name().as_str());
        if let Some(status) = status {
            open.set("http.response.status_code", i64::from(status));
        }
        let code = class.answer().map(|answer| codes::documented(&answer.code).code);
        if let Some(code) = code {
            open.set("otp.code_result", code);
        }
        match (code, status) {
            (Some(codes::ACCEPTED), _) => {}
            (Some(_), _) => open.fail("code_result"),
            (None, Some(200..=299) | None) => open.fail(class.name().as_str()),
            (None, Some(status)) => open.fail(status.to_string()),
        }
        open.context.span().end();
    }

    /// Opens the span of publishing the result of this delivery.
    pub fn publish(&self, exchange: &str, id: &str, event: &ResultEvent) -> Self {
        let Some(open) = &self.0 else { return Self::default() };
        let attributes = vec![
            KeyValue::new("messaging.system", "rabbitmq"),
            KeyValue::new("messaging.operation.type", "send"),
            KeyValue::new("messaging.operation.name", "publish"),
            KeyValue::new("messaging.destination.name", exchange.to_owned()),
            KeyValue::new("messaging.rabbitmq.destination.routing_key", event.routing_key()),
            KeyValue::new("messaging.message.id", event.message_id(id)),
        ];
        Self::open(&open.tracer, &open.context, SpanKind::Producer, format!("publish {exchange}"), attributes)
    }

    /// Ends the span of a publish that was confirmed. `routed` says whether a queue has taken the result.
    pub fn published(&self, routed: bool) {
        let Some(open) = &self.0 else { return };
        if !routed {
            open.fail("returned");
        }
        open.context.span().end();
    }

    /// Records that the job of this delivery has ended with this result.
    pub fn ended_with(&self, event: &ResultEvent) {
        let Some(open) = &self.0 else { return };
        open.set("otp.outcome", event.outcome.as_str());
        open.set("otp.attempts", i64::from(event.attempts));
        open.set("otp.may_be_duplicate", event.may_be_duplicate);
        if event.outcome != Outcome::Accepted {
            open.fail(event.outcome.as_str());
        }
    }

    /// Links this span to `other`: the job of this delivery is worked under that span.
    pub fn joins(&self, other: &Self) {
        if let (Some(this), Some(other)) = (&self.0, &other.0) {
            this.context.span().add_link(other.context.span().span_context().clone(), Vec::new());
        }
    }

    /// Ends the span, even if other copies of it are still in use.
    pub fn end(&self) {
        if let Some(open) = &self.0 {
            open.context.span().end();
        }
    }

    /// The header `traceparent` that makes the next span a child of this span.
    pub fn traceparent(&self) -> Option<String> {
        let span = self.0.as_ref()?.context.span();
        span.span_context().is_valid().then(|| w3c::traceparent(span.span_context()))
    }

    /// The trace context for a message that follows: this span's context, or else the one the job came with.
    pub fn context_or<'a>(&self, job: &'a Trace) -> Cow<'a, Trace> {
        let (Some(open), Some(parent)) = (&self.0, self.traceparent()) else { return Cow::Borrowed(job) };
        let state = open.context.span().span_context().trace_state().header();
        Cow::Owned(Trace { parent: Some(parent), state: Some(state).filter(|state| !state.is_empty()) })
    }
}

impl Open {
    fn set(&self, name: &'static str, value: impl Into<Value>) {
        self.context.span().set_attribute(KeyValue::new(name, value));
    }

    fn fail(&self, error: impl Into<Value>) {
        self.set("error.type", error);
        self.context.span().set_status(Status::error(""));
    }
}
