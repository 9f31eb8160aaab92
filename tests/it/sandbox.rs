//! The sandbox behaves on the wire as it says, and counts what it does.

mod calls;
mod faults;
mod memory;
mod page;
mod port;
mod program;

use std::time::Duration;

use esms_otp_worker::sandbox::{CHECK_CODE_PATH, Fault, SEND_PATH, Sandbox, Settings};
use reqwest::{Client, Response, StatusCode, header, redirect::Policy};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PHONE: &str = "0901888484";

/// The limit for steps that never take long. It is long enough for a slow machine.
const LIMIT: Duration = Duration::from_secs(30);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("this takes too long")
}

/// A sandbox, and a client that behaves well.
struct Playing {
    sandbox: Sandbox,
    client: Client,
}

impl Playing {
    async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        Self { sandbox: Sandbox::start(settings).await.unwrap(), client: client(Policy::none()) }
    }

    /// A sandbox that meets the next request with this fault.
    async fn meeting(fault: Fault) -> Self {
        let playing = Self::start().await;
        playing.sandbox.script(None, vec![fault]);
        playing
    }

    async fn post(&self, fields: &Value) -> reqwest::Result<Response> {
        within(post(&self.client, &self.sandbox.send_url(), fields)).await
    }

    async fn send(&self) -> reqwest::Result<Response> {
        self.post(&request(PHONE)).await
    }

    async fn answer(&self) -> Value {
        json_of(self.send().await.unwrap()).await
    }

    async fn code_result(&self, fields: &Value) -> Value {
        json_of(self.post(fields).await.unwrap()).await["CodeResult"].clone()
    }

    async fn get(&self, path: &str) -> Value {
        let url = self.sandbox.url() + path;
        json_of(within(self.client.get(url).send()).await.unwrap()).await
    }

    async fn check_code(&self, phone: &str, code: &str) -> Value {
        let keys = "ApiKey=sandbox-key&SecretKey=sandbox-secret";
        self.get(&format!("{CHECK_CODE_PATH}?{keys}&Phone={phone}&Code={code}")).await
    }

    fn accepted(&self) -> u32 {
        self.sandbox.accepted(PHONE)
    }
}

/// A client for plain HTTP. reqwest needs a TLS configuration even then.
fn client(redirects: Policy) -> Client {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let client = Client::builder().tls_backend_preconfigured(tls).redirect(redirects);
    client.build().unwrap()
}

async fn post(client: &Client, url: &str, fields: &Value) -> reqwest::Result<Response> {
    let json = client.post(url).header(header::CONTENT_TYPE, "application/json");
    json.body(fields.to_string()).send().await
}

async fn json_of(response: Response) -> Value {
    serde_json::from_slice(&within(response.bytes()).await.unwrap()).unwrap()
}

fn request(phone: &str) -> Value {
    json!({"ApiKey": "sandbox-key", "SecretKey": "sandbox-secret", "Phone": phone,
        "MultiChannelTempId": "1234", "TypeId": "2"})
}

/// A good request with one field changed.
fn changed(field: &str, value: Value) -> Value {
    let mut request = request(PHONE);
    request[field] = value;
    request
}

/// Everything the server sends until it closes the connection. A reset is an error.
async fn raw(addr: std::net::SocketAddr) -> std::io::Result<Vec<u8>> {
    let body = request(PHONE).to_string();
    let head = format!(
        "POST {SEND_PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all((head + &body).as_bytes()).await?;
        let mut seen = Vec::new();
        stream.read_to_end(&mut seen).await?;
        Ok(seen)
    };
    within(exchange).await
}

async fn assert_html(response: Response, status: StatusCode) {
    assert_eq!(response.status(), status);
    assert!(response.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
    assert!(within(response.text()).await.unwrap().contains("<html>"));
}
