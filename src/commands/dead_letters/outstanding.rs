//! The letters that are held: which of them may be acknowledged together. Pure.

use std::collections::BTreeMap;

use lapin::BasicProperties;

/// A letter that is held.
pub(super) enum Held {
    /// It only goes back.
    GoesBack,
    /// It was returned so often that a copy takes its place.
    IsRenewed(Box<(BasicProperties, Vec<u8>)>),
}

/// The letters of one channel that are held, by their tags.
#[derive(Default)]
pub(super) struct Outstanding(BTreeMap<u64, Held>);

/// One acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) tag: u64,
    /// Of all letters up to this one, too.
    pub(super) is_multiple: bool,
}

impl Outstanding {
    /// A letter is held.
    pub(super) fn hold(&mut self, tag: u64, held: Held) {
        self.0.insert(tag, held);
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// These letters are done with, and are held no more: the acknowledgements for them. One does for all that no other
    /// held letter stands before. RabbitMQ's channel puts off what it cannot pass on at once, and loses that if it is closed then:
    /// the fewer, the better.
    pub(super) fn settle(&mut self, mut tags: Vec<u64>) -> Vec<Ack> {
        tags.sort_unstable();
        for tag in &tags {
            self.0.remove(tag);
        }
        let first_held = self.0.keys().next().copied().unwrap_or(u64::MAX);
        let (together, single) = tags.split_at(tags.partition_point(|tag| *tag < first_held));
        let together = together.last().map(|tag| Ack { tag: *tag, is_multiple: true });
        together.into_iter().chain(single.iter().map(|tag| Ack { tag: *tag, is_multiple: false })).collect()
    }

    /// Whether any is to be renewed.
    pub(super) fn has_any_to_renew(&self) -> bool {
        self.0.values().any(|held| matches!(held, Held::IsRenewed(_)))
    }

    /// Takes out those that are to be renewed.
    pub(super) fn take_renewed(&mut self) -> Vec<(u64, BasicProperties, Vec<u8>)> {
        let mut taken = Vec::new();
        for (tag, held) in &mut self.0 {
            if let Held::IsRenewed(copy) = std::mem::replace(held, Held::GoesBack) {
                taken.push((*tag, copy.0, copy.1));
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_acknowledgement_does_for_all_that_no_held_letter_stands_before() {
        let one = |tag| Ack { tag, is_multiple: false };
        let up_to = |tag| Ack { tag, is_multiple: true };
        for (held, settled, acks) in [
            (&[1, 2, 3][..], &[1, 2, 3][..], vec![up_to(3)]),
            (&[1, 2, 3], &[1, 3], vec![up_to(1), one(3)]),
            (&[1, 2, 3], &[2, 3], vec![one(2), one(3)]),
            (&[1, 2, 3, 4], &[3, 1, 2], vec![up_to(3)]),
            (&[7], &[], vec![]),
        ] {
            let mut outstanding = Outstanding::default();
            held.iter().for_each(|tag| outstanding.hold(*tag, Held::GoesBack));
            assert_eq!(outstanding.settle(settled.to_vec()), acks, "{held:?} {settled:?}");
            assert_eq!(outstanding.len(), held.len() - settled.len());
        }
    }
}
