//! One call of `SendMessageAutoGenCode_V5` over HTTP. It says what was seen and judges nothing.

use std::error::Error as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, Url, redirect};
use secrecy::ExposeSecret;
use serde::Serialize;
use tokio::time::Instant;

use super::classify::Seen;
use super::connecting::{ByDeadline, connected_by};
use super::keys::Keys;
use super::settings::EsmsSettings;
use crate::job::request::OtpRequest;
use crate::proxy::Route;
use crate::tls;

/// The most bytes that are read of an answer. An answer of eSMS has a few hundred.
const LARGEST_ANSWER: usize = 64 * 1024;

/// How long an idle connection is kept. Servers and load balancers close it after a minute or two, and a request
/// on a connection that is just being closed would be an ambiguous attempt.
const IDLE_CONNECTION: Duration = Duration::from_secs(20);

/// The provider: one HTTP client with a pool of kept-alive connections.
#[derive(Clone, Debug)]
pub struct Esms {
    pub(super) client: Client,
    pub(super) url: Url,
    pub(super) keys: Keys,
    route: Route,
    traced: bool,
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Nothing to trust `https://` by.
    #[error("cannot call eSMS over TLS: {0}")]
    Tls(#[from] tls::TlsError),
    /// The HTTP client refused its settings.
    #[error("cannot set up the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// The request on the wire; eSMS wants every value as a string.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Call<'a> {
    api_key: &'a str,
    secret_key: &'a str,
    phone: &'a str,
    multi_channel_temp_id: &'a str,
    type_id: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_alive: Option<String>,
}

impl Esms {
    /// A client of the provider, with room for `concurrency` kept-alive connections.
    ///
    /// # Errors
    /// When the system has no certificates to trust or the client cannot be made.
    pub fn new(settings: &EsmsSettings, concurrency: u16) -> Result<Self, BuildError> {
        let route = Route::to(&settings.url);
        let client = route
            .apply(Client::builder())?
            .user_agent(concat!("esms-otp-worker/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.connect_timeout)
            .connector_layer(ByDeadline)
            .timeout(settings.timeout)
            // A redirect would carry the credentials to wherever it points.
            .redirect(redirect::Policy::none())
            .referer(false)
            // Repeating a call is a decision of the retry loop alone.
            .retry(reqwest::retry::never())
            .http1_only()
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(usize::from(concurrency))
            .tls_backend_preconfigured(tls::for_url(&settings.url)?)
            .build()?;
        Ok(Self { client, url: settings.url.clone(), keys: settings.keys.clone(), route, traced: settings.traced })
    }

    /// The body of the call, with the keys of this moment.
    pub fn body(&self, request: &OtpRequest) -> Bytes {
        let keys = self.keys.now();
        let call = Call {
            api_key: keys.api_key.expose_secret(),
            secret_key: keys.secret_key.expose_secret(),
            phone: request.phone.digits(),
            multi_channel_temp_id: &request.template_id,
            type_id: request.kind.type_id(),
            time_alive: request.time_alive.map(|minutes| minutes.to_string()),
        };
        // A struct of strings always has a JSON form.
        Bytes::from(serde_json::to_vec(&call).unwrap_or_default())
    }

    /// `text` without the credentials, should eSMS repeat them.
    pub fn without_credentials(&self, text: String) -> String {
        self.keys.removed_from(text)
    }

    /// The endpoint.
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// How it is called.
    pub const fn route(&self) -> &Route {
        &self.route
    }

    /// Makes one call, which ends within `ESMS_TIMEOUT`. If there is no connection by `deadline`, nothing is sent.
    /// `traceparent` is its trace context; it is sent only with `OTP_TRACE_PROPAGATE_TO_ESMS`.
    pub async fn attempt(&self, body: Bytes, traceparent: Option<String>, deadline: Instant) -> Seen {
        let mut call = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(traceparent) = traceparent.filter(|_| self.traced) {
            call = call.header("traceparent", traceparent);
        }
        match connected_by(deadline, call.send()).await {
            Ok(response) => read(response).await,
            Err(error) if error.is_connect() => Seen::NotConnected(describe(error)),
            Err(error) => Seen::NoReply(describe(error)),
        }
    }
}

pub(super) async fn read(mut response: Response) -> Seen {
    let status = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= LARGEST_ANSWER => body.extend_from_slice(&chunk),
            // A larger body is not an answer, so the rest is not read.
            Ok(Some(_)) => return Seen::Reply { status, retry_after, body: Bytes::new() },
            Ok(None) => return Seen::Reply { status, retry_after, body: body.freeze() },
            // The status is known and is enough: a 404 is a refusal with or without its page.
            Err(_) if status != 200 => return Seen::Reply { status, retry_after, body: Bytes::new() },
            Err(error) => return Seen::NoReply(describe(error)),
        }
    }
}

/// The error and its causes in one line, without the URL.
pub(super) fn describe(error: reqwest::Error) -> String {
    let timeout = if error.is_timeout() { "timed out: " } else { "" };
    let error = error.without_url();
    let mut line = format!("{timeout}{error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(&format!(": {error}"));
        cause = error.source();
    }
    line
}
