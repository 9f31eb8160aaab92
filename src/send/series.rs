//! What one series of attempts of a job keeps from round to round.

use std::time::Duration;

use tokio::time::Instant;

use super::slots::Slot;
use crate::backoff::Waits;

/// See the module.
pub(super) struct Series<'a> {
    /// The slot of the first attempt.
    pub(super) slot: Option<Slot<'a>>,
    /// The waits between attempts.
    pub(super) waits: Waits,
    /// When no further attempt begins; known from the first attempt on.
    pub(super) give_up_at: Option<Instant>,
    /// Whether the job has let a turn go that was over.
    pub(super) let_go: bool,
}

impl Series<'_> {
    /// Whether no further attempt begins. That eSMS throttles other jobs, which held the call for so long, must not end
    /// this one.
    pub(super) fn is_over(&mut self, throttled_for: Duration) -> bool {
        self.give_up_at = self.give_up_at.map(|at| at + throttled_for);
        self.give_up_at.is_some_and(|at| Instant::now() > at)
    }
}
