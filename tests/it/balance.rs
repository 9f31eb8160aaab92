//! The gauge of the account's balance.

use crate::stage::{LIMIT, PHONE, Running, Stage, ending};
use crate::support::client::Job;
use crate::support::metrics::Scrape;
use crate::support::proxy::Proxy;
use crate::support::wait::until;

async fn balance(stage: &Stage, running: &Running, wanted: Option<f64>) {
    let what = format!("the balance is {wanted:?} after {} calls", stage.sandbox.stats().balance_calls);
    until(&what, LIMIT, async || Scrape::of(running.http).await.value("esms_balance_vnd", &[]) == wanted).await;
}

#[tokio::test]
async fn the_balance_is_asked_for_and_shown_and_absent_while_it_is_not_known() {
    let mut stage = Stage::new().await;
    let esms = stage.sandbox.addr().port();
    let proxy = Proxy::start(esms).await;
    let behind = stage.sandbox.send_url().replace(&esms.to_string(), &proxy.port().to_string());
    stage.set("ESMS_BALANCE_INTERVAL", "1s").set("ESMS_URL", &behind);
    let running = stage.worker().await;
    let opening = stage.sandbox.stats().balance as f64;
    balance(&stage, &running, Some(opening)).await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    assert_eq!(ending(&results.next(LIMIT).await).0, "accepted");
    let after = stage.sandbox.stats().balance as f64;
    assert!(after < opening);
    balance(&stage, &running, Some(after)).await;

    proxy.refuse().await;
    proxy.cut().await;
    balance(&stage, &running, None).await;
    running.process.wait_for_log("the balance is not known", LIMIT).await;
    proxy.accept_again().await;
    balance(&stage, &running, Some(after)).await;
}

#[tokio::test]
async fn by_default_nobody_asks_for_the_balance() {
    let stage = Stage::new().await;
    let (running, result) = stage.play(vec![]).await;
    assert_eq!(ending(&result).0, "accepted");
    assert_eq!(stage.sandbox.stats().balance_calls, 0);
    balance(&stage, &running, None).await;
}
