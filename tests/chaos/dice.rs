//! Random numbers that a seed repeats: splitmix64, with a separate stream for each user.

use std::ops::Range;
use std::time::Duration;

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The stream of this seed for this purpose. Other streams do not change it.
    pub(crate) fn new(seed: u64, purpose: &str, number: u64) -> Self {
        let words = [seed, number].into_iter().flat_map(u64::to_le_bytes);
        // FNV-1a, because the standard hashers may change from one release to the next.
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

    /// A number in the range, which must not be empty.
    pub(crate) fn of(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True in `chance` of 100 cases.
    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.of(0..100) < chance
    }

    /// A duration in this range of milliseconds.
    pub(crate) fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.of(range))
    }

    /// All of these in random order. So even a short campaign has some of each.
    pub(crate) fn shuffled<T: Clone>(&mut self, from: &[T]) -> Vec<T> {
        let mut cards = from.to_vec();
        for last in (1..cards.len()).rev() {
            cards.swap(last, self.of(0..last as u64 + 1) as usize);
        }
        cards
    }
}

/// Cards that are drawn one after the other. When all are drawn, they are shuffled again.
#[derive(Debug)]
pub(crate) struct Deck<T> {
    cards: Vec<T>,
    left: Vec<T>,
}

impl<T: Clone> Deck<T> {
    pub(crate) fn new(cards: &[T]) -> Self {
        Self { cards: cards.to_vec(), left: Vec::new() }
    }

    /// The next card. `None` if the deck has no cards.
    pub(crate) fn draw(&mut self, dice: &mut Dice) -> Option<T> {
        if self.left.is_empty() {
            self.left = dice.shuffled(&self.cards);
        }
        self.left.pop()
    }
}
