//! One call of `SendMessageAutoGenCode_V5` over HTTP. It says what was seen and judges nothing.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use reqwest::{Client, Method, Request, Url, redirect};
use secrecy::ExposeSecret;
use serde::Serialize;
use tokio::time::Instant;

use super::body::Page;
use super::classify::Seen;
use super::keys::Keys;
use super::reading::read;
use super::secret_words;
use super::settings::EsmsSettings;
use super::trouble::describe;
use super::written::Watched;
use crate::job::request::OtpRequest;
use crate::proxy::Route;
use crate::tls;

/// The most header lines of a reply. Firewalls in front of a service add cookies by the dozen; the HTTP client's
/// own limit is 100. Room for so many is made for each reply.
const MOST_HEADERS: usize = 512;

/// How long an idle connection is kept. Servers and load balancers close it after a minute or two, and a request
/// on a connection that is just being closed would be an ambiguous attempt.
const IDLE_CONNECTION: Duration = Duration::from_secs(20);

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What is said of a call that was given up.
const TOO_LATE: &str = "the job's deadline passed before there was a connection";

/// The provider: one HTTP client with a pool of kept-alive connections.
#[derive(Clone, Debug)]
pub struct Esms {
    pub(super) client: Client,
    pub(super) url: Url,
    pub(super) keys: Keys,
    headers: HeaderMap,
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
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.timeout)
            // A redirect would carry the credentials to wherever it points.
            .redirect(redirect::Policy::none())
            .referer(false)
            // Repeating a call is a decision of the retry loop alone.
            .retry(reqwest::retry::never())
            .http1_only()
            // A header that breaks the rules must not cost the answer behind it.
            .http1_max_headers(MOST_HEADERS)
            .http1_ignore_invalid_headers_in_responses(true)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(usize::from(concurrency))
            .tls_backend_preconfigured(tls::for_url(&settings.url)?)
            .build()?;
        let (url, keys, headers) = (settings.url.clone(), settings.keys.clone(), headers(&settings.url));
        Ok(Self { client, url, keys, headers, route, traced: settings.traced })
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
    pub fn without_credentials(&self, text: &str) -> String {
        self.keys.with_all(|secrets| secret_words::without(text, secrets))
    }

    /// The beginning of what came in place of an answer, masked for a log line.
    pub fn quote(&self, page: &Page) -> String {
        self.keys.with_all(|secrets| secret_words::quote(&page.text(), secrets))
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
        let length = body.len();
        let (body, written) = Watched::new(body);
        let answered = tokio::select! {
            biased;
            answered = self.client.execute(self.traced_call(body, length, traceparent)) => answered,
            () = written.not_by(deadline) => return Seen::NotWritten(TOO_LATE.to_owned()),
        };
        match answered {
            Ok(response) => read(response).await,
            Err(error) if error.is_connect() || !written.may_be() => Seen::NotWritten(describe(error)),
            Err(error) => Seen::NoReply(describe(error)),
        }
    }

    fn traced_call(&self, body: Watched, length: usize, traceparent: Option<String>) -> Request {
        let mut call = self.post(self.url.clone(), reqwest::Body::wrap(body), length);
        if let Some(traceparent) = traceparent.filter(|_| self.traced).and_then(|text| text.try_into().ok()) {
            call.headers_mut().insert(TRACEPARENT, traceparent);
        }
        call
    }

    /// A call of eSMS with this JSON, of so many bytes. The URL is one on the host of `ESMS_URL`.
    pub(super) fn post(&self, url: Url, body: reqwest::Body, length: usize) -> Request {
        let mut call = Request::new(Method::POST, url);
        *call.headers_mut() = self.headers.clone();
        call.headers_mut().insert(CONTENT_LENGTH, length.into());
        *call.body_mut() = Some(body);
        call
    }
}

/// The header lines of every call, made once. They are all that there are: a map that must grow is copied.
fn headers(url: &Url) -> HeaderMap {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    const WORKER: HeaderValue = HeaderValue::from_static(concat!("esms-otp-worker/", env!("CARGO_PKG_VERSION")));
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    [
        // A host is always a header's value; if it were not, the client would write its own.
        HeaderValue::try_from(host).ok().map(|host| (HOST, host)),
        Some((USER_AGENT, WORKER)),
        Some((CONTENT_TYPE, JSON)),
        // A WCF service answers XML to whoever does not ask for JSON.
        Some((ACCEPT, JSON)),
        // Without it any compression is allowed.
        Some((ACCEPT_ENCODING, HeaderValue::from_static("identity"))),
        // Its place; each call has its own.
        Some((CONTENT_LENGTH, HeaderValue::from_static("0"))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests;
