//! Which attempts nobody alive could know of: those of a worker that ended while it could not reach the ledger.
//!
//! With `OTP_LEDGER_ON_ERROR=send` a worker also sends while the ledger is away, and tells the ledger afterwards. If it
//! ends before that, its attempts are written nowhere. The workers' logs prove it: the attempt's line, and after
//! it no line that says that the ledger answers again.

use std::collections::HashSet;

use serde_json::Value;

/// What a worker logs when the ledger is there again.
const AGAIN: &str = "the ledger answers again";
/// What it logs when it has told the ledger everything.
const TOLD: &str = "the ledger was told the results that it had not taken";

/// Reads the log of one seat: of several workers, one after another.
#[derive(Debug, Default)]
pub(crate) struct Witnesses {
    /// Jobs that a worker attempted which ended without the ledger.
    lost: HashSet<String>,
    /// The jobs that the present worker attempted since the ledger was last told everything.
    attempted: HashSet<String>,
    /// Of these, those that it attempted while the ledger was away, and has not told it of.
    owed: HashSet<String>,
    is_away: bool,
}

impl Witnesses {
    /// One line of the log.
    pub(crate) fn note(&mut self, line: &str) {
        if let Some(id) = attempted(line) {
            if self.is_away {
                self.owed.insert(id.clone());
            }
            self.attempted.insert(id);
        } else if line.contains("\"message\":\"the ledger does not answer\"") && line.contains("WARN") {
            self.is_away = true;
        } else if line.contains(AGAIN) {
            self.is_away = false;
        } else if line.contains(TOLD) {
            self.is_away = false;
            self.owed.clear();
        } else if line.contains("\"message\":\"starting\"") {
            self.worker_ended();
        }
    }

    /// The worker of this seat has ended, and another takes its place.
    pub(crate) fn worker_ended(&mut self) {
        if self.is_away {
            self.lost.extend(self.attempted.drain());
        }
        self.lost.extend(self.owed.drain());
        self.attempted.clear();
        self.is_away = false;
    }

    /// The jobs whose attempts nobody alive can know of.
    pub(crate) fn into_lost(self) -> HashSet<String> {
        self.lost
    }
}

/// The job of which this line says that an attempt begins. A worker that is killed a moment later may not have written
/// it: then eSMS has one call more of the job than the logs have lines.
pub(crate) fn attempted(line: &str) -> Option<String> {
    if !line.contains("\"message\":\"attempt begins\"") {
        return None;
    }
    let line: Value = serde_json::from_str(line).ok()?;
    line["job_id"].as_str().map(str::to_owned)
}
