//! The state that every connection and [`Sandbox`](super::Sandbox) share.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{records::Records, settings::Settings, stats::Gauge};

/// The records, the signal that they changed, and the sandbox's end.
pub(crate) struct Shared {
    records: Mutex<Records>,
    changed: watch::Sender<()>,
    /// A message here resets the connections of the requests that hang.
    pub(crate) hangs: watch::Sender<()>,
    /// A message here answers the requests that are held.
    pub(crate) holds: watch::Sender<()>,
    /// Cancelled when the sandbox ends.
    pub(crate) life: CancellationToken,
    /// The tasks that must end when the sandbox ends.
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    pub(crate) fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            records: Mutex::new(Records::new(settings)),
            changed: watch::Sender::new(()),
            hangs: watch::Sender::new(()),
            holds: watch::Sender::new(()),
            life: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    pub(crate) fn look<T>(&self, at: impl FnOnce(&Records) -> T) -> T {
        at(&self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn change<T>(&self, how: impl FnOnce(&mut Records) -> T) -> T {
        let result = how(&mut self.records.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
        result
    }

    /// Returns once `so` is true of the records. If that never happens, it never returns.
    pub(crate) async fn wait_until(&self, mut so: impl FnMut(&Records) -> bool) {
        // Subscribe before the first look, so that no change in between is missed.
        let mut changed = self.changed.subscribe();
        while !self.look(&mut so) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Adds one to the gauge for as long as the returned value lives.
    pub(crate) fn enter(self: &Arc<Self>, gauge: fn(&mut Records) -> &mut Gauge) -> Entered {
        self.change(|records| gauge(records).enter());
        Entered { shared: Arc::clone(self), gauge }
    }
}

/// One that is counted in a gauge. Dropping it ends the count.
pub(crate) struct Entered {
    shared: Arc<Shared>,
    gauge: fn(&mut Records) -> &mut Gauge,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.shared.change(|records| (self.gauge)(records).leave());
    }
}
