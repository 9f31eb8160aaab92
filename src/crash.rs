//! Named places between two steps at which a test has the process killed, or the code panic.
//!
//! Only with the feature `crash-points`, which tests and the fault campaign have and a release has not.

#[cfg(all(feature = "crash-points", not(debug_assertions)))]
compile_error!("crash points are for tests: a release must not have them. Use make test or make chaos.");

/// A place between two steps of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The ledger has given the job to this worker.
    AfterClaim,
    /// The attempt is marked as under way, and its first byte is not written.
    AfterMarking,
    /// The attempt is over, and nothing is written of it.
    AfterCall,
    /// The job's ending is written, and nothing is published of it.
    BeforePublish,
    /// The result is confirmed, and the job not acknowledged.
    BeforeAcknowledge,
}

impl Point {
    /// Every point, in the order in which a job comes by.
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

/// A job is at this point.
///
/// With `CRASH_AT=<name>:<n>` in the environment the process is killed when a job is here for the n-th time,
/// as by SIGKILL: nothing is flushed, closed or told. With `PANIC_AT=<name>:<n>`, or several of these,
/// comma-separated, the code panics here instead.
#[cfg(feature = "crash-points")]
pub fn point(here: Point) {
    use std::sync::LazyLock;

    static CRASHES: LazyLock<Vec<enabled::Plan>> = LazyLock::new(|| enabled::plans("CRASH_AT"));
    static PANICS: LazyLock<Vec<enabled::Plan>> = LazyLock::new(|| enabled::plans("PANIC_AT"));
    if CRASHES.iter().any(|plan| plan.is_due(here)) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    // Every plan counts, so that no place is passed over.
    let due = PANICS.iter().fold(false, |due, plan| plan.is_due(here) | due);
    assert!(!due, "a planned panic at {}", here.name());
}

/// Nothing: this build has no crash points.
#[cfg(not(feature = "crash-points"))]
pub const fn point(_here: Point) {}

#[cfg(feature = "crash-points")]
mod enabled {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::Point;

    /// One place, and how often it is still passed before something happens there.
    pub(super) struct Plan {
        name: String,
        left: AtomicI64,
    }

    impl Plan {
        /// A job is `here`: whether this is the time.
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
