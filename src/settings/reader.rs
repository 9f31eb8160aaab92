//! Reads settings and finds every mistake, not only the first.

use std::fmt;
use std::time::Duration;

use reqwest::Url;

use super::secret::{self, SecretFile, is_quoted, tidy};
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
    doubts: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    /// A reader over `source`.
    pub(crate) fn new(source: &'a Source<'a>) -> Self {
        Self { source, mistakes: Vec::new(), doubts: Vec::new() }
    }

    /// The value if no mistake was found.
    ///
    /// # Errors
    /// [`WrongSettings`] with every [`Mistake`] that was found.
    pub(crate) fn finish<T>(self, value: T) -> Result<T, WrongSettings> {
        if self.mistakes.is_empty() { Ok(value) } else { Err(WrongSettings(self.mistakes)) }
    }

    /// Whether a mistake was found so far.
    pub(crate) fn has_mistakes(&self) -> bool {
        !self.mistakes.is_empty()
    }

    pub(crate) fn mistake(&mut self, setting: &Setting, problem: impl Into<String>) {
        let mistake = Mistake { setting: setting.env, problem: problem.into() };
        // A setting may be read more than once.
        if !self.mistakes.contains(&mistake) {
            self.mistakes.push(mistake);
        }
    }

    /// Notes that a setting cannot be understood, and that the worker runs all the same. This is for settings
    /// that serve seeing, not sending: a cluster often sets them for every program in it.
    pub(crate) fn doubt(&mut self, setting: &Setting, problem: impl Into<String>) {
        self.doubts.push(Mistake { setting: setting.env, problem: problem.into() });
    }

    /// What [`Reader::doubt`] has noted so far.
    pub(crate) fn take_doubts(&mut self) -> Vec<Mistake> {
        std::mem::take(&mut self.doubts)
    }

    /// The value that was given. An empty value counts as not given, because `FOO=` in a manifest means that.
    pub(crate) fn given(&mut self, setting: &Setting) -> Option<String> {
        let value = self.written(setting)?;
        if is_quoted(&value) {
            self.mistake(setting, "has quotation marks around it, which are part of the value: remove them");
            return None;
        }
        Some(value)
    }

    /// The value that was given, for a setting that must not stop the worker.
    pub(crate) fn given_loosely(&self, setting: &Setting) -> Option<String> {
        let value = self.written(setting)?;
        let value = if is_quoted(&value) { &value[1..value.len() - 1] } else { &value };
        Some(tidy(value).to_owned()).filter(|value| !value.is_empty())
    }

    fn written(&self, setting: &Setting) -> Option<String> {
        (self.source)(setting).map(|value| tidy(&value).to_owned()).filter(|value| !value.is_empty())
    }

    pub(crate) fn text(&mut self, setting: &Setting) -> String {
        self.given(setting).unwrap_or_else(|| setting.default.unwrap_or_default().to_owned())
    }

    /// Parses a setting and uses its default after a mistake. Not for secrets: the mistake shows the value.
    pub(crate) fn parsed<T>(&mut self, setting: &Setting, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(setting);
        match parse(&text) {
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

    /// Parses a setting that must not stop the worker. After a doubt, there is no value.
    pub(crate) fn parsed_loosely<T>(
        &mut self,
        setting: &Setting,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.given_loosely(setting)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(rule) => {
                self.doubt(setting, format!("{rule}, not {:?}", shortened(&text)));
                None
            }
        }
    }

    /// Reads a secret from its own setting, or from the file that its `…_FILE` setting names.
    pub(crate) fn secret(&mut self, direct: &Setting, file: &Setting) -> Option<secret::Source> {
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
            (Some(value), None) => Some(secret::Source::fixed(value)),
            (None, Some(path)) => self.secret_file(file, &path),
            (None, None) => None,
        }
    }

    /// A mistake does not repeat the path, because people put the secret itself there.
    fn secret_file(&mut self, setting: &Setting, path: &str) -> Option<secret::Source> {
        let file = SecretFile::new(setting.env, path);
        match file.read_now() {
            Ok(text) => Some(secret::Source { text, file: Some(file) }),
            Err(error) => {
                self.mistake(setting, format!("names a file that {error}"));
                None
            }
        }
    }

    pub(crate) fn required_secret(&mut self, direct: &Setting, file: &Setting) -> secret::Source {
        let before = self.mistakes.len();
        let secret = self.secret(direct, file);
        if secret.is_none() && self.mistakes.len() == before {
            self.mistake(direct, format!("is required: set it, or {} to a file that holds it", file.env));
        }
        secret.unwrap_or_else(|| secret::Source::fixed(""))
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
