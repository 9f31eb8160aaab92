//! Results as a person reads them: a line each.

use std::io::{IsTerminal as _, stdout};

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::harmless::{harmless, harmless_json};
use crate::job::request::logged_id;
use crate::job::result::Outcome;

/// What a result says, as far as people and filters need it. A newer worker may say more.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Told {
    pub(super) job_id: String,
    pub(super) outcome: String,
    #[serde(default, deserialize_with = "code")]
    pub(super) code_result: Option<String>,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    may_be_duplicate: bool,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    error_message: Option<String>,
    #[serde(default)]
    completed_at: String,
}

/// A text; other programs may write a number.
fn code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Null => None,
        Value::String(code) => Some(code),
        other => Some(other.to_string()),
    })
}

impl Told {
    /// Nothing if the body is not that of a result.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }
}

/// Whether a person reads standard output.
pub(super) fn is_terminal() -> bool {
    stdout().is_terminal()
}

/// Whether standard output shows colours, and they are wanted (<https://no-color.org>).
fn has_colours() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    is_terminal() && !is_set("NO_COLOR") && !is_dumb
}

/// How results are printed.
#[derive(Debug)]
pub(super) enum Format {
    /// Each as the JSON that it is, in one line.
    Json,
    /// As a table.
    Table { rows: Rows, is_header_due: bool },
}

impl Format {
    /// A table for standard output.
    pub(super) fn table() -> Self {
        Self::Table { rows: Rows { has_colours: has_colours() }, is_header_due: true }
    }

    /// The lines of the next result. `body` is what it was read from.
    pub(super) fn lines(&mut self, told: &Told, body: &[u8]) -> Vec<Vec<u8>> {
        match self {
            Format::Json if is_terminal() => vec![on_a_terminal(body)],
            Format::Json => vec![one_line(body)],
            Format::Table { rows, is_header_due } => {
                let header = std::mem::take(is_header_due).then(|| rows.header());
                header.into_iter().chain([rows.row(told)]).map(String::into_bytes).collect()
            }
        }
    }
}

/// JSON in one line. Inside a string, no line ends as such.
fn one_line(json: &[u8]) -> Vec<u8> {
    json.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

/// JSON in one line, as a terminal may show it.
fn on_a_terminal(json: &[u8]) -> Vec<u8> {
    let json = one_line(json);
    serde_json::from_slice::<&RawValue>(&json).map(|json| harmless_json(&json).into_bytes()).unwrap_or_default()
}

/// Writes results as lines of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    has_colours: bool,
}

impl Rows {
    /// What the columns are.
    fn header(self) -> String {
        self.paint("1", "time (UTC)    outcome    code  attempts  job")
    }

    fn row(self, told: &Told) -> String {
        let time = told.completed_at.split_once('T').map_or("-", |(_, time)| time.trim_end_matches('Z'));
        let outcome = self.paint(colour(&told.outcome), &format!("{:<9}", harmless(&told.outcome)));
        let code = harmless(told.code_result.as_deref().unwrap_or("-"));
        let job = harmless(&logged_id(&told.job_id, None));
        let row = format!("{:<12}  {outcome}  {code:>5}  {:>8}  {job}", harmless(time), told.attempts);
        let duplicate = told.may_be_duplicate.then(|| self.paint("33", "perhaps one OTP more"));
        let why = told.reason.as_deref().or(told.error_message.as_deref()).map(harmless);
        [Some(row), duplicate, why].into_iter().flatten().collect::<Vec<_>>().join("  ")
    }

    fn paint(self, colour: &str, text: &str) -> String {
        if self.has_colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Green for a sent OTP, red where a person must look, yellow for the rest.
fn colour(outcome: &str) -> &'static str {
    match Outcome::ALL.into_iter().find(|known| known.as_str() == outcome) {
        Some(Outcome::Accepted) => "32",
        Some(Outcome::Unknown | Outcome::Invalid) => "31",
        Some(Outcome::Rejected | Outcome::Failed | Outcome::Expired | Outcome::Limited) => "33",
        None => "0",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(json: &str) -> String {
        Told::read(json.as_bytes()).map(|told| Rows { has_colours: false }.row(&told)).unwrap_or_default()
    }

    #[test]
    fn a_row_says_what_came_of_the_job() {
        let rows = [
            (
                r#"{"JobId":"a-job","Outcome":"accepted","CodeResult":"100","Attempts":1,"MayBeDuplicate":false,"CompletedAt":"2026-11-23T01:23:45.678Z"}"#,
                "01:23:45.678  accepted     100         1  a-job",
            ),
            (
                r#"{"JobId":"a-job","Outcome":"rejected","CodeResult":"108","ErrorMessage":"no","Reason":"eSMS said 108","Attempts":2,"MayBeDuplicate":true,"CompletedAt":"2026-11-23T01:23:45.678Z"}"#,
                "01:23:45.678  rejected     108         2  a-job  perhaps one OTP more  eSMS said 108",
            ),
            // What a newer worker may say, the id that is a number, and what would move the cursor.
            (
                r#"{"JobId":"0901888484","Outcome":"postponed\u001b[2J","CodeResult":7,"More":1}"#,
                "-             postponed\\u{1b}[2J      7         0  *******484",
            ),
        ];
        for (json, expected) in rows {
            assert_eq!(row(json), expected);
        }
        assert!(Told::read(b"{}").is_none() && Told::read(b"no json").is_none());
    }

    #[test]
    fn colours_are_written_only_where_they_are_wanted() {
        let told = r#"{"JobId":"a","Outcome":"unknown"}"#;
        let painted = Told::read(told.as_bytes()).map(|told| Rows { has_colours: true }.row(&told));
        assert!(painted.is_some_and(|row| row.contains("\x1b[31munknown  \x1b[0m")));
        assert!(!row(told).contains('\x1b') && !Rows { has_colours: false }.header().contains('\x1b'));
    }

    #[test]
    fn json_is_one_line_and_cannot_change_a_terminal() {
        let body = "{\"JobId\":\r\n \"a\u{9b}2J\u{202e}é\"}";
        assert_eq!(one_line(body.as_bytes()), "{\"JobId\":   \"a\u{9b}2J\u{202e}é\"}".as_bytes());
        assert_eq!(on_a_terminal(body.as_bytes()), r#"{"JobId":   "a\u009b2J\u202eé"}"#.as_bytes());
    }
}
