//! What is told on standard error while jobs are sent: a bar on a terminal, else lines, or JSON.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{IsTerminal as _, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::broker::alarm;
use crate::commands::shell::say;

/// How often a line tells the progress, where there is no bar.
const EVERY: Duration = Duration::from_secs(10);

/// What is told.
#[derive(Debug)]
pub(super) enum Event<'a> {
    /// A line is no job.
    Refused { line: u64, why: &'a str },
    /// The broker takes no messages, for this reason; or it takes them again.
    Alarm(Option<&'a str>),
    /// So many are done.
    Progress { what: &'static str, done: u64, total: Option<u64>, took: Duration },
    /// The end.
    Ended(&'a Summary),
    /// The end before everything was done.
    Failed { why: &'a str, queued: Queued, repeat: Option<&'static str> },
}

/// How many jobs are on the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queued {
    /// So many are.
    pub(super) jobs: u64,
    /// More may be.
    pub(super) or_more: bool,
}

/// What happened to the jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// Jobs that are on the queue.
    pub(super) queued: u64,
    /// Lines that are not a job.
    pub(super) refused: u64,
    /// How many results came, by outcome. `None`: they were not waited for.
    pub(super) outcomes: Option<BTreeMap<String, u64>>,
}

impl Summary {
    /// How many jobs got no result in time.
    pub(super) fn missing(&self) -> u64 {
        self.outcomes.as_ref().map_or(0, |outcomes| self.queued.saturating_sub(outcomes.values().sum()))
    }

    /// Whether every line was queued and, if results were waited for, every job with a result was accepted.
    pub(super) fn is_accepted(&self) -> bool {
        self.refused == 0 && self.outcomes.as_ref().is_none_or(|outcomes| outcomes.keys().all(|key| key == "accepted"))
    }
}

/// Tells on standard error.
pub(super) struct Voice {
    is_json: bool,
    has_bar: bool,
    bar: ProgressBar,
    what: &'static str,
    total: Option<u64>,
    began: Instant,
    done: AtomicU64,
    /// Jobs that the broker has confirmed.
    queued: AtomicU64,
    /// Jobs that were given to the broker.
    published: AtomicU64,
}

impl Voice {
    /// `what` is counted, and there are `total` of it if that is known.
    pub(super) fn new(is_json: bool, what: &'static str, total: Option<u64>) -> Self {
        let has_bar = !is_json && stderr().is_terminal();
        let bar = if has_bar { bar(what, total) } else { ProgressBar::hidden() };
        let [done, queued, published] = [(); 3].map(|()| AtomicU64::default());
        Self { is_json, has_bar, bar, what, total, began: Instant::now(), done, queued, published }
    }

    pub(super) fn tell(&self, event: &Event<'_>) {
        let line = if self.is_json { as_json(event).to_string() } else { in_words(event) };
        self.bar.suspend(|| say(&line));
    }

    /// Does something to the terminal without the bar in its way.
    pub(super) fn beside_bar<T>(&self, what: impl FnOnce() -> T) -> T {
        self.bar.suspend(what)
    }

    /// One more is done.
    pub(super) fn one_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.bar.inc(1);
    }

    pub(super) fn one_published(&self) {
        self.published.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn one_queued(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    /// How many jobs the broker has confirmed, and whether it may have others.
    pub(super) fn queued(&self) -> Queued {
        let [queued, published] = [&self.queued, &self.published].map(|count| count.load(Ordering::Relaxed));
        Queued { jobs: queued, or_more: published > queued }
    }

    /// Tells the progress now and then, where there is no bar.
    pub(super) async fn tell_progress(&self) -> Infallible {
        loop {
            sleep(EVERY).await;
            if !self.has_bar {
                let (done, took) = (self.done.load(Ordering::Relaxed), self.began.elapsed());
                self.tell(&Event::Progress { what: self.what, done, total: self.total, took });
            }
        }
    }

    pub(super) fn end_bar(&self) {
        self.bar.finish_and_clear();
    }
}

fn bar(what: &'static str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{msg} {wide_bar} {pos}/{len} ({per_sec}, {eta} left)"),
        None => (ProgressBar::new_spinner(), "{msg} {spinner} {pos} ({per_sec})"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(what)
}

/// Jobs a second so far, and how long the rest takes at that rate.
fn rate(done: u64, total: Option<u64>, took: Duration) -> (f64, Option<Duration>) {
    let rate = done as f64 / took.as_secs_f64().max(0.001);
    let left = total.filter(|_| done > 0).map(|total| total.saturating_sub(done) as f64 / rate);
    (rate, left.map(|seconds| Duration::from_secs(seconds.ceil() as u64)))
}

fn in_words(event: &Event<'_>) -> String {
    match event {
        Event::Refused { line, why } => format!("not queued: line {line}: {why}"),
        Event::Alarm(blocked) => alarm::in_words(*blocked),
        Event::Progress { what, done, total, took } => {
            let (rate, left) = rate(*done, *total, *took);
            let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
            let left = left.map(|left| format!(", {} left", humantime::format_duration(left))).unwrap_or_default();
            format!("{done}{of} {what}, {rate:.0} a second{left}")
        }
        Event::Ended(summary) => ended_in_words(summary),
        Event::Failed { why, queued, repeat } => {
            let Queued { jobs, or_more } = queued;
            let at_least = if *or_more { "at least " } else { "" };
            let are = if *jobs == 1 { "job is" } else { "jobs are" };
            let repeat = repeat.map(|repeat| format!("\n{at_least}{jobs} {are} queued already. {repeat}"));
            format!("esms-otp-worker: {why}{}", repeat.unwrap_or_default())
        }
    }
}

fn ended_in_words(summary: &Summary) -> String {
    let outcomes: Vec<String> =
        summary.outcomes.iter().flatten().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    let (jobs, colon) = (if summary.queued == 1 { "job" } else { "jobs" }, if outcomes.is_empty() { "" } else { ": " });
    let missing = match summary.missing() {
        0 => String::new(),
        missing => {
            format!("\n{missing} without a result in time: is a worker running? They are still queued or being worked")
        }
    };
    let refused = match summary.refused {
        0 => String::new(),
        1 => "; 1 line is not queued".into(),
        refused => format!("; {refused} lines are not queued"),
    };
    format!("queued {} {jobs}{colon}{}{refused}{missing}", summary.queued, outcomes.join(", "))
}

fn as_json(event: &Event<'_>) -> Value {
    match event {
        Event::Refused { line, why } => json!({"Event": "refused", "Line": line, "Reason": why}),
        Event::Alarm(Some(reason)) => json!({"Event": "alarm", "Reason": reason}),
        Event::Alarm(None) => json!({"Event": "alarm_over"}),
        Event::Progress { what, done, total, took } => {
            let (rate, left) = rate(*done, *total, *took);
            json!({"Event": "progress", "Of": what, "Done": done, "Total": total, "PerSecond": rate.round(),
                "SecondsLeft": left.map(|left| left.as_secs())})
        }
        Event::Ended(summary) => json!({"Event": "ended", "Queued": summary.queued, "Refused": summary.refused,
            "Outcomes": summary.outcomes, "Missing": summary.missing()}),
        Event::Failed { why, queued, repeat } => {
            json!({"Event": "failed", "Reason": why, "Queued": queued.jobs, "OrMore": queued.or_more, "Hint": repeat})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waited(queued: u64, refused: u64, outcomes: &[(&str, u64)]) -> Summary {
        let outcomes = outcomes.iter().map(|(outcome, count)| ((*outcome).to_owned(), *count)).collect();
        Summary { queued, refused, outcomes: Some(outcomes) }
    }

    #[test]
    fn a_summary_knows_what_is_missing_and_what_was_not_accepted() {
        let queued = |refused| Summary { queued: 3, refused, outcomes: None };
        for (summary, missing, is_accepted) in [
            (queued(0), 0, true),
            (queued(1), 0, false),
            (waited(3, 0, &[("accepted", 3)]), 0, true),
            (waited(3, 0, &[("accepted", 1)]), 2, true),
            (waited(3, 0, &[]), 3, true),
            (waited(3, 0, &[("accepted", 2), ("rejected", 1)]), 0, false),
            (waited(3, 1, &[("accepted", 3)]), 0, false),
        ] {
            assert_eq!((summary.missing(), summary.is_accepted()), (missing, is_accepted), "{summary:?}");
        }
    }

    #[test]
    fn each_event_is_told_in_words_and_as_json() {
        let summary = waited(4, 0, &[("accepted", 2), ("failed", 1)]);
        let took = Duration::from_secs(10);
        for (event, words, json) in [
            (
                Event::Refused { line: 3, why: "Phone is missing" },
                "not queued: line 3: Phone is missing",
                r#"{"Event":"refused","Line":3,"Reason":"Phone is missing"}"#,
            ),
            (
                Event::Progress { what: "queued", done: 100, total: Some(1_000), took },
                "100 of 1000 queued, 10 a second, 1m 30s left",
                r#"{"Done":100,"Event":"progress","Of":"queued","PerSecond":10.0,"SecondsLeft":90,"Total":1000}"#,
            ),
            (
                Event::Progress { what: "queued", done: 0, total: None, took },
                "0 queued, 0 a second",
                r#"{"Done":0,"Event":"progress","Of":"queued","PerSecond":0.0,"SecondsLeft":null,"Total":null}"#,
            ),
            (
                Event::Ended(&summary),
                "queued 4 jobs: 2 accepted, 1 failed\n1 without a result in time: is a worker running? They are still queued or being worked",
                r#"{"Event":"ended","Missing":1,"Outcomes":{"accepted":2,"failed":1},"Queued":4,"Refused":0}"#,
            ),
            (
                Event::Failed { why: "interrupted", queued: Queued { jobs: 1, or_more: false }, repeat: Some("Go on") },
                "esms-otp-worker: interrupted\n1 job is queued already. Go on",
                r#"{"Event":"failed","Hint":"Go on","OrMore":false,"Queued":1,"Reason":"interrupted"}"#,
            ),
            (Event::Alarm(None), "the broker takes messages again", r#"{"Event":"alarm_over"}"#),
        ] {
            assert_eq!((in_words(&event).as_str(), as_json(&event).to_string().as_str()), (words, json));
        }
    }
}
