//! `check`: tries each part that `run` needs, as `run` would, and says what is wrong and what to do.
//!
//! Exit codes: 0 nothing needs a person, 1 a line says `FAILED`, or with `--strict` `warning`, 2 a setting is wrong.
//! It ends within a minute.

mod finding;
mod limits;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio::time::timeout;

use super::shell::{FAILED, Output, RUN_GROUPS, block_on, output_failed, source, wrong_settings};
use crate::broker::close;
use crate::broker::permissions;
use crate::broker::topology;
use crate::config::Config;
use crate::esms::balance::{Account, BalanceError};
use crate::esms::client::{BuildError, Esms};
use crate::ledger;
use crate::ledger::settings::StoreSettings;
use crate::settings::table;
use finding::{
    Finding, Line, failed, of_clock, of_connecting, of_credentials, of_permissions, of_store, of_topology, warning,
};
use limits::{Beside, of_limits};

/// The limits on the three parts that are waited for. Together they are less than a minute. A connection to the
/// broker alone may take 20 s.
const BROKER_LIMIT: Duration = Duration::from_secs(30);
const LEDGER_LIMIT: Duration = Duration::from_secs(10);
const ESMS_LIMIT: Duration = Duration::from_secs(15);

/// The command and its flags.
pub(super) fn command() -> Command {
    let command = Command::new("check")
        .next_line_help(true)
        .about("Try broker, topology, ledger, credentials and clock, and say what to mend")
        .after_help(
            "It does what run does at its start, declaring the topology included, and sends nothing.\n\
             It ends within a minute.\n\
             FAILED: only a person can mend it. warning: it may mend itself, and run waits for it.\n\
             Exit code 0: nothing FAILED. 1: a line says FAILED, or with --strict warning.\n\
             2: a setting is wrong.",
        )
        .arg(Arg::new("strict").long("strict").action(ArgAction::SetTrue).help("Fail for a warning, too"));
    table::add_flags(command, RUN_GROUPS)
}

/// Runs the command.
pub(super) fn execute(given: &ArgMatches) -> ExitCode {
    let config = match Config::read(&source(given)) {
        Ok(config) => config,
        Err(error) => return wrong_settings(&error),
    };
    let report = Report { is_strict: given.get_flag("strict"), output: Output::new(), has_failed: false };
    match block_on(check(&config, report)) {
        Ok(Ok(true)) => ExitCode::from(FAILED),
        Ok(Ok(false)) => ExitCode::SUCCESS,
        Ok(Err(error)) => output_failed(&error),
        Err(code) => code,
    }
}

/// What is said of the parts, each as soon as it is known.
struct Report {
    is_strict: bool,
    output: Output,
    has_failed: bool,
}

impl Report {
    async fn tell(&mut self, part: &'static str, finding: Finding) -> std::io::Result<()> {
        let line = Line { part, finding };
        self.has_failed |= line.fails(self.is_strict);
        self.output.line(line.to_string().as_bytes()).await
    }
}

/// Tries every part. Returns whether the command has failed.
async fn check(config: &Config, mut report: Report) -> std::io::Result<bool> {
    for finding in of_settings(config) {
        report.tell("settings", finding).await?;
    }
    let is_in_memory = matches!(config.ledger.store, StoreSettings::Memory);
    let beside = Beside { interval: config.send.interval, shared_limit: config.send.shared_limit, is_in_memory };
    report.tell("limits", of_limits(&config.limits, beside)).await?;
    let mut cluster = None;
    let of_broker = timeout(BROKER_LIMIT, of_broker(config, &mut cluster)).await;
    let [broker, topology, permissions] = of_broker.unwrap_or_else(|_| {
        let untried = Finding::Untried("the broker did not answer".into());
        [took_too_long("the broker"), untried.clone(), untried]
    });
    report.tell("broker", broker).await?;
    report.tell("topology", topology).await?;
    report.tell("permissions", permissions).await?;
    let ledger =
        timeout(LEDGER_LIMIT, of_ledger(config, cluster)).await.unwrap_or_else(|_| took_too_long("the ledger"));
    report.tell("ledger", ledger).await?;
    match Esms::new(&config.esms, 1) {
        Ok(esms) => {
            let account = account(&esms).await;
            report.tell("credentials", of_credentials(&account)).await?;
            report.tell("clock", of_clock(&account, SystemTime::now())).await?;
        }
        Err(error @ (BuildError::Tls(_) | BuildError::Client(_))) => {
            report
                .tell("credentials", failed(error.to_string(), "check ESMS_URL and the system's certificates"))
                .await?;
            report.tell("clock", Finding::Untried("eSMS's clock is not known".into())).await?;
        }
    }
    report.output.end().await?;
    Ok(report.has_failed)
}

fn took_too_long(what: &str) -> Finding {
    warning(format!("{what} took too long"), "see whether it is overloaded")
}

fn of_settings(config: &Config) -> Vec<Finding> {
    if config.doubts.is_empty() {
        return vec![Finding::Good("every setting can be read".into())];
    }
    let doubts = config.doubts.iter();
    doubts.map(|doubt| warning(format!("{}: {}", doubt.setting, doubt.problem), "run works without it")).collect()
}

/// `cluster` becomes the name of the broker's cluster, also where the rest takes too long.
async fn of_broker(config: &Config, cluster: &mut Option<String>) -> [Finding; 3] {
    let authority = config.broker.addresses.first().authority;
    let connection = match config.broker.connect("esms-otp-worker check").await {
        Ok(opened) => {
            *cluster = opened.cluster;
            opened.connection
        }
        Err(error) => {
            let untried = Finding::Untried("the broker cannot be reached".into());
            return [of_connecting(&error), untried.clone(), untried];
        }
    };
    let broker = Finding::Good(format!("connected to {}:{}", authority.host, authority.port));
    let topology = of_topology(config.broker.topology, topology::prepare(&connection, &config.broker).await);
    let permissions = of_permissions(permissions::missing(&connection, &config.broker).await);
    close(&connection).await;
    [broker, topology, permissions]
}

async fn of_ledger(config: &Config, cluster: Option<String>) -> Finding {
    match &config.ledger.store {
        StoreSettings::Redis(redis) => {
            let settings = redis.as_ref().clone().of_broker(cluster);
            let mut found = ledger::redis::inspect(&settings).await;
            if found.is_ok() && config.limits.count() {
                let counts = ledger::counts::Counts::new(&settings, Arc::default());
                found = counts.try_commands().await.and(found);
            }
            of_store(&redis.source.good(), found)
        }
        StoreSettings::Memory => {
            Finding::Good("in this process's memory: a crash or another replica does not know of it".into())
        }
    }
}

async fn account(esms: &Esms) -> Result<Account, BalanceError> {
    let asked = timeout(ESMS_LIMIT, esms.balance()).await;
    let answer = asked.unwrap_or_else(|_| Err(BalanceError::NotReached("it took too long".into())));
    match (answer, esms.route().proxy()) {
        (Err(BalanceError::NotReached(why)), Some(proxy)) => {
            Err(BalanceError::NotReached(format!("{why} (through the proxy {proxy})")))
        }
        (answer, _) => answer,
    }
}
