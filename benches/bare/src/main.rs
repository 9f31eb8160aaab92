//! The bare loop with reqwest, as `Client::new` makes it.

use bare::{Failed, run, setting};
use reqwest::Client;
use reqwest::header::{ACCEPT, CONTENT_TYPE};

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let (client, url) = (Client::new(), setting("ESMS_URL")?);
    run(move |body| {
        let call = client.post(&url).header(CONTENT_TYPE, "application/json").header(ACCEPT, "application/json");
        let call = call.body(body);
        async move { Ok(call.send().await?.error_for_status()?.bytes().await?) }
    })
    .await
}
