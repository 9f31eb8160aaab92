//! Prints what is known about a campaign.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::audit::{CLAIMS, Case, Violation};
use crate::campaign::{Finding, LEFT, ORDER, SETTLED};
use crate::limits::{COUNTED, WITHIN};
use crate::stage::Stage;
use crate::support::terminal::{bold, dim, green, red, say, seconds, thousands};

/// How many violations of one claim are shown.
const SHOWN: usize = 5;

pub(crate) fn print(stage: &Stage, finding: &Finding) {
    heading("Faults injected");
    lines(stage.journal.counts());
    heading("What eSMS did with requests");
    lines(stage.sandbox.stats().faults);
    heading("Jobs");
    jobs(finding);
    heading("Outcomes");
    outcomes(&finding.cases);
    heading("Sends and results");
    sends(stage, finding);
    heading("Workers, by their logs");
    lines(finding.logs.iter().map(|(what, count)| ((*what).to_owned(), *count)));
    heading("Time");
    time(finding);
    heading("Audit");
    audit(&finding.violations);
}

fn heading(text: &str) {
    say(format!("\n{}", bold(text)));
}

fn lines(counts: impl IntoIterator<Item = (String, u64)>) {
    for (what, count) in counts {
        say(format!("  {what:<52} {:>9}", thousands(count)));
    }
}

fn line(what: &str, count: usize) {
    lines([(what.to_owned(), count as u64)]);
}

fn count(cases: &[Case], so: impl Fn(&Case) -> bool) -> usize {
    cases.iter().filter(|case| so(case)).count()
}

fn jobs(finding: &Finding) {
    let cases = &finding.cases;
    line("published and confirmed", count(cases, |case| case.owed));
    line("published, never confirmed: owed no result", count(cases, |case| !case.owed));
    line("published twice at once", count(cases, |case| case.job.copies > 1));
    line("that cannot be understood", count(cases, |case| !case.job.valid));
    line("over the broker's delivery limit", count(cases, |case| case.job.valid && !case.dead.is_empty()));
}

/// Counts each job by its first result.
fn outcomes(cases: &[Case]) {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for result in cases.iter().filter_map(|case| case.results.first()) {
        *counts.entry(&result.outcome).or_default() += 1;
    }
    lines(counts.into_iter().map(|(outcome, count)| (outcome.to_owned(), count)));
}

fn sends(stage: &Stage, finding: &Finding) {
    let cases = &finding.cases;
    let stats = stage.sandbox.stats();
    line("requests to eSMS", stats.requests as usize);
    line("of these, taken by eSMS: sends", stats.accepted as usize);
    line("jobs sent more than once", count(cases, |case| case.sends > 1));
    line("of these, told by MayBeDuplicate", count(cases, |case| case.sends > 1 && case.is_flagged()));
    line("jobs whose result says MayBeDuplicate", count(cases, Case::is_flagged));
    line("results heard", cases.iter().map(|case| case.results.len()).sum());
    line("jobs whose result was published more than once", count(cases, |case| case.results.len() > 1));
    line("jobs with results that differ, saying why", count(cases, |case| case.essences().len() > 1));
    line("sent twice, and the witness died without the ledger", count(cases, Case::is_silent_for_want_of_a_witness));
    line("sent unseen, and said to have expired in the queue", count(cases, Case::is_sent_and_dropped));
}

fn time(finding: &Finding) {
    let told = |what: &str, time: Duration| say(format!("  {what:<52} {:>9}", seconds(time)));
    told("breaking things", finding.broken);
    told("until all was settled after that", finding.settling);
    let rate = finding.cases.len() as f64 / (finding.broken + finding.settling).as_secs_f64().max(0.001);
    say(format!("  {:<52} {rate:>9.1}", "jobs a second"));
}

fn audit(violations: &[Violation]) {
    for claim in CLAIMS.into_iter().chain([WITHIN, COUNTED, SETTLED, LEFT, ORDER]) {
        let against: Vec<_> = violations.iter().filter(|violation| violation.claim == claim).collect();
        let mark = if against.is_empty() { green("   ok") } else { red("WRONG") };
        say(format!("  {mark}  {claim}"));
        for violation in against.iter().take(SHOWN) {
            say(format!("         {} {}", violation.id.as_deref().unwrap_or_default(), violation.what));
        }
        if against.len() > SHOWN {
            say(dim(&format!("         … and {} more", against.len() - SHOWN)));
        }
    }
}
