//! Who is compared, and how each is started.

use std::path::PathBuf;
use std::str::FromStr;

use esms_otp_worker::sandbox::{DEFAULT_API_KEY, DEFAULT_SECRET_KEY};
use serde::{Serialize, Serializer};

use crate::Failed;
use crate::settings::Programs;
use crate::stage::{EXCHANGE, Stage};
use crate::support::leash::{Program, log_file};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// The loop that does nothing but the work.
    Bare,
    /// The same with hyper-util in place of reqwest.
    BareHyper,
    /// The worker with its ledger in memory.
    Worker,
    /// The worker with its ledger in Redis.
    WorkerRedis,
    /// The work in JavaScript.
    Node,
    /// The work in Python.
    FastStream,
}

/// How a contender is started.
#[derive(Clone, Copy)]
pub(crate) struct Launch<'a> {
    pub(crate) queue: &'a str,
    /// How many jobs it holds at once.
    pub(crate) prefetch: u16,
    pub(crate) esms_url: &'a str,
    /// More settings of the worker.
    pub(crate) more: &'a [(&'a str, &'a str)],
    /// Which of several of its kind it is.
    pub(crate) nth: usize,
}

impl<'a> Launch<'a> {
    pub(crate) const fn new(queue: &'a str, prefetch: u16, esms_url: &'a str) -> Self {
        Self { queue, prefetch, esms_url, more: &[], nth: 0 }
    }
}

impl Contender {
    pub(crate) const ALL: [Self; 6] =
        [Self::Bare, Self::BareHyper, Self::Worker, Self::WorkerRedis, Self::Node, Self::FastStream];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::BareHyper => "bare-hyper",
            Self::Worker => "worker",
            Self::WorkerRedis => "worker-redis",
            Self::Node => "node",
            Self::FastStream => "faststream",
        }
    }

    /// Why it cannot run on this machine, if it cannot.
    pub(crate) fn why_not(self, programs: &Programs) -> Option<String> {
        let (Self::Node | Self::FastStream) = self else { return None };
        let there = programs.peers.join(self.name());
        if there.join("done").is_file() {
            return None;
        }
        let why = std::fs::read_to_string(there.join("why"));
        Some(why.map_or_else(|_| "not installed; `make bench` does it".into(), |why| why.trim_end().to_owned()))
    }

    /// How many jobs it is given where others are given `jobs`. A run of a slow one would take too long.
    pub(crate) const fn share(self, jobs: usize) -> usize {
        match self {
            Self::FastStream => jobs / 4,
            _ => jobs,
        }
    }

    /// Its program and arguments.
    pub(crate) fn command(self, programs: &Programs) -> (PathBuf, Vec<String>) {
        let of_peer = |file: &str| programs.peers.join(self.name()).join(file);
        let script = |file: &str| vec![of_peer(file).to_string_lossy().into_owned()];
        match self {
            Self::Bare => (programs.bare.clone(), Vec::new()),
            Self::BareHyper => (programs.bare_hyper.clone(), Vec::new()),
            Self::Worker | Self::WorkerRedis => (programs.worker.clone(), vec!["run".into()]),
            Self::Node => ("node".into(), script("index.js")),
            Self::FastStream => (of_peer("venv/bin/python"), script("main.py")),
        }
    }

    /// Its environment. The worker has its defaults but for these.
    pub(crate) fn env(self, stage: &Stage, launch: Launch<'_>) -> Vec<(String, String)> {
        let prefetch = &launch.prefetch.to_string();
        let (url, redis) = (stage.broker.url(), stage.redis.url());
        let mut env = vec![
            ("AMQP_URL", url.as_str()),
            ("ESMS_URL", launch.esms_url),
            ("ESMS_API_KEY", DEFAULT_API_KEY),
            ("ESMS_SECRET_KEY", DEFAULT_SECRET_KEY),
        ];
        match self {
            Self::Worker | Self::WorkerRedis => {
                env.extend([
                    ("OTP_QUEUE", launch.queue),
                    ("OTP_REPLY_EXCHANGE", EXCHANGE),
                    ("OTP_CONCURRENCY", prefetch),
                    ("OTP_PREFETCH", prefetch),
                    // The jobs of a long queue are older than usual.
                    ("OTP_JOB_TTL", "12h"),
                    ("OTP_LEDGER_URL", if self == Self::Worker { "memory:" } else { &redis }),
                    ("HTTP_ADDR", "127.0.0.1:0"),
                ]);
                env.extend(launch.more);
            }
            _ => env.extend([("QUEUE", launch.queue), ("EXCHANGE", EXCHANGE), ("PREFETCH", prefetch)]),
        }
        env.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    /// Starts it. Its standard error is a file.
    pub(crate) fn start(self, stage: &Stage, launch: Launch<'_>) -> Result<Program, Failed> {
        let (path, args) = self.command(&stage.settings.programs);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let env = self.env(stage, launch);
        Program::start(&path, &args, log_file(&stage.log(launch.nth))?, |command| {
            command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).envs(env);
        })
    }
}

impl Serialize for Contender {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl FromStr for Contender {
    type Err = Failed;

    fn from_str(name: &str) -> Result<Self, Failed> {
        let found = Self::ALL.into_iter().find(|contender| contender.name() == name);
        found.ok_or_else(|| format!("nobody is called {name}").into())
    }
}
