//! Chance that a seed repeats: splitmix64, a stream for each who asks.

use std::ops::Range;
use std::time::Duration;

/// A stream of chance.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The stream of this seed for this purpose; no other purpose's use changes it.
    pub(crate) fn new(seed: u64, purpose: &str, number: u64) -> Self {
        let words = [seed, number].into_iter().flat_map(u64::to_le_bytes);
        // FNV-1a: the standard hashers promise nothing from one release to the next.
        let hash = words.chain(purpose.bytes()).fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(hash)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number of the range, which must not be empty.
    pub(crate) fn of(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// So many times of a hundred.
    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.of(0..100) < chance
    }

    /// Between two numbers of milliseconds.
    pub(crate) fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.of(range))
    }

    /// All of these in any order, so that even a short campaign has some of each.
    pub(crate) fn shuffled<T: Clone>(&mut self, from: &[T]) -> Vec<T> {
        let mut cards = from.to_vec();
        for last in (1..cards.len()).rev() {
            cards.swap(last, self.of(0..last as u64 + 1) as usize);
        }
        cards
    }
}

/// Cards that are drawn one after the other, and shuffled when all are drawn.
#[derive(Debug)]
pub(crate) struct Deck<T> {
    cards: Vec<T>,
    left: Vec<T>,
}

impl<T: Clone> Deck<T> {
    pub(crate) fn new(cards: &[T]) -> Self {
        Self { cards: cards.to_vec(), left: Vec::new() }
    }

    /// The next card; none of no cards.
    pub(crate) fn draw(&mut self, dice: &mut Dice) -> Option<T> {
        if self.left.is_empty() {
            self.left = dice.shuffled(&self.cards);
        }
        self.left.pop()
    }
}
