//! The HTTP port: `/metrics`, `/livez`, `/readyz`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::info;

use super::metrics::Metrics;
use crate::stop::Stop;

/// Which parts of the worker can do their work.
#[derive(Debug)]
pub struct Health {
    consuming: AtomicBool,
    publishing: watch::Sender<bool>,
    stopping: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Health {
    /// At first no part works.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            consuming: AtomicBool::new(false),
            publishing: watch::Sender::new(false),
            stopping: AtomicBool::new(false),
            metrics,
        }
    }

    /// Sets whether jobs are being consumed.
    pub fn set_consuming(&self, up: bool) {
        self.consuming.store(up, Ordering::Relaxed);
    }

    /// Sets whether results can be published.
    pub fn set_publishing(&self, up: bool) {
        self.publishing.send_replace(up);
    }

    /// Whether results can be published.
    pub fn is_publishing(&self) -> bool {
        *self.publishing.borrow()
    }

    /// Returns once results can be published. No call is begun before that: nobody could be told of it.
    pub async fn until_publishing(&self) {
        if self.is_publishing() {
            return;
        }
        // The sender is in `self`, so this cannot fail.
        let _ = self.publishing.subscribe().wait_for(|up| *up).await;
    }

    /// From now on the worker is not ready, even if every part works.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn trouble_with_broker(&self) -> Option<&'static str> {
        if !self.is_publishing() {
            // Consuming waits for it, so this is said first.
            return Some("not able to publish results, so nothing is sent; the log says why");
        }
        (!self.consuming.load(Ordering::Relaxed)).then_some("not consuming: no session with the broker")
    }

    /// Why the worker is not ready, or nothing if it is ready.
    pub fn trouble(&self) -> Option<&'static str> {
        if self.stopping.load(Ordering::Relaxed) { Some("stopping") } else { self.trouble_with_broker() }
    }
}

/// Listens on `addr`.
///
/// # Errors
/// When the address cannot be bound.
pub async fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(addr).await?;
    info!(addr = %listener.local_addr()?, "http listening");
    Ok(listener)
}

/// Serves until the phase `closing`.
pub async fn serve(listener: TcpListener, health: Arc<Health>, stop: Stop) -> io::Result<()> {
    let app = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(health);
    axum::serve(listener, app).with_graceful_shutdown(async move { stop.closing().cancelled().await }).await
}

async fn readyz(State(health): State<Arc<Health>>) -> (StatusCode, String) {
    match health.trouble() {
        None => (StatusCode::OK, "ready\n".into()),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")),
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> impl IntoResponse {
    // This gauge is made of parts that change independently, so it is computed at each request.
    health.metrics.broker_connected(health.trouble_with_broker().is_none());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], health.metrics.text())
}
