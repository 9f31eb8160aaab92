//! Who is compared.

use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::Failed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// The loop that does nothing but the work.
    Bare,
    /// The same with hyper-util in place of reqwest.
    BareHyper,
    /// The worker with its ledger in memory.
    Worker,
    /// The worker with its ledger in Redis.
    WorkerRedis,
    /// The work in JavaScript.
    Node,
    /// The work in Python.
    FastStream,
}

impl Contender {
    pub(crate) const ALL: [Self; 6] =
        [Self::Bare, Self::BareHyper, Self::Worker, Self::WorkerRedis, Self::Node, Self::FastStream];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::BareHyper => "bare-hyper",
            Self::Worker => "worker",
            Self::WorkerRedis => "worker-redis",
            Self::Node => "node",
            Self::FastStream => "faststream",
        }
    }

    /// How many jobs it is given where others are given `jobs`. A run of a slow one would take too long.
    pub(crate) const fn share(self, jobs: usize) -> usize {
        match self {
            Self::FastStream => jobs / 4,
            _ => jobs,
        }
    }
}

impl Serialize for Contender {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl FromStr for Contender {
    type Err = Failed;

    fn from_str(name: &str) -> Result<Self, Failed> {
        let found = Self::ALL.into_iter().find(|contender| contender.name() == name);
        found.ok_or_else(|| format!("nobody is called {name}").into())
    }
}
