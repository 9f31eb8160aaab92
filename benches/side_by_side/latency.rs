//! A steady trickle of jobs: how long it takes from publishing one to the arrival of its result.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::Failed;
use crate::contender::Contender;
use crate::jobs;
use crate::numbers::Rounds;
use crate::stage::Stage;
use crate::support::client::Client;
use crate::support::terminal::{bold, say, step};
use crate::table::{SPREAD, not_run};
use crate::trial::Trial;

const JOBS_PER_SECOND: usize = 50;
const SECONDS: usize = 20;

/// The jobs of the first second are not counted: connections are still opened.
const UNCOUNTED: usize = JOBS_PER_SECOND;

const PREFETCH: u16 = 128;

const WHO: [Contender; 4] = [Contender::Bare, Contender::Worker, Contender::WorkerRedis, Contender::Node];

/// One contender in one round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) contender: Contender,
    pub(crate) round: usize,
    pub(crate) jobs: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    /// Processor time a job, from the start of the program on.
    pub(crate) cpu_us: f64,
}

pub(crate) async fn measure(stage: &mut Stage) -> Result<Vec<Run>, Failed> {
    let mut runs = Vec::new();
    for round in 0..stage.settings.rounds {
        for contender in stage.turns(round).into_iter().filter(|contender| WHO.contains(contender)) {
            let what = format!("round {}, {JOBS_PER_SECOND} jobs a second: {}", round + 1, contender.name());
            match step(&what, run(stage, contender, round)).await {
                Ok(run) => runs.push(run),
                Err(error) => stage.failed(contender, &what, &error),
            }
        }
    }
    tell(stage, &WHO, &runs);
    Ok(runs)
}

async fn run(stage: &mut Stage, contender: Contender, round: usize) -> Result<Run, Failed> {
    let mut trial = Trial::prepare(stage, 0, Duration::ZERO).await?;
    trial.start(stage, contender, PREFETCH, &[])?;
    let client = Client::connect(&stage.broker.url()).await;
    let count = UNCOUNTED + JOBS_PER_SECOND * SECONDS;
    // The first job is answered when the contender has started.
    let first = Uuid::new_v4();
    client.publish(&trial.queue, jobs::one(count, &first)).await;
    trial.results.next().await?;
    let (published, came) = tokio::join!(publish(&client, &trial.queue, count), arrivals(&mut trial.results, count));
    let (published, came) = (published?, came?);
    let mut took = Vec::with_capacity(count);
    for (id, published) in published.into_iter().skip(UNCOUNTED) {
        let came = came.get(&id).ok_or_else(|| format!("{id} has no result"))?;
        took.push((*came - published).as_secs_f64() * 1e3);
    }
    client.close().await;
    stage.emptied(&trial.queue).await?;
    let cpu_us = trial.used(stage)?.programs.as_secs_f64() * 1e6 / (count + 1) as f64;
    trial.end_after(stage, count + 1).await?;
    took.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| took[((took.len() as f64 * share).ceil() as usize).clamp(1, took.len()) - 1];
    Ok(Run { contender, round, jobs: took.len(), p50_ms: at(0.5), p99_ms: at(0.99), p999_ms: at(0.999), cpu_us })
}

/// Publishes evenly, and says when each job was.
async fn publish(client: &Client, queue: &str, count: usize) -> Result<Vec<(Uuid, Instant)>, Failed> {
    let mut ticks = interval(Duration::from_secs(1) / JOBS_PER_SECOND as u32);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut published = Vec::with_capacity(count);
    for n in 0..count {
        ticks.tick().await;
        let id = Uuid::new_v4();
        published.push((id, Instant::now()));
        client.publish(queue, jobs::one(n, &id)).await;
    }
    Ok(published)
}

async fn arrivals(results: &mut jobs::Results, count: usize) -> Result<HashMap<Uuid, Instant>, Failed> {
    let mut came = HashMap::with_capacity(count);
    while came.len() < count {
        let (id, at) = results.next().await?;
        if came.insert(id, at).is_some() {
            return Err(format!("{id} has a second result").into());
        }
    }
    Ok(came)
}

/// The rounds of one contender.
pub(crate) fn rounds(runs: &[Run], contender: Contender, number: impl Fn(&Run) -> f64) -> Rounds {
    Rounds::of(runs.iter().filter(|run| run.contender == contender).map(|run| (run.round, number(run))))
}

/// All contenders' latencies, as a table.
fn tell(stage: &Stage, who: &[Contender], runs: &[Run]) {
    say(bold(&format!("\nfrom publishing to the result, milliseconds; {SPREAD}")));
    say(format!(
        "  {:<13} {:>24} {:>24} {:>24} {:>17} {:>13}",
        "", "p50", "p99", "p99.9", "p50 x bare", "CPU us a job"
    ));
    let of = |contender, number: fn(&Run) -> f64| rounds(runs, contender, number);
    let bare = of(Contender::Bare, |run| run.p50_ms);
    for &contender in who.iter().filter(|who| stage.settings.contenders.contains(who)) {
        let p50 = of(contender, |run| run.p50_ms);
        if p50.median().is_none() {
            not_run(stage, contender);
            continue;
        }
        let (p99, p999) = (of(contender, |run| run.p99_ms), of(contender, |run| run.p999_ms));
        let ratio = p50.per(&bare);
        let cpu = of(contender, |run| run.cpu_us).median().unwrap_or_default();
        say(format!("  {:<13} {p50:>24.2} {p99:>24.2} {p999:>24.2} {ratio:>17.2} {cpu:>13.0}", contender.name()));
    }
}
