//! Collects the results of the queued jobs as they come.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::Consumer;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::error::SendError;
use super::printing::Printing;
use super::publishing::Queued;
use super::voice::Voice;
use crate::commands::rows::Told;

/// The jobs whose results are awaited, and the results that came.
#[derive(Default)]
struct Results {
    waiting: HashSet<String>,
    seen: HashSet<String>,
    outcomes: BTreeMap<String, u64>,
}

impl Results {
    fn queued(&mut self, job: Queued) {
        // A result can come before the publisher confirm of its job.
        if !self.seen.contains(&job.id) {
            self.waiting.insert(job.id);
        }
    }

    /// Whether it is this job's first result. It may come more than once.
    fn came(&mut self, told: &Told) -> bool {
        self.waiting.remove(&told.job_id);
        let is_first = self.seen.insert(told.job_id.clone());
        if is_first {
            *self.outcomes.entry(told.outcome.clone()).or_default() += 1;
        }
        is_first
    }
}

/// Prints each result once. Ends when every queued job has a result, or when none has come for `patience`.
pub(super) async fn collect(
    mut replies: Consumer,
    mut queued: mpsc::Receiver<Queued>,
    voice: &Voice,
    patience: Duration,
    mut printing: Printing<'_>,
) -> Result<BTreeMap<String, u64>, SendError> {
    let mut results = Results::default();
    let mut all_queued = false;
    let mut last = Instant::now();
    while !(all_queued && results.waiting.is_empty()) {
        tokio::select! {
            job = queued.recv(), if !all_queued => match job {
                Some(job) => results.queued(job),
                None => all_queued = true,
            },
            reply = replies.next() => {
                let Some(reply) = reply else { break };
                let reply = reply?;
                if let Some(told) = Told::read(&reply.data).filter(|told| results.came(told)) {
                    voice.one_done();
                    printing.result(&told, &reply.data).await?;
                }
            }
            // The summary reports a late result as missing. While jobs are queued, nothing is late: the input may pause,
            // and the broker may.
            () = sleep_until(last + patience), if all_queued => break,
        }
        last = Instant::now();
    }
    printing.end().await?;
    Ok(results.outcomes)
}
