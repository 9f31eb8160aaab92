//! What the workers tell each other of their pace, in one record of the store: who is there, whose turn a call is, and
//! that eSMS throttles. One script, so that each exchange is one round trip. `src/send` decides what follows.

use std::sync::Arc;
use std::time::Duration;

use redis::Script;
use tokio::time::Instant;
use uuid::Uuid;

use super::link::{Link, Step};
use super::store::StoreError;

/// A worker that says nothing for so long does not count any more.
const PRESENT_FOR: Duration = Duration::from_secs(5);

/// How long the workers go on alone after one of them was: each finds the store again meanwhile.
const TOGETHER_AFTER: Duration = Duration::from_secs(5);

/// How long the record is kept after the last word.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// What a worker says.
#[derive(Clone, Debug, Default)]
pub struct Word {
    /// The time between two calls of all workers.
    pub interval: Duration,
    /// How many turns it asks for.
    pub turns: u32,
    /// The first of them may not be sooner than this from now.
    pub not_before: Duration,
    /// Whether it has given itself turns while it could not ask for them.
    pub was_alone: bool,
    /// What eSMS has throttled.
    pub cut: Option<Cut>,
}

/// A cut that is told to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Its name: the same cut that is told twice counts once.
    pub name: String,
    /// How long ago the call began that was throttled.
    pub began_ago: Duration,
    /// How long calls are held.
    pub hold: Duration,
}

/// What a worker hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The store's clock, in microseconds.
    pub clock: u64,
    /// When it was heard, by this worker's clock: a little later.
    pub at: Instant,
    /// How many workers there are, this one included.
    pub workers: u32,
    /// How many of them come before this one.
    pub rank: u32,
    /// How long every worker is to go on alone.
    pub alone_for: Duration,
    /// The first turn, by the store's clock.
    pub first: u64,
    /// How many turns, each an interval after the one before.
    pub turns: u32,
    /// The name of the last cut, empty if there was none.
    pub cut: String,
    /// How long ago that was.
    pub cut_ago: Duration,
    /// How long calls are held from now on.
    pub held_for: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Pace {
    link: Arc<Link>,
    worker: String,
    seed: u32,
    script: Script,
}

impl Pace {
    /// The pace of the workers at this store, one of which is `process`.
    pub fn new(link: Arc<Link>, process: Uuid) -> Self {
        let [a, b, c, d, ..] = process.into_bytes();
        let (worker, seed) = (process.simple().to_string(), u32::from_be_bytes([a, b, c, d]));
        Self { link, worker, seed, script: Script::new(include_str!("pace.lua")) }
    }

    /// A number that is another one in each worker.
    pub const fn seed(&self) -> u32 {
        self.seed
    }

    /// A name for the `n`th cut of this worker.
    pub fn name_of_cut(&self, n: u64) -> String {
        format!("{}:{n}", self.worker)
    }

    /// Says a word and hears what there is. Where a step is taken twice, a batch of turns is lost, and nothing else.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn say(&self, word: &Word) -> Result<Heard, StoreError> {
        self.exchange(word, PRESENT_FOR).await
    }

    /// Leaves: the others' shares grow at once.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn leave(&self) -> Result<(), StoreError> {
        self.exchange(&Word::default(), Duration::ZERO).await.map(|_| ())
    }

    async fn exchange(&self, word: &Word, present_for: Duration) -> Result<Heard, StoreError> {
        type Said = (u64, u32, u32, u64, u64, u32, String, u64, u64);
        let (name, began_ago, hold) = match &word.cut {
            Some(cut) => (cut.name.as_str(), cut.began_ago, cut.hold),
            None => ("", Duration::ZERO, Duration::ZERO),
        };
        let mut call = self.script.key(self.link.home().prefix.pace());
        call.arg(&self.worker)
            .arg(micros(present_for))
            .arg(micros(word.interval))
            .arg(word.turns)
            .arg(micros(word.not_before))
            .arg(u8::from(word.was_alone))
            .arg(micros(TOGETHER_AFTER))
            .arg(name)
            .arg(micros(began_ago))
            .arg(micros(hold))
            .arg(micros(KEPT_FOR));
        let said: Said = self.link.step(Step::Script(&call)).await?;
        let (clock, workers, rank, alone_for, first, turns, cut, cut_ago, held_for) = said;
        Ok(Heard {
            clock,
            // Later than what it says, so that a turn may be late, and is never early.
            at: Instant::now(),
            workers,
            rank,
            alone_for: Duration::from_micros(alone_for),
            first,
            turns,
            cut,
            cut_ago: Duration::from_micros(cut_ago),
            held_for: Duration::from_micros(held_for),
        })
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}
