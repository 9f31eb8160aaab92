//! Reads settings and finds every mistake, not only the first.

use std::fmt;
use std::time::Duration;

use reqwest::Url;
use secrecy::SecretString;

use super::table::Setting;

/// One setting that is wrong, and the rule it breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The environment variable's name.
    pub setting: &'static str,
    /// What is wrong, without any value that may be secret.
    pub problem: String,
}

/// Every mistake found in the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct WrongSettings(pub Vec<Mistake>);

impl fmt::Display for WrongSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "a setting is wrong:")?,
            n => write!(f, "{n} settings are wrong:")?,
        }
        self.0.iter().try_for_each(|m| write!(f, "\n  {}: {}", m.setting, m.problem))
    }
}

/// Where a setting's value comes from: its flag, else its environment variable.
pub type Source<'a> = dyn Fn(&Setting) -> Option<String> + 'a;

/// Reads settings from a source and collects every mistake.
///
/// A wrong setting is recorded. Its default is used instead, so that reading can continue.
/// [`Reader::finish`] then returns the mistakes as an error.
pub(crate) struct Reader<'a> {
    source: &'a Source<'a>,
    mistakes: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    /// A reader over `source`.
    pub(crate) fn new(source: &'a Source<'a>) -> Self {
        Self { source, mistakes: Vec::new() }
    }

    /// The value if no mistake was found.
    ///
    /// # Errors
    /// [`WrongSettings`] with every [`Mistake`] that was found.
    pub(crate) fn finish<T>(self, value: T) -> Result<T, WrongSettings> {
        if self.mistakes.is_empty() { Ok(value) } else { Err(WrongSettings(self.mistakes)) }
    }

    pub(crate) fn mistake(&mut self, setting: &Setting, problem: impl Into<String>) {
        self.mistakes.push(Mistake { setting: setting.env, problem: problem.into() });
    }

    /// The value that was given. An empty value counts as not given, because `FOO=` in a manifest means that.
    pub(crate) fn given(&self, setting: &Setting) -> Option<String> {
        (self.source)(setting).filter(|value| !value.trim().is_empty())
    }

    pub(crate) fn text(&self, setting: &Setting) -> String {
        self.given(setting).unwrap_or_else(|| setting.default.unwrap_or_default().to_owned())
    }

    /// Parses a setting and uses its default after a mistake. Not for secrets: the mistake shows the value.
    pub(crate) fn parsed<T>(&mut self, setting: &Setting, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(setting);
        match parse(text.trim()) {
            Ok(value) => Some(value),
            Err(rule) => {
                self.mistake(setting, format!("{rule}, not {:?}", shortened(&text)));
                setting.default.and_then(|default| parse(default).ok())
            }
        }
    }

    pub(crate) fn duration(&mut self, setting: &Setting, least: Duration) -> Duration {
        self.parsed(setting, |text| {
            humantime::parse_duration(text).ok().filter(|d| (least..=LONGEST).contains(d)).ok_or_else(|| {
                format!(
                    "must be a duration of at least {} and at most a year, such as 250ms, 5s or 2m",
                    humantime::format_duration(least)
                )
            })
        })
        .unwrap_or_default()
    }

    /// Reads a secret from its own setting, or from the file that its `…_FILE` setting names.
    pub(crate) fn secret(&mut self, direct: &Setting, file: &Setting) -> Option<String> {
        match (self.given(direct), self.given(file)) {
            (Some(_), Some(_)) => {
                self.mistake(direct, format!("is set, and so is {}: set only one", file.env));
                None
            }
            // The value of the environment variable was not UTF-8 text.
            (Some(value), None) if value.contains(char::REPLACEMENT_CHARACTER) => {
                self.mistake(direct, "is not UTF-8 text");
                None
            }
            (Some(value), None) => Some(value),
            (None, Some(path)) => self.secret_file(file, &path),
            (None, None) => None,
        }
    }

    /// A mistake does not repeat the path, because people put the secret itself there.
    fn secret_file(&mut self, file: &Setting, path: &str) -> Option<String> {
        match std::fs::read_to_string(path) {
            // Files made by `echo` and by editors end in a newline that is not part of the secret.
            Ok(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
            Ok(_) => {
                self.mistake(file, "names a file that is empty");
                None
            }
            Err(error) => {
                self.mistake(file, format!("names a file that cannot be read: {error}"));
                None
            }
        }
    }

    pub(crate) fn required_secret(&mut self, direct: &Setting, file: &Setting) -> SecretString {
        let before = self.mistakes.len();
        let secret = self.secret(direct, file);
        if secret.is_none() && self.mistakes.len() == before {
            self.mistake(direct, format!("is required: set it, or {} to a file that holds it", file.env));
        }
        SecretString::from(secret.unwrap_or_default())
    }
}

/// An `http` or `https` URL to call. `None` if it has no host or contains credentials.
pub(crate) fn http_url(text: &str) -> Option<Url> {
    Url::parse(text.trim()).ok().filter(|url| {
        matches!(url.scheme(), "https" | "http")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    })
}

/// The longest duration that is accepted. It is longer than any sensible setting, and the sum of two such
/// durations does not overflow a clock.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The beginning of a wrong value. It helps a person to find the mistake, and does not show a whole pasted file.
fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}
