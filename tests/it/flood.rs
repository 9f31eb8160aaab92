//! Nobody is sent more than `1 + OTP_RESEND_LIMIT` OTPs for one job, whatever happens to its attempts.

use esms_otp_worker::crash::Point;
use esms_otp_worker::sandbox::Fault;

use crate::stage::{LIMIT, PHONE, Stage, ending, field};
use crate::support::client::Job;
use crate::support::redis::Redis;

/// Every answer that nobody can read, after eSMS took the request. Providers do answer so:
/// <https://github.com/tbar0970/jethro-pmm/issues/1357>, and clients that try again send twice:
/// <https://github.com/FGRibreau/node-request-retry/issues/145>.
const UNREADABLE: [Fault; 4] = [Fault::HtmlAfter, Fault::CutJson, Fault::ResetAfter, Fault::EmptyBody];

#[tokio::test]
async fn with_the_defaults_an_answer_that_nobody_can_read_costs_two_otps_and_no_more() {
    for fault in UNREADABLE {
        let stage = Stage::new().await;
        let (_running, result) = stage.play(vec![fault.clone(); 100]).await;
        assert_eq!(ending(&result), ("unknown".into(), 2, true), "{fault:?}");
        assert!(field(&result, "Reason").contains("OTP_RESEND_LIMIT"), "{result:?}");
        assert!(stage.sandbox.requests(PHONE).len() == 2, "{fault:?}");
    }
}

#[tokio::test]
async fn a_limit_of_nought_sends_once_and_a_higher_one_as_often_as_it_says() {
    for (limit, attempts) in [("0", 1), ("1", 2), ("3", 4)] {
        let mut stage = Stage::new().await;
        stage.set("OTP_RESEND_LIMIT", limit);
        let (_running, result) = stage.play(vec![Fault::ResetAfter; 100]).await;
        assert_eq!(ending(&result), ("unknown".into(), attempts, attempts > 1), "{limit}");
        assert_eq!(u64::from(stage.sandbox.accepted(PHONE)), attempts);
    }
}

#[tokio::test]
async fn attempts_that_sent_nothing_do_not_count() {
    let stage = Stage::new().await;
    let not_sent = Fault::Status { code: 503, retry_after: None };
    let mut faults = vec![not_sent; 6];
    faults.insert(3, Fault::ResetAfter);
    let (_running, result) = stage.play(faults).await;
    assert_eq!(ending(&result), ("accepted".into(), 8, true));
    assert_eq!(stage.sandbox.accepted(PHONE), 2);
}

#[tokio::test]
async fn the_limit_counts_over_workers_that_die_during_an_attempt() {
    let redis = Redis::start().await;
    let mut stage = Stage::new().await;
    stage.set("OTP_LEDGER_URL", &redis.url()).set("OTP_LEDGER_ON_ERROR", "hold");
    stage.set("ESMS_CONNECT_TIMEOUT", "1s").set("ESMS_TIMEOUT", "2s").set("OTP_SHUTDOWN_GRACE", "3s");
    stage.set("CRASH_AT", Point::AfterCall.name());
    // Whoever declares the objects first must live until the results have a queue.
    let mut dying = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    for _ in 0..2 {
        assert_eq!(dying.process.wait_exit(LIMIT).await, Some(128 + 9), "killed");
        dying = stage.worker().await;
    }
    // Two workers have sent the job and died. The third must not send it again.
    let result = results.next(LIMIT).await;
    assert_eq!(ending(&result), ("unknown".into(), 2, true));
    assert_eq!(stage.sandbox.accepted(PHONE), 2);
}

/// An app that tried again after each 504 published one post eleven times, for the server had taken each request:
/// <https://github.com/tuskyapp/Tusky/issues/2951>.
#[tokio::test]
async fn a_gateway_that_gives_up_on_requests_which_esms_takes_costs_two_otps_and_no_more() {
    for code in [502, 504] {
        let stage = Stage::new().await;
        let (_running, result) = stage.play(vec![Fault::StatusAfter { code }; 100]).await;
        assert_eq!(ending(&result), ("unknown".into(), 2, true), "{code}");
        assert_eq!(stage.sandbox.accepted(PHONE), 2, "{code}");
    }
}

/// A client whose limit was shorter than the provider's time called what was sent "not sent", and people sent it again:
/// <https://github.com/michaelkourlas/voipms-sms-client/issues/105>. Another replayed such a call, and then its user
/// did: <https://github.com/zernio-dev/zernio-python/pull/42>.
#[tokio::test]
async fn a_provider_slower_than_the_limit_costs_two_otps_and_no_more_however_often_the_producer_repeats_the_job() {
    let mut stage = Stage::new().await;
    stage.set("ESMS_CONNECT_TIMEOUT", "400ms").set("ESMS_TIMEOUT", "500ms");
    stage.sandbox.script(None, vec![Fault::HangAfter; 100]);
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let mut told = Vec::new();
    for _ in 0..4 {
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
        told.push(results.next(LIMIT).await);
    }
    assert_eq!(ending(&told[0]), ("unknown".into(), 2, true), "not `failed`: nobody is invited to send it again");
    assert!(told.iter().all(|result| result.body == told[0].body));
    assert_eq!((stage.sandbox.accepted(PHONE), stage.sandbox.requests(PHONE).len()), (2, 2));
    running.until_settled(&stage.names).await;
}

/// A client that took the end of a kept connection for a request that was not sent posted it again, behind its user's
/// back: <https://github.com/nahi/httpclient/issues/142>. The one below this worker did so in another case:
/// <https://github.com/hyperium/hyper-util/pull/150>.
#[tokio::test]
async fn a_kept_connection_that_ends_behind_a_request_is_not_followed_by_a_call_that_nobody_counted() {
    for (fault, accepted) in [(Fault::ResetAfter, 1), (Fault::ResetBefore, 0)] {
        let mut stage = Stage::new().await;
        stage.set("OTP_ON_AMBIGUOUS", "give-up");
        stage.sandbox.script(Some("0901888485"), vec![fault.clone()]);
        let running = stage.worker().await;
        let (client, mut results) = stage.audience().await;
        for (phone, expected) in [(PHONE, "accepted"), ("0901888485", "unknown")] {
            client.publish(&stage.names.jobs, Job::for_phone(phone, phone)).await;
            assert_eq!(ending(&results.next(LIMIT).await), (expected.into(), 1, false), "{fault:?}");
        }
        assert_eq!(stage.sandbox.stats().connections, 1, "{fault:?}: the connection was kept");
        assert_eq!(stage.sandbox.requests("0901888485").len(), 1, "{fault:?}");
        assert_eq!(stage.sandbox.accepted("0901888485"), accepted, "{fault:?}");
        running.until_settled(&stage.names).await;
    }
}
