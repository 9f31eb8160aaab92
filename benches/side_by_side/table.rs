//! What the tables on the terminal share.

use crate::contender::Contender;
use crate::stage::Stage;
use crate::support::terminal::say;

pub(crate) const SPREAD: &str = "the median round (least..most)";

/// The line of one who did not run.
pub(crate) fn not_run(stage: &Stage, contender: Contender) {
    let why = stage.why_away(contender).unwrap_or("no reason is known");
    say(format!("  {:<13} not run: {why}", contender.name()));
}
