//! The provider's calls, when nothing goes wrong.

use esms_otp_worker::sandbox::{BALANCE_PATH, CHECK_CODE_PATH, PRICE_VND, Settings};
use reqwest::{StatusCode, header};
use serde_json::json;

use super::{PHONE, Playing, assert_html, changed, json_of, post, request, within};

#[tokio::test]
async fn an_accepted_request_gets_an_smsid_is_charged_and_counted() {
    let playing = Playing::start().await;
    let before = playing.sandbox.stats().balance;
    let response = playing.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.starts_with("ASP.NET_SessionId="));
    let answer = json_of(response).await;
    assert_eq!(answer["CodeResult"], "100");
    assert_eq!(answer["CountRegenerate"], 0);
    let told = &playing.sandbox.requests(PHONE)[0];
    assert_eq!(answer["SMSID"].as_str(), told.sms_id.as_deref());
    assert!(told.accepted);
    assert_eq!(playing.accepted(), 1);
    assert_eq!(playing.sandbox.accepted_total(), 1);
    assert_eq!(playing.sandbox.stats().balance, before - PRICE_VND);
}

#[tokio::test]
async fn refusals_come_with_status_200_and_count_nothing() {
    let playing = Playing::start().await;
    let response = playing.post(&changed("SecretKey", json!("wrong"))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let expected = json!({"CodeResult": "101", "CountRegenerate": 0, "ErrorMessage": "Authorize Failed"});
    assert_eq!(json_of(response).await, expected);
    assert_eq!(playing.code_result(&changed("Phone", json!("+84901888484"))).await, "108");
    assert_eq!(playing.code_result(&changed("TypeId", json!(2))).await, "110");
    assert_eq!(playing.code_result(&changed("RequestId", json!("7"))).await, "110");
    assert_eq!(playing.sandbox.accepted_total(), 0);
    assert_eq!(playing.sandbox.stats().requests, 4);
}

#[tokio::test]
async fn type_1_generates_without_sending() {
    let playing = Playing::start().await;
    assert_eq!(playing.code_result(&changed("TypeId", json!("1"))).await, "100");
    let stats = playing.sandbox.stats();
    assert_eq!((stats.accepted, stats.generated), (1, 1));
    assert_eq!(stats.balance, Settings::default().balance);
    assert_eq!(playing.sandbox.accepted_phones()[0].generated, 1);
}

#[tokio::test]
async fn an_empty_account_is_refused_with_103() {
    let settings = Settings { balance: PRICE_VND, ..Settings::default() };
    let playing = Playing::with(settings).await;
    assert_eq!(playing.answer().await["CodeResult"], "100");
    assert_eq!(playing.answer().await["CodeResult"], "103");
    playing.sandbox.set_balance(PRICE_VND);
    assert_eq!(playing.answer().await["CodeResult"], "100");
    assert_eq!(playing.accepted(), 2);
}

#[tokio::test]
async fn the_code_that_was_sent_is_good_once_and_for_its_phone() {
    let playing = Playing::start().await;
    playing.answer().await;
    let code = playing.sandbox.requests(PHONE)[0].code.clone().unwrap();
    assert_eq!(playing.check_code("0901888485", &code).await["CodeResult"], "171");
    let good = playing.check_code(PHONE, &code).await;
    assert_eq!(good["CodeResult"], "100");
    assert_eq!(good["ErrorMessage"], "0901888484, Content: Success!");
    assert_eq!(playing.check_code(PHONE, &code).await["CodeResult"], "171");
    let keyless = playing.get(&format!("{CHECK_CODE_PATH}?Phone={PHONE}&Code={code}")).await;
    assert_eq!(keyless["CodeResult"], "101");
    assert_eq!(playing.sandbox.stats().check_code_calls, 4);
}

#[tokio::test]
async fn the_balance_is_told_to_who_has_the_keys() {
    let playing = Playing::start().await;
    let url = playing.sandbox.url() + BALANCE_PATH;
    let ask = async |secret: &str| {
        let keys = json!({"ApiKey": "sandbox-key", "SecretKey": secret});
        json_of(within(post(&playing.client, &url, &keys)).await.unwrap()).await
    };
    let told = json!({"Balance": Settings::default().balance, "CodeResponse": "100", "UserID": 9999});
    assert_eq!(ask("sandbox-secret").await, told);
    let refused = json!({"Balance": 0, "CodeResponse": "101", "ErrorMessage": "Authorize Failed"});
    assert_eq!(ask("wrong").await, refused);
    assert_eq!(playing.sandbox.stats().balance_calls, 2);
}

#[tokio::test]
async fn what_is_not_a_call_gets_an_html_page() {
    let playing = Playing::start().await;
    let (url, client) = (playing.sandbox.url(), &playing.client);
    let send_url = playing.sandbox.send_url();
    let pages = [
        (client.get(&send_url), StatusCode::METHOD_NOT_ALLOWED),
        (client.post(url.clone() + "/MainService.svc/json/Nothing"), StatusCode::NOT_FOUND),
        (client.post(&send_url).body(request(PHONE).to_string()), StatusCode::BAD_REQUEST),
        (client.post(&send_url).header(header::CONTENT_TYPE, "application/json").body("[1]"), StatusCode::BAD_REQUEST),
    ];
    for (request, status) in pages {
        assert_html(within(request.send()).await.unwrap(), status).await;
    }
    assert_eq!(playing.sandbox.stats().unreadable, 2);
    assert_eq!(playing.sandbox.accepted_total(), 0);
}
