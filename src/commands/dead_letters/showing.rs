//! `dead-letters show`: one letter in full words.

use std::time::SystemTime;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, ShortString};
use tokio_util::sync::CancellationToken;

use super::error::Failed;
use super::fate::{Fate, Known, Wanted, fate};
use super::ledger::Ledger;
use super::letter::{Letter, Rules, returned};
use super::listing::shown_age;
use super::masking;
use super::queue::Queue;
use super::selection::Selection;
use super::words::times;
use crate::broker::settings::BrokerSettings;
use crate::commands::harmless::harmless;
use crate::job::phone::without_numbers;
use crate::job::request::logged_id;
use crate::ledger::settings::StoreSettings;

/// The letters with this id, in words. A job may have become a dead letter more than once.
pub(super) async fn show(
    broker: &BrokerSettings,
    store: StoreSettings,
    id: &str,
    rules: &Rules,
    stop: CancellationToken,
) -> Result<Vec<String>, Failed> {
    let mut queue = Queue::open(broker, u32::MAX, stop).await?;
    let shown = look(&mut queue, store, id, rules).await;
    let ended = queue.end(broker).await;
    let shown = shown?;
    ended?;
    Ok(shown)
}

async fn look(queue: &mut Queue, store: StoreSettings, id: &str, rules: &Rules) -> Result<Vec<String>, Failed> {
    let ledger = Ledger::open(store, queue.cluster.clone()).await;
    let (mut selection, now, mut lines) = (Selection::of_id(id), SystemTime::now(), Vec::new());
    while let Some((place, delivery)) = queue.next().await? {
        let letter = Letter::of(delivery, rules);
        if selection.takes(&letter, now) {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            lines.extend(about(&letter, now));
            lines.extend(what_requeue_does(&letter, &ledger).await);
        }
        queue.keep(place, letter);
    }
    Ok(lines)
}

fn line(about: &str, what: &str) -> String {
    format!("{about:<14} {what}")
}

/// What the letter is.
fn about(letter: &Letter, now: SystemTime) -> Vec<String> {
    let derived = if letter.is_named { "" } else { " (derived: it has no message_id)" };
    let mut lines =
        vec![line("job", &format!("{}{derived}", letter.shown_id())), line("reason", &letter.shown_reason())];
    if let Err(why) = &letter.job {
        let why = harmless(&without_numbers(why));
        if why != letter.shown_reason() {
            lines.push(line("still wrong", &why));
        }
    }
    lines.push(line("phone", letter.shown_phone().as_deref().unwrap_or("-")));
    let since = letter
        .since
        .zip(letter.age(now))
        .map(|(since, age)| format!("{} ({})", shown_age(age), humantime::format_rfc3339_seconds(since)));
    lines.push(line("age", since.as_deref().unwrap_or("-")));
    lines.push(line("returned", &times(returned(&letter.properties))));
    lines.extend(properties(&letter.properties));
    lines.extend(headers(&letter.properties));
    lines.push(line("body", &format!("{} bytes, with numbers masked", letter.body.len())));
    lines.extend(masking::lines(&letter.body).into_iter().map(|line| format!("    {line}")));
    lines
}

fn properties(given: &BasicProperties) -> Vec<String> {
    let text = |text: &Option<ShortString>| text.as_ref().map(|text| text.as_str().to_owned());
    let said = [
        ("correlation_id", text(given.correlation_id())),
        ("reply_to", text(given.reply_to())),
        ("timestamp", given.timestamp().map(|seconds| seconds.to_string())),
        ("expiration", text(given.expiration())),
        ("type", text(given.kind())),
        ("content_type", text(given.content_type())),
        ("content_enc.", text(given.content_encoding())),
        ("app_id", text(given.app_id())),
        ("user_id", text(given.user_id())),
    ];
    let shown = said.into_iter().filter_map(|(name, said)| said.map(|said| (name, said)));
    shown.map(|(name, said)| line(name, &of_text(name, &said))).collect()
}

/// A text that may hold a phone number.
fn without_any_number(text: &str) -> String {
    harmless(&without_numbers(text))
}

fn headers(given: &BasicProperties) -> Vec<String> {
    let headers = given.headers().iter().flat_map(|headers| headers.inner());
    headers
        .map(|(name, value)| {
            line("header", &format!("{}: {}", without_any_number(name.as_str()), of_header(name.as_str(), value)))
        })
        .collect()
}

fn of_header(name: &str, value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => of_text(name, &String::from_utf8_lossy(text.as_bytes())),
        AMQPValue::LongLongInt(number) => of_text(name, &number.to_string()),
        AMQPValue::LongInt(number) => of_text(name, &number.to_string()),
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) => "(a list)".into(),
        _ => "(a value of another kind)".into(),
    }
}

/// A value, with numbers masked unless it is what its name says: a time, or a trace.
fn of_text(name: &str, text: &str) -> String {
    let is_itself = match name {
        "timestamp" => text.parse().is_ok_and(|seconds: u64| (1_000_000_000..10_000_000_000).contains(&seconds)),
        "timestamp_in_ms" => text.parse().is_ok_and(|ms: u64| (1_000_000_000_000..10_000_000_000_000).contains(&ms)),
        // A number of Vietnam begins with 0, or is too large.
        "expiration" | "x-expiration" => !text.starts_with('0') && text.parse::<u32>().is_ok(),
        "traceparent" => is_traceparent(text),
        _ => false,
    };
    if is_itself { text.to_owned() } else { without_any_number(text) }
}

fn is_traceparent(text: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.split('-').map(str::len).eq([2, 32, 16, 2]) && text.split('-').all(is_hex)
}

/// What becomes of it if it is requeued, without flags and with each that changes it.
async fn what_requeue_does(letter: &Letter, ledger: &Result<Ledger, Failed>) -> Vec<String> {
    let known = match ledger {
        Ok(ledger) => ledger.of(&[letter]).await.map(|known| known.first().copied().unwrap_or(Known::NotAsked)),
        Err(error) => Err(Failed::Ledger(error.to_string())),
    };
    let known = match known {
        Ok(known) => known,
        Err(error) => {
            let said = error.to_string();
            return vec![line("requeue", &format!("cannot be told: {}", said.lines().next().unwrap_or_default()))];
        }
    };
    words(letter, known)
}

fn words(letter: &Letter, known: Known) -> Vec<String> {
    let with = |is_fresh, is_sent_again| fate(letter, known, Wanted { is_fresh, is_sent_again });
    let plain = with(false, false);
    let mut lines = vec![line("requeue", &of_fate(&plain, letter))];
    for (flags, fate) in
        [("--fresh", with(true, false)), ("--new-id", with(false, true)), ("--fresh --new-id", with(true, true))]
    {
        // What one flag does already is not said again of both.
        if fate != plain && !lines.iter().any(|line| line.ends_with(&of_fate(&fate, letter))) {
            lines.push(line("", &format!("with {flags}: {}", of_fate(&fate, letter))));
        }
    }
    lines
}

fn of_fate(fate: &Fate, letter: &Letter) -> String {
    match fate {
        Fate::Sent => "sends it: the ledger knows nothing of it".into(),
        Fate::TriedAnew(outcome) => format!("tries it anew: it ended {outcome}, and nothing was sent"),
        Fate::SentAgain => "sends it, and its person may get a second OTP".into(),
        Fate::NewId(id) => {
            let id = harmless(&logged_id(id, letter.job.as_ref().ok()));
            format!("sends it under the id {id}, and its person may get a second OTP")
        }
        Fate::Answered(outcome) => format!("gives its recorded result again: {outcome}. Nothing is sent"),
        Fate::GoesOn => "hands it to a worker, which goes on with it: it has been begun".into(),
        Fate::Expired => "lets it end expired: its deadline has passed, and nothing is sent".into(),
        Fate::NotTold => "sends it, unless the worker that takes it remembers it (the ledger is memory:)".into(),
        Fate::Stays(why) => format!("leaves it here: {}", harmless(&without_numbers(why))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_a_time_or_a_trace_is_shown_whole() {
        for (name, text, is_whole) in [
            ("timestamp", "1795703487", true),
            ("timestamp", "901888484", false),
            ("timestamp_in_ms", "1795703487123", true),
            ("timestamp_in_ms", "84901888484", false),
            ("expiration", "20000", true),
            ("x-expiration", "86400000", true),
            ("expiration", "0901888484", false),
            ("expiration", "84901888484", false),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true),
            ("traceparent", "0901888484", false),
            ("x-other", "0901888484", false),
        ] {
            let shown = of_text(name, text);
            assert_eq!((shown == text, shown.contains('*')), (is_whole, !is_whole), "{name}: {shown}");
        }
    }
}
