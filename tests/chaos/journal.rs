//! What was done, to whom and when. The table and the story of one job use it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;

/// Everything injected so far.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<Vec<Entry>>);

/// One injected fault.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: SystemTime,
    /// The kind, by which faults are counted.
    pub(crate) kind: String,
    /// To whom it was done.
    pub(crate) whom: String,
}

impl Journal {
    pub(crate) fn note(&self, kind: impl Into<String>, whom: impl Into<String>) {
        let entry = Entry { at: SystemTime::now(), kind: kind.into(), whom: whom.into() };
        self.entries().push(entry);
    }

    /// How often each kind happened.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for entry in self.entries().iter() {
            *counts.entry(entry.kind.clone()).or_default() += 1;
        }
        counts
    }

    /// What was done between two moments.
    pub(crate) fn between(&self, from: SystemTime, to: SystemTime) -> Vec<Entry> {
        self.entries().iter().filter(|entry| (from..=to).contains(&entry.at)).cloned().collect()
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().expect("an unpoisoned lock")
    }
}
