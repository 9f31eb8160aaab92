//! Named places between two steps. There a test can have the process killed, or make the code panic.
//!
//! These places work only with the feature `crash-points`. Tests and the fault campaign have it, and a release does
//! not.

#[cfg(all(feature = "crash-points", not(debug_assertions)))]
compile_error!("crash points are for tests: a release must not have them. Use make test or make chaos.");

/// A place between two steps of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The ledger has given the job to this worker.
    AfterClaim,
    /// The attempt is marked as under way. Its first byte is not written yet.
    AfterMarking,
    /// The attempt is over. Nothing is written about it yet.
    AfterCall,
    /// The job's ending is written. Nothing is published about it yet.
    BeforePublish,
    /// The result is confirmed. The job is not acknowledged yet.
    BeforeAcknowledge,
}

impl Point {
    /// Every point, in the order in which a job reaches them.
    pub const ALL: [Point; 5] =
        [Point::AfterClaim, Point::AfterMarking, Point::AfterCall, Point::BeforePublish, Point::BeforeAcknowledge];

    /// Its name in `CRASH_AT`.
    pub const fn name(self) -> &'static str {
        match self {
            Point::AfterClaim => "after-claim",
            Point::AfterMarking => "after-marking",
            Point::AfterCall => "after-call",
            Point::BeforePublish => "before-publish",
            Point::BeforeAcknowledge => "before-acknowledge",
        }
    }
}

/// Says that a job is at this point.
///
/// With `CRASH_AT=<name>:<n>` in the environment, the process is killed by SIGKILL when a job is here for the
/// n-th time. Nothing is flushed or closed, and nobody is told. With `PANIC_AT=<name>:<n>` the code panics
/// here instead. `PANIC_AT` may hold several of these, separated by commas.
#[cfg(feature = "crash-points")]
pub fn point(here: Point) {
    use std::sync::LazyLock;

    static CRASHES: LazyLock<Vec<enabled::Plan>> = LazyLock::new(|| enabled::plans("CRASH_AT"));
    static PANICS: LazyLock<Vec<enabled::Plan>> = LazyLock::new(|| enabled::plans("PANIC_AT"));
    if CRASHES.iter().any(|plan| plan.is_due(here)) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    // Ask every plan, so that each one counts this pass.
    let due = PANICS.iter().fold(false, |due, plan| plan.is_due(here) | due);
    assert!(!due, "a planned panic at {}", here.name());
}

/// Does nothing: this build has no crash points.
#[cfg(not(feature = "crash-points"))]
pub const fn point(_here: Point) {}

#[cfg(feature = "crash-points")]
mod enabled {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::Point;

    /// One place, and how many more passes it takes until something happens there.
    pub(super) struct Plan {
        name: String,
        left: AtomicI64,
    }

    impl Plan {
        /// Counts a pass of `here`. Returns whether the planned pass is reached.
        pub(super) fn is_due(&self, here: Point) -> bool {
            self.name == here.name() && self.left.fetch_sub(1, Ordering::SeqCst) == 1
        }
    }

    /// The plans in an environment variable.
    pub(super) fn plans(variable: &str) -> Vec<Plan> {
        let given = std::env::var(variable).unwrap_or_default();
        let plan = |text: &str| {
            let (name, times) = text.split_once(':').unwrap_or((text, "1"));
            Plan { name: name.to_owned(), left: times.parse().unwrap_or(1).into() }
        };
        given.split(',').filter(|text| !text.is_empty()).map(plan).collect()
    }
}
