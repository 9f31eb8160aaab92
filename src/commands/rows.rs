//! Results as a person reads them: a line each.

use std::io::{self, IsTerminal as _, stdout};

use serde::Deserialize;

use super::shell::Output;
use crate::job::request::logged_id;
use crate::job::result::Outcome;

/// What a result says, as far as people and filters need it. A newer worker may say more.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Told {
    pub(super) job_id: String,
    pub(super) outcome: String,
    #[serde(default)]
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

/// Prints results: as a table, or each as the JSON that it is.
pub(super) struct Printer {
    rows: Option<Rows>,
    is_header_due: bool,
    output: Output,
}

impl Printer {
    pub(super) fn new(rows: Option<Rows>) -> Self {
        Self { rows, is_header_due: rows.is_some(), output: Output::new() }
    }

    /// `body` is what the result was read from.
    pub(super) async fn print(&mut self, told: &Told, body: &[u8]) -> io::Result<()> {
        let Some(rows) = self.rows else { return self.output.line(body).await };
        if std::mem::take(&mut self.is_header_due) {
            self.output.line(rows.header().as_bytes()).await?;
        }
        self.output.line(rows.row(told).as_bytes()).await
    }

    /// Waits until everything is printed.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        self.output.end().await
    }
}

/// Writes results as lines of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    has_colours: bool,
}

impl Rows {
    /// For standard output.
    pub(super) fn new() -> Self {
        Self { has_colours: has_colours() }
    }

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

/// The text without what could move a terminal's cursor, change its colours or turn the direction of writing.
pub(super) fn harmless(text: &str) -> String {
    let is_harmful = |char: char| {
        char.is_control()
            || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|char| if is_harmful(char) { char::REPLACEMENT_CHARACTER } else { char }).collect()
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
                r#"{"JobId":"0901888484","Outcome":"postponed\u001b[2J","More":1}"#,
                "-             postponed\u{fffd}[2J      -         0  *******484",
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
    fn a_text_cannot_change_the_terminal() {
        let hostile = "a\x1b[31m\r\nb\u{9b}1m\u{202e}c\u{2066}d\u{7}";
        assert!(harmless(hostile).chars().all(|char| char.is_ascii_graphic() || char == '\u{fffd}'));
        assert_eq!(harmless("Nguyễn Văn A 😀"), "Nguyễn Văn A 😀");
    }
}
