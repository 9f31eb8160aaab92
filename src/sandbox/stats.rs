//! Counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fault::Fault;

/// What the sandbox has counted, since it was started or reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// V5 requests whose body arrived, whatever became of them.
    pub requests: u64,
    /// Of these, the ones whose body was no JSON object.
    pub unreadable: u64,
    /// V5 requests accepted.
    pub accepted: u64,
    /// Of these, the ones with `TypeId` 1: a code was generated and not sent.
    pub generated: u64,
    /// Phones that had a request.
    pub phones: u64,
    /// Phones accepted more than once.
    pub duplicates: u64,
    /// Faults drawn, by name; `none` for the requests that drew none.
    pub faults: BTreeMap<String, u64>,
    /// CheckCode calls.
    pub check_code_calls: u64,
    /// Balance calls.
    pub balance_calls: u64,
    /// Clients that followed a redirect, which would have carried the credentials along.
    pub redirects_followed: u64,
    /// Connections taken.
    pub connections: u64,
    /// Connections open now.
    pub open_connections: u64,
    /// V5 requests that have arrived and are not answered yet.
    pub in_progress: u64,
    /// The most there ever were at once.
    pub most_in_progress: u64,
    /// Of those in progress, the ones that hang or are held.
    pub held: u64,
    /// What the account has left, in VND.
    pub balance: u64,
}

impl Stats {
    pub(crate) fn count_fault(&mut self, fault: &Fault) {
        *self.faults.entry(fault.name().to_owned()).or_default() += 1;
    }
}

/// How many there are, and the most there ever were.
#[derive(Default)]
pub(crate) struct Gauge {
    pub(crate) now: u64,
    pub(crate) most: u64,
}

impl Gauge {
    pub(crate) fn enter(&mut self) {
        self.now += 1;
        self.most = self.most.max(self.now);
    }

    pub(crate) fn leave(&mut self) {
        self.now = self.now.saturating_sub(1);
    }
}
