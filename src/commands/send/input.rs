//! The input: JSON lines, one job each.

use std::path::PathBuf;

use tokio::fs::File;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader, stdin};

use super::error::SendError;

/// Where the jobs come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// One job: its body.
    One(String),
    /// A file of JSON lines.
    File(PathBuf),
    /// JSON lines on standard input.
    StandardInput,
}

/// JSON lines, one job each.
pub(super) struct Lines {
    /// The name of the input, for error messages.
    pub(super) name: String,
    pub(super) input: Box<dyn AsyncBufRead + Send + Unpin>,
    /// How many jobs there are, if that is known.
    pub(super) total: Option<u64>,
}

impl Lines {
    pub(super) async fn open(source: Source) -> Result<Self, SendError> {
        match source {
            Source::One(body) => Ok(Self {
                name: "the job".into(),
                input: Box::new(std::io::Cursor::new(body.into_bytes())),
                total: Some(1),
            }),
            Source::StandardInput => {
                Ok(Self { name: "standard input".into(), input: Box::new(BufReader::new(stdin())), total: None })
            }
            Source::File(path) => {
                let name = path.display().to_string();
                let failed = |error| SendError::Input(name.clone(), error);
                let total = count_lines(&path).await.map_err(failed)?;
                let file = File::open(&path).await.map_err(failed)?;
                Ok(Self { name, input: Box::new(BufReader::new(file)), total: Some(total) })
            }
        }
    }
}

async fn count_lines(path: &PathBuf) -> std::io::Result<u64> {
    let mut lines = BufReader::new(File::open(path).await?).split(b'\n');
    let mut total = 0;
    while let Some(line) = lines.next_segment().await? {
        total += u64::from(!job(&line).is_empty());
    }
    Ok(total)
}

/// The job in a line. White space, line ends and a byte order mark around it do not belong to it. The mark may
/// begin any line: files are joined with `cat`.
pub(super) fn job(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii();
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii()
}

/// Whether the input is UTF-16, as PowerShell's `>` writes it. Both byte orders begin with their mark.
pub(super) fn is_utf16(first: &[u8]) -> bool {
    first.starts_with(b"\xff\xfe") || first.starts_with(b"\xfe\xff")
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
    fn another_encoding_is_known_by_its_mark() {
        assert!(is_utf16(b"\xff\xfe{\0}\0") && is_utf16(b"\xfe\xff\0{\0}"));
        assert!(!is_utf16(b"\xef\xbb\xbf{}") && !is_utf16(b"{}") && !is_utf16(b"\xff"));
    }
}
