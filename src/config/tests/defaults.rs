//! The defaults, and what each setting changes.

use super::*;
use lapin::uri::AMQPUri;
use std::str::FromStr;

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

/// The contract's table, limited to the settings that have a default.
const DEFAULTS: &[(&str, &str)] = &[
    ("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f"),
    ("OTP_QUEUE", "otp.jobs"),
    ("OTP_REPLY_EXCHANGE", "otp.results"),
    ("OTP_DROPPED_EXCHANGE", "otp.dropped"),
    ("OTP_DEAD_LETTER_EXCHANGE", "otp.dead"),
    ("OTP_TOPOLOGY", "declare"),
    ("OTP_CONCURRENCY", "64"),
    ("OTP_JOB_TTL", "5m"),
    ("OTP_ON_AMBIGUOUS", "resend"),
    ("OTP_RESEND_LIMIT", "1"),
    ("OTP_RETRY_INITIAL", "200ms"),
    ("OTP_RETRY_MAX_INTERVAL", "5s"),
    ("OTP_RETRY_MAX_ELAPSED", "30s"),
    ("OTP_BREAKER_FAILURES", "20"),
    ("OTP_BREAKER_COOLDOWN", "5s"),
    ("OTP_LEDGER_URL", "memory:"),
    ("OTP_LEDGER_TTL", "24h"),
    ("OTP_SHUTDOWN_GRACE", "25s"),
    ("ESMS_URL", "https://rest.esms.vn/MainService.svc/json/SendMessageAutoGenCode_V5"),
    ("ESMS_CONNECT_TIMEOUT", "3s"),
    ("ESMS_TIMEOUT", "10s"),
    ("ESMS_RETRY_CODES", "160"),
    ("ESMS_BALANCE_INTERVAL", "0s"),
    ("HTTP_ADDR", "0.0.0.0:9090"),
    ("RUST_LOG", "info"),
    ("OTP_TRACE_PROPAGATE_TO_ESMS", "false"),
];

/// Settings without a default.
const WITHOUT_DEFAULT: &[&str] = &[
    "AMQP_URL_FILE",
    "AMQP_CA_FILE",
    "ESMS_API_KEY",
    "ESMS_API_KEY_FILE",
    "ESMS_SECRET_KEY",
    "ESMS_SECRET_KEY_FILE",
    "ESMS_TEMPLATE_ID",
    "OTP_LEDGER_URL_FILE",
    "OTP_LEDGER_CA_FILE",
    "OTP_LEDGER_PREFIX",
    "OTP_LEDGER_ON_ERROR",
    "OTP_PREFETCH",
    "OTP_RATE_LIMIT",
    "LOG_FORMAT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

fn is_the_default(config: &Config) {
    let (broker, retry, esms) = (&config.broker, &config.send, &config.esms);
    assert_eq!(broker.addresses.first(), AMQPUri::from_str("amqp://guest:guest@127.0.0.1:5672/%2f").unwrap());
    assert_eq!(broker.addresses.first().vhost, "/");
    let names = [&broker.queue, &broker.reply_exchange, &broker.dropped, &broker.dead_letter];
    assert_eq!(names, ["otp.jobs", "otp.results", "otp.dropped", "otp.dead"]);
    assert_eq!(broker.topology, TopologyMode::Declare);
    assert_eq!((config.worker.concurrency, config.worker.prefetch, config.worker.job_ttl), (64, 512, S(300)));
    assert_eq!(retry.backoff, backoff::Policy::new(MS(200), S(5)).unwrap());
    assert_eq!((retry.max_elapsed, retry.on_ambiguous, retry.resend_limit), (S(30), OnAmbiguous::Resend, 1));
    assert_eq!((config.send.circuit.failures.get(), config.send.circuit.cooldown), (20, S(5)));
    assert_eq!(config.send.interval, None);
    assert_eq!(retry.retry_codes, BTreeSet::from(["160".to_owned()]));
    assert_eq!(esms.url.as_str(), "https://rest.esms.vn/MainService.svc/json/SendMessageAutoGenCode_V5");
    assert_eq!((esms.connect_timeout, esms.timeout, esms.template_id.as_deref()), (S(3), S(10), None));
    assert_eq!(esms.balance_interval, None);
    assert_eq!((config.ledger.ttl, config.worker.shutdown_grace), (S(24 * 3600), S(25)));
    assert!(matches!(config.ledger.store, StoreSettings::Memory) && config.ledger.on_error == OnLedgerError::Send);
    assert_eq!(config.telemetry.http_addr, "0.0.0.0:9090".parse().unwrap());
    assert_eq!(config.telemetry.log.filter, "info");
    assert!(config.telemetry.traces.endpoint.is_none() && !esms.traced && config.doubts.is_empty());
}

#[test]
fn with_the_credentials_alone_everything_is_as_the_contract_says() {
    let config = read(&[]).unwrap();
    is_the_default(&config);
    assert_eq!(config.esms.secrets(), ["api-key-1", "secret-key-1"]);
}

#[test]
fn the_table_of_settings_has_the_contracts_defaults() {
    for (env, default) in DEFAULTS {
        let setting = settings::ALL.iter().find(|setting| setting.env == *env).unwrap();
        assert_eq!(setting.default, Some(*default), "{env}");
    }
    for env in WITHOUT_DEFAULT {
        let setting = settings::ALL.iter().find(|setting| setting.env == *env).unwrap();
        assert_eq!(setting.default, None, "{env}");
    }
}

#[test]
fn every_default_that_is_given_in_words_changes_nothing() {
    is_the_default(&read(DEFAULTS).unwrap());
}

#[test]
fn every_setting_has_a_flag_and_a_variable_of_its_own_and_a_word_of_help() {
    let all = settings::ALL;
    let distinct = |of: fn(&settings::Setting) -> &'static str| all.iter().map(of).collect::<BTreeSet<_>>().len();
    assert_eq!((distinct(|s| s.env), distinct(|s| s.flag)), (all.len(), all.len()));
    for setting in all {
        assert!(!setting.help.is_empty() && !setting.flag.starts_with('-'), "{}", setting.env);
    }
}

#[test]
fn an_empty_value_counts_as_none() {
    let names: Vec<&str> = settings::ALL.iter().map(|setting| setting.env).collect();
    for empty in ["", " ", "\t\n"] {
        let given: Vec<(&str, &str)> = names
            .iter()
            .filter(|env| !["ESMS_API_KEY", "ESMS_SECRET_KEY"].contains(env))
            .map(|env| (*env, empty))
            .collect();
        is_the_default(&read(&given).unwrap());
    }
    assert_eq!(wrong(&[("ESMS_API_KEY", ""), ("ESMS_SECRET_KEY", " ")]), ["ESMS_API_KEY", "ESMS_SECRET_KEY"]);
}

/// A value other than the default for each setting that does not name a file.
const CHANGED: &[(&str, &str)] = &[
    ("AMQP_URL", "amqp://u:p%40ss@broker.example:5673/otp"),
    ("OTP_QUEUE", "q"),
    ("OTP_REPLY_EXCHANGE", "r"),
    ("OTP_DROPPED_EXCHANGE", "d"),
    ("OTP_DEAD_LETTER_EXCHANGE", "x"),
    ("OTP_TOPOLOGY", "check"),
    ("OTP_CONCURRENCY", "30000"),
    ("OTP_PREFETCH", "65535"),
    ("OTP_JOB_TTL", "90s"),
    ("OTP_ON_AMBIGUOUS", "give-up"),
    ("OTP_RESEND_LIMIT", "3"),
    ("OTP_RETRY_INITIAL", "1s"),
    ("OTP_RETRY_MAX_INTERVAL", "1s"),
    ("OTP_RETRY_MAX_ELAPSED", "0s"),
    ("OTP_LEDGER_TTL", "1h 30m"),
    ("OTP_SHUTDOWN_GRACE", "1m"),
    ("ESMS_URL", "http://127.0.0.1:8080/v5"),
    ("ESMS_TEMPLATE_ID", " 1234 "),
    ("ESMS_CONNECT_TIMEOUT", "250ms"),
    ("ESMS_TIMEOUT", "2s"),
    ("ESMS_RETRY_CODES", "160, 199 ,99"),
    ("HTTP_ADDR", "[::1]:0"),
    ("LOG_FORMAT", "pretty"),
    ("RUST_LOG", "info,esms_otp_worker=debug"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", " https://collector:4318/otlp "),
    ("OTP_TRACE_PROPAGATE_TO_ESMS", "true"),
];

#[test]
fn every_setting_can_be_changed() {
    let config = read(CHANGED).unwrap();
    let uri = &config.broker.addresses.first();
    assert_eq!((uri.authority.host.as_str(), uri.authority.port, uri.vhost.as_str()), ("broker.example", 5673, "otp"));
    assert_eq!((uri.authority.userinfo.username.as_str(), uri.authority.userinfo.password.as_str()), ("u", "p@ss"));
    let broker = &config.broker;
    assert_eq!([&broker.queue, &broker.reply_exchange, &broker.dropped, &broker.dead_letter], ["q", "r", "d", "x"]);
    assert_eq!(
        (broker.topology, config.worker.concurrency, config.worker.prefetch, config.worker.job_ttl),
        (TopologyMode::Check, 30000, 65535, S(90))
    );
    assert_eq!(config.send.backoff, backoff::Policy::new(S(1), S(1)).unwrap());
    assert_eq!((config.send.max_elapsed, config.send.on_ambiguous), (S(0), OnAmbiguous::GiveUp));
    assert_eq!(config.send.resend_limit, 3);
    assert_eq!(config.send.retry_codes, ["160", "199", "99"].map(str::to_owned).into());
    assert_eq!((config.ledger.ttl, config.worker.shutdown_grace), (S(5400), S(60)));
    assert_eq!(config.esms.url.as_str(), "http://127.0.0.1:8080/v5");
    assert_eq!(config.esms.template_id.as_deref(), Some("1234"));
    assert_eq!((config.esms.connect_timeout, config.esms.timeout), (MS(250), S(2)));
    assert_eq!(
        (config.telemetry.http_addr, config.telemetry.log.format),
        ("[::1]:0".parse().unwrap(), LogFormat::Pretty)
    );
    assert_eq!(config.telemetry.log.filter, "info,esms_otp_worker=debug");
    assert_eq!(config.telemetry.traces.endpoint.unwrap().as_str(), "https://collector:4318/otlp");
    assert!(config.esms.traced);
}

#[test]
fn jobs_are_held_for_each_call_as_far_as_the_protocol_can_count() {
    for (concurrency, held) in [("1", 8), ("64", 512), ("8191", 65528), ("8192", 65535), ("65535", 65535)] {
        assert_eq!(read(&[("OTP_CONCURRENCY", concurrency)]).unwrap().worker.prefetch, held);
        let given = [("OTP_CONCURRENCY", concurrency), ("OTP_PREFETCH", concurrency)];
        assert_eq!(read(&given).unwrap().worker.prefetch.to_string(), concurrency);
    }
}

#[test]
fn a_value_may_have_spaces_around_it() {
    let given = [
        ("OTP_CONCURRENCY", " 5\r\n"),
        ("OTP_QUEUE", "\u{feff} q \n"),
        ("OTP_TOPOLOGY", "skip "),
        ("ESMS_TEMPLATE_ID", "7\n"),
    ];
    let config = read(&given).unwrap();
    assert_eq!(config.esms.template_id.as_deref(), Some("7"));
    assert_eq!((config.worker.concurrency, config.broker.queue.as_str()), (5, "q"));
    assert_eq!(config.broker.topology, TopologyMode::Skip);
}

#[test]
fn what_only_talks_to_the_broker_needs_no_credentials_of_esms() {
    assert_eq!(BrokerSettings::read(&|_| None).unwrap().queue, "otp.jobs");
}

#[test]
fn flags_are_taken_with_values_that_look_like_flags() {
    let groups = [settings::Group::Broker, settings::Group::Topology, settings::Group::Esms];
    let command = settings::add_flags(clap::Command::new("run"), &groups);
    let given = command.clone().try_get_matches_from(["run", "--queue", "q", "--esms-api-key", "-k"]).unwrap();
    assert_eq!(given.get_one::<String>("OTP_QUEUE").unwrap(), "q");
    assert_eq!(given.get_one::<String>("ESMS_API_KEY").unwrap(), "-k");
    assert_eq!(given.get_one::<String>("AMQP_URL"), None, "a default is no value given, or it would hide a file");
    assert!(command.try_get_matches_from(["run", "--concurrency", "5"]).is_err(), "of a group that was not asked for");
}
