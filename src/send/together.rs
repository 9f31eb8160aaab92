//! What this worker does together with the others that share its store: it takes its turn under
//! `OTP_SHARED_RATE_LIMIT`, and all are slower when eSMS throttles one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::share::{LATE, Next, Share};
use super::throttle::{Throttled, Untold};
use crate::ledger::pace::{Cut, Heard, Pace, Word};
use crate::ledger::store::StoreError;
use crate::telemetry::metrics::Metrics;

/// A cut that is older, and by which nobody is held any more, is not news to a worker that hears of it first.
const NEWS: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Debug)]
pub struct Together {
    pace: Pace,
    share: Option<Mutex<Share>>,
    known: Mutex<Known>,
    cuts: AtomicU64,
    throttled: Arc<Throttled>,
    metrics: Arc<Metrics>,
}

/// What is known of the store.
#[derive(Debug, Default)]
struct Known {
    is_away: bool,
    last_cut: String,
}

impl Together {
    /// Together with the workers of this store; with a limit, of so many calls a second of all of them.
    pub fn new(pace: Pace, limit: Option<f64>, throttled: Arc<Throttled>, metrics: Arc<Metrics>) -> Self {
        let share = limit.map(|limit| Mutex::new(Share::new(limit, pace.seed(), Instant::now())));
        Self { pace, share, known: Mutex::default(), cuts: AtomicU64::default(), throttled, metrics }
    }

    /// Whether turns must be waited for.
    pub const fn has_limit(&self) -> bool {
        self.share.is_some()
    }

    /// Waits for a turn, and returns when it was; nothing without a limit. One call at a time may wait here, and
    /// `waiting` is how many there are behind it, itself included.
    pub async fn turn(&self, waiting: impl Fn() -> u32) -> Option<Instant> {
        let share = self.share.as_ref()?;
        loop {
            let next = lock(share).next(Instant::now());
            match next {
                Next::Ask => self.say(waiting()).await,
                Next::Later(at) => sleep_until(at).await,
                Next::At(turn) => {
                    sleep_until(turn).await;
                    if Instant::now() <= turn + LATE {
                        lock(share).take(turn);
                        return Some(turn);
                    }
                }
            }
        }
    }

    /// Says that this worker is there, and what eSMS has throttled, and hears the same of the others.
    pub async fn beat(&self) {
        self.say(0).await;
    }

    /// Leaves, so that the others need not wait until this worker's silence is noticed.
    pub async fn leave(&self) {
        let _ = self.pace.leave().await;
    }

    async fn say(&self, turns: u32) {
        // A call that asks for turns may stop waiting at any moment, and what was to be told would be lost.
        let (now, untold) = (Instant::now(), if turns == 0 { self.throttled.take_untold() } else { None });
        let mut word = self.share.as_ref().map(|share| lock(share).word(turns, now)).unwrap_or_default();
        // One that could not be told in time is over by now.
        let is_over = |untold: &Untold| now > untold.until && now.saturating_duration_since(untold.began) > NEWS;
        let untold = untold.filter(|untold| !is_over(untold));
        word.cut = untold.map(|untold| self.cut(untold, now));
        match self.pace.say(&word).await {
            Ok(heard) => self.heard(&word, &heard),
            Err(error) => {
                if let Some(untold) = untold {
                    self.throttled.put_back(untold);
                }
                self.not_heard(&error);
            }
        }
    }

    fn cut(&self, untold: Untold, now: Instant) -> Cut {
        Cut {
            name: self.pace.name_of_cut(self.cuts.fetch_add(1, Ordering::Relaxed)),
            began_ago: now.saturating_duration_since(untold.began),
            hold: untold.until.saturating_duration_since(now),
        }
    }

    fn heard(&self, word: &Word, heard: &Heard) {
        if let Some(share) = &self.share {
            lock(share).heard(word, heard);
        }
        let mut known = lock(&self.known);
        let was_away = std::mem::take(&mut known.is_away);
        let is_news = known.last_cut != heard.cut && heard.cut_ago < NEWS;
        known.last_cut.clone_from(&heard.cut);
        drop(known);
        if is_news || !heard.held_for.is_zero() {
            self.throttled.told(heard.cut_ago, heard.held_for);
        }
        if was_away && self.share.is_some() {
            info!(parent: None, workers = heard.workers, "the ledger answers again: the workers soon share OTP_SHARED_RATE_LIMIT through it");
        }
    }

    /// Said and counted once. The ledger's own steps say what is wrong with the store.
    fn not_heard(&self, error: &StoreError) {
        if let Some(share) = &self.share {
            lock(share).not_heard(Instant::now());
        }
        if std::mem::replace(&mut lock(&self.known).is_away, true) {
            debug!(parent: None, %error, "the workers' pace is not known");
            return;
        }
        self.metrics.ledger_error();
        if self.share.is_some() {
            warn!(
                parent: None,
                %error,
                hint = "this worker keeps to its own part of OTP_SHARED_RATE_LIMIT until it does; check OTP_LEDGER_URL and the server there",
                "the ledger does not answer: the workers cannot share the rate limit"
            );
        }
    }
}

fn lock<T>(one: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks, and every state is whole.
    one.lock().unwrap_or_else(PoisonError::into_inner)
}
