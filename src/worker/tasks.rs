//! The tasks that deal with deliveries: each ends when the worker aborts, and none takes the worker down.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, error};

use crate::stop::Stop;
use crate::telemetry::logs;

/// See the module.
#[derive(Debug)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    unfinished: Arc<AtomicUsize>,
    stop: Stop,
}

impl Tasks {
    pub(super) fn new(stop: Stop) -> Self {
        Self { tracker: TaskTracker::new(), unfinished: Arc::default(), stop }
    }

    /// Runs `task`, which is about the job `id`, and `rescue` if it panics. When the worker aborts, both end,
    /// however far they came: the broker delivers again what was not acknowledged.
    ///
    /// A worker holds many jobs that only wait, so a task is kept small: on the heap it is not copied from future to
    /// future, and its rescue, which is larger, is not made before it is needed.
    pub(super) fn spawn<R: Future<Output = ()> + Send>(
        &self,
        id: &str,
        task: impl Future<Output = ()> + Send + 'static,
        rescue: impl FnOnce() -> R + Send + 'static,
    ) {
        let task = Box::pin(task);
        let (unfinished, stop) = (Arc::clone(&self.unfinished), self.stop.clone());
        unfinished.fetch_add(1, Ordering::Relaxed);
        let guarded = async move {
            if stop.aborting().run_until_cancelled(rescued(task, rescue)).await == Some(true) {
                unfinished.fetch_sub(1, Ordering::Relaxed);
            }
        };
        self.tracker.spawn(guarded.instrument(logs::job_span(id)));
    }

    /// Waits until every task has ended, also those that a task spawns meanwhile.
    pub(super) async fn finished(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Tasks that have not ended, or were cut off.
    pub(super) fn unfinished(&self) -> usize {
        self.unfinished.load(Ordering::Relaxed)
    }
}

/// Whether the delivery was dealt with, by the task or after its panic.
///
/// A panicking task leaves behind the registry of jobs in flight and the hold of its job. Both are changed only
/// under locks, and no code that can panic runs while one is held.
async fn rescued<R: Future<Output = ()>>(task: impl Future<Output = ()>, rescue: impl FnOnce() -> R) -> bool {
    if AssertUnwindSafe(task).catch_unwind().await.is_ok() {
        return true;
    }
    let rescue = Box::pin(AssertUnwindSafe(async { rescue().await }).catch_unwind());
    let is_rescued = rescue.await.is_ok();
    if !is_rescued {
        error!("a delivery stays unsettled: the code that deals with panics has panicked, too");
    }
    is_rescued
}
