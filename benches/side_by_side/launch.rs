//! How a contender is started.

use std::time::Duration;

use esms_otp_worker::sandbox::{DEFAULT_API_KEY, DEFAULT_SECRET_KEY};

use crate::Failed;
use crate::contender::Contender;
use crate::stage::{EXCHANGE, Stage};
use crate::support::leash::{Program, log_file};
use crate::support::wait::found;

const LIMIT: Duration = Duration::from_secs(60);

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

    /// The environment of a contender. The worker has its defaults but for these.
    pub(crate) fn env(self, contender: Contender, stage: &Stage) -> Vec<(String, String)> {
        let prefetch = &self.prefetch.to_string();
        let (url, redis) = (stage.broker.url(), stage.redis.url());
        let mut env = vec![
            ("AMQP_URL", url.as_str()),
            ("ESMS_URL", self.esms_url),
            ("ESMS_API_KEY", DEFAULT_API_KEY),
            ("ESMS_SECRET_KEY", DEFAULT_SECRET_KEY),
        ];
        match contender {
            Contender::Worker | Contender::WorkerRedis => {
                env.extend([
                    ("OTP_QUEUE", self.queue),
                    ("OTP_REPLY_EXCHANGE", EXCHANGE),
                    ("OTP_CONCURRENCY", prefetch),
                    ("OTP_PREFETCH", prefetch),
                    // The jobs of a long queue are older than usual.
                    ("OTP_JOB_TTL", "12h"),
                    ("OTP_LEDGER_URL", if contender == Contender::Worker { "memory:" } else { &redis }),
                    ("HTTP_ADDR", "127.0.0.1:0"),
                ]);
                env.extend(self.more);
            }
            _ => env.extend([("QUEUE", self.queue), ("EXCHANGE", EXCHANGE), ("PREFETCH", prefetch)]),
        }
        env.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    /// Starts a contender. Its standard error is a file.
    pub(crate) fn start(self, contender: Contender, stage: &Stage) -> Result<Program, Failed> {
        let (path, args) = stage.settings.programs.command(contender);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let env = self.env(contender, stage);
        Program::start(&path, &args, log_file(&stage.log(self.nth))?, |command| {
            command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).envs(env);
        })
    }
}

/// Has the worker declare its objects.
pub(crate) async fn declare(stage: &Stage) -> Result<(), Failed> {
    let mut worker = Launch::new("otp.jobs", 1, "http://127.0.0.1:9/").start(Contender::Worker, stage)?;
    let declared = async || stage.broker.queue_depth("otp.jobs").await;
    found(LIMIT, declared).await.ok_or_else(|| format!("the worker does not declare\n{}", stage.end_of_log()))?;
    worker.terminate();
    worker.wait(LIMIT).await;
    Ok(())
}
