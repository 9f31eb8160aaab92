//! Which fault comes next: first from the scripts, then from the mix.

use std::collections::{HashMap, VecDeque};

use super::{dice::Dice, fault::Fault, mix::Mix};

/// The faults to come.
#[derive(Default)]
pub(crate) struct Deck {
    pub(crate) mix: Mix,
    anyone: VecDeque<Fault>,
    by_phone: HashMap<String, VecDeque<Fault>>,
}

impl Deck {
    pub(crate) fn new(mix: Mix) -> Self {
        Self { mix, ..Self::default() }
    }

    /// Adds these faults to the script of this phone, or to the script for any phone.
    pub(crate) fn script(&mut self, phone: Option<&str>, faults: Vec<Fault>) {
        match phone {
            Some(phone) => self.by_phone.entry(phone.to_owned()).or_default().extend(faults),
            None => self.anyone.extend(faults),
        }
    }

    /// Forgets the scripts; the mix stays.
    pub(crate) fn clear_scripts(&mut self) {
        self.anyone.clear();
        self.by_phone.clear();
    }

    /// The next fault of the phone's own script, else of the script for any phone, else of the mix.
    pub(crate) fn next(&mut self, dice: Dice<'_>) -> Fault {
        self.scripted_for(dice.phone).or_else(|| self.anyone.pop_front()).unwrap_or_else(|| self.mix.draw(dice))
    }

    fn scripted_for(&mut self, phone: &str) -> Option<Fault> {
        let script = self.by_phone.get_mut(phone)?;
        let fault = script.pop_front();
        if script.is_empty() {
            self.by_phone.remove(phone);
        }
        fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phones_own_script_comes_before_the_one_for_anyone() {
        let mut deck = Deck::default();
        deck.script(None, vec![Fault::Html]);
        deck.script(Some("0901888484"), vec![Fault::CutJson]);
        let dice = Dice { seed: 1, phone: "0901888484", nth: 1 };
        let drawn: Vec<_> = (0..3).map(|_| deck.next(dice)).collect();
        assert_eq!(drawn, [Fault::CutJson, Fault::Html, Fault::None]);
    }
}
