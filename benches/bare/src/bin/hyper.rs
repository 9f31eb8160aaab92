//! The bare loop with the pooled client of hyper-util, on which reqwest stands.

use bare::{Failed, run, setting};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let url: Uri = setting("ESMS_URL")?.parse()?;
    run(move |body| {
        let call = Request::post(&url).header(CONTENT_TYPE, "application/json").header(ACCEPT, "application/json");
        let (client, call) = (client.clone(), call.body(Full::from(body)));
        async move {
            let response = client.request(call?).await?;
            if !response.status().is_success() {
                return Err(response.status().as_str().into());
            }
            Ok(response.into_body().collect().await?.to_bytes())
        }
    })
    .await
}
