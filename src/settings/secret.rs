//! Secrets: what belongs to their text, and files that are read again while the worker runs.
//!
//! A file is always opened by its path. Kubernetes replaces a mounted secret by moving a symbolic link, so a
//! path that was resolved once would show the old secret for ever.

use std::fmt;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::{info, warn};

/// The limit on reading a file again. A file on a network may hang.
const READ_LIMIT: Duration = Duration::from_secs(2);

/// In bytes. No secret is longer, and a wrong path may lead to a large file.
const LARGEST: u64 = 64 * 1024;

/// The fewest characters of a key. What is shorter was cut, or is a placeholder.
const SHORTEST_KEY: usize = 8;

/// The value that a text means. White space, line ends and a byte order mark around it do not belong to it:
/// shells, editors and `base64` add them. Characters without width come from web pages.
pub fn tidy(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || is_invisible(c))
}

const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{feff}' | '\u{200b}'..='\u{200d}' | '\u{2060}')
}

/// Whether the value is in quotation marks. A shell removes them. Docker's `--env-file` and Kubernetes do not.
pub fn is_quoted(value: &str) -> bool {
    ['"', '\''].iter().any(|mark| value.len() >= 2 && value.starts_with(*mark) && value.ends_with(*mark))
}

/// The key that this text is.
///
/// # Errors
/// The rule that it breaks. It does not repeat the text.
pub fn key(text: &str) -> Result<SecretString, &'static str> {
    let text = tidy(text);
    let has_space = text.chars().any(|c| c.is_whitespace() || c.is_control() || is_invisible(c));
    if text.chars().count() < SHORTEST_KEY || has_space || is_quoted(text) {
        return Err("cannot be a key: a key has at least 8 characters, without white space and quotation marks");
    }
    Ok(SecretString::from(text))
}

/// A secret's text, and the file that it is read from again, if it came from one.
#[derive(Clone)]
pub struct Source {
    /// The text, as it was read at the start.
    pub text: String,
    /// The file.
    pub file: Option<SecretFile>,
}

impl Source {
    /// A text that never changes.
    pub fn fixed(text: impl Into<String>) -> Self {
        Self { text: text.into(), file: None }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

/// Why a file holds no secret. No variant repeats its content.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing is in it, or only white space.
    #[error("is empty")]
    Empty,
    /// It is not UTF-8, such as what PowerShell's `>` writes.
    #[error("is not UTF-8 text")]
    NotText,
    /// It is too large for a secret.
    #[error("is larger than a secret can be")]
    TooLarge,
    /// Its text cannot be what it should be.
    #[error("{0}")]
    Wrong(String),
    /// The system cannot read it.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Reading takes too long.
    #[error("cannot be read: it takes too long")]
    TooSlow,
}

/// The reading that is under way.
type Reading = JoinHandle<Result<String, ReadError>>;

/// A file that holds a secret.
#[derive(Clone)]
pub struct SecretFile {
    /// The setting that names the file.
    pub setting: &'static str,
    path: PathBuf,
    /// A reading that hangs is waited for again, so that no more than one thread hangs.
    reading: Arc<sync::Mutex<Option<Reading>>>,
}

impl fmt::Debug for SecretFile {
    // Without the path: people put the secret itself there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretFile").field("setting", &self.setting).finish_non_exhaustive()
    }
}

impl SecretFile {
    /// The file at `path`, which the setting names.
    pub fn new(setting: &'static str, path: impl Into<PathBuf>) -> Self {
        Self { setting, path: path.into(), reading: Arc::default() }
    }

    /// Its text now, tidy. It blocks, and is for the start.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read_now(&self) -> Result<String, ReadError> {
        let mut bytes = Vec::new();
        std::fs::File::open(&self.path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST {
            return Err(ReadError::TooLarge);
        }
        let text = String::from_utf8(bytes).map_err(|_| ReadError::NotText)?;
        let text = tidy(&text);
        if text.is_empty() { Err(ReadError::Empty) } else { Ok(text.to_owned()) }
    }

    /// Its text now, tidy, within two seconds.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(&self) -> Result<String, ReadError> {
        let mut reading = self.reading.lock().await;
        let file = self.clone();
        let under_way = reading.get_or_insert_with(|| spawn_blocking(move || file.read_now()));
        let read = timeout(READ_LIMIT, under_way).await.map_err(|_| ReadError::TooSlow)?;
        *reading = None;
        read.map_err(io::Error::other)?
    }
}

/// Turns the text of a file into the value that it means. An error must not repeat the text.
type Parse<T> = Box<dyn Fn(&str) -> Result<T, String> + Send + Sync>;

/// A secret that may change while the worker runs.
///
/// A file that is empty, cut or unreadable changes nothing: the last good value stays, and the log says so once.
#[derive(Clone)]
pub struct Secret<T>(Arc<Inner<T>>);

struct Inner<T> {
    file: Option<SecretFile>,
    parse: Parse<T>,
    last: Mutex<Last<T>>,
}

#[derive(Clone)]
struct Last<T> {
    value: T,
    text: String,
    is_failing: bool,
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("file", &self.0.file).finish_non_exhaustive()
    }
}

impl<T: Clone> Secret<T> {
    /// The secret of this source.
    ///
    /// # Errors
    /// What `parse` says of the text.
    pub fn new(
        source: Source,
        parse: impl Fn(&str) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let last = Last { value: parse(&source.text)?, text: source.text, is_failing: false };
        Ok(Self(Arc::new(Inner { file: source.file, parse: Box::new(parse), last: Mutex::new(last) })))
    }

    /// A value that never changes.
    pub fn fixed(value: T) -> Self {
        let parse = Box::new(|_: &str| Err("it never changes".to_owned()));
        let last = Last { value, text: String::new(), is_failing: false };
        Self(Arc::new(Inner { file: None, parse, last: Mutex::new(last) }))
    }

    /// Whether it may change.
    pub fn may_change(&self) -> bool {
        self.0.file.is_some()
    }

    /// The last good value, without reading anything.
    pub fn last(&self) -> T {
        self.last_read().value
    }

    /// The value now. The file is read again, if there is one.
    pub async fn current(&self) -> T {
        let Some(file) = &self.0.file else { return self.last() };
        let read = file.read().await.and_then(|text| match (self.0.parse)(&text) {
            Ok(value) => Ok((value, text)),
            Err(rule) => Err(ReadError::Wrong(rule)),
        });
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok((value, text)) => {
                if text != last.text {
                    info!(setting = file.setting, "the secret's file was read again, and has a new value");
                }
                *last = Last { value, text, is_failing: false };
            }
            Err(error) => {
                if !last.is_failing {
                    log_unusable(file.setting, &error);
                }
                last.is_failing = true;
            }
        }
        last.value.clone()
    }

    fn last_read(&self) -> Last<T> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Says that a secret's file cannot be used, and that the last good value stays.
pub fn log_unusable(setting: &str, error: &ReadError) {
    warn!(
        setting,
        %error,
        hint = "the last good value is used; write the whole file beside it, then rename it",
        "a secret's file cannot be used"
    );
}

#[cfg(test)]
mod tests;
