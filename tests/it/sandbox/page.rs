//! The page, what it asks for, and who may ask. What it shows and what its buttons do is tested in a browser:
//! tests/page.

use esms_otp_worker::sandbox::{Fault, Mix, PRICE_VND, Settings};
use reqwest::{Method, Response, StatusCode, header};
use serde_json::{Value, json};

use super::{PHONE, Playing, changed, json_of, request, within};

const OTHER: &str = "0901888485";

impl Playing {
    async fn tell(&self, method: Method, path: &str, body: &Value, headers: &[(&str, &str)]) -> Response {
        let mut request = self.client.request(method, self.sandbox.url() + path).body(body.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        within(request.send()).await.unwrap()
    }

    async fn tell_json(&self, method: Method, path: &str, body: &Value) -> Response {
        self.tell(method, path, body, &[("content-type", "application/json")]).await
    }

    async fn messages(&self, query: &str) -> Value {
        self.get(&format!("/_sandbox/messages?{query}")).await
    }
}

/// A field of each message, the newest first.
fn each(news: &Value, field: &str) -> Vec<Value> {
    news["messages"].as_array().unwrap().iter().map(|message| message[field].clone()).collect()
}

#[tokio::test]
async fn the_page_is_one_file_that_runs_nothing_but_its_own() {
    let playing = Playing::start().await;
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let page = within(playing.client.get(playing.sandbox.url() + "/").send()).await.unwrap();
        assert_eq!(page.status(), StatusCode::OK);
        assert_eq!(page.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(page.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'nonce-"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && policy.contains("connect-src 'self'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap().to_owned();
        let text = within(page.text()).await.unwrap();
        assert_eq!(text.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
        assert!(!text.contains("{nonce}") && !text.contains("innerHTML"));
        // The name of a format is no address.
        assert!(!text.replace("http://www.w3.org/2000/svg", "").contains("http"));
        nonces.push(nonce);
    }
    assert_ne!(nonces[0], nonces[1]);
}

#[tokio::test]
async fn each_message_is_told_once_with_all_that_is_known_of_it() {
    let playing = Playing::start().await;
    playing.sandbox.script(Some(OTHER), vec![Fault::ResetAfter]);
    let sent = playing.answer().await;
    let _ = playing.post(&request(OTHER)).await;
    playing.code_result(&changed("TypeId", json!("1"))).await;
    playing.code_result(&changed("Phone", json!("nonsense"))).await;

    let news = playing.messages("after=0").await;
    assert_eq!((&news["last"], &news["kept"], &news["stats"]["requests"]), (&json!(4), &json!(4), &json!(4)));
    assert_eq!(each(&news, "seq"), [4, 3, 2, 1]);
    assert_eq!(each(&news, "phone"), ["nonsense", PHONE, OTHER, PHONE]);
    assert_eq!(each(&news, "type_id"), ["2", "1", "2", "2"]);
    assert_eq!(each(&news, "attempt"), [1, 2, 1, 1]);
    assert_eq!(each(&news, "code_result"), ["108", "100", "100", "100"]);
    assert_eq!(each(&news, "fault"), ["none", "none", "reset_after", "none"]);
    let first = &news["messages"][3];
    assert_eq!((&first["sms_id"], &first["template"]), (&sent["SMSID"], &json!("1234")));
    assert_eq!(first["code"], json!(playing.sandbox.requests(PHONE)[0].code));

    playing.answer().await;
    let after = playing.messages("after=4").await;
    assert_eq!((each(&after, "seq"), &after["run"]), (vec![json!(5)], &news["run"]));
    assert!(each(&playing.messages("after=5").await, "seq").is_empty());
    assert_eq!(each(&playing.messages("limit=2").await, "seq"), [5, 4]);
    assert!(each(&playing.messages("limit=0").await, "seq").is_empty());

    playing.sandbox.reset();
    let anew = playing.messages("after=5").await;
    assert!(anew["run"].as_u64() > news["run"].as_u64());
    assert_eq!((&anew["last"], &anew["kept"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn a_number_is_found_in_either_form_with_its_counts() {
    let playing = Playing::start().await;
    playing.answer().await;
    playing.answer().await;
    playing.post(&request(OTHER)).await.unwrap();
    let news = playing.messages("find=%2B84%20901%20888%20484").await;
    assert_eq!(each(&news, "phone"), [PHONE, PHONE]);
    assert_eq!((&news["found"]["phone"], &news["found"]["accepted"]), (&json!(PHONE), &json!(2)));
    assert_eq!(news["found"]["code"], news["messages"][0]["code"]);
    let part = playing.messages("find=88848&after=2").await;
    assert_eq!((each(&part, "phone"), &part["found"]), (vec![json!(OTHER)], &Value::Null));
    assert_eq!(playing.messages("find=").await["found"], Value::Null);
}

#[tokio::test]
async fn a_code_is_checked_as_check_code_does_without_keys() {
    let playing = Playing::start().await;
    playing.answer().await;
    let code = playing.sandbox.requests(PHONE)[0].code.clone().unwrap();
    let check = async |phone: &str, code: &str| {
        let asked = json!({"phone": phone, "code": code});
        json_of(playing.tell_json(Method::POST, "/_sandbox/check", &asked).await).await
    };
    assert_eq!(check(OTHER, &code).await["CodeResult"], "171");
    assert_eq!(check(PHONE, "no").await["CodeResult"], "171");
    let right = check(PHONE, &code).await;
    assert_eq!(
        (&right["CodeResult"], &right["ErrorMessage"]),
        (&json!("100"), &json!("0901888484, Content: Success!"))
    );
    assert_eq!(check(PHONE, &code).await, playing.check_code(PHONE, &code).await);
    assert_eq!(playing.sandbox.stats().check_code_calls, 1);
}

#[tokio::test]
async fn one_fault_can_always_come_until_it_is_ended() {
    let mix = Mix::new([(Fault::EmptyBody, 1.0)]).unwrap();
    let playing = Playing::with(Settings { mix, ..Settings::default() }).await;
    let always = json!({"fault": "code:160:wait"});
    assert_eq!(playing.tell_json(Method::PUT, "/_sandbox/always", &always).await.status(), StatusCode::NO_CONTENT);
    playing.sandbox.script(Some(OTHER), vec![Fault::None]);
    playing.sandbox.reset();
    assert_eq!(playing.answer().await["CodeResult"], "160");
    assert_eq!(playing.code_result(&request(OTHER)).await, "160");
    let trouble = &playing.messages("").await["trouble"];
    assert_eq!((&trouble["always"], &trouble["mix"]), (&json!("code:160:wait"), &json!({"empty_body": 1.0})));
    let balance = (&trouble["price"], &trouble["opening_balance"]);
    assert_eq!(balance, (&json!(PRICE_VND), &json!(Settings::default().balance)));

    let wrong = playing.tell_json(Method::PUT, "/_sandbox/always", &json!({"fault": "boom"})).await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(within(wrong.text()).await.unwrap(), "there is no fault `boom`");
    assert_eq!(playing.answer().await["CodeResult"], "160");

    playing.tell_json(Method::DELETE, "/_sandbox/always", &Value::Null).await;
    assert!(within(playing.send().await.unwrap().bytes()).await.unwrap().is_empty());
    playing.sandbox.always(Some(Fault::ResetAfter));
    playing.sandbox.script(None, vec![Fault::None]);
    assert_eq!(playing.answer().await["CodeResult"], "100");
    assert!(playing.send().await.is_err());
}

/// What changes something, and whether its body must be JSON.
fn changes() -> [(Method, &'static str, Value, bool); 11] {
    [
        (Method::POST, "/_sandbox/check", json!({"phone": "", "code": ""}), true),
        (Method::POST, "/_sandbox/script", json!({"faults": ["html"]}), true),
        (Method::PUT, "/_sandbox/always", json!({"fault": "html"}), true),
        (Method::DELETE, "/_sandbox/always", Value::Null, false),
        (Method::PUT, "/_sandbox/mix", json!({"html": 1.0}), true),
        (Method::PUT, "/_sandbox/forced", json!({"code": "1"}), true),
        (Method::PUT, "/_sandbox/balance", json!({"balance": 0}), true),
        (Method::POST, "/_sandbox/refuse", json!({"ms": 1}), true),
        (Method::POST, "/_sandbox/release-hangs", Value::Null, false),
        (Method::POST, "/_sandbox/release-held", Value::Null, false),
        (Method::POST, "/_sandbox/reset", Value::Null, false),
    ]
}

#[tokio::test]
async fn another_website_in_the_same_browser_changes_nothing() {
    let playing = Playing::start().await;
    playing.answer().await;
    let own = playing.sandbox.url();
    for (method, path, body, is_json) in changes() {
        for foreign in [
            [("host", "evil.example"), ("origin", "http://evil.example")],
            [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")],
            [("origin", "null"), ("accept", "*/*")],
            [("sec-fetch-site", "same-site"), ("accept", "*/*")],
        ] {
            let headers = [&foreign[..], &[("content-type", "application/json")]].concat();
            let answer = playing.tell(method.clone(), path, &body, &headers).await;
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{method} {path} {foreign:?}");
        }
        if is_json {
            // What a form of another website can send.
            let answer = playing.tell(method.clone(), path, &body, &[("content-type", "text/plain")]).await;
            assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{method} {path}");
        }
    }
    for path in ["/", "/_sandbox/messages", "/_sandbox/stats", "/_sandbox/phones/0901888484"] {
        let answer = playing.tell(Method::GET, path, &Value::Null, &[("host", "evil.example:8081")]).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
        assert!(within(answer.text()).await.unwrap().contains("localhost"), "{path}");
    }
    assert_eq!((playing.sandbox.stats().requests, playing.accepted()), (1, 1));
    assert_eq!(playing.answer().await["CodeResult"], "100");
    let origin = [("origin", own.as_str()), ("sec-fetch-site", "same-origin")];
    let answer = playing.tell(Method::POST, "/_sandbox/reset", &Value::Null, &origin).await;
    assert_eq!((answer.status(), playing.sandbox.stats().requests), (StatusCode::NO_CONTENT, 0));
}
