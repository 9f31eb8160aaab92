//! The middle of several rounds, and how far they lie apart.

use std::collections::BTreeMap;
use std::fmt;

/// One number of each round, by the round's number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds(BTreeMap<usize, f64>);

impl Rounds {
    pub(crate) fn of(numbers: impl IntoIterator<Item = (usize, f64)>) -> Self {
        Self(numbers.into_iter().collect())
    }

    pub(crate) fn median(&self) -> Option<f64> {
        let mut sorted: Vec<f64> = self.0.values().copied().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            even if even % 2 == 0 => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
            _ => Some(sorted[middle]),
        }
    }

    pub(crate) fn least(&self) -> Option<f64> {
        self.0.values().copied().reduce(f64::min)
    }

    pub(crate) fn most(&self) -> Option<f64> {
        self.0.values().copied().reduce(f64::max)
    }

    /// The number of each round divided by the other's of the same round.
    pub(crate) fn per(&self, other: &Self) -> Self {
        let both = self.0.iter().filter_map(|(round, one)| Some((*round, one / other.0.get(round)?)));
        Self(both.collect())
    }
}

/// `52.1 (50.8..53.9)`, with as many digits behind the point as are asked for.
impl fmt::Display for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (digits, width) = (f.precision().unwrap_or(1), f.width().unwrap_or(0));
        let numbers = self.median().zip(self.least()).zip(self.most());
        let text = numbers.map_or("-".into(), |((median, least), most)| {
            format!("{median:.digits$} ({least:.digits$}..{most:.digits$})")
        });
        write!(f, "{text:>width$}")
    }
}
