//! The settings of a campaign: from the environment for `make chaos`, fixed for `cargo test`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::Failed;

/// Where the workers remember jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ledger {
    Redis,
    Memory,
}

/// `OTP_ON_AMBIGUOUS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnAmbiguous {
    Resend,
    GiveUp,
}

/// `OTP_LEDGER_ON_ERROR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnError {
    Send,
    Hold,
}

/// A campaign's settings.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) jobs: u64,
    pub(crate) workers: u64,
    pub(crate) ledger: Ledger,
    pub(crate) on_ambiguous: OnAmbiguous,
    pub(crate) on_error: OnError,
    /// Whether the workers limit what is sent, and several jobs are for one number.
    pub(crate) limits: bool,
    /// After this time no further job is published.
    pub(crate) at_most: Duration,
    /// The most published jobs without a result. Further jobs wait.
    pub(crate) backlog: usize,
    /// `OTP_CONCURRENCY`.
    pub(crate) concurrency: u64,
    /// A factor for the time until something is broken. A short campaign has little time, so its factor is
    /// small.
    pub(crate) calm: u32,
}

impl Settings {
    /// What `cargo test` runs. In the first campaign everything breaks, and no worker sends unseen by the
    /// others. In the second campaign one worker has only its own memory.
    pub(crate) fn short() -> Vec<Self> {
        let shared = Self {
            seed: 20_261_123,
            jobs: 1_500,
            workers: 3,
            ledger: Ledger::Redis,
            on_ambiguous: OnAmbiguous::Resend,
            on_error: OnError::Hold,
            limits: false,
            at_most: Duration::from_secs(18),
            backlog: 150,
            concurrency: 24,
            calm: 1,
        };
        let alone = Self {
            limits: false,
            workers: 1,
            ledger: Ledger::Memory,
            jobs: 500,
            at_most: Duration::from_secs(7),
            ..shared.clone()
        };
        vec![shared, alone]
    }

    /// The settings in the environment.
    pub(crate) fn from_env() -> Result<Self, Failed> {
        let on_ambiguous = setting("ON_AMBIGUOUS")?.unwrap_or(OnAmbiguous::Resend);
        let settings = Self {
            seed: setting("SEED")?.unwrap_or(20_261_123),
            jobs: setting("JOBS")?.unwrap_or(20_000),
            workers: setting("WORKERS")?.unwrap_or(3),
            ledger: setting("LEDGER")?.unwrap_or(Ledger::Redis),
            on_ambiguous,
            on_error: setting("ON_ERROR")?.unwrap_or(match on_ambiguous {
                // The worker's own defaults.
                OnAmbiguous::Resend => OnError::Send,
                OnAmbiguous::GiveUp => OnError::Hold,
            }),
            limits: setting("LIMITS")?.is_some_and(|Switch(on)| on),
            at_most: Duration::from_secs(setting("SECONDS")?.unwrap_or(3_600)),
            backlog: 800,
            concurrency: 64,
            calm: 3,
        };
        match settings {
            Settings { jobs: 0 | 1_000_000.., .. } => Err("JOBS must be 1 to 999999".into()),
            Settings { workers: 0 | 65.., .. } => Err("WORKERS must be 1 to 64".into()),
            settings => Ok(settings),
        }
    }

    /// Whether a repeat of a `message_id` is always recognised. For that, every worker that could repeat an
    /// attempt must see every attempt.
    pub(crate) fn repeats_are_known(&self) -> bool {
        match self.ledger {
            Ledger::Redis => self.on_error == OnError::Hold,
            Ledger::Memory => self.is_one_process(),
        }
    }

    /// Whether one worker has the only memory, which is never lost.
    pub(crate) fn is_one_process(&self) -> bool {
        self.ledger == Ledger::Memory && self.workers == 1
    }
}

impl fmt::Display for Settings {
    /// In the form that `make chaos` takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ledger = if self.ledger == Ledger::Redis { "redis" } else { "memory" };
        let on_ambiguous = if self.on_ambiguous == OnAmbiguous::Resend { "resend" } else { "give-up" };
        let on_error = if self.on_error == OnError::Send { "send" } else { "hold" };
        write!(f, "SEED={} JOBS={} WORKERS={} ", self.seed, self.jobs, self.workers)?;
        write!(f, "LEDGER={ledger} ON_AMBIGUOUS={on_ambiguous} ON_ERROR={on_error} ")?;
        let limits = if self.limits { "on" } else { "off" };
        write!(f, "LIMITS={limits} SECONDS={}", self.at_most.as_secs())
    }
}

fn setting<T: FromStr>(name: &str) -> Result<Option<T>, Failed>
where
    T::Err: fmt::Display,
{
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => {
            text.parse().map(Some).map_err(|error| format!("{name}={text}: {error}").into())
        }
        _ => Ok(None),
    }
}

/// A setting that is on or off.
struct Switch(bool);

impl FromStr for Switch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "on" => Ok(Self(true)),
            "off" => Ok(Self(false)),
            _ => Err("must be on or off"),
        }
    }
}

impl FromStr for Ledger {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "redis" => Ok(Self::Redis),
            "memory" => Ok(Self::Memory),
            _ => Err("must be redis or memory"),
        }
    }
}

impl FromStr for OnAmbiguous {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "resend" => Ok(Self::Resend),
            "give-up" => Ok(Self::GiveUp),
            _ => Err("must be resend or give-up"),
        }
    }
}

impl FromStr for OnError {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "send" => Ok(Self::Send),
            "hold" => Ok(Self::Hold),
            _ => Err("must be send or hold"),
        }
    }
}
