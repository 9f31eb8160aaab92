//! `limits` says what is counted for a number, and `limits reset` forgets it.

use crate::program::{Ended, command, run_with_input, terminal};
use crate::stage::{LIMIT, PHONE, Stage, ending};
use crate::support::client::{Client, Job, Results};
use crate::support::redis::Redis;

const SETTINGS: [(&str, &str); 5] = [
    ("OTP_PHONE_COOLDOWN", "1h"),
    ("OTP_PHONE_LIMIT", "3/2h"),
    ("OTP_PREFIX_LIMIT", "84:50/1h,*:5/1h"),
    ("OTP_TOTAL_LIMIT", "100/24h"),
    ("OTP_PREFIX_DENY", "8499"),
];

/// A stage with a Redis and these limits.
async fn stage() -> (Stage, Redis) {
    let (mut stage, redis) = (Stage::new().await, Redis::start().await);
    stage.set("OTP_LEDGER_URL", &redis.url());
    for (name, value) in SETTINGS {
        stage.set(name, value);
    }
    (stage, redis)
}

/// What the command needs of the worker's settings. It is not given eSMS's keys.
fn settings(stage: &Stage) -> Vec<(&str, &str)> {
    stage.env().into_iter().filter(|(name, _)| !name.starts_with("ESMS_")).collect()
}

async fn limits(stage: &Stage, args: &[&str], input: &str) -> Ended {
    run_with_input(&[&["limits"], args].concat(), &settings(stage), input).await
}

/// The lines that begin with these words.
fn lines<'a>(ended: &'a Ended, about: &str) -> Vec<&'a str> {
    ended.stdout.lines().filter(|line| line.starts_with(about)).collect()
}

/// Checks that it failed with this code and said this, and nothing of the number.
fn assert_refused(ended: &Ended, code: i32, said: &str) {
    assert_eq!((ended.code, ended.stdout.as_str()), (code, ""), "{ended:?}");
    assert!(ended.stderr.contains(said) && !ended.stderr.contains("901888"), "{said}: {ended:?}");
}

async fn outcome(stage: &Stage, client: &Client, results: &mut Results, phone: &str, id: &str) -> String {
    client.publish(&stage.names.jobs, Job::for_phone(phone, id)).await;
    ending(&results.next(LIMIT).await).0
}

#[tokio::test]
async fn it_says_how_many_of_how_many_and_when_the_next_otp_can_go_out() {
    let (stage, redis) = stage().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    assert_eq!(outcome(&stage, &client, &mut results, PHONE, "1").await, "accepted");
    assert_eq!(outcome(&stage, &client, &mut results, "0901888485", "2").await, "accepted");
    running.until_settled(&stage.names).await;
    let before = redis.cli(&["DBSIZE"]).await;
    let ended = limits(&stage, &[], "+84 901 888 484\r\n").await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
    assert_eq!(lines(&ended, "served"), ["served       yes"]);
    assert_eq!(lines(&ended, "in flight"), ["in flight    0 jobs"]);
    let of_number = lines(&ended, "number  ");
    assert!(of_number[0].ends_with("***484") && !ended.stdout.contains("901888"), "{}", ended.stdout);
    assert!(of_number[1].contains("1 of 1 ") && of_number[1].contains("OTP_PHONE_COOLDOWN"), "{}", ended.stdout);
    assert!(of_number[1].contains("; full for ") && !of_number[2].contains("full"), "{}", ended.stdout);
    assert!(of_number[2].contains("1 of 3 ") && of_number[2].contains("OTP_PHONE_LIMIT"), "{}", ended.stdout);
    assert!(lines(&ended, "prefix 84 ")[0].contains("2 of 50 "), "{}", ended.stdout);
    assert!(lines(&ended, "total")[0].contains("2 of 100 "), "{}", ended.stdout);
    let next = lines(&ended, "next OTP")[0];
    assert!(next.contains("in 59m") || next.contains("in 1h"), "{next}");
    assert!(next.contains("(OTP_PHONE_COOLDOWN)"), "{next}");
    assert_eq!(redis.cli(&["DBSIZE"]).await, before, "asking counts nothing");

    let unknown = limits(&stage, &[], "0901888499").await;
    assert!(unknown.stdout.contains("0 of 1 ") && unknown.stdout.contains("2 of 50 "), "{}", unknown.stdout);
    assert_eq!(lines(&unknown, "next OTP"), ["next OTP     now"]);
    let denied = limits(&stage, &[], "0991888484").await;
    assert!(denied.stdout.contains("no. OTP_PREFIX_DENY: "), "{}", denied.stdout);
    let abroad = limits(&stage, &[], "00442071234567").await;
    assert!(lines(&abroad, "prefix * ")[0].contains("0 of 5 "), "{}", abroad.stdout);
}

#[tokio::test]
async fn a_job_in_flight_is_counted_and_said_to_be_in_flight() {
    let (stage, _redis) = stage().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    stage.sandbox.stop_listening().await.unwrap();
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "1")).await;
    running.until_metric("otp_jobs_in_flight", &[], 1.0).await;
    let told = limits(&stage, &[], PHONE).await;
    assert_eq!(lines(&told, "in flight"), ["in flight    1 job"], "{}", told.stdout);
    assert!(lines(&told, "prefix 84")[0].contains("1 of 50 ") && told.stdout.contains("; 1 in flight"));
    assert!(lines(&told, "next OTP")[0].contains("sooner if a job in flight sends nothing"), "{}", told.stdout);
    stage.sandbox.listen_again().await.unwrap();
    assert_eq!(ending(&results.next(LIMIT).await).0, "accepted");
    running.until_settled(&stage.names).await;
    assert_eq!(lines(&limits(&stage, &[], PHONE).await, "in flight"), ["in flight    0 jobs"]);
}

#[tokio::test]
async fn after_a_reset_the_number_gets_another_otp_and_nothing_else_is_forgotten() {
    let (stage, _redis) = stage().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    for phone in [PHONE, "0901888485"] {
        assert_eq!(outcome(&stage, &client, &mut results, phone, phone).await, "accepted");
    }
    assert_eq!(outcome(&stage, &client, &mut results, PHONE, "2").await, "limited");
    let reset = limits(&stage, &["reset"], "84901888484").await;
    assert_eq!((reset.code, reset.stderr.as_str()), (0, ""), "{reset:?}");
    assert_eq!(lines(&reset, "forgotten"), ["forgotten    1 OTP"]);
    assert!(reset.stdout.contains("what is counted for its prefix and in all") && !reset.stdout.contains("901888"));
    let told = limits(&stage, &[], PHONE).await;
    assert!(told.stdout.contains("0 of 1 ") && told.stdout.contains("2 of 50 "), "{}", told.stdout);
    assert_eq!(outcome(&stage, &client, &mut results, PHONE, "3").await, "accepted");
    assert_eq!(outcome(&stage, &client, &mut results, "0901888485", "4").await, "limited");
    let again = limits(&stage, &["reset"], "0901888486").await;
    assert!(again.stdout.contains("nothing was counted"), "{}", again.stdout);
    running.until_settled(&stage.names).await;
}

#[tokio::test]
async fn a_number_as_an_argument_is_refused_without_repeating_it() {
    for args in [
        &["limits", PHONE][..],
        &["limits", "+84", "901", "888", "484"],
        &["limits", "reset", PHONE],
        &["limits", "help", PHONE],
    ] {
        let ended = run_with_input(args, &[("OTP_LEDGER_URL", "redis://127.0.0.1:1")], "").await;
        assert_refused(&ended, 2, "shells remember arguments");
    }
    let ended = run_with_input(&["limits", &format!("--phone={PHONE}")], &[], "").await;
    assert_refused(&ended, 2, "--phone");
}

#[tokio::test]
async fn input_that_is_not_one_number_is_refused() {
    let settings = [("OTP_LEDGER_URL", "redis://127.0.0.1:1")];
    for (input, said) in [
        ("", "there is no number on standard input"),
        ("\n\n", "there is no number"),
        ("0901888484\n0901888485\n", "more than one line"),
        ("0901888484 and more", "no phone number"),
        (&"9".repeat(100_000), "no phone number"),
    ] {
        for args in [&["limits"][..], &["limits", "reset"]] {
            assert_refused(&run_with_input(args, &settings, input).await, 2, said);
        }
    }
}

#[tokio::test]
async fn with_a_ledger_in_memory_only_the_worker_knows() {
    for args in [&["limits"][..], &["limits", "reset"]] {
        for settings in [&[][..], &[("OTP_LEDGER_URL", "memory:")]] {
            let ended = run_with_input(args, settings, PHONE).await;
            assert_refused(&ended, 2, "OTP_LEDGER_URL");
            assert!(ended.stderr.contains("only the worker itself knows"), "{ended:?}");
        }
    }
    // A mistake is told as such, and not as a ledger in memory.
    let ended = run_with_input(&["limits"], &[("OTP_LEDGER_URL", "http://redis"), ("OTP_PHONE_LIMIT", "x")], "").await;
    assert_refused(&ended, 2, "2 settings are wrong");
    assert!(!ended.stderr.contains("only the worker"), "{ended:?}");
}

#[tokio::test]
async fn a_redis_that_is_away_is_said_so() {
    let (stage, redis) = stage().await;
    let _running = stage.worker().await;
    redis.kill().await;
    for args in [&[][..], &["reset"]] {
        let ended = limits(&stage, args, PHONE).await;
        assert_refused(&ended, 1, &redis.port().to_string());
        assert!(ended.stderr.contains("OTP_LEDGER_URL"), "{ended:?}");
    }
}

#[tokio::test]
async fn under_a_prefix_where_no_worker_is_it_says_so_and_leaves_nothing() {
    let (mut stage, redis) = stage().await;
    for args in [&[][..], &["reset"]] {
        let ended = limits(&stage, args, PHONE).await;
        assert_refused(&ended, 1, "no worker has kept anything under the prefix");
        assert!(ended.stderr.contains("OTP_LEDGER_PREFIX of the workers"), "{ended:?}");
    }
    assert_eq!(redis.cli(&["DBSIZE"]).await, "0");
    // Another deployment's prefix.
    let _running = stage.set("OTP_LEDGER_PREFIX", "shared:").worker().await;
    let ended = limits(&stage, &["--queue", "another.queue"], PHONE).await;
    assert_refused(&ended, 1, "belong to the queue");
    assert_eq!(limits(&stage, &[], PHONE).await.code, 0);
}

#[tokio::test]
async fn settings_may_be_flags_before_and_after_reset() {
    let (mut stage, redis) = stage().await;
    let _running = stage.worker().await;
    let url = redis.url();
    stage.unset("OTP_LEDGER_URL");
    for args in [&["--ledger-url", &url][..], &["--ledger-url", &url, "reset"], &["reset", "--ledger-url", &url]] {
        let ended = limits(&stage, args, PHONE).await;
        assert_eq!(ended.code, 0, "{args:?}: {ended:?}");
    }
}

#[tokio::test]
async fn a_terminal_is_asked_for_the_number() {
    let (stage, _redis) = stage().await;
    let _running = stage.worker().await;
    let mut child = command(&["limits"], &settings(&stage));
    let (mut ours, theirs) = terminal();
    let child = child.stdin(theirs).spawn().expect("the program");
    std::io::Write::write_all(&mut ours, format!("{PHONE}\n").as_bytes()).expect("a terminal");
    let ended = tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("its end").expect("a child");
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && err.contains("The phone number, and Enter"), "{out}{err}");
    assert!(out.contains("next OTP     now"), "{out}");
}
