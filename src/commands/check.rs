//! `check`: tries each part that `run` needs, as `run` would, and says what is wrong and what to do.
//!
//! Exit codes: 0 all is well, 1 a line says `FAILED`, 2 a setting is wrong.

use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{ArgMatches, Command};
use tokio::time::timeout;

use super::shell::{FAILED, RUN_GROUPS, block_on, source, wrong_settings};
use crate::amqp;
use crate::broker::close;
use crate::broker::settings::TopologyMode;
use crate::broker::topology::{self, TopologyError};
use crate::config::Config;
use crate::esms::balance::{Account, BalanceError};
use crate::esms::client::Esms;
use crate::ledger;
use crate::ledger::settings::StoreSettings;
use crate::settings::table;

/// The limit on one part. Each step of a part also has its own limit.
const PART_LIMIT: Duration = Duration::from_secs(30);

/// Clocks further apart than this make jobs expire early or late.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

/// The command and its flags.
pub(super) fn command() -> Command {
    let command = Command::new("check")
        .next_line_help(true)
        .about("Try broker, topology, ledger, credentials and clock, and say what to mend")
        .after_help("It does what run does at its start, declaring the topology included, and sends nothing.\nExit code 0: all is well. 1: a line says FAILED. 2: a setting is wrong.");
    table::add_flags(command, RUN_GROUPS)
}

/// Runs the command.
pub(super) fn execute(given: &ArgMatches) -> ExitCode {
    let config = match Config::read(&source(given)) {
        Ok(config) => config,
        Err(error) => return wrong_settings(&error),
    };
    match block_on(check(&config, |line| println!("{line}"))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(code) => code,
    }
}

/// What was found out about one part.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    /// It works. The text says what is worth knowing about it.
    Good(String),
    /// It works, but not as it should.
    Poor {
        /// What is wrong.
        why: String,
        /// What to do.
        hint: String,
    },
    /// It does not work.
    Bad {
        /// What is wrong.
        why: String,
        /// What to do.
        hint: String,
    },
    /// It could not be tried, because another part does not work.
    Untried(String),
}

/// One line of the report.
#[derive(Clone, Debug)]
struct Line {
    /// The part.
    part: &'static str,
    /// What was found.
    finding: Finding,
}

impl Line {
    /// Whether `run` would work without a person's help.
    const fn is_good(&self) -> bool {
        matches!(self.finding, Finding::Good(_) | Finding::Poor { .. })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, what, hint) = match &self.finding {
            Finding::Good(what) => ("ok", what, None),
            Finding::Poor { why, hint } => ("warning", why, Some(hint)),
            Finding::Bad { why, hint } => ("FAILED", why, Some(hint)),
            Finding::Untried(why) => ("not tried", why, None),
        };
        write!(f, "{:<12} {word:<10} {what}", self.part)?;
        hint.map_or(Ok(()), |hint| write!(f, "\n{:<12} {:<10} {hint}", "", "hint:"))
    }
}

/// Tries every part and gives each line to `say` as soon as it is known. Returns true if all parts are good.
async fn check(config: &Config, mut say: impl FnMut(&Line)) -> bool {
    let mut all_good = true;
    let mut tell = |part, finding| {
        let line = Line { part, finding };
        all_good &= line.is_good();
        say(&line);
    };
    tell("settings", Finding::Good("every setting can be read".into()));
    let (broker, topology) = within(of_broker(config), "the broker")
        .await
        .unwrap_or_else(|bad| (bad, Finding::Untried("the broker did not answer".into())));
    tell("broker", broker);
    tell("topology", topology);
    tell("ledger", within(of_ledger(config), "the ledger").await.unwrap_or_else(|bad| bad));
    let account = account(config).await;
    tell("credentials", of_credentials(&account));
    tell("clock", of_clock(&account, SystemTime::now()));
    all_good
}

async fn within<T>(part: impl Future<Output = T>, what: &str) -> Result<T, Finding> {
    timeout(PART_LIMIT, part).await.map_err(|_| bad(format!("{what} took too long"), "see whether it is overloaded"))
}

fn bad(why: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding::Bad { why: why.into(), hint: hint.into() }
}

async fn of_broker(config: &Config) -> (Finding, Finding) {
    let authority = &config.broker.uri.authority;
    let connection = match amqp::connect(&config.broker.uri, &config.broker.tls, "esms-otp-worker check").await {
        Ok(connection) => connection,
        Err(error) => {
            let told = error.to_string();
            // Most of these errors end with a remedy, after a semicolon.
            let hint = "check AMQP_URL (host, port, user, password, virtual host) and that the broker runs";
            let (why, hint) = told.split_once("; ").unwrap_or((&told, hint));
            return (bad(why, hint), Finding::Untried("the broker cannot be reached".into()));
        }
    };
    let broker = Finding::Good(format!("connected to {}:{}", authority.host, authority.port));
    let topology = of_topology(config.broker.topology, topology::prepare(&connection, &config.broker).await);
    close(&connection).await;
    (broker, topology)
}

fn of_topology(mode: TopologyMode, prepared: Result<(), TopologyError>) -> Finding {
    match (prepared, mode) {
        (Ok(()), TopologyMode::Declare) => Finding::Good("declared, or there already as it must be".into()),
        (Ok(()), TopologyMode::Check) => Finding::Good("every exchange and queue is there".into()),
        (Ok(()), TopologyMode::Skip) => Finding::Good("not looked at, because OTP_TOPOLOGY=skip".into()),
        (Err(error), _) => bad(
            error.to_string().trim_end().replace('\n', "\n                        "),
            "delete what differs and let the worker declare it, or set OTP_TOPOLOGY=check or skip if it is meant to be so",
        ),
    }
}

async fn of_ledger(config: &Config) -> Finding {
    let StoreSettings::Redis(redis) = &config.ledger.store else {
        return Finding::Good("in this process's memory: a crash or another replica does not know of it".into());
    };
    let address = redis.source.good();
    match ledger::redis::inspect(redis).await {
        Ok(found) => match found.risk() {
            None => Finding::Good(found.to_string()),
            Some((why, hint)) => Finding::Poor { why: format!("{found}, but {why}"), hint: hint.into() },
        },
        Err(error) => bad(
            format!("{}:{}: {error}", address.host, address.port),
            error
                .hint()
                .unwrap_or("check OTP_LEDGER_URL (scheme, host, port, user, password) and that the server runs"),
        ),
    }
}

async fn account(config: &Config) -> Result<Account, BalanceError> {
    let esms = Esms::new(&config.esms, 1).map_err(|error| BalanceError::NotReached(error.to_string()))?;
    esms.balance().await
}

fn of_credentials(account: &Result<Account, BalanceError>) -> Finding {
    match account {
        Ok(account) => Finding::Good(format!("eSMS takes the keys; balance {} VND", account.balance)),
        Err(error @ BalanceError::Refused { .. }) => {
            bad(error.to_string(), "check ESMS_API_KEY and ESMS_SECRET_KEY, and the account at eSMS")
        }
        Err(error @ BalanceError::NotReached(_)) => {
            bad(error.to_string(), "check ESMS_URL, DNS, and that this machine may call out")
        }
        Err(error @ BalanceError::NotUnderstood(_)) => {
            bad(error.to_string(), "check ESMS_URL and what stands between here and eSMS")
        }
    }
}

fn of_clock(account: &Result<Account, BalanceError>, now: SystemTime) -> Finding {
    let Some(theirs) = account.as_ref().ok().and_then(|account| account.date) else {
        return match account {
            Ok(_) => Finding::Good("not compared: eSMS's answer had no date".into()),
            Err(_) => Finding::Untried("eSMS's clock is not known".into()),
        };
    };
    let apart = now.duration_since(theirs).unwrap_or_else(|earlier| earlier.duration());
    if apart <= CLOCK_TOLERANCE {
        return Finding::Good(format!("within {} s of eSMS's", CLOCK_TOLERANCE.as_secs()));
    }
    bad(
        format!("{} s from eSMS's: jobs with a timestamp expire too early or too late", apart.as_secs()),
        "have the machine's clock set by NTP",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(date: Option<SystemTime>) -> Result<Account, BalanceError> {
        Ok(Account { balance: 36_693.0, date })
    }

    #[test]
    fn a_clock_that_is_off_is_told() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let minute = Duration::from_secs(60);
        for theirs in [now - minute, now + minute] {
            let Finding::Bad { why, hint } = of_clock(&account(Some(theirs)), now) else { panic!("{theirs:?}") };
            assert!(why.starts_with("60 s from eSMS's") && hint.contains("NTP"), "{why} {hint}");
        }
        for theirs in [now, now - CLOCK_TOLERANCE, now + CLOCK_TOLERANCE] {
            assert!(matches!(of_clock(&account(Some(theirs)), now), Finding::Good(_)), "{theirs:?}");
        }
    }

    #[test]
    fn a_clock_nobody_can_tell_is_not_called_good_after_a_failure() {
        let failed = Err(BalanceError::NotUnderstood(404));
        assert!(matches!(of_clock(&failed, SystemTime::UNIX_EPOCH), Finding::Untried(_)));
        assert!(matches!(of_clock(&account(None), SystemTime::UNIX_EPOCH), Finding::Good(_)));
    }
}
