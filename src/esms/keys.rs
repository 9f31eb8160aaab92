//! The account's two keys. Where they come from files, they are read again while the worker runs, so that a
//! rotation needs no restart.
//!
//! The keys are a pair: a new key with an old secret is refused by eSMS for every job. So a pair is used only when
//! both can be read, both can be keys, and two readings in a row found the same. This leaves out a file that is
//! empty or half written, and the moment in which only one of the two files is new.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::sleep;
use tracing::info;

use crate::settings::secret::{ReadError, SecretFile, Source, key, log_unusable};

/// How often the files are read again. Two readings in a row take less than a minute.
const PERIOD: Duration = Duration::from_secs(20);

/// How many pairs are masked in what eSMS says. An answer may repeat keys that were replaced a moment ago.
const PAIRS_MASKED: usize = 8;

/// The keys of one moment.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The account's key.
    pub api_key: SecretString,
    /// The account's secret.
    pub secret_key: SecretString,
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.texts() == other.texts()
    }
}

impl Pair {
    fn texts(&self) -> [&str; 2] {
        [self.api_key.expose_secret(), self.secret_key.expose_secret()]
    }
}

/// Where one key comes from.
#[derive(Clone, Debug)]
enum Origin {
    /// It never changes.
    Fixed(SecretString),
    /// It is read again.
    File(SecretFile),
}

/// Why there is no pair, and which setting names the file.
type Unusable = (&'static str, ReadError);

impl Origin {
    fn new(source: Source, key: &SecretString) -> Self {
        source.file.map_or_else(|| Self::Fixed(key.clone()), Self::File)
    }

    async fn read(&self) -> Result<SecretString, Unusable> {
        match self {
            Self::Fixed(key) => Ok(key.clone()),
            Self::File(file) => {
                let read = file.read().await.and_then(|text| key(&text).map_err(|rule| ReadError::Wrong(rule.into())));
                read.map_err(|error| (file.setting, error))
            }
        }
    }
}

/// The account's keys. All copies share the same state.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    api_key: Origin,
    secret_key: Origin,
    state: Mutex<State>,
}

struct State {
    now: Arc<Pair>,
    /// Those before, the newest first.
    before: Vec<Arc<Pair>>,
    /// What the last reading found, if it was another pair.
    seen: Option<Pair>,
    is_failing: bool,
}

/// What follows a reading of the files.
#[derive(Debug, PartialEq)]
enum Next {
    /// The keys stay.
    Stay,
    /// A new pair was seen once. It is used if the next reading finds it again.
    Wait(Pair),
    /// A new pair is used from now on.
    Use(Pair),
}

fn after(read: Pair, now: &Pair, seen: Option<&Pair>) -> Next {
    if read == *now {
        Next::Stay
    } else if seen == Some(&read) {
        Next::Use(read)
    } else {
        Next::Wait(read)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    /// The keys of these sources.
    ///
    /// # Errors
    /// The rule that each text breaks, of the key and of the secret.
    pub fn new(api_key: Source, secret_key: Source) -> Result<Self, [Option<&'static str>; 2]> {
        let pair = match (key(&api_key.text), key(&secret_key.text)) {
            (Ok(api_key), Ok(secret_key)) => Pair { api_key, secret_key },
            (api_key, secret_key) => return Err([api_key.err(), secret_key.err()]),
        };
        let (api_key, secret_key) = (Origin::new(api_key, &pair.api_key), Origin::new(secret_key, &pair.secret_key));
        let state = State { now: Arc::new(pair), before: Vec::new(), seen: None, is_failing: false };
        Ok(Self(Arc::new(Inner { api_key, secret_key, state: Mutex::new(state) })))
    }

    /// The keys of a configuration that is refused anyway.
    pub(super) fn none() -> Self {
        let nothing = || Origin::Fixed(SecretString::from(""));
        let pair = Pair { api_key: SecretString::from(""), secret_key: SecretString::from("") };
        let state = State { now: Arc::new(pair), before: Vec::new(), seen: None, is_failing: false };
        Self(Arc::new(Inner { api_key: nothing(), secret_key: nothing(), state: Mutex::new(state) }))
    }

    /// The keys to call with now.
    pub fn now(&self) -> Arc<Pair> {
        Arc::clone(&self.state().now)
    }

    /// Shows `read` every key that must not be repeated anywhere, those before included.
    pub(super) fn with_all<T>(&self, read: impl FnOnce(&[&str]) -> T) -> T {
        let pairs: Vec<Arc<Pair>> = {
            let state = self.state();
            std::iter::once(&state.now).chain(&state.before).cloned().collect()
        };
        let all: Vec<&str> = pairs.iter().flat_map(|pair| pair.texts()).collect();
        read(&all)
    }

    /// Reads the files again and again. It never returns; whoever runs it ends it.
    pub async fn keep_fresh(self) {
        loop {
            sleep(PERIOD).await;
            self.read_again().await;
        }
    }

    /// Reads the files once more. New keys are used when a second reading finds them, too.
    pub async fn read_again(&self) {
        let read = match (self.0.api_key.read().await, self.0.secret_key.read().await) {
            (Ok(api_key), Ok(secret_key)) => Ok(Pair { api_key, secret_key }),
            (Err(unusable), _) | (_, Err(unusable)) => Err(unusable),
        };
        let mut state = self.state();
        match read {
            Err((setting, error)) => {
                state.seen = None;
                if !mem::replace(&mut state.is_failing, true) {
                    log_unusable(setting, &error);
                }
            }
            Ok(pair) => {
                state.is_failing = false;
                match after(pair, &state.now, state.seen.as_ref()) {
                    Next::Stay => state.seen = None,
                    Next::Wait(pair) => state.seen = Some(pair),
                    Next::Use(pair) => state.replace(pair),
                }
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn replace(&mut self, pair: Pair) {
        let old = mem::replace(&mut self.now, Arc::new(pair));
        self.before.insert(0, old);
        self.before.truncate(PAIRS_MASKED);
        self.seen = None;
        info!("the keys of eSMS were read again; new ones are used from now on");
    }
}

#[cfg(test)]
mod tests;
