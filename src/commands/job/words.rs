//! One job's story, in words and as JSON. Pure.

use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::commands::harmless::harmless;
use crate::job::progress::Progress;
use crate::job::request::logged_id;
use crate::job::result::{Outcome, ResultEvent};
use crate::job::state::State;
use crate::ledger::records::{Held, Record, Stage};

/// An id as people are shown it.
pub(super) fn shown(id: &str) -> String {
    harmless(&logged_id(id, None))
}

/// What is told of a result, beside its outcome.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Told {
    code_result: Option<String>,
    #[serde(rename = "SMSID")]
    sms_id: Option<String>,
    error_message: Option<String>,
    reason: Option<String>,
    retry_after: Option<u64>,
    completed_at: String,
}

impl Told {
    fn of(event: &ResultEvent) -> Self {
        serde_json::from_slice(&event.body).unwrap_or_default()
    }
}

/// The story, a line for each thing that is known.
pub(super) fn in_words(id: &str, record: &Record, now: SystemTime) -> Vec<String> {
    let mut lines = vec![line("job", &shown(id))];
    match &record.stage {
        Stage::Ended(event) => lines.extend(ended(event, now)),
        Stage::Held(held) => lines.extend(not_ended(held)),
    }
    if record.reruns > 0 {
        let times = if record.reruns == 1 { "once".into() } else { format!("{} times", record.reruns) };
        lines.push(line(
            "run",
            &format!("{}: tried anew {times}, because its producer published it again", record.reruns + 1),
        ));
    }
    lines.push(line("next", next(&record.stage)));
    let kept = record.kept_for.map_or("until somebody deletes the record".to_owned(), |kept| {
        format!("for {} more; then the ledger forgets it", seconds(kept))
    });
    lines.push(line("kept", &kept));
    lines
}

fn line(about: &str, what: &str) -> String {
    format!("{about:<10} {what}")
}

fn ended(event: &ResultEvent, now: SystemTime) -> Vec<String> {
    let told = Told::of(event);
    let mut lines = vec![line("state", &format!("ended: {} ({})", event.outcome.as_str(), meaning(event.outcome)))];
    lines.push(line("attempts", &event.attempts.to_string()));
    lines.extend(answer(told.code_result.as_deref(), told.sms_id.as_deref(), told.error_message.as_deref()));
    lines.extend(told.reason.map(|reason| line("reason", &harmless(&reason))));
    lines.extend(
        told.retry_after.map(|after| line("retry", &format!("another try can succeed {after} s after the end"))),
    );
    if event.may_be_duplicate {
        lines.push(line("duplicate", "perhaps: an earlier attempt may have sent an OTP, too (MayBeDuplicate)"));
    }
    lines.push(line("ended", &format!("{}{}", harmless(&told.completed_at), ago(&told.completed_at, now))));
    lines
}

const fn meaning(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted => "eSMS took it",
        Outcome::Unknown => "an OTP may have gone out",
        Outcome::Rejected => "eSMS refused it",
        Outcome::Failed | Outcome::Expired | Outcome::Limited | Outcome::Invalid => "nothing was sent",
    }
}

fn answer(code: Option<&str>, sms_id: Option<&str>, message: Option<&str>) -> Option<String> {
    let said = [("CodeResult", code), ("SMSID", sms_id), ("ErrorMessage", message)];
    let said: Vec<String> =
        said.iter().filter_map(|(name, said)| said.map(|said| format!("{name} {}", harmless(said)))).collect();
    (!said.is_empty()).then(|| line("answer", &said.join(", ")))
}

fn ago(completed_at: &str, now: SystemTime) -> String {
    let since = humantime::parse_rfc3339(completed_at).ok().and_then(|at| now.duration_since(at).ok());
    since.map(|since| format!(", {} ago", seconds(since))).unwrap_or_default()
}

fn not_ended(held: &Held) -> Vec<String> {
    let Held { state, owner, lease, began, progress } = held;
    let mut lines = vec![line("state", &format!("{}: {}", state.as_str(), doing(*state, lease.is_some())))];
    let (worker, _) = owner.rsplit_once(':').unwrap_or((owner, ""));
    let has = if lease.is_some() { "has it" } else { "had it last" };
    lines.push(line("worker", &format!("{} {has}; its log says \"worker\":\"{0}\" at its start", harmless(worker))));
    lines.push(match lease {
        Some(left) => line("lease", &format!("for {} more, unless the worker renews it", seconds(*left))),
        None if *state == State::Released => line("lease", "none: the worker has given the job back"),
        None => line("lease", "over"),
    });
    let count = match progress.ambiguous_attempts {
        0 => String::new(),
        some => format!(", {some} of which may have sent an OTP without a usable answer"),
    };
    let last = began.map(|began| format!("; the last began {} ago", seconds(began))).unwrap_or_default();
    lines.push(line("attempts", &format!("{}{count}{last}", progress.attempts)));
    if let Some(said) = &progress.answer {
        lines.extend(answer(Some(&said.code), said.sms_id.as_deref(), said.error_message.as_deref()));
    }
    lines.extend(progress.trouble.as_ref().map(|trouble| line("trouble", &harmless(trouble))));
    if progress.panics > 0 {
        lines.push(line("panics", &progress.panics.to_string()));
    }
    lines
}

const fn doing(state: State, is_leased: bool) -> &'static str {
    match (state, is_leased) {
        (State::Sending, true) => "an attempt is under way",
        (State::Sending, false) => "an attempt was begun, and how it ended was not written down",
        (State::Waiting, true) => "the last attempt is over, and the next is waited for",
        (State::Waiting, false) => "the last attempt is over, and its worker made no other",
        (State::Released, _) => "a worker gave it back to the broker",
        (_, true) => "a worker has it, and no attempt is under way",
        (_, false) => "a worker had it, and began no attempt",
    }
}

/// What happens next, also to a producer's repeat.
fn next(stage: &Stage) -> &'static str {
    match stage {
        Stage::Ended(event) => match event.outcome {
            outcome if outcome.may_be_tried_anew() => {
                "nothing by itself. If its producer publishes it again, it is tried anew, since nothing was sent"
            }
            Outcome::Unknown => {
                "nothing by itself. If its producer publishes it again, this result is given again, and nothing is sent; dead-letters requeue --new-id sends it again, where it is on OTP_DEAD_LETTER_EXCHANGE"
            }
            _ => "nothing. If its producer publishes it again, this result is given again, and nothing is sent",
        },
        Stage::Held(held) => match (held.state, held.lease.is_some()) {
            (_, true) => {
                "its worker ends it, and publishes the result. Whoever has published it again by then gets the same; if that worker has died, another takes it over when the lease is over"
            }
            (State::Sending, false) => {
                "the broker delivers it again. The next worker takes the attempt for one that may have sent an OTP: OTP_ON_AMBIGUOUS decides"
            }
            (_, false) => "the broker delivers it again, and the next worker goes on with it",
        },
    }
}

/// In whole seconds, never too few. There are no days: 24h is easily compared with 23h 59m.
fn seconds(time: Duration) -> String {
    let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let parts = [(whole / 3_600, 'h'), (whole / 60 % 60, 'm'), (whole % 60, 's')];
    let said: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if said.is_empty() { "0s".into() } else { said.join(" ") }
}

/// Seconds for JSON, with three decimals at the most.
fn decimals(time: Duration) -> f64 {
    Duration::new(time.as_secs(), time.subsec_millis() * 1_000_000).as_secs_f64()
}

/// The story as one object.
pub(super) fn as_json(id: &str, record: &Record) -> Value {
    let mut story = Map::from_iter([("JobId".to_owned(), json!(logged_id(id, None)))]);
    let mut tell = |name: &str, value: Value| {
        if !value.is_null() {
            story.insert(name.to_owned(), value);
        }
    };
    match &record.stage {
        Stage::Ended(event) => {
            tell("State", json!(State::Done.as_str()));
            let mut result: Map<String, Value> = serde_json::from_slice(&event.body).unwrap_or_default();
            // It is the id once more, which may be a phone number.
            result.remove("JobId");
            tell("Result", Value::Object(result));
        }
        Stage::Held(Held { state, owner, lease, began, progress }) => {
            tell("State", json!(state.as_str()));
            tell("Worker", json!(owner.rsplit_once(':').map_or(owner.as_str(), |(worker, _)| worker)));
            tell("LeaseSeconds", json!(lease.map(decimals)));
            tell("LastAttemptSecondsAgo", json!(began.map(decimals)));
            for (name, value) in been_through(progress) {
                tell(name, value);
            }
        }
    }
    tell("Run", json!(record.reruns + 1));
    tell("KeptSeconds", json!(record.kept_for.map(decimals)));
    tell("Next", json!(next(&record.stage)));
    Value::Object(story)
}

fn been_through(progress: &Progress) -> [(&'static str, Value); 6] {
    [
        ("Attempts", json!(progress.attempts)),
        ("AmbiguousAttempts", json!(progress.ambiguous_attempts)),
        ("MayBeDuplicate", json!(progress.may_be_duplicate)),
        ("Panics", json!(progress.panics)),
        ("CodeResult", json!(progress.answer.as_ref().map(|said| &said.code))),
        ("Trouble", json!(progress.trouble)),
    ]
}

#[cfg(test)]
mod tests;
