//! The commands. Each tells its life in order and ends with an exit code: 0 done, 1 failed, 2 a
//! setting or a flag is wrong, 3 the broker's objects differ, 4 stopped with work unfinished.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use esms_otp_worker::commands::check;
use esms_otp_worker::commands::run::{self as app, RunError};
use esms_otp_worker::commands::send::{self as enqueue, Options, SendError, Source, Summary};
use esms_otp_worker::config::{BrokerConfig, Config, ConfigError};
use esms_otp_worker::settings::table::{self as settings, Group, Setting};
use esms_otp_worker::telemetry::logs;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

const RUN_GROUPS: &[Group] =
    &[Group::Broker, Group::Topology, Group::Jobs, Group::Esms, Group::Ledger, Group::Operations];

fn main() -> ExitCode {
    let matches = command().get_matches();
    match matches.subcommand() {
        Some(("run", given)) => run(given),
        Some(("check", given)) => check(given),
        Some(("send", given)) => send(given),
        _ => ExitCode::from(2),
    }
}

/// `send` needs the broker alone.
const SEND_GROUPS: &[Group] = &[Group::Broker, Group::Topology];

fn command() -> Command {
    let run =
        Command::new("run").next_line_help(true).about("Work jobs until told to stop (SIGTERM or SIGINT)").after_help(
            "Every option is an environment variable too. Durations are written 250ms, 5s, 2m.\n\
         A wrong setting is reported, with every other, before anything is connected to.",
        );
    Command::new("esms-otp-worker")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Turns a RabbitMQ queue of OTP jobs into eSMS.vn calls: nothing lost, nothing sent twice unsaid")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(settings::add_flags(run, RUN_GROUPS))
        .subcommand(settings::add_flags(check_command(), RUN_GROUPS))
        .subcommand(settings::add_flags(send_command(), SEND_GROUPS))
}

fn check_command() -> Command {
    Command::new("check")
        .next_line_help(true)
        .about("Try broker, topology, ledger, credentials and clock, and say what to mend")
        .after_help("It does what run does at its start, declaring the topology included, and sends nothing.\nExit code 0: all is well. 1: a line says FAILED. 2: a setting is wrong.")
}

fn send_command() -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("send")
        .next_line_help(true)
        .about("Put jobs on the queue: one from flags, or many as JSON lines")
        .after_help(
            "One job, and its result:\n  \
             esms-otp-worker send --phone 0901888484 --template 1234 --wait\n\
             Many, from a file of lines such as {\"Phone\":\"0901888484\",\"MultiChannelTempId\":\"1234\"}:\n  \
             esms-otp-worker send jobs.jsonl --wait > results.jsonl\n\
             Exit code 0: every job was queued and, with --wait, accepted. 1: not so. 2: wrong usage.",
        )
        .arg(Arg::new("file").value_name("FILE").help("JSON lines, one job each; - for standard input"))
        .arg(text("phone", "PHONE", "The receiver of one job"))
        .arg(text("template", "ID", "Its MultiChannelTempId").requires("phone").conflicts_with("file"))
        .arg(
            text("type", "TYPE", "Its TypeId: 1 generates a code, 2 also sends it")
                .requires("phone")
                .conflicts_with("file"),
        )
        .arg(
            text("time-alive", "MINUTES", "Its TimeAlive: the life of the code")
                .requires("phone")
                .conflicts_with("file"),
        )
        .group(ArgGroup::new("jobs").args(["file", "phone"]).required(true))
        .arg(text("expiration", "DURATION", "Give each job this long to be sent").value_parser(expiration))
        .arg(Arg::new("wait").long("wait").action(ArgAction::SetTrue).help("Wait for the results and print them"))
        .arg(
            text("timeout", "DURATION", "Give up when no result has come for this long")
                .value_parser(humantime::parse_duration)
                .default_value("60s"),
        )
}

/// A flag's value, else the environment's.
fn source(given: &ArgMatches) -> impl Fn(&Setting) -> Option<String> + '_ {
    |setting| {
        let flag = given.get_one::<String>(setting.env).cloned();
        flag.or_else(|| std::env::var_os(setting.env).map(|value| value.to_string_lossy().into_owned()))
    }
}

fn run(given: &ArgMatches) -> ExitCode {
    let config = match Config::read(&source(given)) {
        Ok(config) => config,
        Err(error) => return wrong_settings(&error),
    };
    let _flushed_at_the_end = match logs::start(&config.log) {
        Ok(guard) => guard,
        Err(error) => return failed(&error.to_string()),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start: {error}")),
    };
    info!(version = env!("CARGO_PKG_VERSION"), broker = ?config.broker, concurrency = config.concurrency, "starting");
    let ended = runtime.block_on(run_until_signalled(config));
    // What still waits on the outside now is not waited for: it was told to stop. Nor is the runtime
    // taken down before the process: the AMQP client's own thread may still be using its clock, and
    // would panic without it.
    std::mem::forget(runtime);
    match ended {
        Ok(()) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!(%error, "ended");
            ExitCode::from(error.exit_code())
        }
    }
}

fn check(given: &ArgMatches) -> ExitCode {
    let config = match Config::read(&source(given)) {
        Ok(config) => config,
        Err(error) => return wrong_settings(&error),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start: {error}")),
    };
    let all_good = runtime.block_on(check::check(&config, |line| println!("{line}")));
    runtime.shutdown_background();
    ExitCode::from(u8::from(!all_good))
}

fn send(given: &ArgMatches) -> ExitCode {
    let broker = match BrokerConfig::read(&source(given)) {
        Ok(broker) => broker,
        Err(error) => return wrong_settings(&error),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start: {error}")),
    };
    let sent = runtime.block_on(send_until_interrupted(&broker, send_options(given)));
    // Standard input may still be being read; nobody waits for it any more.
    runtime.shutdown_background();
    match sent {
        Some(Ok(summary)) => report(&summary),
        Some(Err(error)) => failed(&error.to_string()),
        None => failed("interrupted; what was queued stays queued"),
    }
}

fn send_options(given: &ArgMatches) -> Options {
    let source = match (given.get_one::<String>("file").map(String::as_str), given.get_one::<String>("phone")) {
        (_, Some(phone)) => Source::One(job_from_flags(given, phone)),
        (Some("-") | None, None) => Source::StandardInput,
        (Some(path), None) => Source::File(path.into()),
    };
    let wait = given.get_flag("wait").then(|| given.get_one("timeout").copied()).flatten();
    Options { source, expiration: given.get_one("expiration").copied(), wait }
}

/// AMQP's expiration is a number of milliseconds, which RabbitMQ keeps in 32 bits.
fn expiration(text: &str) -> Result<Duration, String> {
    let expiration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let fits = u32::try_from(expiration.as_millis()).is_ok();
    if fits { Ok(expiration) } else { Err("must be at most 49 days".into()) }
}

fn job_from_flags(given: &ArgMatches, phone: &str) -> String {
    let mut job = serde_json::Map::from_iter([("Phone".to_owned(), phone.into())]);
    for (field, flag) in [("MultiChannelTempId", "template"), ("TypeId", "type"), ("TimeAlive", "time-alive")] {
        if let Some(value) = given.get_one::<String>(flag) {
            job.insert(field.to_owned(), value.as_str().into());
        }
    }
    serde_json::Value::Object(job).to_string()
}

async fn send_until_interrupted(broker: &BrokerConfig, options: Options) -> Option<Result<Summary, SendError>> {
    tokio::select! {
        sent = enqueue::send(broker, options) => Some(sent),
        _ = tokio::signal::ctrl_c() => None,
    }
}

fn report(summary: &Summary) -> ExitCode {
    for line in &summary.refused {
        eprintln!("not queued: {line}");
    }
    let jobs = if summary.queued == 1 { "job" } else { "jobs" };
    let outcomes: Vec<String> = summary.outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    eprintln!("queued {} {jobs}{}{}", summary.queued, if outcomes.is_empty() { "" } else { ": " }, outcomes.join(", "));
    if summary.missing() > 0 {
        eprintln!(
            "{} without a result in time: is a worker running? They are still queued or being worked",
            summary.missing()
        );
    }
    ExitCode::from(u8::from(!summary.is_success()))
}

async fn run_until_signalled(config: Config) -> Result<(), RunError> {
    let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
    tokio::spawn(signals(stop.clone(), abort.clone()));
    app::run(config, stop, abort).await
}

/// SIGTERM comes from Kubernetes, systemd and `docker stop`; SIGINT from Ctrl-C. The first stops, the
/// second ends the waiting for what is in flight.
async fn signals(stop: CancellationToken, abort: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        warn!("signals cannot be listened to; the process ends at once when told to");
        return;
    };
    for token in [stop, abort] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    }
}

fn wrong_settings(error: &ConfigError) -> ExitCode {
    eprintln!("esms-otp-worker: {error}\nSee: esms-otp-worker run --help");
    ExitCode::from(2)
}

fn failed(why: &str) -> ExitCode {
    eprintln!("esms-otp-worker: {why}");
    ExitCode::from(1)
}
