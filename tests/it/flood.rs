//! Nobody is sent more than `1 + OTP_RESEND_LIMIT` OTPs for one job, whatever happens to its attempts.

use esms_otp_worker::crash::Point;
use esms_otp_worker::sandbox::Fault;

use crate::stage::{LIMIT, PHONE, Stage, ending, field};
use crate::support::client::Job;
use crate::support::redis::Redis;

/// Every answer that nobody can read, after eSMS took the request.
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
