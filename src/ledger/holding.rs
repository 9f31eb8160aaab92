//! One holding of a job: from its claim to its end, or until it goes back to the broker.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::past::Record;

/// See the module.
#[derive(Debug)]
pub struct Holding {
    owner: String,
    steps: AtomicU32,
    record: Mutex<Record>,
    attempted: Mutex<Option<Instant>>,
}

impl Holding {
    pub(super) fn new(owner: String, record: Record) -> Self {
        Self { owner, steps: AtomicU32::default(), record: Mutex::new(record), attempted: Mutex::default() }
    }

    /// Its name, never used before.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// The number of the next note of it.
    pub(super) fn next_step(&self) -> u32 {
        self.steps.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Where its job is written down now.
    pub(super) fn record(&self) -> Record {
        *lock(&self.record)
    }

    /// Whether the store has what was written down last.
    pub fn is_in_store(&self) -> bool {
        self.record() == Record::InStore
    }

    pub(super) fn set_record(&self, record: Record) {
        *lock(&self.record) = record;
    }

    /// An attempt begins now.
    pub(super) fn attempt_begins(&self) {
        *lock(&self.attempted) = Some(Instant::now());
    }

    /// When the last attempt under this holding began.
    pub(super) fn attempted(&self) -> Option<Instant> {
        *lock(&self.attempted)
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds such a lock, and the value is whole even if some did.
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
