//! The table of every setting: one row gives the flag, the environment variable, the default and the
//! help text, so that `--help`, the reader and docs/settings.md cannot disagree.

use clap::{Arg, ArgAction, Command};

/// Which commands take a setting, and under which heading `--help` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Where the broker is.
    Broker,
    /// The names of the broker's objects.
    Topology,
    /// How jobs are worked.
    Jobs,
    /// How the provider is called.
    Esms,
    /// How much is sent.
    Limits,
    /// How jobs are remembered.
    Ledger,
    /// Metrics, health, logs and traces.
    Operations,
}

impl Group {
    /// The heading in `--help` and in docs/settings.md.
    pub const fn heading(self) -> &'static str {
        match self {
            Group::Broker => "Broker",
            Group::Topology => "Broker objects",
            Group::Jobs => "Jobs and retries",
            Group::Esms => "eSMS",
            Group::Limits => "Limits",
            Group::Ledger => "Ledger",
            Group::Operations => "Operations",
        }
    }
}

/// One setting: a flag and an environment variable with the same meaning.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The environment variable, which is also the setting's name in every message.
    pub env: &'static str,
    /// The long flag, without its dashes.
    pub flag: &'static str,
    /// The placeholder for the value in `--help`.
    pub value: &'static str,
    /// The value that is used when nothing is given, if there is one.
    pub default: Option<&'static str>,
    /// The group under which `--help` shows it.
    pub group: Group,
    /// One sentence for `--help` and docs/settings.md.
    pub help: &'static str,
}

const fn setting(
    env: &'static str,
    flag: &'static str,
    value: &'static str,
    default: Option<&'static str>,
    group: Group,
    help: &'static str,
) -> Setting {
    Setting { env, flag, value, default, group, help }
}

macro_rules! settings {
    ($($name:ident = $env:literal, $flag:literal, $value:literal, $default:expr, $group:ident, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $name: Setting = setting($env, $flag, $value, $default, Group::$group, $help);
        )*
        /// Every setting, in the order of `--help`.
        pub const ALL: &[Setting] = &[$($name),*];
    };
}

settings! {
    AMQP_URL = "AMQP_URL", "amqp-url", "URL", Some("amqp://guest:guest@127.0.0.1:5672/%2f"), Broker,
        "Address of RabbitMQ, amqps:// for TLS; several, comma-separated, are tried in turn";
    AMQP_URL_FILE = "AMQP_URL_FILE", "amqp-url-file", "PATH", None, Broker,
        "File that holds AMQP_URL; read again at every new connection";
    AMQP_CA_FILE = "AMQP_CA_FILE", "amqp-ca-file", "PATH", None, Broker,
        "PEM file of a private CA, or of the broker's own certificate, to trust for amqps://";
    OTP_QUEUE = "OTP_QUEUE", "queue", "NAME", Some("otp.jobs"), Topology,
        "Queue of the jobs";
    OTP_REPLY_EXCHANGE = "OTP_REPLY_EXCHANGE", "reply-exchange", "NAME", Some("otp.results"), Topology,
        "Exchange of the results; NAME.unrouted keeps those nobody has bound a queue for";
    OTP_DROPPED_EXCHANGE = "OTP_DROPPED_EXCHANGE", "dropped-exchange", "NAME", Some("otp.dropped"), Topology,
        "Exchange and queue of jobs the broker gave up";
    OTP_DEAD_LETTER_EXCHANGE = "OTP_DEAD_LETTER_EXCHANGE", "dead-letter-exchange", "NAME", Some("otp.dead"), Topology,
        "Exchange and queue of jobs that a person must look at";
    OTP_TOPOLOGY = "OTP_TOPOLOGY", "topology", "MODE", Some("declare"), Topology,
        "declare the objects, check that they exist, or skip both";
    OTP_CONCURRENCY = "OTP_CONCURRENCY", "concurrency", "JOBS", Some("64"), Jobs,
        "Calls to eSMS under way at once (1 to 65535)";
    OTP_PREFETCH = "OTP_PREFETCH", "prefetch", "JOBS", None, Jobs,
        "Jobs held at once, those that wait included: OTP_CONCURRENCY to 65535 (default: 8 times OTP_CONCURRENCY)";
    OTP_JOB_TTL = "OTP_JOB_TTL", "job-ttl", "DURATION", Some("5m"), Jobs,
        "A job older than this is never sent";
    OTP_ON_AMBIGUOUS = "OTP_ON_AMBIGUOUS", "on-ambiguous", "POLICY", Some("resend"), Jobs,
        "After an attempt that may have reached eSMS unanswered: resend (and say MayBeDuplicate) or give-up";
    OTP_RESEND_LIMIT = "OTP_RESEND_LIMIT", "resend-limit", "ATTEMPTS", Some("1"), Jobs,
        "With resend: most attempts after one that may have reached eSMS (0 to 100); then the job ends unknown";
    OTP_RETRY_INITIAL = "OTP_RETRY_INITIAL", "retry-initial", "DURATION", Some("200ms"), Jobs,
        "First wait between two attempts; it doubles, with jitter";
    OTP_RETRY_MAX_INTERVAL = "OTP_RETRY_MAX_INTERVAL", "retry-max-interval", "DURATION", Some("5s"), Jobs,
        "Longest wait between two attempts";
    OTP_RETRY_MAX_ELAPSED = "OTP_RETRY_MAX_ELAPSED", "retry-max-elapsed", "DURATION", Some("30s"), Jobs,
        "No further attempt after this long";
    OTP_RATE_LIMIT = "OTP_RATE_LIMIT", "rate-limit", "CALLS", None, Jobs,
        "Most calls to eSMS a second by this worker, evenly spread (default: no limit)";
    OTP_SHARED_RATE_LIMIT = "OTP_SHARED_RATE_LIMIT", "shared-rate-limit", "CALLS", None, Jobs,
        "Most calls to eSMS a second by all workers together; needs Redis in OTP_LEDGER_URL (default: no limit)";
    OTP_BREAKER_FAILURES = "OTP_BREAKER_FAILURES", "breaker-failures", "ATTEMPTS", Some("20"), Jobs,
        "Failed attempts in a row that open the circuit: nothing is called while it is open";
    OTP_BREAKER_COOLDOWN = "OTP_BREAKER_COOLDOWN", "breaker-cooldown", "DURATION", Some("5s"), Jobs,
        "How long the circuit stays open before one job at a time tries again";
    OTP_SHUTDOWN_GRACE = "OTP_SHUTDOWN_GRACE", "shutdown-grace", "DURATION", Some("25s"), Jobs,
        "On SIGTERM or SIGINT, time to finish what is in flight; a second signal ends it at once";
    ESMS_URL = "ESMS_URL", "esms-url", "URL",
        Some("https://rest.esms.vn/MainService.svc/json/SendMessageAutoGenCode_V5"), Esms,
        "The V5 endpoint";
    ESMS_API_KEY = "ESMS_API_KEY", "esms-api-key", "KEY", None, Esms,
        "Account key (required; prefer the file)";
    ESMS_API_KEY_FILE = "ESMS_API_KEY_FILE", "esms-api-key-file", "PATH", None, Esms,
        "File that holds ESMS_API_KEY";
    ESMS_SECRET_KEY = "ESMS_SECRET_KEY", "esms-secret-key", "KEY", None, Esms,
        "Account secret (required; prefer the file)";
    ESMS_SECRET_KEY_FILE = "ESMS_SECRET_KEY_FILE", "esms-secret-key-file", "PATH", None, Esms,
        "File that holds ESMS_SECRET_KEY";
    ESMS_TEMPLATE_ID = "ESMS_TEMPLATE_ID", "esms-template-id", "ID", None, Esms,
        "MultiChannelTempId of jobs that name none";
    ESMS_CONNECT_TIMEOUT = "ESMS_CONNECT_TIMEOUT", "esms-connect-timeout", "DURATION", Some("3s"), Esms,
        "Limit on DNS, TCP and TLS of one attempt";
    ESMS_TIMEOUT = "ESMS_TIMEOUT", "esms-timeout", "DURATION", Some("10s"), Esms,
        "Limit on one attempt, from start to the end of its answer";
    ESMS_RETRY_CODES = "ESMS_RETRY_CODES", "esms-retry-codes", "CODES", Some("160"), Esms,
        "CodeResults that mean `not sent, try later`, comma-separated";
    ESMS_BALANCE_INTERVAL = "ESMS_BALANCE_INTERVAL", "esms-balance-interval", "DURATION", Some("0s"), Esms,
        "How often the account's balance is asked for, into esms_balance_vnd; 0s: never";
    OTP_PHONE_COOLDOWN = "OTP_PHONE_COOLDOWN", "phone-cooldown", "DURATION", None, Limits,
        "No second OTP to a number sooner than this, such as 60s (default: no limit)";
    OTP_PHONE_LIMIT = "OTP_PHONE_LIMIT", "phone-limit", "LIMITS", None, Limits,
        "Most OTPs to a number in any window, such as 3/10m,10/24h (default: no limit)";
    OTP_PREFIX_ALLOW = "OTP_PREFIX_ALLOW", "prefix-allow", "PREFIXES", None, Limits,
        "Only numbers that begin so are sent an OTP, in international digits, such as 84 (default: all)";
    OTP_PREFIX_DENY = "OTP_PREFIX_DENY", "prefix-deny", "PREFIXES", None, Limits,
        "Numbers that begin so are sent none, such as 8499,88 (default: none)";
    OTP_PREFIX_LIMIT = "OTP_PREFIX_LIMIT", "prefix-limit", "LIMITS", None, Limits,
        "Most OTPs to numbers that begin alike, such as 84:2000/1m,*:20/1m; the longest prefix that fits counts (default: no limit)";
    OTP_TOTAL_LIMIT = "OTP_TOTAL_LIMIT", "total-limit", "LIMITS", None, Limits,
        "Most OTPs in all, such as 100000/24h (default: no limit)";
    OTP_LEDGER_URL = "OTP_LEDGER_URL", "ledger-url", "URL", Some("memory:"), Ledger,
        "Where jobs are remembered: memory: is this process; redis:// or rediss:// is shared by workers and outlives them";
    OTP_LEDGER_URL_FILE = "OTP_LEDGER_URL_FILE", "ledger-url-file", "PATH", None, Ledger,
        "File that holds OTP_LEDGER_URL";
    OTP_LEDGER_CA_FILE = "OTP_LEDGER_CA_FILE", "ledger-ca-file", "PATH", None, Ledger,
        "PEM file of a private CA to trust for rediss://";
    OTP_LEDGER_PREFIX = "OTP_LEDGER_PREFIX", "ledger-prefix", "PREFIX", None, Ledger,
        "What every key in Redis begins with; no two deployments may share it (default: made from virtual host and queue)";
    OTP_LEDGER_TTL = "OTP_LEDGER_TTL", "ledger-ttl", "DURATION", Some("24h"), Ledger,
        "How long a job is remembered";
    OTP_LEDGER_ON_ERROR = "OTP_LEDGER_ON_ERROR", "ledger-on-error", "POLICY", None, Ledger,
        "While the ledger cannot be reached: send all the same, or hold jobs until it can (default: send; hold with give-up)";
    HTTP_ADDR = "HTTP_ADDR", "http-addr", "ADDR:PORT", Some("0.0.0.0:9090"), Operations,
        "Where /metrics, /livez and /readyz are served";
    LOG_FORMAT = "LOG_FORMAT", "log-format", "FORMAT", None, Operations,
        "json or pretty, to standard error (default: pretty on a terminal, else json)";
    RUST_LOG = "RUST_LOG", "log", "FILTER", Some("info"), Operations,
        "Log level, or a filter such as info,esms_otp_worker=debug";
    OTEL_EXPORTER_OTLP_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT", "otlp-endpoint", "URL", None, Operations,
        "Collector to export traces to over OTLP/HTTP, such as http://collector:4318 (default: no traces)";
    OTP_TRACE_PROPAGATE_TO_ESMS = "OTP_TRACE_PROPAGATE_TO_ESMS", "trace-propagate-to-esms", "BOOL", Some("false"), Operations,
        "true puts the header traceparent on the calls of eSMS, a third party, while traces are exported";
}

/// Adds the settings of `groups` to a command, as flags.
///
/// The values stay text here. `Reader` reads them together with the environment and reports every
/// mistake at once. clap would stop at the first mistake.
pub fn add_flags(command: Command, groups: &[Group]) -> Command {
    ALL.iter()
        .filter(|setting| groups.contains(&setting.group))
        .fold(command, |command, setting| command.arg(flag(setting)))
}

/// The flag of one setting.
pub fn flag(setting: &Setting) -> Arg {
    let mut help = format!("{}\n[env: {}]", setting.help, setting.env);
    if let Some(default) = setting.default {
        help.push_str(&format!(" [default: {default}]"));
    }
    Arg::new(setting.env)
        .long(setting.flag)
        .value_name(setting.value)
        .help(help)
        .help_heading(setting.group.heading())
        .action(ArgAction::Set)
        .allow_hyphen_values(true)
}
