//! Stopping: one type that every part gets. Its phases say when each kind of work ends.
//!
//! | phase | begins with | from then on |
//! |---|---|---|
//! | working | the start | jobs are taken and worked |
//! | draining | the first signal | nothing new begins; calls under way end, and their results are published |
//! | aborting | the second signal, or the end of `OTP_SHUTDOWN_GRACE` | unfinished jobs are cut off; the broker redelivers them |
//! | closing | the end of the last job | the services that the jobs needed end: connections for results, the HTTP port, the exporter of traces |
//!
//! Phases only go forward. Each phase includes the phases before it.

use tokio_util::sync::CancellationToken;

/// The phase that stopping has reached. All copies share the same state.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    draining: CancellationToken,
    aborting: CancellationToken,
    closing: CancellationToken,
}

impl Stop {
    /// Cancelled from the phase `draining` on.
    pub const fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Cancelled from the phase `aborting` on.
    pub const fn aborting(&self) -> &CancellationToken {
        &self.aborting
    }

    /// Cancelled from the phase `closing` on.
    pub const fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Begins the phase `draining`.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Begins the phase `aborting`.
    pub fn abort(&self) {
        self.drain();
        self.aborting.cancel();
    }

    /// Begins the phase `closing`.
    pub fn close(&self) {
        self.abort();
        self.closing.cancel();
    }

    /// Handles one signal: the first begins draining, the next one aborts.
    pub fn signalled(&self) {
        if self.draining.is_cancelled() { self.abort() } else { self.drain() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phases(stop: &Stop) -> [bool; 3] {
        [stop.draining(), stop.aborting(), stop.closing()].map(CancellationToken::is_cancelled)
    }

    #[test]
    fn each_phase_includes_those_before_it() {
        for (begin, reached) in [
            (Stop::drain as fn(&Stop), [true, false, false]),
            (Stop::abort, [true, true, false]),
            (Stop::close, [true, true, true]),
        ] {
            let stop = Stop::default();
            assert_eq!(phases(&stop), [false; 3]);
            begin(&stop);
            assert_eq!(phases(&stop), reached);
            stop.drain();
            assert_eq!(phases(&stop), reached, "a phase never goes back");
        }
    }

    #[test]
    fn the_first_signal_drains_and_the_next_ones_abort() {
        let stop = Stop::default();
        let copy = stop.clone();
        for reached in [[true, false, false], [true, true, false], [true, true, false]] {
            stop.signalled();
            assert_eq!(phases(&copy), reached);
        }
    }
}
