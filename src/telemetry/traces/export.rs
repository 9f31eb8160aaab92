//! Sends finished spans to the collector: OTLP over HTTP, with this program's own HTTP client.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use reqwest::{Client, Url, redirect};
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::proxy::Route;
use crate::tls;

/// The time limit of one request. It is OTLP's own default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no TLS configuration for `https://`.
    #[error("cannot export traces over TLS: {0}")]
    Tls(#[from] tls::TlsError),
    /// The HTTP client refused its settings.
    #[error("cannot set up the HTTP client for traces: {0}")]
    Client(#[from] reqwest::Error),
    /// The exporter refused its settings.
    #[error("cannot export traces: {0}; check the OTEL_EXPORTER_OTLP_ variables")]
    Exporter(#[from] ExporterBuildError),
}

/// An exporter to the collector at `endpoint`.
pub(super) fn to(endpoint: &Url) -> Result<impl SpanExporter + use<>, StartError> {
    let route = Route::to(endpoint);
    route.log("OTEL_EXPORTER_OTLP_ENDPOINT");
    let client = route
        .apply(Client::builder())?
        .user_agent(concat!("esms-otp-worker/", env!("CARGO_PKG_VERSION")))
        .timeout(TIMEOUT)
        // A redirect would send the headers, and the secrets in them, to another address.
        .redirect(redirect::Policy::none())
        .http1_only()
        .tls_backend_preconfigured(tls::for_url(endpoint)?)
        .build()?;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(Http { client, runtime: Handle::current() })
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(TIMEOUT)
        .with_endpoint(of_traces(endpoint))
        .build()?;
    Ok(Announced { exporter, failing: AtomicBool::new(false) })
}

/// The endpoint is shared by all signals, so the path of traces is added to the endpoint's own path.
fn of_traces(endpoint: &Url) -> Url {
    let mut url = endpoint.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(["v1", "traces"]);
    }
    url
}

/// Makes requests on the runtime, which drives their sockets. The exporter's own thread does not.
#[derive(Debug)]
struct Http {
    client: Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.runtime.spawn(send(self.client.clone(), request)).await?
    }
}

async fn send(client: Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let mut response = client.execute(request.try_into()?).await?;
    // Read the body so that the connection can be used again. Do not keep it: the status says enough.
    while let Ok(Some(_)) = response.chunk().await {}
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = response.status();
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    Ok(answer)
}

/// An exporter that logs when exporting begins to fail, and when it works again.
#[derive(Debug)]
struct Announced<E> {
    exporter: E,
    failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Announced<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        match (&result, self.failing.swap(result.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => warn!(
                %error,
                hint = "jobs are worked as ever; check OTEL_EXPORTER_OTLP_ENDPOINT and the collector",
                "traces are lost: they cannot be exported"
            ),
            (Ok(()), true) => info!("traces are exported again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_traces_is_added_to_the_endpoints_own() {
        for (endpoint, traces) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            ("https://otlp.example/otlp", "https://otlp.example/otlp/v1/traces"),
            ("https://otlp.example/otlp/", "https://otlp.example/otlp/v1/traces"),
        ] {
            assert_eq!(of_traces(&Url::parse(endpoint).unwrap()).as_str(), traces);
        }
    }
}
