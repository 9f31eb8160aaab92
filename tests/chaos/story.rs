//! Tells all that is known of one job, to help find out what went wrong with it.

use std::time::{Duration, SystemTime};

use crate::audit::{CLAIMS, Case};
use crate::campaign::Finding;
use crate::evidence::lines_about;
use crate::stage::Stage;
use crate::support::terminal::{bold, say};

/// For each broken claim, tells the story of the first job that breaks it.
pub(crate) fn tell(stage: &Stage, finding: &Finding) {
    for claim in CLAIMS {
        let against = finding.violations.iter().filter(|violation| violation.claim == claim);
        let mut jobs = against.filter_map(|violation| violation.id.as_deref());
        if let Some(id) = jobs.next() {
            tell_of(stage, finding, id);
        }
    }
}

fn tell_of(stage: &Stage, finding: &Finding, id: &str) {
    let Some(case) = finding.cases.iter().find(|case| case.job.id == id) else { return };
    say(format!("\n{}", bold(&format!("The story of {id}"))));
    say(format!("  {} bytes: {}", case.job.body.len(), case.job.body));
    let moments = events(stage, finding, case);
    let (Some(first), Some(last)) = (moments.first().map(|event| event.0), moments.last().map(|event| event.0)) else {
        return;
    };
    let around = Duration::from_secs(1);
    let faults = stage.journal.between(first - around, last + around);
    let faults = faults.into_iter().map(|entry| (entry.at, format!("{} ({})", entry.kind, entry.whom)));
    let mut all: Vec<_> = moments.into_iter().chain(faults).collect();
    all.sort();
    // A worker that waits logs the same line again and again.
    all.dedup_by(|one, other| one.1 == other.1);
    for (at, what) in all {
        say(format!("  {} {what}", humantime::format_rfc3339_millis(at)));
    }
    match &case.record {
        Some(record) => say(format!("  ledger: {} {}", record.state, record.result)),
        None => say("  ledger: nothing"),
    }
    case.dead.iter().for_each(|why| say(format!("  otp.dead: {why}")));
}

/// What happened to it, in order.
fn events(stage: &Stage, finding: &Finding, case: &Case) -> Vec<(SystemTime, String)> {
    let id = case.job.id.as_str();
    let tries = finding.tries.get(id).into_iter().flatten();
    let published = tries.map(|one| (one.at, format!("published, confirmed: {}", one.confirmed)));
    let calls = stage.sandbox.requests(&case.job.phone);
    let called = calls.into_iter().filter_map(|call| {
        let at = humantime::parse_rfc3339(&call.at).ok()?;
        Some((at, format!("eSMS: {}, taken: {}, CodeResult {:?}", call.fault, call.accepted, call.code_result)))
    });
    let told = finding.told.get(id).into_iter().flatten().map(|told| (told.at, format!("result {}", told.body)));
    let mut events: Vec<_> = published.chain(called).chain(told).chain(lines_about(stage, id)).collect();
    events.sort();
    events
}
