//! The run: 1,000 jobs from the producer to their results, and everything that was observed.

use std::io::Write;
use std::time::{Duration, Instant};

use esms_otp_worker::sandbox::Stats;
use futures_util::StreamExt;
use lapin::Consumer;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use crate::Failed;
use crate::broker::{Home, close};
use crate::programs::{self, Esms, Logged, PhoneStory, Worker};
use crate::support::leash::Scratch;
use crate::support::metrics::Scrape;
use crate::support::wait::found;

/// One job for each ending of three digits. The worker's log shows only these digits of a phone.
pub(crate) const JOBS: usize = 1_000;

/// The size of each of the two groups of phones for which eSMS never works. Their jobs end when the worker
/// stops retrying.
const DOOMED: usize = 3;

/// The limit for things that normally take milliseconds. It is long enough for a slow machine.
const LIMIT: Duration = Duration::from_secs(20);

/// The fields of a result event that the demonstration reads.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Event {
    pub(crate) job_id: String,
    pub(crate) outcome: String,
    pub(crate) code_result: Option<String>,
    #[serde(rename = "SMSID")]
    pub(crate) sms_id: Option<String>,
    pub(crate) attempts: u64,
    pub(crate) may_be_duplicate: bool,
}

/// A result as it came from the results exchange.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) event: Event,
    pub(crate) text: String,
    /// The time since `send` was started.
    pub(crate) after: Duration,
}

/// Everything that was observed.
pub(crate) struct Seen {
    /// What `send --wait` printed.
    pub(crate) printed: Vec<Event>,
    pub(crate) send_code: i32,
    /// What came from the results exchange.
    pub(crate) heard: Vec<Heard>,
    /// What the worker logged.
    pub(crate) logged: Vec<Logged>,
    /// What eSMS knows of each phone.
    pub(crate) phones: Vec<(String, PhoneStory)>,
    pub(crate) stats: Stats,
    pub(crate) before: Scrape,
    pub(crate) after: Scrape,
}

pub(crate) fn phone(number: usize) -> String {
    format!("0900000{number:03}")
}

/// Writes the jobs to a file as JSON lines, and tells eSMS which phones it must always fail.
pub(crate) async fn prepare(scratch: &Scratch, esms: &Esms) -> Result<(), Failed> {
    let mut file = std::fs::File::create(scratch.file("jobs.jsonl"))?;
    for number in 0..JOBS {
        writeln!(file, "{}", json!({"Phone": phone(number), "MultiChannelTempId": "1234", "TimeAlive": "5"}))?;
    }
    for number in 0..DOOMED {
        esms.doom(&phone(100 + number), json!({"status": {"code": 503}})).await?;
        esms.doom(&phone(200 + number), json!("reset_before")).await?;
    }
    Ok(())
}

/// Sends the jobs and watches until nothing more happens.
pub(crate) async fn watch(home: &Home, esms: &Esms, worker: &Worker, scratch: &Scratch) -> Result<Seen, Failed> {
    let before = Scrape::of(worker.http).await;
    let (connection, consumer) = home.results().await?;
    let began = Instant::now();
    let mut send = programs::send(home, &scratch.file("jobs.jsonl"))?;
    let hearing = tokio::spawn(hear(consumer, began));
    let mut printed = Vec::new();
    while let Some(line) = send.line().await? {
        printed.push(serde_json::from_str(&line)?);
    }
    let send_code = send.wait(LIMIT).await.ok_or("`send` closed its output and did not end")?;
    let heard = hearing.await??;
    close(&connection).await;
    let logged = logged(worker).await?;
    let phones = phones(esms).await?;
    let after = settled(worker).await;
    Ok(Seen { printed, send_code, heard, logged, phones, stats: esms.stats().await?, before, after })
}

/// Collects results until there is one for each job, or until none has come for longer than the worker can
/// take.
async fn hear(mut consumer: Consumer, began: Instant) -> Result<Vec<Heard>, Failed> {
    let mut heard = Vec::new();
    while heard.len() < JOBS
        && let Ok(Some(delivery)) = timeout(LIMIT, consumer.next()).await
    {
        let delivery = delivery?;
        let after = began.elapsed();
        let event = serde_json::from_slice(&delivery.data)?;
        heard.push(Heard { event, text: String::from_utf8_lossy(&delivery.data).into_owned(), after });
    }
    Ok(heard)
}

/// A separate thread writes the log, so the last lines may be a little late.
async fn logged(worker: &Worker) -> Result<Vec<Logged>, Failed> {
    let whole = found(LIMIT, async || worker.ended_jobs().ok().filter(|ended| ended.len() >= JOBS)).await;
    whole.map_or_else(|| worker.ended_jobs(), Ok)
}

async fn phones(esms: &Esms) -> Result<Vec<(String, PhoneStory)>, Failed> {
    let mut phones = Vec::new();
    for phone in (0..JOBS).map(phone) {
        let story = esms.phone(&phone).await?;
        phones.push((phone, story));
    }
    Ok(phones)
}

/// The metrics after every job is acknowledged, which happens a little after its result.
async fn settled(worker: &Worker) -> Scrape {
    let idle = |scrape: &Scrape| scrape.value("otp_jobs_in_flight", &[]) == Some(0.0);
    let settled = found(LIMIT, async || Some(Scrape::of(worker.http).await).filter(idle)).await;
    match settled {
        Some(scrape) => scrape,
        None => Scrape::of(worker.http).await,
    }
}
