//! What is told of the store: the count of steps that failed, and when it goes away and comes back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use tracing::{debug, info, warn};

use super::settings::OnLedgerError;
use super::store::StoreError;
use crate::telemetry::metrics::Metrics;

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    on_error: OnLedgerError,
    trouble: Mutex<Trouble>,
    /// When a step failed last.
    failed: Mutex<Option<Instant>>,
    metrics: Arc<Metrics>,
}

/// How the store was when it was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It answers.
    None,
    /// It does not answer, and a person must do this, if anything.
    Away(Option<&'static str>),
}

impl Watch {
    /// Nothing was said yet.
    pub(super) fn new(on_error: OnLedgerError, metrics: Arc<Metrics>) -> Self {
        Self { on_error, trouble: Mutex::new(Trouble::None), failed: Mutex::default(), metrics }
    }

    /// Counts a step that failed, and logs when the store goes away and comes back.
    pub(super) fn observe<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        match &answer {
            Ok(_) => {
                if self.now(Trouble::None) != Trouble::None {
                    info!("the ledger answers again");
                }
            }
            Err(error @ StoreError::Unreadable(_)) => {
                self.metrics.ledger_error();
                warn!(%error, hint = error.hint(), "the ledger's record of a job cannot be read");
            }
            Err(error @ (StoreError::Unreachable(_) | StoreError::Refused { .. } | StoreError::NotOurs(_))) => {
                self.metrics.ledger_error();
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                self.tell(error);
            }
        }
        answer
    }

    /// Whether a step failed within this time.
    pub(super) fn failed_within(&self, time: Duration) -> bool {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() < time)
    }

    /// Said once, and again where a person must do something else.
    fn tell(&self, error: &StoreError) {
        let trouble = Trouble::Away(error.hint());
        if self.now(trouble) == trouble {
            debug!(%error, "the ledger does not answer");
            return;
        }
        let meanwhile = self.on_error.hint();
        let hint = error.hint().map_or(meanwhile.to_owned(), |person| format!("{person}; {meanwhile}"));
        warn!(%error, hint, "the ledger does not answer");
    }

    /// Notes how the store is now. Returns how it was.
    pub(super) fn now(&self, trouble: Trouble) -> Trouble {
        std::mem::replace(&mut self.trouble.lock().unwrap_or_else(PoisonError::into_inner), trouble)
    }
}

/// Whether the store may take the step later. A record that cannot be read is not waited for: only a person can
/// mend it.
pub(super) const fn mends(error: &StoreError) -> bool {
    match error {
        StoreError::Unreachable(_) | StoreError::Refused { .. } | StoreError::NotOurs(_) => true,
        StoreError::Unreadable(_) => false,
    }
}

/// Only that the store is another's keeps a worker from starting.
pub(super) fn not_ours(opened: Result<(), StoreError>) -> Result<(), StoreError> {
    match opened {
        Err(error @ StoreError::NotOurs(_)) => Err(error),
        Ok(()) | Err(StoreError::Unreachable(_) | StoreError::Refused { .. } | StoreError::Unreadable(_)) => Ok(()),
    }
}
