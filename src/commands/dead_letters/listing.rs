//! `dead-letters list`: which letters there are.

use std::io::{IsTerminal as _, stdout};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::error::Failed;
use super::letter::{Letter, Rules};
use super::queue::Queue;
use super::selection::Selection;
use super::words::{count, held_line};
use crate::broker::settings::BrokerSettings;
use crate::commands::harmless::{cut, harmless_json};
use crate::commands::shell::{Output, say};

/// How much of a reason a table shows, in characters.
const WIDEST_REASON: usize = 60;

/// What is shown, and how.
pub(super) struct Listing {
    pub(super) selection: Selection,
    pub(super) limit: u32,
    pub(super) is_json: bool,
}

/// A letter as it is listed.
struct Row {
    since: Option<SystemTime>,
    age: Option<Duration>,
    reason: String,
    id: String,
    /// For JSON, which shows nothing that is written out.
    plain_id: String,
    is_named: bool,
    phone: Option<String>,
    size: usize,
}

impl Row {
    fn of(letter: &Letter, now: SystemTime) -> Self {
        Self {
            since: letter.since,
            age: letter.age(now),
            reason: letter.shown_reason(),
            id: letter.shown_id(),
            plain_id: letter.logged_id(),
            is_named: letter.is_named,
            phone: letter.shown_phone(),
            size: letter.body.len(),
        }
    }

    /// The columns.
    fn cells(&self) -> [String; 5] {
        let age = self.age.map_or_else(|| "-".into(), shown_age);
        let phone = self.phone.clone().unwrap_or_else(|| "-".into());
        [age, self.reason.clone(), self.id.clone(), phone, self.size.to_string()]
    }

    fn json(&self) -> Value {
        json!({
            "JobId": self.plain_id,
            "HasMessageId": self.is_named,
            "Reason": self.reason,
            "AgeSeconds": self.age.map(|age| age.as_secs()),
            "Since": self.since.map(|since| humantime::format_rfc3339_seconds(since).to_string()),
            "Phone": self.phone,
            "Bytes": self.size,
        })
    }
}

/// The two largest units of an age.
pub(super) fn shown_age(age: Duration) -> String {
    let whole = humantime::format_duration(Duration::from_secs(age.as_secs())).to_string();
    whole.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Prints the letters.
pub(super) async fn list(broker: &BrokerSettings, listing: Listing, stop: CancellationToken) -> Result<(), Failed> {
    // Without a filter no more letters are taken than are shown.
    let most = if listing.selection.is_all() { listing.limit } else { u32::MAX };
    let mut queue = Queue::open(broker, most, stop).await?;
    let Listing { mut selection, limit, is_json } = listing;
    let looked = look(&mut queue, &mut selection, limit).await;
    let (there, taken) = (queue.there, queue.taken);
    let is_cut = looked.as_ref().is_ok_and(|rows| rows.len() >= limit as usize);
    let held = if is_cut { 0 } else { queue.held_by_others() };
    let ended = queue.end(broker).await;
    let mut rows = looked?;
    ended?;
    // The order in the queue says little: a letter that was looked at may have another place.
    rows.sort_by(|a, b| b.age.cmp(&a.age).then_with(|| a.id.cmp(&b.id)));
    print(&rows, is_json).await?;
    tell(&rows, there, taken + held, &broker.dead_letter);
    held_line(held).iter().for_each(|line| say(line));
    Ok(())
}

async fn look(queue: &mut Queue, selection: &mut Selection, limit: u32) -> Result<Vec<Row>, Failed> {
    let (mut rows, now, rules) = (Vec::new(), SystemTime::now(), Rules::of_any_worker());
    while rows.len() < limit as usize {
        let Some((place, delivery)) = queue.next().await? else { break };
        let letter = Letter::of(delivery, &rules);
        if selection.takes(&letter, now) {
            rows.push(Row::of(&letter, now));
        }
        queue.keep(place, letter);
    }
    Ok(rows)
}

/// On a terminal a table, else columns that are separated by tabs.
async fn print(rows: &[Row], is_json: bool) -> std::io::Result<()> {
    let mut output = Output::new();
    let lines: Vec<String> = if is_json {
        rows.iter().map(|row| harmless_json(&row.json())).collect()
    } else if stdout().is_terminal() {
        table(rows)
    } else {
        rows.iter().map(|row| row.cells().join("\t")).collect()
    };
    for line in lines {
        output.line(line.as_bytes()).await?;
    }
    output.end().await
}

fn table(rows: &[Row]) -> Vec<String> {
    let titles = ["AGE", "REASON", "JOB ID", "PHONE", "BYTES"].map(str::to_owned);
    let mut cells = vec![titles];
    cells.extend(rows.iter().map(|row| {
        let [age, reason, id, phone, size] = row.cells();
        [age, cut(&reason, WIDEST_REASON), id, phone, size]
    }));
    let width = |n: usize| cells.iter().map(|row| row[n].chars().count()).max().unwrap_or_default();
    let widths: [usize; 5] = std::array::from_fn(width);
    let line = |row: &[String; 5]| {
        let padded = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    cells.iter().map(line).collect()
}

fn tell(rows: &[Row], there: u32, taken: u32, queue: &str) {
    let letters = count(rows.len(), "letter");
    let more = there.saturating_sub(taken);
    say(&match more {
        0 if there == 0 => format!("{queue} has no letters. What another command holds at this moment is not seen"),
        0 => format!("{letters} shown of {there} on {queue}"),
        more => format!(
            "{letters} shown of {there} on {queue}; {more} were not looked at, and may be older: --limit {there} shows all"
        ),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(age: Option<u64>, reason: &str, id: &str) -> Row {
        Row {
            since: None,
            age: age.map(Duration::from_secs),
            reason: reason.into(),
            id: id.into(),
            plain_id: id.into(),
            is_named: true,
            phone: None,
            size: 12,
        }
    }

    #[test]
    fn an_age_is_told_in_its_two_largest_units() {
        for (seconds, told) in [(0, "0s"), (59, "59s"), (3_600, "1h"), (3_661, "1h 1m"), (90_061, "1day 1h")] {
            assert_eq!(shown_age(Duration::from_secs(seconds)), told);
        }
    }

    #[test]
    fn a_table_has_aligned_columns_and_cut_reasons() {
        let long = "x".repeat(100);
        let lines = table(&[row(Some(61), "Phone is missing", "a"), row(None, &long, "an-id")]);
        assert_eq!(lines[0], format!("AGE    {:<61}  JOB ID  PHONE  BYTES", "REASON"));
        assert_eq!(lines[1], format!("1m 1s  {:<61}  a       -      12", "Phone is missing"));
        assert_eq!(lines[2], format!("-      {}…  an-id   -      12", "x".repeat(60)));
    }
}
