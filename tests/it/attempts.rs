//! Every row of the attempt table, with a provider that really behaves so. Each test checks the class, the
//! outcome, the attempts, and how many OTPs went out.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use esms_otp_worker::sandbox::Fault;

use crate::stage::{LIMIT, PHONE, Running, Stage, ending, field};

const OK: Fault = Fault::None;

fn status(code: u16) -> Fault {
    Fault::Status { code, retry_after: None }
}

/// A result's outcome, attempts and `MayBeDuplicate`.
pub(crate) fn is(outcome: &str, attempts: u64, may_be_duplicate: bool) -> (String, u64, bool) {
    (outcome.to_owned(), attempts, may_be_duplicate)
}

/// How many attempts each class has: answered, not sent, ambiguous, refused.
pub(crate) async fn classes(running: &Running) -> [f64; 4] {
    let mut counts = [0.0; 4];
    for (count, class) in counts.iter_mut().zip(["answered", "not_sent", "ambiguous", "refused"]) {
        *count = running.metric("otp_attempts_total", &[("class", class)]).await;
    }
    counts
}

#[tokio::test]
async fn answered_100_is_accepted() {
    let stage = Stage::new().await;
    let (running, result) = stage.play(vec![OK]).await;
    assert_eq!(ending(&result), is("accepted", 1, false));
    assert_eq!(field(&result, "CodeResult"), "100");
    assert_eq!(field(&result, "SMSID"), stage.sandbox.requests(PHONE)[0].sms_id.clone().unwrap());
    assert_eq!(field(&result, "CountRegenerate"), "0");
    assert_eq!(field(&result, "Reason"), "");
    assert_eq!(classes(&running).await, [1.0, 0.0, 0.0, 0.0]);
}

#[tokio::test]
async fn answered_with_another_code_is_rejected_in_esms_own_words() {
    let stage = Stage::new().await;
    let (running, result) =
        stage.play(vec![Fault::Code { code: "103".into(), message: "Balance not enough".into() }]).await;
    assert_eq!(ending(&result), is("rejected", 1, false));
    assert_eq!(field(&result, "CodeResult"), "103");
    assert_eq!(field(&result, "ErrorMessage"), "Balance not enough");
    assert_eq!(field(&result, "SMSID"), "");
    assert!(field(&result, "Reason").contains("balance"));
    running.until_metric("otp_code_results_total", &[("code", "103"), ("scope", "account")], 1.0).await;
    assert_eq!(stage.sandbox.accepted(PHONE), 0);
}

#[tokio::test]
async fn answered_with_wrong_credentials_is_rejected_with_101() {
    let mut stage = Stage::new().await;
    stage.set("ESMS_SECRET_KEY", "wrong-secret");
    let (_running, result) = stage.play(vec![]).await;
    assert_eq!(ending(&result), is("rejected", 1, false));
    assert_eq!(
        (field(&result, "CodeResult"), field(&result, "ErrorMessage")),
        ("101".into(), "Authorize Failed".into())
    );
}

#[tokio::test]
async fn answered_with_a_number_is_read_as_its_digits() {
    let stage = Stage::new().await;
    let (_running, result) = stage.play(vec![Fault::CodeNumber]).await;
    assert_eq!(ending(&result), is("accepted", 1, false));
    assert_eq!(result.json()["CodeResult"], "100");
}

#[tokio::test]
async fn answered_with_unknown_null_or_missing_fields_is_still_answered() {
    for fault in [Fault::NullFields, Fault::MissingFields, Fault::ExtraFields] {
        let stage = Stage::new().await;
        let (_running, result) = stage.play(vec![fault.clone()]).await;
        assert_eq!(ending(&result), is("accepted", 1, false), "{fault:?}");
    }
}

#[tokio::test]
async fn answered_with_a_retry_code_is_tried_again() {
    let stage = Stage::new().await;
    let busy = Fault::Code { code: "160".into(), message: String::new() };
    let (running, result) = stage.play(vec![busy.clone(), busy, OK]).await;
    assert_eq!(ending(&result), is("accepted", 3, false));
    assert_eq!(classes(&running).await, [3.0, 0.0, 0.0, 0.0]);
}

#[tokio::test]
async fn answered_with_a_retry_code_until_retries_run_out_is_failed_with_that_code() {
    let mut stage = Stage::new().await;
    stage.set("OTP_RETRY_MAX_ELAPSED", "300ms");
    let (_running, result) = stage.play(vec![Fault::Code { code: "160".into(), message: String::new() }; 100]).await;
    assert_eq!(ending(&result).0, "failed");
    assert_eq!(field(&result, "CodeResult"), "160");
    assert!(ending(&result).1 > 1);
    assert_eq!(stage.sandbox.accepted(PHONE), 0);
}

#[tokio::test]
async fn not_sent_when_the_name_does_not_resolve() {
    let mut stage = Stage::new().await;
    stage.set("ESMS_URL", "https://esms.invalid/V5").set("OTP_RETRY_MAX_ELAPSED", "200ms");
    let (running, result) = stage.play(vec![]).await;
    let (outcome, attempts, may_be_duplicate) = ending(&result);
    assert_eq!((outcome.as_str(), may_be_duplicate), ("failed", false));
    assert_eq!(classes(&running).await, [0.0, attempts as f64, 0.0, 0.0]);
}

#[tokio::test]
async fn not_sent_when_the_connection_is_refused_and_sent_once_it_is_not() {
    let stage = Stage::new().await;
    stage.sandbox.stop_listening().await.unwrap();
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, crate::support::client::Job::for_phone(PHONE, "a-job")).await;
    running.process.wait_for_log("attempt failed", crate::stage::LIMIT).await;
    stage.sandbox.listen_again().await.unwrap();
    let result = results.next(crate::stage::LIMIT).await;
    let (outcome, attempts, may_be_duplicate) = ending(&result);
    assert_eq!((outcome.as_str(), may_be_duplicate), ("accepted", false));
    assert_eq!(classes(&running).await, [1.0, (attempts - 1) as f64, 0.0, 0.0]);
    assert_eq!(stage.sandbox.accepted(PHONE), 1);
}

/// A port that accepts no more connections, because its queue of waiting connections is full.
struct Deaf {
    addr: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Deaf {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(300)) {
            waiting.push(stream);
        }
        Self { addr, _listener: listener, _waiting: waiting }
    }
}

/// Clients whose errors do not tell this from a lost answer leave a choice between lost and doubled calls:
/// <https://github.com/request/request/issues/1660>, <https://github.com/seanmonstar/reqwest/issues/1022>,
/// <https://github.com/pleaseai/shunt/pull/128>.
#[tokio::test]
async fn not_sent_when_connecting_times_out() {
    let deaf = tokio::task::spawn_blocking(Deaf::new).await.unwrap();
    let mut stage = Stage::new().await;
    stage.set("ESMS_URL", &format!("http://{}/V5", deaf.addr));
    stage.set("ESMS_CONNECT_TIMEOUT", "100ms").set("OTP_RETRY_MAX_ELAPSED", "300ms");
    let (running, result) = stage.play(vec![]).await;
    assert_eq!(ending(&result).0, "failed");
    assert_eq!(classes(&running).await[2], 0.0, "a connection that was never made is not ambiguous");
}

#[tokio::test]
async fn not_sent_when_the_tls_handshake_fails() {
    let mut stage = Stage::new().await;
    // Plain HTTP answers the handshake with an error page.
    let https = stage.sandbox.send_url().replace("http://", "https://");
    stage.set("ESMS_URL", &https).set("OTP_RETRY_MAX_ELAPSED", "200ms");
    let (running, result) = stage.play(vec![]).await;
    assert_eq!(ending(&result).0, "failed");
    assert_eq!(classes(&running).await[2], 0.0);
    assert_eq!(stage.sandbox.accepted_total(), 0);
    let line = running.process.log_containing("attempt failed").swap_remove(0);
    assert!(line.contains("does not speak TLS on this port") && line.contains("ESMS_URL"), "{line}");
}

#[tokio::test]
async fn not_sent_when_the_tls_handshake_hangs() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut stage = Stage::new().await;
    stage.set("ESMS_URL", &format!("https://{}/V5", silent.local_addr().unwrap()));
    stage.set("ESMS_CONNECT_TIMEOUT", "100ms").set("OTP_RETRY_MAX_ELAPSED", "300ms");
    let (running, result) = stage.play(vec![]).await;
    assert_eq!(ending(&result).0, "failed");
    assert_eq!(classes(&running).await[2], 0.0);
}

#[tokio::test]
async fn nothing_is_sent_when_the_deadline_passes_while_connecting() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut stage = Stage::new().await;
    stage.set("ESMS_URL", &format!("https://{}/V5", silent.local_addr().unwrap()));
    stage.set("OTP_JOB_TTL", "1s").set("ESMS_CONNECT_TIMEOUT", "2m").set("ESMS_TIMEOUT", "3m");
    stage.set("OTP_SHUTDOWN_GRACE", "4m");
    let (running, result) = stage.play(vec![]).await;
    assert_eq!(ending(&result), is("expired", 1, false));
    assert_eq!(classes(&running).await, [0.0, 1.0, 0.0, 0.0]);
    running.process.wait_for_log("attempt failed", LIMIT).await;
    let said = running.process.log_containing("attempt failed");
    assert!(said.len() == 1 && said[0].contains("deadline passed before there was a connection"), "{said:#?}");
}

#[tokio::test]
async fn a_call_that_was_connected_in_time_runs_to_its_end_after_the_deadline() {
    let mut stage = Stage::new().await;
    stage.set("OTP_JOB_TTL", "1s");
    let (running, result) = stage.play(vec![Fault::Latency { ms: 2_500 }]).await;
    assert_eq!(ending(&result), is("accepted", 1, false));
    assert_eq!(classes(&running).await, [1.0, 0.0, 0.0, 0.0]);
}

#[tokio::test]
async fn not_sent_by_408_425_429_and_503() {
    let stage = Stage::new().await;
    let faults = vec![status(408), status(425), status(429), status(503), Fault::NoUpstream, OK];
    let (running, result) = stage.play(faults).await;
    assert_eq!(ending(&result), is("accepted", 6, false));
    assert_eq!(classes(&running).await, [1.0, 5.0, 0.0, 0.0]);
}

#[tokio::test]
async fn not_sent_by_429_is_tried_no_sooner_than_retry_after() {
    let stage = Stage::new().await;
    let began = Instant::now();
    let (_running, result) = stage.play(vec![Fault::Status { code: 429, retry_after: Some("1".into()) }, OK]).await;
    assert_eq!(ending(&result), is("accepted", 2, false));
    assert!(began.elapsed() >= Duration::from_secs(1));
    let requests = stage.sandbox.requests(PHONE);
    assert_eq!(requests.len(), 2);
}

#[tokio::test]
async fn not_sent_with_a_retry_after_beyond_every_limit_ends_at_once() {
    let stage = Stage::new().await;
    let began = Instant::now();
    let (_running, result) = stage.play(vec![Fault::Status { code: 503, retry_after: Some("3600".into()) }]).await;
    assert_eq!(ending(&result), is("failed", 1, false));
    assert!(began.elapsed() < Duration::from_secs(30), "it waited for what could not come");
}

#[tokio::test]
async fn ambiguous_by_timeout_is_sent_again_and_says_so() {
    let mut stage = Stage::new().await;
    stage.set("ESMS_TIMEOUT", "500ms").set("ESMS_CONNECT_TIMEOUT", "400ms");
    let (running, result) = stage.play(vec![Fault::HangAfter, OK]).await;
    assert_eq!(ending(&result), is("accepted", 2, true));
    assert_eq!(classes(&running).await, [1.0, 0.0, 1.0, 0.0]);
    assert_eq!(stage.sandbox.accepted(PHONE), 2, "the person got two, and the result says so");
    assert_eq!(running.metric("otp_may_be_duplicate_total", &[]).await, 1.0);
}

#[tokio::test]
async fn ambiguous_by_reset_after_connecting() {
    for (fault, went_out) in [(Fault::ResetBefore, 1), (Fault::ResetAfter, 2)] {
        let stage = Stage::new().await;
        let (running, result) = stage.play(vec![fault.clone(), OK]).await;
        assert_eq!(ending(&result), is("accepted", 2, true), "{fault:?}");
        assert_eq!(classes(&running).await, [1.0, 0.0, 1.0, 0.0], "{fault:?}");
        assert_eq!(stage.sandbox.accepted(PHONE), went_out, "{fault:?}");
    }
}

#[tokio::test]
async fn ambiguous_by_a_body_cut_short() {
    for fault in [Fault::CutJson, Fault::CutChunk] {
        let stage = Stage::new().await;
        let (running, result) = stage.play(vec![fault.clone(), OK]).await;
        assert_eq!(ending(&result), is("accepted", 2, true), "{fault:?}");
        assert_eq!(classes(&running).await, [1.0, 0.0, 1.0, 0.0], "{fault:?}");
    }
}

#[tokio::test]
async fn ambiguous_by_a_503_of_a_proxy_that_lost_the_request() {
    let stage = Stage::new().await;
    let (running, result) = stage.play(vec![Fault::ProxyLost, OK]).await;
    assert_eq!(ending(&result), is("accepted", 2, true));
    assert_eq!(classes(&running).await, [1.0, 0.0, 1.0, 0.0]);
    assert_eq!(stage.sandbox.accepted(PHONE), 2);
}

#[tokio::test]
async fn ambiguous_by_200_that_is_no_such_json() {
    for fault in [Fault::HtmlAfter, Fault::EmptyBody, Fault::JsonArray, Fault::NoCodeResult, Fault::HugeBody { mib: 8 }]
    {
        let stage = Stage::new().await;
        let (running, result) = stage.play(vec![fault.clone(), OK]).await;
        assert_eq!(ending(&result), is("accepted", 2, true), "{fault:?}");
        assert_eq!(classes(&running).await, [1.0, 0.0, 1.0, 0.0], "{fault:?}");
    }
}

#[tokio::test]
async fn ambiguous_by_500_502_504_and_other_5xx() {
    for code in [500, 502, 504, 501, 520, 599] {
        let stage = Stage::new().await;
        let (running, result) = stage.play(vec![Fault::StatusAfter { code }, OK]).await;
        assert_eq!(ending(&result), is("accepted", 2, true), "{code}");
        assert_eq!(classes(&running).await, [1.0, 0.0, 1.0, 0.0], "{code}");
    }
}

#[tokio::test]
async fn ambiguous_with_give_up_stops_at_once_as_unknown() {
    let mut stage = Stage::new().await;
    stage.set("OTP_ON_AMBIGUOUS", "give-up");
    let (running, result) = stage.play(vec![Fault::ResetAfter, OK]).await;
    assert_eq!(ending(&result), is("unknown", 1, false));
    assert_eq!(stage.sandbox.accepted(PHONE), 1, "at most one OTP went out");
    assert_eq!(classes(&running).await, [0.0, 0.0, 1.0, 0.0]);
}

#[tokio::test]
async fn ambiguous_until_retries_run_out_is_unknown_and_says_that_there_may_be_more_than_one() {
    let mut stage = Stage::new().await;
    stage.set("OTP_RETRY_MAX_ELAPSED", "300ms");
    let (_running, result) = stage.play(vec![Fault::ResetAfter; 100]).await;
    let (outcome, attempts, may_be_duplicate) = ending(&result);
    assert_eq!((outcome.as_str(), may_be_duplicate), ("unknown", true));
    assert_eq!(u64::from(stage.sandbox.accepted(PHONE)), attempts);
}

#[tokio::test]
async fn ambiguous_and_then_rejected_says_that_there_may_have_been_one() {
    let stage = Stage::new().await;
    let (_running, result) =
        stage.play(vec![Fault::ResetAfter, Fault::Code { code: "108".into(), message: String::new() }]).await;
    assert_eq!(ending(&result), is("rejected", 2, true));
}

#[tokio::test]
async fn ambiguous_and_then_only_not_sent_is_unknown_not_failed() {
    let mut stage = Stage::new().await;
    stage.set("OTP_RETRY_MAX_ELAPSED", "300ms");
    let mut faults = vec![Fault::ResetAfter];
    faults.extend(std::iter::repeat_n(status(503), 100));
    let (_running, result) = stage.play(faults).await;
    assert_eq!(ending(&result).0, "unknown");
    assert_eq!(stage.sandbox.accepted(PHONE), 1);
}

#[tokio::test]
async fn refused_by_3xx_is_failed_and_the_redirect_is_not_followed() {
    for code in [301, 302, 307, 308] {
        let stage = Stage::new().await;
        let (running, result) = stage.play(vec![status(code), OK]).await;
        assert_eq!(ending(&result), is("failed", 1, false), "{code}");
        assert_eq!(classes(&running).await, [0.0, 0.0, 0.0, 1.0], "{code}");
        assert_eq!(stage.sandbox.stats().redirects_followed, 0, "{code}");
    }
}

#[tokio::test]
async fn refused_by_4xx_is_failed_without_another_try() {
    for code in [400, 401, 403, 404, 405, 499] {
        let stage = Stage::new().await;
        let (running, result) = stage.play(vec![status(code), OK]).await;
        assert_eq!(ending(&result), is("failed", 1, false), "{code}");
        assert_eq!(classes(&running).await, [0.0, 0.0, 0.0, 1.0], "{code}");
    }
}

#[tokio::test]
async fn the_deadline_ends_the_retries_as_expired() {
    let mut stage = Stage::new().await;
    stage.set("OTP_JOB_TTL", "1s");
    let (_running, result) = stage.play(vec![status(503); 1000]).await;
    assert_eq!(ending(&result).0, "expired");
    assert!(field(&result, "Reason").contains("deadline"));
    assert_eq!(stage.sandbox.accepted(PHONE), 0);
}

#[tokio::test]
async fn credentials_and_the_number_are_masked_in_esms_own_words() {
    let stage = Stage::new().await;
    let (running, result) = stage.play(vec![Fault::EchoSecrets]).await;
    assert_eq!(ending(&result).0, "rejected");
    let said = String::from_utf8_lossy(&result.body).into_owned() + &running.process.log().join("\n");
    for secret in [PHONE, &PHONE[1..], "sandbox-key", "sandbox-secret"] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
    assert!(field(&result, "ErrorMessage").contains("[removed]"));
}
