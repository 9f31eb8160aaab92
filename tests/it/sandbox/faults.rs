//! Every fault: how it looks on the wire, and what it counts.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use esms_otp_worker::sandbox::{Fault, Refusal, Settings};
use reqwest::{StatusCode, header, redirect::Policy};
use serde_json::{Value, json};

use super::{PHONE, Playing, assert_html, changed, client, post, raw, request, within};

#[tokio::test]
async fn latency_delays_the_answer_of_an_accepted_request() {
    let playing = Playing::meeting(Fault::Latency { ms: 120 }).await;
    let start = Instant::now();
    assert_eq!(playing.answer().await["CodeResult"], "100");
    assert!(start.elapsed() >= Duration::from_millis(120));
    assert_eq!(playing.accepted(), 1);
}

#[tokio::test]
async fn every_answer_takes_the_base_latency() {
    let latency = Duration::from_millis(60);
    let playing = Playing::with(Settings { latency, jitter: latency, ..Settings::default() }).await;
    let start = Instant::now();
    assert_eq!(playing.code_result(&changed("ApiKey", json!("wrong"))).await, "101");
    assert!(start.elapsed() >= latency);
}

#[tokio::test]
async fn a_reset_before_accepting_is_an_rst_and_counts_nothing() {
    let playing = Playing::meeting(Fault::ResetBefore).await;
    let error = raw(playing.sandbox.addr()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(playing.accepted(), 0);
    assert_eq!(playing.sandbox.stats().requests, 1);
}

#[tokio::test]
async fn a_reset_after_accepting_is_an_rst_and_counts() {
    let playing = Playing::meeting(Fault::ResetAfter).await;
    let error = raw(playing.sandbox.addr()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(playing.accepted(), 1);
}

#[tokio::test]
async fn a_hang_lasts_until_it_is_released_and_then_is_a_reset() {
    for (fault, accepted) in [(Fault::HangBefore, 0), (Fault::HangAfter, 1)] {
        let playing = Playing::meeting(fault).await;
        let addr = playing.sandbox.addr();
        let hanging = tokio::spawn(raw(addr));
        within(playing.sandbox.wait_until_held(1)).await;
        playing.sandbox.release_held();
        assert!(!hanging.is_finished());
        assert_eq!(playing.accepted(), accepted);
        playing.sandbox.release_hangs();
        let error = within(hanging).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(playing.accepted(), accepted);
    }
}

#[tokio::test]
async fn a_hang_ends_when_the_client_gives_up() {
    let playing = Playing::meeting(Fault::HangAfter).await;
    let impatient = playing.client.post(playing.sandbox.send_url());
    let impatient = impatient.header(header::CONTENT_TYPE, "application/json");
    let impatient = impatient.timeout(Duration::from_millis(100)).body(request(PHONE).to_string());
    assert!(impatient.send().await.unwrap_err().is_timeout());
    within(playing.sandbox.wait_until(|stats| stats.in_progress == 0)).await;
    let stats = playing.sandbox.stats();
    assert_eq!((stats.held, stats.accepted), (0, 1));
}

#[tokio::test]
async fn a_held_request_is_accepted_and_answered_when_released() {
    let playing = Playing::start().await;
    playing.sandbox.script(None, vec![Fault::Hold, Fault::Hold]);
    let release = async {
        within(playing.sandbox.wait_until_held(2)).await;
        assert_eq!(playing.accepted(), 2);
        assert_eq!(playing.sandbox.stats().in_progress, 2);
        playing.sandbox.release_hangs();
        playing.sandbox.release_held();
    };
    let (one, other, ()) = tokio::join!(playing.answer(), playing.answer(), release);
    assert_eq!((&one["CodeResult"], &other["CodeResult"]), (&json!("100"), &json!("100")));
    assert_eq!(playing.sandbox.stats().held, 0);
}

#[tokio::test]
async fn a_status_comes_with_html_and_counts_nothing() {
    for code in [500, 501, 502, 503, 504, 400, 401, 403, 404, 429] {
        let playing = Playing::meeting(Fault::Status { code, retry_after: None }).await;
        let response = playing.send().await.unwrap();
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
        assert_html(response, StatusCode::from_u16(code).unwrap()).await;
        assert_eq!(playing.accepted(), 0);
    }
}

#[tokio::test]
async fn retry_after_is_sent_word_for_word() {
    for after in ["1", "Wed, 21 Oct 2026 07:28:00 GMT", "soon"] {
        let fault = Fault::Status { code: 429, retry_after: Some(after.into()) };
        let response = Playing::meeting(fault).await.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], after);
    }
}

#[tokio::test]
async fn whoever_follows_a_redirect_is_counted() {
    for code in [302, 307] {
        let playing = Playing::meeting(Fault::Status { code, retry_after: None }).await;
        let response = playing.send().await.unwrap();
        assert_eq!(response.status(), code);
        assert!(response.headers().contains_key(header::LOCATION));
        assert_eq!(playing.sandbox.stats().redirects_followed, 0);

        playing.sandbox.script(None, vec![Fault::Status { code, retry_after: None }]);
        let careless = client(Policy::default());
        within(post(&careless, &playing.sandbox.send_url(), &request(PHONE))).await.unwrap();
        assert_eq!(playing.sandbox.stats().redirects_followed, 1);
        assert_eq!(playing.accepted(), 0);
    }
}

#[tokio::test]
async fn a_status_after_accepting_counts() {
    let playing = Playing::meeting(Fault::StatusAfter { code: 502 }).await;
    assert_html(playing.send().await.unwrap(), StatusCode::BAD_GATEWAY).await;
    assert_eq!(playing.accepted(), 1);
}

#[tokio::test]
async fn an_html_page_may_come_before_or_after_accepting() {
    for (fault, accepted) in [(Fault::Html, 0), (Fault::HtmlAfter, 1)] {
        let playing = Playing::meeting(fault).await;
        assert_html(playing.send().await.unwrap(), StatusCode::OK).await;
        assert_eq!(playing.accepted(), accepted);
    }
}

#[tokio::test]
async fn cut_json_ends_before_its_length_without_a_reset() {
    let playing = Playing::meeting(Fault::CutJson).await;
    let seen = String::from_utf8(raw(playing.sandbox.addr()).await.unwrap()).unwrap();
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"));
    let length = head
        .to_lowercase()
        .split_once("content-length: ")
        .map(|(_, rest)| rest.lines().next().unwrap().parse::<usize>().unwrap());
    assert!(body.starts_with(r#"{"CodeResult""#));
    assert_eq!(body.len(), length.unwrap() / 2);
    assert_eq!(playing.accepted(), 1);

    playing.sandbox.script(None, vec![Fault::CutJson]);
    let response = playing.send().await.unwrap();
    assert!(within(response.bytes()).await.is_err());
}

#[tokio::test]
async fn an_empty_body_is_accepted_all_the_same() {
    let playing = Playing::meeting(Fault::EmptyBody).await;
    let response = playing.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(within(response.bytes()).await.unwrap().is_empty());
    assert_eq!(playing.accepted(), 1);
}

/// Whether an answer is odd in the way it should be.
type Fits = fn(&Value) -> bool;

#[tokio::test]
async fn odd_json_is_accepted_all_the_same() {
    let shapes: [(Fault, Fits); 6] = [
        (Fault::JsonArray, |answer| answer[0]["CodeResult"] == "100"),
        (Fault::NoCodeResult, |answer| answer["SMSID"].is_string() && answer.get("CodeResult").is_none()),
        (Fault::CodeNumber, |answer| answer["CodeResult"] == 100),
        (Fault::NullFields, |answer| {
            answer["CodeResult"] == "100"
                && ["SMSID", "CountRegenerate", "ErrorMessage"]
                    .iter()
                    .all(|field| answer.get(field) == Some(&Value::Null))
        }),
        (Fault::MissingFields, |answer| *answer == json!({"CodeResult": "100"})),
        (Fault::ExtraFields, |answer| answer["CodeResult"] == "100" && answer["Campaign"].is_object()),
    ];
    for (fault, fits) in shapes {
        let playing = Playing::meeting(fault.clone()).await;
        let answer = playing.answer().await;
        assert!(fits(&answer), "{fault}: {answer}");
        assert_eq!(playing.accepted(), 1);
        assert_eq!(playing.sandbox.requests(PHONE)[0].fault, fault.to_string());
    }
}

#[tokio::test]
async fn a_huge_body_is_valid_and_of_unannounced_length() {
    let playing = Playing::meeting(Fault::HugeBody { mib: 3 }).await;
    let response = playing.send().await.unwrap();
    assert_eq!(response.content_length(), None);
    let body = within(response.bytes()).await.unwrap();
    assert!(body.len() > 3 * 1024 * 1024);
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["CodeResult"], "100");
    assert_eq!(playing.accepted(), 1);
}

#[tokio::test]
async fn a_client_may_leave_in_the_middle_of_a_huge_body() {
    let playing = Playing::meeting(Fault::HugeBody { mib: 1024 }).await;
    let mut response = playing.send().await.unwrap();
    within(response.chunk()).await.unwrap().unwrap();
    drop(response);
    within(playing.sandbox.wait_until(|stats| stats.open_connections == 0)).await;
}

#[tokio::test]
async fn a_code_is_refused_word_for_word() {
    let fault = Fault::Code { code: "0160".into(), message: "quá nhanh".into() };
    let playing = Playing::meeting(fault).await;
    let expected = json!({"CodeResult": "0160", "CountRegenerate": 0, "ErrorMessage": "quá nhanh"});
    assert_eq!(playing.answer().await, expected);
    assert_eq!(playing.accepted(), 0);
}

#[tokio::test]
async fn echoed_secrets_are_those_that_were_sent() {
    let playing = Playing::meeting(Fault::EchoSecrets).await;
    let answer = playing.answer().await;
    let message = answer["ErrorMessage"].as_str().unwrap();
    for secret in [PHONE, "sandbox-key", "sandbox-secret"] {
        assert!(message.contains(secret));
    }
    assert_eq!(playing.accepted(), 0);
}

#[tokio::test]
async fn a_raw_response_is_sent_as_it_is() {
    let fault = Fault::Raw { status: 203, content_type: "text/x".into(), body: "hello".into() };
    let playing = Playing::meeting(fault).await;
    let response = playing.send().await.unwrap();
    assert_eq!(response.status(), 203);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/x");
    assert_eq!(within(response.text()).await.unwrap(), "hello");
    assert_eq!(playing.accepted(), 0);
}

#[tokio::test]
async fn a_slow_body_is_spread_over_its_time() {
    let playing = Playing::meeting(Fault::SlowBody { ms: 200 }).await;
    let start = Instant::now();
    assert_eq!(playing.answer().await["CodeResult"], "100");
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert_eq!(playing.accepted(), 1);
}

#[tokio::test]
async fn a_slow_body_comes_in_pieces_after_its_headers() {
    let playing = Playing::meeting(Fault::SlowBody { ms: 8_000 }).await;
    let mut response = playing.send().await.unwrap();
    let length = response.content_length().unwrap();
    let first = within(response.chunk()).await.unwrap().unwrap();
    assert!((first.len() as u64) < length);
}

#[tokio::test]
async fn a_fault_after_accepting_does_not_make_a_bad_request_good() {
    let playing = Playing::meeting(Fault::CodeNumber).await;
    assert_eq!(playing.code_result(&changed("ApiKey", json!("wrong"))).await, 101);
    assert_eq!(playing.sandbox.accepted_total(), 0);
}

#[tokio::test]
async fn a_forced_refusal_lasts_until_it_is_lifted() {
    let playing = Playing::start().await;
    playing.sandbox.force(Some(Refusal { code: "143".into(), message: "locked".into() }));
    assert_eq!(playing.answer().await["CodeResult"], "143");
    assert_eq!(playing.answer().await["ErrorMessage"], "locked");
    playing.sandbox.force(None);
    assert_eq!(playing.answer().await["CodeResult"], "100");
    assert_eq!(playing.accepted(), 1);
}

/// What the sandbox sends for this fault, as head and body. The request was accepted.
async fn sent(fault: Fault) -> (String, Vec<u8>) {
    let playing = Playing::meeting(fault).await;
    let seen = raw(playing.sandbox.addr()).await.unwrap();
    let end = seen.windows(4).position(|four| four == b"\r\n\r\n").expect("the end of the headers");
    assert_eq!(playing.accepted(), 1);
    (String::from_utf8(seen[..end + 2].to_vec()).unwrap(), seen[end + 4..].to_vec())
}

fn is_answer(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body)
        .is_ok_and(|answer| answer["CodeResult"] == "100" && answer["SMSID"].is_string())
}

/// The length that the headers announce.
fn length(head: &str) -> Option<usize> {
    let value = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
    value.parse().ok()
}

#[tokio::test]
async fn an_answer_may_have_another_status() {
    for code in [201, 202, 203, 299] {
        let playing = Playing::meeting(Fault::AnswerStatus { code }).await;
        let response = playing.send().await.unwrap();
        assert_eq!(response.status(), code);
        assert!(is_answer(&within(response.bytes()).await.unwrap()));
        assert_eq!(playing.accepted(), 1);
    }
    let playing = Playing::meeting(Fault::AnswerStatus { code: 204 }).await;
    assert!(within(playing.send().await.unwrap().bytes()).await.unwrap().is_empty());
    assert_eq!(playing.accepted(), 1);
}

#[tokio::test]
async fn headers_are_as_odd_as_they_should_be() {
    for (fault, odd) in [
        (Fault::ManyHeaders { lines: 120 }, "Set-Cookie: visid_incap_119=x; path=/\r\n"),
        (Fault::ControlByte, "Set-Cookie: ___utmvaPRuXKscZ=dmo\u{1}OZPF;"),
        (Fault::SpaceBeforeColon, "\r\nX-Powered-By : ASP.NET\r\n"),
        (Fault::FoldedHeader, "X-Policy: one,\r\n two,\r\n\tthree\r\n"),
    ] {
        let (head, body) = sent(fault.clone()).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains(odd), "{fault}: {head}");
        assert_eq!(length(&head), Some(body.len()), "{fault}");
        assert!(is_answer(&body), "{fault}");
    }
    let (head, _) = sent(Fault::ManyHeaders { lines: 120 }).await;
    assert_eq!(head.matches("Set-Cookie: ").count(), 120);
}

#[tokio::test]
async fn a_body_ends_as_oddly_as_it_should() {
    let (head, body) = sent(Fault::UntilClose).await;
    assert!(length(&head).is_none() && !head.contains("chunked") && is_answer(&body), "{head}");
    let (head, body) = sent(Fault::LongLength).await;
    assert!(length(&head) == Some(body.len() + 1) && is_answer(&body), "{head}");
    let (head, body) = sent(Fault::CutChunks).await;
    let text = String::from_utf8(body).unwrap();
    let (size, chunk) = text.split_once("\r\n").unwrap();
    assert!(head.contains("Transfer-Encoding: chunked\r\n") && is_answer(chunk.trim_end().as_bytes()), "{text}");
    assert_eq!(usize::from_str_radix(size, 16).unwrap(), chunk.trim_end().len());
    assert!(!chunk.contains("\r\n0"), "the last chunk is missing");
    let (_, body) = sent(Fault::CutChunk).await;
    let text = String::from_utf8(body).unwrap();
    let (size, chunk) = text.split_once("\r\n").unwrap();
    assert_eq!(usize::from_str_radix(size, 16).unwrap() / 2, chunk.len());
}

#[tokio::test]
async fn an_open_end_lasts_until_it_is_released() {
    let playing = Playing::meeting(Fault::OpenEnd).await;
    let mut response = playing.send().await.unwrap();
    let length = response.content_length().unwrap();
    let body = within(response.chunk()).await.unwrap().unwrap();
    assert!(is_answer(&body));
    assert_eq!(length, body.len() as u64 + 1);
    within(playing.sandbox.wait_until_held(1)).await;
    playing.sandbox.release_hangs();
    assert!(within(response.chunk()).await.is_err());
    assert_eq!(playing.accepted(), 1);
}

#[tokio::test]
async fn an_answer_may_be_compressed_or_have_something_around_it() {
    let playing = Playing::meeting(Fault::Gzip).await;
    let response = playing.send().await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip");
    assert!(within(response.bytes()).await.unwrap().starts_with(b"\x1f\x8b"));
    playing.sandbox.script(None, vec![Fault::Deflate, Fault::ByteOrderMark, Fault::TrailingComment]);
    let response = playing.send().await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_ENCODING], "deflate");
    assert_eq!(within(response.bytes()).await.unwrap()[0], 0x78);
    let marked = within(playing.send().await.unwrap().bytes()).await.unwrap();
    assert!(marked.starts_with(b"\xef\xbb\xbf") && is_answer(&marked[3..]));
    let text = within(playing.send().await.unwrap().text()).await.unwrap();
    let (answer, comment) = text.split_once("\r\n").unwrap();
    assert!(is_answer(answer.as_bytes()) && comment.starts_with("<!--"), "{text}");
    assert_eq!(playing.accepted(), 4);
}

#[tokio::test]
async fn whoever_does_not_ask_for_json_may_get_xml() {
    let playing = Playing::meeting(Fault::XmlUnlessAsked).await;
    let xml = within(playing.send().await.unwrap().text()).await.unwrap();
    assert!(xml.starts_with("<SendResult>") && xml.contains("<CodeResult>100</CodeResult>"), "{xml}");
    playing.sandbox.script(None, vec![Fault::XmlUnlessAsked]);
    let asking = playing.client.post(playing.sandbox.send_url()).header(header::ACCEPT, "application/json");
    let asking = asking.header(header::CONTENT_TYPE, "application/json").body(request(PHONE).to_string());
    assert!(is_answer(&within(within(asking.send()).await.unwrap().bytes()).await.unwrap()));
    assert_eq!(playing.accepted(), 2);
}

#[tokio::test]
async fn a_proxy_loses_an_answer_or_does_not_pass_the_request_on() {
    for (fault, words, accepted) in
        [(Fault::ProxyLost, "disconnect/reset before headers", 1), (Fault::NoUpstream, "no healthy upstream", 0)]
    {
        let playing = Playing::meeting(fault).await;
        let response = playing.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(within(response.text()).await.unwrap().contains(words));
        assert_eq!(playing.accepted(), accepted);
    }
}

#[tokio::test]
async fn a_slash_at_the_end_of_the_address_changes_nothing() {
    let playing = Playing::start().await;
    let url = playing.sandbox.send_url() + "/";
    let response = within(post(&playing.client, &url, &request(PHONE))).await.unwrap();
    assert!(is_answer(&within(response.bytes()).await.unwrap()));
    assert_eq!(playing.accepted(), 1);
}
