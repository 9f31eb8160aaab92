//! The sandbox's counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fault::Fault;

/// What the sandbox has counted since its start or its last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// V5 requests whose body arrived, accepted or not.
    pub requests: u64,
    /// V5 requests whose body was not a JSON object, or not sent as `application/json`.
    pub unreadable: u64,
    /// V5 requests accepted.
    pub accepted: u64,
    /// Accepted V5 requests with `TypeId` 1: a code was generated and not sent.
    pub generated: u64,
    /// Phones that had a request.
    pub phones: u64,
    /// Phones with more than one accepted request.
    pub duplicates: u64,
    /// Faults drawn, by name; `none` for the requests that drew none.
    pub faults: BTreeMap<String, u64>,
    /// CheckCode calls.
    pub check_code_calls: u64,
    /// Balance calls.
    pub balance_calls: u64,
    /// Requests that followed a redirect. A client must not do this: its credentials could go along.
    pub redirects_followed: u64,
    /// Connections that were accepted.
    pub connections: u64,
    /// Connections open now.
    pub open_connections: u64,
    /// V5 requests that have arrived and are not answered yet.
    pub in_progress: u64,
    /// The highest `in_progress` there was.
    pub most_in_progress: u64,
    /// V5 requests in progress that hang or are held.
    pub held: u64,
    /// The account's balance, in VND.
    pub balance: u64,
}

impl Stats {
    pub(crate) fn count_fault(&mut self, fault: &Fault) {
        *self.faults.entry(fault.name().to_owned()).or_default() += 1;
    }
}

/// The current number, and the highest number there was.
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
