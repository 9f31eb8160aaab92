//! Who is compared, and how each is started.

use std::str::FromStr;

use esms_otp_worker::sandbox::{DEFAULT_API_KEY, DEFAULT_SECRET_KEY};

use crate::Failed;
use crate::stage::{EXCHANGE, Stage};
use crate::support::leash::{Program, log_file};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// The loop that does nothing but the work.
    Bare,
    /// The worker with its ledger in memory.
    Worker,
    /// The worker with its ledger in Redis.
    WorkerRedis,
}

impl Contender {
    pub(crate) const ALL: [Self; 3] = [Self::Bare, Self::Worker, Self::WorkerRedis];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Worker => "worker",
            Self::WorkerRedis => "worker-redis",
        }
    }

    /// Starts it. It holds `prefetch` jobs at once.
    pub(crate) fn start(self, stage: &Stage, queue: &str, prefetch: u16, esms_url: &str) -> Result<Program, Failed> {
        let programs = &stage.settings.programs;
        let prefetch = prefetch.to_string();
        let mut env = vec![
            ("AMQP_URL", stage.broker.url()),
            ("ESMS_URL", esms_url.to_owned()),
            ("ESMS_API_KEY", DEFAULT_API_KEY.to_owned()),
            ("ESMS_SECRET_KEY", DEFAULT_SECRET_KEY.to_owned()),
        ];
        let (path, args) = match self {
            Self::Bare => (&programs.bare, &[] as &[_]),
            Self::Worker | Self::WorkerRedis => (&programs.worker, &["run"] as &[_]),
        };
        match self {
            Self::Bare => env.extend([("QUEUE", queue.into()), ("EXCHANGE", EXCHANGE.into()), ("PREFETCH", prefetch)]),
            Self::Worker | Self::WorkerRedis => env.extend([
                ("OTP_QUEUE", queue.into()),
                ("OTP_REPLY_EXCHANGE", EXCHANGE.into()),
                ("OTP_CONCURRENCY", prefetch.clone()),
                ("OTP_PREFETCH", prefetch),
                // The jobs of a long queue are older than usual.
                ("OTP_JOB_TTL", "12h".into()),
                ("OTP_LEDGER_URL", if self == Self::Worker { "memory:".into() } else { stage.redis.url() }),
                ("HTTP_ADDR", "127.0.0.1:0".into()),
            ]),
        }
        Program::start(path, args, log_file(&stage.log())?, |command| {
            command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).envs(env);
        })
    }
}

impl FromStr for Contender {
    type Err = Failed;

    fn from_str(name: &str) -> Result<Self, Failed> {
        let found = Self::ALL.into_iter().find(|contender| contender.name() == name);
        found.ok_or_else(|| format!("nobody is called {name}").into())
    }
}
