//! Prints the results of the run.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use esms_otp_worker::esms::codes;
use esms_otp_worker::job::result::Outcome;

use crate::audit::{Check, cases, moved};
use crate::run::{Heard, Seen};
use crate::support::metrics::Scrape;
use crate::support::terminal::{bar, bold, dim, green, red, say, seconds, thousands, yellow};

const WIDTH: usize = 80;

/// The meaning of each class of an attempt, in the words of docs/flow.md.
const CLASSES: [(&str, &str); 4] = [
    ("answered", "eSMS answered with a CodeResult"),
    ("not_sent", "429 or 503: nothing was sent, tried again"),
    ("ambiguous", "may have reached eSMS: tried again, and the result says so"),
    ("refused", "another 4xx: given up"),
];

/// Prints the whole summary, except the audit.
pub(crate) fn print(seen: &Seen) {
    outcomes(seen);
    code_results(seen);
    attempts(seen);
    otps(seen);
    latency(seen);
    samples(seen);
    metrics(seen);
}

fn heading(text: &str, note: &str) {
    say(format!("\n{}{}", bold(text), dim(note)));
}

fn counted<T: Ord>(items: impl Iterator<Item = T>) -> BTreeMap<T, u64> {
    items.fold(BTreeMap::new(), |mut counts, item| {
        *counts.entry(item).or_default() += 1;
        counts
    })
}

fn outcomes(seen: &Seen) {
    heading("Outcomes", "");
    let counts = counted(seen.heard.iter().map(|heard| heard.event.outcome.as_str()));
    for outcome in Outcome::ALL.map(Outcome::as_str) {
        let count = counts.get(outcome).copied().unwrap_or_default();
        let line = bar(count, seen.heard.len() as u64, 50);
        let line = if outcome == "accepted" { green(&line) } else { yellow(&line) };
        say(format!("  {outcome:<10} {:>6}  {line}", thousands(count)).trim_end());
    }
}

fn code_results(seen: &Seen) {
    heading("CodeResults", ", eSMS's last word on each job");
    let counts = counted(seen.heard.iter().map(|heard| heard.event.code_result.as_deref()));
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| Reverse(*count));
    for (code, count) in counts {
        let meaning = code.map_or("it gave no usable answer", |code| codes::documented(code).meaning);
        say(format!("  {:<10} {:>6}  {meaning}", code.unwrap_or("none"), thousands(count)));
    }
}

fn attempts(seen: &Seen) {
    let all = moved(seen, "otp_attempts_total", &[]);
    let each = all as f64 / seen.heard.len().max(1) as f64;
    heading("Attempts", &format!(", {} in all, {each:.2} a job", thousands(all)));
    for (class, meaning) in CLASSES {
        let count = moved(seen, "otp_attempts_total", &[("class", class)]);
        say(format!("  {class:<10} {:>6}  {meaning}", thousands(count)));
    }
}

fn otps(seen: &Seen) {
    heading("OTPs", ", as eSMS counted them");
    let cases = cases(seen);
    let flagged = cases.iter().filter(|case| case.result.may_be_duplicate).count();
    let got = |accepted: u64| ["none", "one", "two", "three"].get(accepted as usize).copied().unwrap_or("more");
    for otps in ["none", "one", "two", "three", "more"] {
        let phones = seen.phones.iter().filter(|(_, story)| got(story.accepted) == otps).count();
        if phones > 0 {
            say(format!("  {otps:<10} {:>6}  phones", thousands(phones as u64)));
        }
    }
    say(format!("  {:<10} {:>6}  results say MayBeDuplicate", "", thousands(flagged as u64)));
}

fn latency(seen: &Seen) {
    heading("Latency", &format!("{:>43}{:>10}{:>10}{:>10}", "p50", "p90", "p99", "max"));
    let mut after: Vec<Duration> = seen.heard.iter().map(|heard| heard.after).collect();
    let mut took: Vec<Duration> = seen.logged.iter().map(|line| Duration::from_millis(line.took_ms)).collect();
    percentiles("from starting `send` to the result", &mut after);
    percentiles("from delivery to the end, by the log", &mut took);
    let last = after.last().copied().unwrap_or_default();
    let most = percentile(&after, 99);
    say(dim("  `send` queues all jobs at once: the first line is mostly waiting in the queue."));
    let rate = after.len() as f64 * 0.99 / most.as_secs_f64().max(0.001);
    heading("Throughput", "");
    say(format!("  {rate:.0} results a second up to p99; the last of all, retried, after {}", seconds(last)));
}

/// Sorts the durations and prints a line with their percentiles.
fn percentiles(what: &str, durations: &mut [Duration]) {
    durations.sort_unstable();
    let columns = [50, 90, 99, 100].map(|nth| format!("{:>10}", seconds(percentile(durations, nth))));
    say(format!("  {what:<38}{}", columns.concat()));
}

/// The nearest-rank percentile of sorted durations.
fn percentile(sorted: &[Duration], nth: usize) -> Duration {
    let rank = (sorted.len() * nth).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Prints one result of each kind, word for word. Only line breaks are added.
fn samples(seen: &Seen) {
    heading("Some results", ", as they are on the exchange");
    let kinds: [fn(&Heard) -> bool; 4] = [
        |heard| heard.event.outcome == "accepted" && heard.event.attempts == 1,
        |heard| heard.event.outcome == "accepted" && heard.event.may_be_duplicate,
        |heard| heard.event.outcome == "rejected",
        |heard| heard.event.outcome == "unknown",
    ];
    for heard in kinds.iter().filter_map(|kind| seen.heard.iter().find(|heard| kind(heard))) {
        for (number, line) in wrapped(&heard.text, WIDTH - 3).iter().enumerate() {
            say(format!("{}{line}", if number == 0 { "  " } else { "   " }));
        }
    }
}

/// Breaks JSON between fields. Breaks inside a field only when that field is longer than `width`.
fn wrapped(json: &str, width: usize) -> Vec<String> {
    let fields = json.replace(",\"", ",\n\"");
    let pieces = fields.lines().flat_map(|field| match field.chars().count() <= width {
        true => vec![field],
        false => field.split_inclusive(' ').collect(),
    });
    pieces.fold(vec![String::new()], |mut lines, piece| {
        match lines.last_mut() {
            Some(line) if line.chars().count() + piece.chars().count() <= width => line.push_str(piece),
            _ => lines.push(piece.to_owned()),
        }
        lines
    })
}

fn metrics(seen: &Seen) {
    heading("Metrics that moved", ", from the worker's /metrics before and after");
    let before: BTreeMap<_, _> = series(&seen.before).collect();
    for (name, after) in series(&seen.after) {
        let before = before.get(name).copied().unwrap_or_default();
        if before != after {
            say(format!("  {name:<58} {before:>8} → {after}"));
        }
    }
}

/// The counters and gauges. The histograms are left out, because the counters already say how many.
fn series(scrape: &Scrape) -> impl Iterator<Item = (&str, f64)> {
    let lines = scrape.text().lines().filter_map(|line| line.rsplit_once(' '));
    let told = |name: &str| name.starts_with("otp_") && !name.contains("_seconds");
    lines.filter(move |(name, _)| told(name)).filter_map(|(name, value)| Some((name, value.parse().ok()?)))
}

/// Prints the claims. Below a claim that does not hold, prints the findings against it.
pub(crate) fn audit(checks: &[Check]) {
    heading("Audit", ": what the worker says against what eSMS counted");
    for check in checks {
        let mark = if check.holds() { green("   ok") } else { red("WRONG") };
        say(format!("  {mark}  {}", check.claim));
        for against in check.against.iter().take(5) {
            say(format!("         {against}"));
        }
        if check.against.len() > 5 {
            say(format!("         … and {} more", check.against.len() - 5));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let sorted: Vec<_> = (1..=1_000).map(Duration::from_millis).collect();
        let millis = [50, 90, 99, 100].map(|nth| percentile(&sorted, nth).as_millis());
        assert_eq!(millis, [500, 900, 990, 1_000]);
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn wrapped_json_is_the_same_json() {
        let json = r#"{"JobId":"5f0c","Outcome":"accepted","Reason":"as long as a reason is","Attempts":1}"#;
        let lines = wrapped(json, 30);
        assert_eq!(lines.concat(), json);
        assert!(lines.len() > 1 && lines.iter().all(|line| line.len() <= 30), "{lines:?}");
    }
}
