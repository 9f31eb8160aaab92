//! The commands. Each tells its life in order and ends with an exit code: 0 done, 1 failed, 2 a
//! setting or a flag is wrong, 3 the broker's objects differ, 4 stopped with work unfinished.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use esms_otp_worker::app::{self, RunError};
use esms_otp_worker::config::settings::{self, Group, Setting};
use esms_otp_worker::config::{Config, ConfigError};
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
        _ => ExitCode::from(2),
    }
}

fn command() -> Command {
    let run = Command::new("run").about("Work jobs until told to stop (SIGTERM or SIGINT)").after_help(
        "Every option is an environment variable too. Durations are written 250ms, 5s, 2m.\n\
         A wrong setting is reported, with every other, before anything is connected to.",
    );
    Command::new("esms-otp-worker")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Turns a RabbitMQ queue of OTP jobs into eSMS.vn calls: nothing lost, nothing sent twice unsaid")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(settings::add_flags(run, RUN_GROUPS))
}

/// A flag's value, else the environment's.
fn source(given: &ArgMatches) -> impl Fn(&Setting) -> Option<String> + '_ {
    |setting| given.get_one::<String>(setting.env).cloned().or_else(|| std::env::var(setting.env).ok())
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
    // What still waits on the outside now is not waited for: it was told to stop.
    runtime.shutdown_background();
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
