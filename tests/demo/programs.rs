//! The real programs, which are built beside this one: the sandbox that plays eSMS, the worker, and `send`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use esms_otp_worker::sandbox::{SEND_PATH, Stats};
use esms_otp_worker::tls;
use reqwest::{Client, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Failed;
use crate::broker::Home;
use crate::support::leash::{Program, Scratch, log_file};
use crate::support::metrics::get;
use crate::support::wait::found;
use crate::support::worker::listening;

/// The limit for steps that normally take a moment. It is long enough for a slow machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The faults of eSMS, and how often each happens. The seed is fixed, so every run meets the same faults.
pub(crate) const FAULTS: [(&str, &str); 12] = [
    ("latency:600ms", "0.02"),
    ("reset_after", "0.02"),
    ("cut_json", "0.01"),
    ("html_after", "0.01"),
    ("status_after:502", "0.01"),
    ("hang_after", "0.003"),
    ("reset_before", "0.01"),
    ("status:503", "0.066"),
    // Each of these two slows all calls for some seconds.
    ("status:429:1", "0.002"),
    ("code:160:too many requests", "0.002"),
    ("code:108:Phone is not valid", "0.02"),
    ("status:403", "0.004"),
];

/// The worker's time limits. They are shorter than its defaults, so that nobody waits long for the last
/// jobs.
const PATIENCE: [(&str, &str); 3] =
    [("ESMS_CONNECT_TIMEOUT", "1s"), ("ESMS_TIMEOUT", "2s"), ("OTP_RETRY_MAX_ELAPSED", "5s")];

/// The path of a program of this package.
pub(crate) fn path(name: &str) -> Result<PathBuf, Failed> {
    let here = std::env::current_exe()?;
    let built = here.parent().ok_or("this program is nowhere")?.join(name);
    if built.is_file() { Ok(built) } else { Err(format!("{} is missing: run make demo", built.display()).into()) }
}

/// eSMS, played by the sandbox.
pub(crate) struct Esms {
    program: Program,
    client: Client,
    url: String,
}

/// What the sandbox knows of one phone.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct PhoneStory {
    pub(crate) requests: u64,
    pub(crate) accepted: u64,
    pub(crate) story: Vec<Call>,
}

/// One call for this phone.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Call {
    pub(crate) sms_id: Option<String>,
}

impl Esms {
    pub(crate) async fn start(scratch: &Scratch) -> Result<Self, Failed> {
        let faults: Vec<String> = FAULTS.iter().map(|(fault, share)| format!("--fault={fault}={share}")).collect();
        let mut args = vec!["--addr=127.0.0.1:0", "--latency=80ms", "--jitter=160ms"];
        args.extend(faults.iter().map(String::as_str));
        let log = log_file(&scratch.file("sandbox.log"))?;
        let mut program = Program::start(&path("esms-sandbox")?, &args, log, |command| {
            for name in ["SANDBOX_SEED", "SANDBOX_API_KEY", "SANDBOX_SECRET_KEY", "SANDBOX_BALANCE"] {
                command.env_remove(name);
            }
        })?;
        let line = program.line().await?.ok_or("esms-sandbox did not start")?;
        let word = line.split([' ', ';']).find_map(|word| word.strip_suffix(SEND_PATH));
        let url = word.ok_or_else(|| format!("esms-sandbox said: {line}"))?.to_owned();
        let tls = tls::for_url(&Url::parse(&url)?)?;
        let client = Client::builder().no_proxy().timeout(LIMIT).tls_backend_preconfigured(tls).build()?;
        Ok(Self { program, client, url })
    }

    pub(crate) const fn pid(&self) -> u32 {
        self.program.pid()
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn send_url(&self) -> String {
        format!("{}{SEND_PATH}", self.url)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failed> {
        let answer = self.client.get(format!("{}/_sandbox/{path}", self.url)).send().await?.error_for_status()?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }

    pub(crate) async fn stats(&self) -> Result<Stats, Failed> {
        self.get("stats").await
    }

    pub(crate) async fn phone(&self, phone: &str) -> Result<PhoneStory, Failed> {
        self.get(&format!("phones/{phone}")).await
    }

    /// Makes every request for this phone meet the same fault. 40 are more requests than there can be.
    pub(crate) async fn doom(&self, phone: &str, fault: Value) -> Result<(), Failed> {
        let script = json!({"phone": phone, "faults": vec![fault; 40]}).to_string();
        let post = self.client.post(format!("{}/_sandbox/script", self.url)).body(script);
        post.header("content-type", "application/json").send().await?.error_for_status()?;
        Ok(())
    }
}

/// The worker.
pub(crate) struct Worker {
    pub(crate) program: Program,
    pub(crate) http: SocketAddr,
    pub(crate) log: PathBuf,
}

impl Worker {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(home: &Home, esms: &Esms, scratch: &Scratch) -> Result<Self, Failed> {
        let log = scratch.file("worker.log");
        let mut program = Program::start(&path("esms-otp-worker")?, &["run"], log_file(&log)?, |command| {
            home.settle(command);
            command.envs(PATIENCE).envs([
                ("ESMS_URL", esms.send_url().as_str()),
                ("ESMS_API_KEY", "sandbox-key"),
                ("ESMS_SECRET_KEY", "sandbox-secret"),
                ("HTTP_ADDR", "127.0.0.1:0"),
                ("LOG_FORMAT", "json"),
                ("NO_PROXY", "127.0.0.1"),
            ]);
        })?;
        let http =
            until(&mut program, async || std::fs::read_to_string(&log).ok()?.lines().find_map(listening)).await?;
        until(&mut program, async || (get(http, "/readyz").await.0 == 200).then_some(())).await?;
        Ok(Self { program, http, log })
    }

    /// The worker's log lines about the ends of jobs.
    pub(crate) fn ended_jobs(&self) -> Result<Vec<Logged>, Failed> {
        let log = std::fs::read_to_string(&self.log)?;
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Logged>(line).ok());
        Ok(lines.filter(|line| line.message == "job ended").collect())
    }
}

/// A line of the worker's log about the end of a job.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Logged {
    message: String,
    pub(crate) job_id: String,
    /// The phone number. All but the last three digits are masked.
    pub(crate) phone: String,
    /// The time from the delivery to the end, in milliseconds.
    pub(crate) took_ms: u64,
}

/// Looks until there is a value. Fails if the program ends first.
async fn until<T>(worker: &mut Program, mut look: impl AsyncFnMut() -> Option<T>) -> Result<T, Failed> {
    let looked = found(LIMIT, async || match worker.exit_code() {
        Some(code) => Some(Err(format!("the worker has ended with code {code}"))),
        None => look().await.map(Ok),
    });
    Ok(looked.await.ok_or("the worker did not become ready")??)
}

/// Sends the jobs of a file and waits for their results. Its progress bar goes to the terminal.
pub(crate) fn send(home: &Home, jobs: &Path) -> Result<Program, Failed> {
    let jobs = jobs.to_str().ok_or("a temporary directory that is no text")?;
    let args = ["send", jobs, "--wait", "--timeout", "30s"];
    Program::start(&path("esms-otp-worker")?, &args, Stdio::inherit(), |command| home.settle(command))
}
