//! Named places between two steps at which a test has the process killed.
//!
//! Only with the feature `crash-points`, which tests and the fault campaign have and a release has not.

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

/// A job is at this point. With `CRASH_AT=<name>:<n>` in the environment the process is killed when
/// a job is here for the n-th time, as by SIGKILL: nothing is flushed, closed or told.
#[cfg(feature = "crash-points")]
pub fn point(here: Point) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering};

    static AT: OnceLock<Option<(String, AtomicI64)>> = OnceLock::new();
    let at = AT.get_or_init(|| {
        let at = std::env::var("CRASH_AT").ok()?;
        let (name, times) = at.split_once(':').unwrap_or((&at, "1"));
        Some((name.to_owned(), times.parse().unwrap_or(1).into()))
    });
    let Some((name, left)) = at else { return };
    if name == here.name() && left.fetch_sub(1, Ordering::SeqCst) == 1 {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Nothing: this build has no crash points.
#[cfg(not(feature = "crash-points"))]
pub fn point(_here: Point) {}
