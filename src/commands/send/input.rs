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
        total += u64::from(!line.trim_ascii().is_empty());
    }
    Ok(total)
}
