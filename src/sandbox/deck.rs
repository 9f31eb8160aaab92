//! Which fault comes next: first from the scripts, then the one that always comes, then from the mix.

use std::collections::{HashMap, VecDeque};

use super::{dice::Dice, fault::Fault, mix::Mix};

/// The faults to come.
#[derive(Default)]
pub(crate) struct Deck {
    pub(crate) mix: Mix,
    /// Every request without a script meets this one.
    pub(crate) always: Option<Fault>,
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

    /// Forgets the scripts; the mix and the fault that always comes stay.
    pub(crate) fn clear_scripts(&mut self) {
        self.anyone.clear();
        self.by_phone.clear();
    }

    /// The next fault of the phone's own script, else of the script for any phone, else the one that always comes,
    /// else of the mix.
    pub(crate) fn next(&mut self, dice: Dice<'_>) -> Fault {
        let scripted = self.scripted_for(dice.phone).or_else(|| self.anyone.pop_front());
        scripted.or_else(|| self.always.clone()).unwrap_or_else(|| self.mix.draw(dice))
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
    fn a_phones_own_script_comes_before_the_one_for_anyone_and_that_before_what_always_comes() {
        let mut deck = Deck::default();
        deck.script(None, vec![Fault::Html]);
        deck.script(Some("0901888484"), vec![Fault::CutJson]);
        let dice = Dice { seed: 1, phone: "0901888484", nth: 1 };
        let drawn: Vec<_> = (0..3).map(|_| deck.next(dice)).collect();
        assert_eq!(drawn, [Fault::CutJson, Fault::Html, Fault::None]);
        deck.mix = Mix::new([(Fault::EmptyBody, 1.0)]).unwrap();
        deck.always = Some(Fault::ResetAfter);
        deck.script(None, vec![Fault::Html]);
        assert_eq!([deck.next(dice), deck.next(dice)], [Fault::Html, Fault::ResetAfter]);
        deck.always = None;
        assert_eq!(deck.next(dice), Fault::EmptyBody);
    }
}
