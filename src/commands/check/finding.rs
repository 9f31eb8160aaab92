//! What `check` says of each part. Pure.
//!
//! `FAILED` is for what only a person can mend: a wrong setting, a difference, a refusal. What may mend itself is
//! a warning. `check` runs before a worker starts, and a worker that is kept from starting while Redis or eSMS is
//! away makes an outage longer. In doubt, it is a warning.

use std::fmt;
use std::time::{Duration, SystemTime};

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError};

use crate::amqp::ConnectError;
use crate::broker::bounds::Unbounded;
use crate::broker::permissions::Missing;
use crate::broker::settings::TopologyMode;
use crate::broker::topology::TopologyError;
use crate::esms::balance::{Account, BalanceError};
use crate::esms::codes::{self, Scope};
use crate::ledger::address::Address;
use crate::ledger::redis::Server;
use crate::ledger::store::StoreError;

/// Clocks further apart than this make jobs expire early or late.
pub(super) const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

/// In VND. It is less than a dozen messages.
const LOW_BALANCE: f64 = 10_000.0;

/// What was found out about one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It works. The text says what is worth knowing about it.
    Good(String),
    /// It does not work now and may mend itself, or it works, but not as it should.
    Warning {
        /// What is wrong.
        why: String,
        /// What to do.
        hint: String,
    },
    /// It does not work until a person mends it.
    Failed {
        /// What is wrong.
        why: String,
        /// What to do.
        hint: String,
    },
    /// It could not be tried, because another part does not work.
    Untried(String),
}

pub(super) fn warning(why: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding::Warning { why: why.into(), hint: hint.into() }
}

pub(super) fn failed(why: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding::Failed { why: why.into(), hint: hint.into() }
}

/// Chooses between the two by what is known of a failure.
fn unless_it_may_mend_itself(may_mend: bool, why: impl Into<String>, hint: impl Into<String>) -> Finding {
    if may_mend { warning(why, hint) } else { failed(why, hint) }
}

/// One line of the report.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// The part.
    pub part: &'static str,
    /// What was found.
    pub finding: Finding,
}

impl Line {
    /// Whether the line makes the command fail.
    pub(super) const fn fails(&self, is_strict: bool) -> bool {
        match self.finding {
            Finding::Failed { .. } => true,
            Finding::Warning { .. } => is_strict,
            Finding::Good(_) | Finding::Untried(_) => false,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, what, hint) = match &self.finding {
            Finding::Good(what) => ("ok", what, None),
            Finding::Warning { why, hint } => ("warning", why, Some(hint)),
            Finding::Failed { why, hint } => ("FAILED", why, Some(hint)),
            Finding::Untried(why) => ("not tried", why, None),
        };
        write!(f, "{:<12} {word:<10} {what}", self.part)?;
        hint.map_or(Ok(()), |hint| write!(f, "\n{:<12} {:<10} {hint}", "", "hint:"))
    }
}

/// A connection to the broker that could not be made.
pub(super) fn of_connecting(error: &ConnectError) -> Finding {
    let told = error.to_string();
    // Most of these errors end with a remedy, after a semicolon.
    let hint = "check AMQP_URL (host, port, user, password, virtual host) and that the broker runs";
    let (why, hint) = match error {
        ConnectError::Several(_) => (told.as_str(), hint),
        _ => told.split_once("; ").unwrap_or((&told, hint)),
    };
    unless_it_may_mend_itself(may_connect_later(error), why, hint)
}

fn may_connect_later(error: &ConnectError) -> bool {
    match error {
        ConnectError::Unreachable { .. } | ConnectError::Timeout { .. } | ConnectError::Limit { .. } => true,
        ConnectError::Several(errors) => errors.iter().any(may_connect_later),
        // A certificate that is refused stays refused. A connection that ends within the handshake may be a
        // broker that is just starting.
        ConnectError::Tls { source, .. } => {
            let inner = source.get_ref();
            inner.is_none_or(|inner| !inner.is::<rustls::Error>() && source.kind() != std::io::ErrorKind::InvalidInput)
        }
        ConnectError::Credentials { .. } => false,
        // A virtual host may have all the connections it is allowed, or be starting.
        ConnectError::Vhost { reason, .. } => reason.contains("limit") || reason.contains("is down"),
        ConnectError::Other { source, .. } => may_pass(source),
    }
}

fn may_pass(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else { return true };
    match error.kind() {
        AMQPErrorKind::Hard(AMQPHardError::NOTIMPLEMENTED | AMQPHardError::NOTALLOWED) | AMQPErrorKind::Soft(_) => {
            false
        }
        // A broker that stops, or has no memory or disk left, says one of the others.
        AMQPErrorKind::Hard(_) => true,
    }
}

/// The broker's objects.
pub(super) fn of_topology(mode: TopologyMode, prepared: Result<Vec<Unbounded>, TopologyError>) -> Finding {
    match (prepared, mode) {
        (Ok(unbounded), _) if !unbounded.is_empty() => {
            warning(lines(unbounded.iter()), lines(unbounded.iter().map(Unbounded::command)))
        }
        (Ok(_), TopologyMode::Declare) => Finding::Good("declared, or there already as it must be".into()),
        (Ok(_), TopologyMode::Check) => Finding::Good("every exchange and queue is there".into()),
        (Ok(_), TopologyMode::Skip) => Finding::Good("not looked at, because OTP_TOPOLOGY=skip".into()),
        (Err(error @ TopologyError::Differs(_)), _) => failed(
            lines(error.to_string().trim_end().lines()),
            "delete what differs and let the worker declare it, or set OTP_TOPOLOGY=check or skip if it is meant to be so",
        ),
        (Err(error @ (TopologyError::Lost(_) | TopologyError::Silent)), _) => {
            warning(error.to_string(), "see whether the broker is overloaded or restarting; the worker tries again")
        }
    }
}

/// What the user of the broker may do.
pub(super) fn of_permissions(missing: lapin::Result<Vec<Missing>>) -> Finding {
    let missing = match missing {
        Ok(missing) if missing.is_empty() => {
            return Finding::Good("jobs, results, dead letters and replies are allowed".into());
        }
        Ok(missing) => missing,
        Err(error) => return Finding::Untried(format!("the broker did not answer: {error}")),
    };
    // Without replies the worker works, and results are told all the same.
    let is_bearable = missing.iter().all(|missing| missing.is_for_replies_only);
    let hint = "give the user of AMQP_URL the permissions that docs/flow.md names (rabbitmqctl set_permissions)";
    let why = lines(missing.iter());
    if is_bearable { warning(why, hint) } else { failed(why, hint) }
}

/// Lines, each under the one before it.
fn lines<T: ToString>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<_> = items.map(|item| item.to_string()).collect();
    items.join("\n                        ")
}

/// What a server says that has no memory, disk or connection left. Some of it may be freed any time.
const ROOM: &[&str] = &["OOM", "MISCONF", "max number of clients"];

/// The ledger's store.
pub(super) fn of_store(address: &Address, inspected: Result<Server, StoreError>) -> Finding {
    match inspected {
        Ok(found) => match found.risk() {
            None => Finding::Good(found.to_string()),
            Some((why, hint)) => warning(format!("{found}, but {why}"), hint),
        },
        Err(error) => {
            let why = format!("{}:{}: {error}", address.host, address.port);
            let usual = "check OTP_LEDGER_URL (scheme, host, port, user, password) and that the server runs";
            let told = error.to_string();
            let may_mend = match error {
                StoreError::Unreachable(_) => !told.contains("invalid peer certificate"),
                StoreError::Refused { .. } => ROOM.iter().any(|room| told.contains(room)),
                StoreError::NotOurs(_) | StoreError::Unreadable(_) => false,
            };
            unless_it_may_mend_itself(may_mend, why, error.hint().unwrap_or(usual))
        }
    }
}

/// The keys, by eSMS's answer to the balance call.
pub(super) fn of_credentials(account: &Result<Account, BalanceError>) -> Finding {
    match account {
        Ok(account) if account.balance < LOW_BALANCE => {
            warning(format!("eSMS takes the keys; the balance is low: {} VND", account.balance), "top up the account")
        }
        Ok(account) => Finding::Good(format!("eSMS takes the keys; balance {} VND", account.balance)),
        Err(error) => {
            let told = error.to_string();
            match error {
                BalanceError::Refused { code, .. } => unless_it_may_mend_itself(
                    is_refusal_that_passes(code),
                    told,
                    "check ESMS_API_KEY and ESMS_SECRET_KEY, and the account at eSMS",
                ),
                BalanceError::NotReached(_) => {
                    warning(told, "check ESMS_URL, DNS, the proxy, and that this machine may call out")
                }
                BalanceError::NotUnderstood(status) => unless_it_may_mend_itself(
                    is_status_that_passes(*status),
                    told,
                    "check ESMS_URL and what stands between here and eSMS",
                ),
            }
        }
    }
}

fn is_refusal_that_passes(code: &str) -> bool {
    match codes::documented(code).scope {
        // Whoever pays tops it up; a worker that starts meanwhile does no harm.
        Scope::Account => code == "103",
        Scope::Request | Scope::Template => false,
        Scope::None | Scope::Recipient | Scope::Throttle | Scope::Unknown => true,
    }
}

/// A redirect and most of 4xx are refusals. A maintenance page is a 200 or a 5xx.
const fn is_status_that_passes(status: u16) -> bool {
    !matches!(status, 300..=499) || matches!(status, 408 | 425 | 429)
}

/// The clock, by the date of eSMS's answer.
pub(super) fn of_clock(account: &Result<Account, BalanceError>, now: SystemTime) -> Finding {
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
    warning(
        format!("{} s from eSMS's: jobs with a timestamp expire too early or too late", apart.as_secs()),
        "have the machine's clock set by NTP",
    )
}

#[cfg(test)]
mod tests;
