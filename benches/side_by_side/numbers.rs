//! The middle of several rounds, and how far they lie apart.

use std::fmt;

/// One number of each round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds(Vec<f64>);

impl Rounds {
    pub(crate) fn of(numbers: impl IntoIterator<Item = f64>) -> Self {
        Self(numbers.into_iter().collect())
    }

    pub(crate) fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            even if even % 2 == 0 => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
            _ => Some(sorted[middle]),
        }
    }

    /// This number of each round divided by the other's of the same round.
    pub(crate) fn per(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| one / other).collect())
    }
}

/// `52.1 (50.8..53.9)`, with as many digits behind the point as are asked for.
impl fmt::Display for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(1);
        let Some(median) = self.median() else { return f.pad("-") };
        let (min, max) = self.0.iter().fold((f64::MAX, f64::MIN), |(min, max), &one| (min.min(one), max.max(one)));
        let text = format!("{median:.digits$} ({min:.digits$}..{max:.digits$})");
        write!(f, "{text:>width$}", width = f.width().unwrap_or(0))
    }
}
