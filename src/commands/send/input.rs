//! The input: one job from flags, or many as JSON lines or CSV.
//!
//! A thread of its own reads, because files and standard input block. What it has read waits in a short channel.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read as _, stdin};
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::csv::Csv;
use super::error::SendError;
use super::line::{BYTE_ORDER_MARK, Line, is_utf16};
use crate::job::request::LARGEST_BODY;

/// How many lines are read before they are needed.
const READ_AHEAD: usize = 512;

/// Where the jobs come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// One job: its body.
    One(String),
    /// A file.
    File(PathBuf, Format),
    /// Standard input.
    StandardInput(Format),
}

/// How the jobs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON lines, one job each.
    JsonLines,
    /// Comma-separated values; the first line names the columns.
    Csv,
}

impl Format {
    /// The format that a file's name tells.
    pub(super) fn of(path: &Path) -> Self {
        let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        if is_csv { Self::Csv } else { Self::JsonLines }
    }
}

/// The jobs of an input, as they are read.
pub(super) struct Lines {
    /// How many there are, if that is known.
    pub(super) total: Option<u64>,
    pub(super) read: mpsc::Receiver<Result<Line, SendError>>,
}

impl Lines {
    pub(super) async fn open(source: Source) -> Result<Self, SendError> {
        let (lines, read) = mpsc::channel(READ_AHEAD);
        let opening = spawn_blocking(move || open(source)).await;
        let (total, reading) =
            opening.map_err(|error| SendError::Input("it".into(), std::io::Error::other(error)))??;
        spawn_blocking(move || {
            for line in reading {
                let is_last = line.is_err();
                if lines.blocking_send(line).is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Self { total, read })
    }
}

type Reading = Box<dyn Iterator<Item = Result<Line, SendError>> + Send>;

fn open(source: Source) -> Result<(Option<u64>, Reading), SendError> {
    match source {
        Source::One(body) => {
            Ok((Some(1), reading(Format::JsonLines, Cursor::new(body.into_bytes()), "the job".into())?))
        }
        Source::StandardInput(format) => Ok((None, reading(format, BufReader::new(stdin()), "standard input".into())?)),
        Source::File(path, format) => {
            let name = path.display().to_string();
            let failed = |error| SendError::Input(name.clone(), error);
            let open = || File::open(&path).map(BufReader::new).map_err(failed);
            // A pipe gives what it holds only once.
            let is_file = path.metadata().map_err(failed)?.is_file();
            let total = if is_file { Some(count(reading(format, open()?, name.clone())?)?) } else { None };
            Ok((total, reading(format, open()?, name)?))
        }
    }
}

fn count(lines: Reading) -> Result<u64, SendError> {
    let mut total = 0;
    for line in lines {
        line?;
        total += 1;
    }
    Ok(total)
}

fn reading(format: Format, input: impl BufRead + Send + 'static, name: String) -> Result<Reading, SendError> {
    match format {
        Format::JsonLines => Ok(Box::new(JsonLines { input, name, number: 0 })),
        Format::Csv => Ok(Box::new(Csv::open(input, name)?)),
    }
}

/// JSON lines. Empty lines are left out.
struct JsonLines<R> {
    input: R,
    name: String,
    number: u64,
}

impl<R: BufRead> Iterator for JsonLines<R> {
    type Item = Result<Line, SendError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match bounded_line(&mut self.input) {
                Ok(line) => line?,
                Err(error) => return Some(Err(SendError::Input(self.name.clone(), error))),
            };
            self.number += 1;
            if self.number == 1 && line.as_ref().is_ok_and(|line| is_utf16(line)) {
                return Some(Err(SendError::Encoding(self.name.clone())));
            }
            let body = match &line {
                Ok(line) if job(line).is_empty() => continue,
                Ok(line) => Ok(job(line).to_vec()),
                Err(TooLong) => Err(format!("it is longer than {LARGEST_BODY} bytes")),
            };
            return Some(Ok(Line { number: self.number, body }));
        }
    }
}

/// More bytes than a job can have.
struct TooLong;

/// The next line, its end included; nothing at the end of the input. A line that is too long is passed over, and
/// takes no memory.
fn bounded_line(input: &mut impl BufRead) -> std::io::Result<Option<Result<Vec<u8>, TooLong>>> {
    // White space and a mark around the job do not count.
    const MOST: usize = LARGEST_BODY + 1024;
    let mut line = Vec::new();
    let read = input.by_ref().take(MOST as u64).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if read < MOST || line.ends_with(b"\n") {
        return Ok(Some(Ok(line)));
    }
    input.skip_until(b'\n')?;
    Ok(Some(Err(TooLong)))
}

/// The job in a line. White space, line ends and a byte order mark around it do not belong to it. The mark may
/// begin any line: files are joined with `cat`.
fn job(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii();
    line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line).trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_around_a_job_does_not_belong_to_it() {
        for line in ["{}", "{}\r", " {} \t\r", "\u{feff}{}", "\u{feff} {}\r", " \u{feff}{}"] {
            assert_eq!(job(line.as_bytes()), b"{}", "{line:?}");
        }
        for line in ["", "\r", "\u{feff}", "\u{feff}\r", " "] {
            assert!(job(line.as_bytes()).is_empty(), "{line:?}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_and_the_next_is_read() {
        let long = "x".repeat(LARGEST_BODY + 2_000);
        let input = Cursor::new(format!("{{}}\n{long}\n\n{{}}").into_bytes());
        let lines = JsonLines { input, name: String::new(), number: 0 };
        let read: Vec<_> = lines.map(|line| line.map(|line| (line.number, line.body.is_ok())).ok()).collect();
        assert_eq!(read, [Some((1, true)), Some((2, false)), Some((4, true))]);
    }

    #[test]
    fn the_name_of_a_file_tells_its_format() {
        for (name, format) in [
            ("a.csv", Format::Csv),
            ("a.CSV", Format::Csv),
            ("a.jsonl", Format::JsonLines),
            ("csv", Format::JsonLines),
            ("a.csv.txt", Format::JsonLines),
        ] {
            assert_eq!(Format::of(Path::new(name)), format, "{name}");
        }
    }
}
