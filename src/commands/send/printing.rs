//! Standard output: ids or results, beside the bar where both are on a terminal.

use super::error::SendError;
use super::voice::Voice;
use crate::commands::rows::{Format, Told, is_terminal};
use crate::commands::shell::Output;

/// Prints.
pub(super) struct Printing<'a> {
    voice: &'a Voice,
    format: Format,
    output: Output,
}

impl<'a> Printing<'a> {
    pub(super) fn new(voice: &'a Voice, is_json: bool) -> Self {
        let format = if is_terminal() && !is_json { Format::table() } else { Format::Json };
        Self { voice, format, output: Output::new() }
    }

    pub(super) async fn result(&mut self, told: &Told, body: &[u8]) -> Result<(), SendError> {
        for line in self.format.lines(told, body) {
            self.line(&line).await?;
        }
        Ok(())
    }

    pub(super) async fn line(&mut self, line: &[u8]) -> Result<(), SendError> {
        let printed = if is_terminal() {
            self.voice.beside_bar(|| self.output.line_at_once(line))
        } else {
            self.output.line(line).await
        };
        printed.map_err(SendError::Output)
    }

    /// Waits until everything is printed.
    pub(super) async fn end(&mut self) -> Result<(), SendError> {
        self.output.end().await.map_err(SendError::Output)
    }
}
