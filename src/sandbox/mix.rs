//! How often each fault comes when there is no script.

use std::{collections::BTreeMap, str::FromStr};

use serde::Deserialize;

use super::{
    dice::{Dice, Purpose},
    fault::Fault,
    fault_text::FaultError,
};

/// Faults and their probabilities. The rest up to 1 is [`Fault::None`].
///
/// The fault of a request depends only on the seed, its phone, and the number of earlier requests of that
/// phone. So a run can be repeated in any order and at any concurrency.
///
/// In JSON, an object of text forms: `{"reset_after": 0.02, "status:503:1": 0.05}`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "BTreeMap<String, f64>")]
pub struct Mix(Vec<(Fault, f64)>);

/// A mix that cannot be played.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MixError {
    /// A fault in it cannot be read.
    #[error(transparent)]
    Fault(#[from] FaultError),
    /// It is not written `FAULT=PROBABILITY`.
    #[error("`{0}` is not written FAULT=PROBABILITY, as in reset_after=0.02")]
    Form(String),
    /// A probability is not between 0 and 1.
    #[error("the probability of `{0}` is not between 0 and 1")]
    Probability(Fault),
    /// The probabilities add up to more than 1.
    #[error("the probabilities of the faults add up to {0}, which is more than 1")]
    Sum(f64),
}

impl Mix {
    /// A mix of these faults, each with its probability.
    ///
    /// # Errors
    /// A probability outside 0 to 1, or a sum of more than 1.
    pub fn new(shares: impl IntoIterator<Item = (Fault, f64)>) -> Result<Self, MixError> {
        let shares: Vec<_> = shares.into_iter().collect();
        if let Some((fault, _)) = shares.iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            return Err(MixError::Probability(fault.clone()));
        }
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        // Ten shares of 0.1 add up to a little more than 1.
        if sum > 1.0 + 1e-9 {
            return Err(MixError::Sum(sum));
        }
        Ok(Self(shares))
    }

    /// The faults in their text form, and their probabilities.
    pub(crate) fn shares(&self) -> BTreeMap<String, f64> {
        self.0.iter().map(|(fault, share)| (fault.to_string(), *share)).collect()
    }

    /// The fault of one request.
    pub(crate) fn draw(&self, dice: Dice<'_>) -> Fault {
        let mut left = dice.fraction(Purpose::Fault);
        for (fault, share) in &self.0 {
            if left < *share {
                return fault.clone();
            }
            left -= share;
        }
        Fault::None
    }
}

/// One entry of a mix, as written in a flag: `reset_after=0.02`.
#[derive(Clone, Debug, PartialEq)]
pub struct Share(pub Fault, pub f64);

impl FromStr for Share {
    type Err = MixError;

    fn from_str(text: &str) -> Result<Self, MixError> {
        // Split at the last equals sign: a code's message may contain one too.
        let (fault, share) = text.rsplit_once('=').ok_or_else(|| MixError::Form(text.to_owned()))?;
        let fault: Fault = fault.trim().parse()?;
        let share = share.trim().parse().map_err(|_| MixError::Probability(fault.clone()))?;
        Ok(Self(fault, share))
    }
}

impl TryFrom<BTreeMap<String, f64>> for Mix {
    type Error = MixError;

    fn try_from(shares: BTreeMap<String, f64>) -> Result<Self, MixError> {
        let shares: Result<Vec<_>, FaultError> =
            shares.into_iter().map(|(fault, share)| Ok((fault.parse()?, share))).collect();
        Self::new(shares?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(mix: &Mix, seed: u64) -> Vec<Fault> {
        (1..=2000).map(|nth| mix.draw(Dice { seed, phone: "0901888484", nth })).collect()
    }

    #[test]
    fn the_same_seed_draws_the_same_faults_and_another_seed_others() {
        let mix = Mix::new([(Fault::ResetAfter, 0.1), (Fault::Html, 0.2)]).unwrap();
        assert_eq!(drawn(&mix, 1), drawn(&mix, 1));
        assert_ne!(drawn(&mix, 1), drawn(&mix, 2));
    }

    #[test]
    fn faults_come_up_as_often_as_they_should() {
        let mix = Mix::new([(Fault::ResetAfter, 0.1), (Fault::Html, 0.2)]).unwrap();
        let faults = drawn(&mix, 1);
        let count = |wanted: Fault| faults.iter().filter(|fault| **fault == wanted).count();
        assert!((150..250).contains(&count(Fault::ResetAfter)));
        assert!((330..470).contains(&count(Fault::Html)));
        assert!((1330..1470).contains(&count(Fault::None)));
    }

    #[test]
    fn impossible_mixes_are_refused() {
        let mix = |share| Mix::new([(Fault::Html, share), (Fault::CutJson, 0.6)]);
        assert_eq!(mix(-0.1), Err(MixError::Probability(Fault::Html)));
        assert_eq!(mix(f64::NAN), Err(MixError::Probability(Fault::Html)));
        assert!(matches!(mix(0.5), Err(MixError::Sum(_))));
        assert!(Mix::new((0..10).map(|_| (Fault::Html, 0.1))).is_ok());
    }

    #[test]
    fn a_flag_and_json_say_the_same() {
        let share: Share = "status:503:1=0.05".parse().unwrap();
        let json: Mix = serde_json::from_str(r#"{"status:503:1": 0.05}"#).unwrap();
        assert_eq!(Mix::new([(share.0, share.1)]).unwrap(), json);
        assert!("reset_after".parse::<Share>().is_err());
        assert!("reset_after=often".parse::<Share>().is_err());
    }
}
