//! Collects the results of the queued jobs as they come.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use indicatif::ProgressBar;
use lapin::Consumer;
use lapin::message::Delivery;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::error::SendError;
use crate::commands::shell::Output;

/// The part of a result that is counted.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Counted {
    job_id: String,
    outcome: String,
}

/// Prints each result once. Ends when every queued job has a result, or when none has come for `patience`.
pub(super) async fn collect(
    mut replies: Consumer,
    mut queued: mpsc::Receiver<String>,
    progress: &ProgressBar,
    patience: Duration,
) -> Result<BTreeMap<String, usize>, SendError> {
    let mut outcomes = BTreeMap::new();
    let (mut waiting, mut seen) = (HashSet::new(), HashSet::new());
    let mut all_queued = false;
    let mut last = Instant::now();
    let mut output = Output::new();
    while !(all_queued && waiting.is_empty()) {
        let reply = tokio::select! {
            id = queued.recv(), if !all_queued => {
                last = Instant::now();
                match id {
                    // A result can come before the publisher confirm of its job.
                    Some(id) if seen.contains(&id) => {}
                    Some(id) => drop(waiting.insert(id)),
                    None => all_queued = true,
                }
                continue;
            }
            reply = replies.next() => reply,
            // The summary reports a late result as missing. The time limit applies only while a result is
            // awaited, so that a pause in the input does not end the wait.
            () = sleep_until(last + patience), if !waiting.is_empty() => break,
        };
        let Some(reply) = reply else { break };
        let reply: Delivery = reply?;
        last = Instant::now();
        let Ok(counted) = serde_json::from_slice::<Counted>(&reply.data) else { continue };
        waiting.remove(&counted.job_id);
        // A result may come more than once. Show it once.
        if !seen.insert(counted.job_id) {
            continue;
        }
        *outcomes.entry(counted.outcome).or_default() += 1;
        progress.inc(1);
        output.line(&reply.data).await.map_err(SendError::Output)?;
    }
    output.end().await.map_err(SendError::Output)?;
    Ok(outcomes)
}
