//! Each rule, and the message when it is broken.

use super::*;

/// Wrong values for each setting.
const WRONG: &[(&str, &[&str])] = &[
    ("OTP_RATE_LIMIT", &["0", "-1", "many", "inf", "NaN", "1000000", "10/s"]),
    ("OTP_SHARED_RATE_LIMIT", &["0", "-1", "many", "inf", "NaN", "1000000", "10/s", "50"]),
    ("OTP_BREAKER_FAILURES", &["0", "-1", "1.5", "many"]),
    ("OTP_BREAKER_COOLDOWN", &["5", "0s", "soon"]),
    ("OTP_TOPOLOGY", &["yes", "Declare", "declare,check"]),
    ("OTP_CONCURRENCY", &["0", "-1", "65536", "1.5", "many", "64k"]),
    ("OTP_PREFETCH", &["0", "-1", "63", "65536", "64.5", "all", "1k"]),
    ("OTP_JOB_TTL", &["5", "0s", "999ms", "-5s", "5 parsecs", "2years", "99999999999999999999s"]),
    ("OTP_ON_AMBIGUOUS", &["give_up", "giveup", "RESEND"]),
    ("OTP_RESEND_LIMIT", &["-1", "1.5", "101", "none"]),
    ("OTP_RETRY_INITIAL", &["0s", "0ms", "200", "fast"]),
    ("OTP_RETRY_MAX_INTERVAL", &["0s", "5", "2years"]),
    ("OTP_RETRY_MAX_ELAPSED", &["30", "-1s", "2years"]),
    (
        "OTP_LEDGER_URL",
        &[
            "memory",
            "redis",
            "file:///ledger",
            "memory:x",
            "redis://",
            "http://localhost:6379",
            "redis://localhost:port",
            "redis+unix:///run/redis.sock",
            "unix:///run/redis.sock",
            "redis://localhost/db",
            "rediss://localhost/#insecure",
        ],
    ),
    // Each rule of these is in the tests of their room.
    ("OTP_PHONE_COOLDOWN", &["0s", "60", "soon"]),
    ("OTP_PHONE_LIMIT", &["3", "0/10m", "3/10m,3/24h"]),
    ("OTP_PREFIX_ALLOW", &["vn", "84,8490"]),
    ("OTP_PREFIX_DENY", &["84a", "0901"]),
    ("OTP_PREFIX_LIMIT", &["84:5", "*:0/1m"]),
    ("OTP_TOTAL_LIMIT", &["100", "5/24h,9/24h"]),
    ("OTP_LEDGER_ON_ERROR", &["retry", "SEND", "send,hold"]),
    ("OTP_LEDGER_CA_FILE", &["/nonexistent/ca.pem", "Cargo.toml", "src"]),
    ("OTP_LEDGER_PREFIX", &["a b", "{eu}:", "eu:*", LONG]),
    ("OTP_LEDGER_TTL", &["24", "0s", "10ms", "2years"]),
    (
        "ESMS_URL",
        &[
            "rest.esms.vn",
            "ftp://rest.esms.vn/",
            "https://",
            "https://user:pw@rest.esms.vn/",
            "https://user@rest.esms.vn/",
            "/v5",
        ],
    ),
    ("ESMS_TIMEOUT", &["10", "0s", "soon"]),
    ("ESMS_CONNECT_TIMEOUT", &["3", "0s", "soon"]),
    ("ESMS_BALANCE_INTERVAL", &["60", "999ms", "often"]),
    ("OTP_SHUTDOWN_GRACE", &["25", "0s", "2years"]),
    ("ESMS_RETRY_CODES", &["100", "160,100", "abc", "160,,199", ",", "160;199", "1234567", "-160"]),
    ("HTTP_ADDR", &["9090", ":9090", "0.0.0.0", "0.0.0.0:65536", "localhost:9090", "http://0.0.0.0:9090"]),
    ("OTP_TRACE_PROPAGATE_TO_ESMS", &["yes", "1", "TRUE"]),
    (
        "AMQP_URL",
        &[
            "localhost",
            "localhost:5672",
            "http://localhost",
            "amqp:",
            "amqp://",
            "amqp:/host",
            "amqp://[::1]:5672",
            "amqp://h:70000",
            "amqp://h/%ff",
            "amqp://h?heartbeat=x",
        ],
    ),
    ("AMQP_CA_FILE", &["/nonexistent/ca.pem", "Cargo.toml", "src"]),
    ("OTP_QUEUE", &["amq.gen-x", LONG]),
    ("OTP_REPLY_EXCHANGE", &["amq.topic", LONG]),
    ("OTP_DROPPED_EXCHANGE", &["amq.fanout", LONG]),
    ("OTP_DEAD_LETTER_EXCHANGE", &["amq.direct", LONG]),
];

/// 201 bytes.
const LONG: &str = concat!(
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
);

#[test]
fn each_wrong_value_is_one_mistake_that_names_its_setting() {
    for (setting, values) in WRONG {
        for value in *values {
            assert_eq!(wrong(&[(setting, value)]), [*setting], "{value}");
            let told = told(&[(setting, value)]);
            assert!(told.starts_with(&format!("a setting is wrong:\n  {setting}: ")), "{told}");
            assert_eq!(told.lines().count(), 2, "{told}");
        }
    }
}

#[test]
fn no_window_is_longer_than_the_ledger_remembers() {
    for (setting, longest, longer) in [
        ("OTP_PHONE_COOLDOWN", "1h", "61m"),
        ("OTP_PHONE_LIMIT", "3/10m,10/1h", "3/10m,10/24h"),
        ("OTP_PREFIX_LIMIT", "84:5/1h", "84:5/1m,*:9/2h"),
        ("OTP_TOTAL_LIMIT", "100000/1h", "100000/24h"),
    ] {
        assert!(read(&[("OTP_LEDGER_TTL", "1h"), (setting, longest)]).is_ok(), "{longest}");
        assert_eq!(wrong(&[("OTP_LEDGER_TTL", "1h"), (setting, longer)]), [setting], "{longer}");
    }
}

#[test]
fn every_setting_that_can_be_wrong_is_tried() {
    let tried: BTreeSet<&str> = WRONG.iter().map(|(setting, _)| *setting).collect();
    let secrets = [
        "AMQP_URL_FILE",
        "ESMS_API_KEY",
        "ESMS_API_KEY_FILE",
        "ESMS_SECRET_KEY",
        "ESMS_SECRET_KEY_FILE",
        "OTP_LEDGER_URL_FILE",
    ];
    let doubted = DOUBTED.map(|(setting, _)| setting);
    let elsewhere = |env: &&str| secrets.contains(env) || doubted.contains(env);
    let untried = settings::ALL.iter().map(|setting| setting.env).filter(|env| !tried.contains(env) && !elsewhere(env));
    assert_eq!(untried.collect::<Vec<_>>(), ["ESMS_TEMPLATE_ID"], "any text is a template's id");
}

/// Settings that serve seeing, not sending, with values that are not understood.
const DOUBTED: [(&str, &[&str]); 3] = [
    ("LOG_FORMAT", &["text", "logfmt"]),
    ("RUST_LOG", &["info,=", "esms_otp_worker=loud", "[", "/regex"]),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        &["collector:4317", "localhost", "http://", "https://user:zQcanaryQz@collector:4318"],
    ),
];

#[test]
fn what_serves_seeing_is_doubted_and_does_not_stop_the_worker() {
    for (setting, values) in DOUBTED {
        for value in values {
            let config = read(&[(setting, value)]).unwrap_or_else(|error| panic!("{value}: {error}"));
            let doubts: Vec<&str> = config.doubts.iter().map(|doubt| doubt.setting).collect();
            assert_eq!(doubts, [setting], "{value}");
            assert!(!format!("{config:?}").contains("zQcanaryQz"));
            assert_eq!(config.telemetry.log.filter, "info");
            assert!(config.telemetry.traces.endpoint.is_none());
        }
    }
    let config = read(&[("LOG_FORMAT", "\"JSON\"\r\n"), ("RUST_LOG", "'debug'")]).unwrap();
    assert_eq!((config.telemetry.log.format, config.telemetry.log.filter.as_str()), (LogFormat::Json, "debug"));
}

#[test]
fn a_value_in_quotation_marks_is_refused() {
    for (setting, value) in [
        ("OTP_QUEUE", "\"otp.jobs\""),
        ("OTP_CONCURRENCY", "'64'"),
        ("AMQP_URL", "\"amqp://localhost\""),
        ("ESMS_TEMPLATE_ID", "\"1234\""),
        ("OTP_LEDGER_ON_ERROR", " \"send\"\n"),
        ("AMQP_CA_FILE", "'ca.pem'"),
    ] {
        let told = told(&[(setting, value)]);
        assert!(told.contains(&format!("\n  {setting}: has quotation marks around it")), "{told}");
    }
    assert_eq!(read(&[("OTP_QUEUE", "otp\"jobs\"")]).unwrap().broker.queue, "otp\"jobs\"");
}

#[test]
fn a_ledger_that_forgets_a_job_before_its_deadline_is_refused() {
    assert_eq!(wrong(&[("OTP_JOB_TTL", "5m"), ("OTP_LEDGER_TTL", "4m")]), ["OTP_LEDGER_TTL"]);
    let given = |ttl| [("OTP_JOB_TTL", "1s"), ("ESMS_TIMEOUT", "10s"), ("OTP_LEDGER_TTL", ttl)];
    assert_eq!(wrong(&given("15s")), ["OTP_LEDGER_TTL"], "the lease outlives the attempt by five seconds");
    assert!(read(&given("16s")).is_ok());
}

#[test]
fn a_limit_that_workers_share_needs_a_ledger_that_they_share() {
    for given in
        [&[("OTP_SHARED_RATE_LIMIT", "50")] as &[_], &[("OTP_SHARED_RATE_LIMIT", "50"), ("OTP_LEDGER_URL", "memory:")]]
    {
        let told = told(given);
        assert!(told.contains("\n  OTP_SHARED_RATE_LIMIT: needs a Redis") && told.contains("OTP_LEDGER_URL"), "{told}");
    }
}

#[test]
fn what_is_done_without_the_ledger_follows_from_what_is_done_with_an_ambiguous_attempt() {
    let on_error = |given: &[(&str, &str)]| read(given).unwrap().ledger.on_error;
    assert_eq!(on_error(&[]), OnLedgerError::Send);
    assert_eq!(on_error(&[("OTP_ON_AMBIGUOUS", "give-up")]), OnLedgerError::Hold);
    assert_eq!(on_error(&[("OTP_ON_AMBIGUOUS", "give-up"), ("OTP_LEDGER_ON_ERROR", "send")]), OnLedgerError::Send);
    assert_eq!(on_error(&[("OTP_LEDGER_ON_ERROR", "hold")]), OnLedgerError::Hold);
}

#[test]
fn a_secret_that_is_no_text_is_refused_without_showing_it() {
    let told = told(&[("AMQP_URL", "amqp://u:canary\u{fffd}@h")]);
    assert!(told.contains("AMQP_URL: is not UTF-8 text") && !told.contains("canary"), "{told}");
}

#[test]
fn a_mistake_says_the_rule_and_shows_the_value() {
    let concurrency = told(&[("OTP_CONCURRENCY", "lots")]);
    assert_eq!(
        concurrency,
        "a setting is wrong:\n  OTP_CONCURRENCY: must be a whole number from 1 to 65535, not \"lots\""
    );
    let ttl = told(&[("OTP_JOB_TTL", "5")]);
    assert!(
        ttl.ends_with("must be a duration of at least 1s and at most a year, such as 250ms, 5s or 2m, not \"5\""),
        "{ttl}"
    );
    let long = told(&[("HTTP_ADDR", &"x".repeat(10_000))]);
    assert!(long.len() < 300, "a file pasted by mistake is not shown whole");
}

#[test]
fn a_value_of_two_lines_is_told_in_one() {
    assert_eq!(told(&[("OTP_CONCURRENCY", "6\n4")]).lines().count(), 2);
}

#[test]
fn every_mistake_is_told_at_once() {
    let three = [("OTP_CONCURRENCY", "0"), ("HTTP_ADDR", "x"), ("OTP_ON_AMBIGUOUS", "maybe")];
    assert_eq!(wrong(&three), ["OTP_CONCURRENCY", "OTP_ON_AMBIGUOUS", "HTTP_ADDR"]);
    assert!(read(&three).unwrap_err().to_string().starts_with("3 settings are wrong:\n  OTP_CONCURRENCY: "));
    let all: Vec<(&str, &str)> = WRONG.iter().map(|(setting, values)| (*setting, values[0])).collect();
    let named: BTreeSet<&str> = wrong(&all).into_iter().collect();
    assert_eq!(named, WRONG.iter().map(|(setting, _)| *setting).collect());
}

#[test]
fn what_is_required_is_asked_for_with_its_file() {
    let error = read_only(&[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "2 settings are wrong:\n  \
         ESMS_API_KEY: is required: set it, or ESMS_API_KEY_FILE to a file that holds it\n  \
         ESMS_SECRET_KEY: is required: set it, or ESMS_SECRET_KEY_FILE to a file that holds it"
    );
}

#[test]
fn a_call_must_be_able_to_end_within_the_grace() {
    assert_eq!(wrong(&[("OTP_SHUTDOWN_GRACE", "10s")]), ["OTP_SHUTDOWN_GRACE"]);
    assert_eq!(wrong(&[("ESMS_TIMEOUT", "25s")]), ["OTP_SHUTDOWN_GRACE"]);
    assert!(wrong(&[("OTP_SHUTDOWN_GRACE", "10001ms")]).is_empty());
    assert!(told(&[("OTP_SHUTDOWN_GRACE", "1s")]).contains("ESMS_TIMEOUT"));
}

#[test]
fn connecting_must_end_before_the_whole_attempt() {
    assert_eq!(wrong(&[("ESMS_CONNECT_TIMEOUT", "11s")]), ["ESMS_CONNECT_TIMEOUT"]);
    assert_eq!(wrong(&[("ESMS_TIMEOUT", "2s")]), ["ESMS_CONNECT_TIMEOUT"]);
    assert_eq!(wrong(&[("ESMS_CONNECT_TIMEOUT", "10s")]), ["ESMS_CONNECT_TIMEOUT"], "which of the two would end it?");
    assert!(wrong(&[("ESMS_CONNECT_TIMEOUT", "9999ms")]).is_empty());
}

#[test]
fn the_longest_wait_may_not_be_shorter_than_the_first() {
    assert_eq!(wrong(&[("OTP_RETRY_MAX_INTERVAL", "199ms")]), ["OTP_RETRY_MAX_INTERVAL"]);
    assert_eq!(wrong(&[("OTP_RETRY_INITIAL", "6s")]), ["OTP_RETRY_MAX_INTERVAL"]);
    assert!(wrong(&[("OTP_RETRY_MAX_INTERVAL", "200ms")]).is_empty());
}

#[test]
fn two_objects_may_not_share_a_name() {
    let names = ["OTP_QUEUE", "OTP_REPLY_EXCHANGE", "OTP_DROPPED_EXCHANGE", "OTP_DEAD_LETTER_EXCHANGE"];
    for (n, one) in names.iter().enumerate() {
        for other in &names[n + 1..] {
            assert_eq!(wrong(&[(one, "same"), (other, "same")]), ["OTP_QUEUE"], "{one} {other}");
        }
    }
}

#[test]
fn no_object_may_have_the_name_of_the_unrouted_results() {
    for name in ["OTP_QUEUE", "OTP_DROPPED_EXCHANGE", "OTP_DEAD_LETTER_EXCHANGE"] {
        assert_eq!(wrong(&[(name, "otp.results.unrouted")]), ["OTP_QUEUE"], "{name}");
        assert_eq!(wrong(&[("OTP_REPLY_EXCHANGE", "r"), (name, "r.unrouted")]), ["OTP_QUEUE"], "{name}");
    }
    assert!(wrong(&[("OTP_REPLY_EXCHANGE", "otp.results.unrouted")]).is_empty());
}

#[test]
fn a_name_may_have_200_bytes() {
    assert!(wrong(&[("OTP_REPLY_EXCHANGE", &LONG[1..])]).is_empty());
    assert_eq!(wrong(&[("OTP_QUEUE", &"ế".repeat(67))]), ["OTP_QUEUE"]);
}
