//! What was done with letters, or would be, in words. Pure.

use std::collections::{BTreeMap, HashSet};

use super::fate::{Fate, Wanted};
use super::words::count;
use crate::commands::harmless::harmless;
use crate::job::phone::without_numbers;

/// The most reasons that are listed.
const MOST_REASONS: usize = 20;

/// Counts letters by what became of them.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Letters that were taken from their queue.
    pub(super) looked_at: usize,
    /// Letters that were chosen.
    pub(super) chosen: usize,
    moved: BTreeMap<Kind, Moved>,
    stayed: BTreeMap<String, usize>,
}

/// Letters that go.
#[derive(Debug, Default)]
struct Moved {
    letters: usize,
    /// The ids of their jobs: several letters can be of one job.
    jobs: HashSet<String>,
}

/// What becomes of letters that go, in the order in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Sent,
    TriedAnew(&'static str),
    SentAgain,
    NewId,
    NotTold,
    Expired,
    GoesOn,
    Answered(&'static str),
}

impl Tally {
    /// A letter with this job's id has this fate.
    pub(super) fn add(&mut self, id: &str, fate: &Fate) {
        let kind = match fate {
            Fate::Sent => Kind::Sent,
            Fate::TriedAnew(outcome) => Kind::TriedAnew(outcome),
            Fate::SentAgain => Kind::SentAgain,
            Fate::NewId(_) => Kind::NewId,
            Fate::Answered(outcome) => Kind::Answered(outcome),
            Fate::GoesOn => Kind::GoesOn,
            Fate::Expired => Kind::Expired,
            Fate::NotTold => Kind::NotTold,
            Fate::Stays(why) => {
                *self.stayed.entry(why.clone()).or_default() += 1;
                return;
            }
        };
        let moved = self.moved.entry(kind).or_default();
        moved.letters += 1;
        moved.jobs.insert(id.to_owned());
    }

    /// How many letters go.
    pub(super) fn moved(&self) -> usize {
        self.moved.values().map(|moved| moved.letters).sum()
    }

    /// How many chosen letters stay.
    pub(super) fn stayed(&self) -> usize {
        self.stayed.values().sum()
    }

    fn jobs(&self, kind: Kind) -> usize {
        self.moved.get(&kind).map_or(0, |moved| moved.jobs.len())
    }

    /// What is told of them. `is_done`: it was done, and not only asked what would be.
    pub(super) fn lines(&self, wanted: Wanted, is_done: bool, is_in_memory: bool) -> Vec<String> {
        let mut lines = vec![format!("{} of {} chosen", count(self.chosen, "letter"), self.looked_at)];
        lines.push(format!("{} {}", if is_done { "requeued" } else { "would be requeued:" }, self.moved()));
        lines.extend(self.moved.iter().map(|(kind, moved)| {
            format!("  {:>6} {}{}", moved.letters, meaning(*kind), copies(moved.letters, moved.jobs.len()))
        }));
        if self.stayed() > 0 {
            lines.push(format!("{} {}", if is_done { "stayed" } else { "would stay:" }, self.stayed()));
            let mut reasons: Vec<_> = self.stayed.iter().collect();
            reasons.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
            let told = reasons.iter().take(MOST_REASONS);
            lines.extend(told.map(|(why, letters)| format!("  {letters:>6} {}", harmless(&without_numbers(why)))));
            if reasons.len() > MOST_REASONS {
                lines.push(format!("         and {} more reasons", reasons.len() - MOST_REASONS));
            }
        }
        lines.extend(self.warnings(wanted, is_in_memory));
        lines
    }

    fn warnings(&self, wanted: Wanted, is_in_memory: bool) -> Vec<String> {
        let mut lines = Vec::new();
        let again = self.jobs(Kind::SentAgain) + self.jobs(Kind::NewId);
        if again > 0 {
            lines.push(format!(
                "An OTP may have gone out before for {}: these persons may get a second one",
                count(again, "job")
            ));
        }
        if is_in_memory && self.jobs(Kind::NotTold) > 0 {
            lines.push(
                "The ledger is the memory of each worker (OTP_LEDGER_URL is memory:), and nobody else can ask it."
                    .into(),
            );
            lines.push(
                "A worker that has been restarted since, or another one, sends a job that was sent before".into(),
            );
        }
        if self.jobs(Kind::Expired) > 0 && !wanted.is_fresh {
            lines.push(
                "Expired jobs are not sent. --fresh gives each a new lifetime: do their persons still wait?".into(),
            );
        }
        lines
    }
}

/// How many jobs there are, where they are fewer than the letters.
fn copies(letters: usize, jobs: usize) -> String {
    match letters.saturating_sub(jobs) {
        0 => String::new(),
        1 => format!(" ({}: 1 letter is a copy)", count(jobs, "job")),
        more => format!(" ({}: {more} letters are copies)", count(jobs, "job")),
    }
}

fn meaning(kind: Kind) -> String {
    match kind {
        Kind::Sent => "to be sent: the ledger knows nothing of them".into(),
        Kind::TriedAnew(outcome) => format!("to be tried anew: they ended {outcome}, and nothing was sent"),
        Kind::SentAgain => "to be sent, perhaps again: the ledger knows nothing of them (any more)".into(),
        Kind::NewId => "to be sent again, each under a new id: they ended unknown".into(),
        Kind::NotTold => "to be sent, unless the worker that takes them remembers them".into(),
        Kind::Expired => "expired: their deadline has passed, and they end so".into(),
        Kind::GoesOn => "begun by a worker: they go on from there".into(),
        Kind::Answered(outcome) => format!("answered by the ledger: they ended {outcome}, and nothing is sent"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(fates: &[Fate]) -> Tally {
        let mut tally = Tally { looked_at: 9, chosen: fates.len(), ..Tally::default() };
        fates.iter().enumerate().for_each(|(n, fate)| tally.add(&n.to_string(), fate));
        tally
    }

    #[test]
    fn what_becomes_of_letters_is_counted_and_told() {
        let stays = |why: &str| Fate::Stays(why.to_owned());
        let fates = [
            Fate::Sent,
            Fate::Answered("accepted"),
            Fate::Sent,
            stays("b"),
            stays("a\u{1b}"),
            stays("b"),
            Fate::Expired,
        ];
        let tally = tally(&fates);
        assert_eq!((tally.moved(), tally.stayed()), (4, 3));
        assert_eq!(
            tally.lines(Wanted::default(), false, false),
            [
                "7 letters of 9 chosen",
                "would be requeued: 4",
                "       2 to be sent: the ledger knows nothing of them",
                "       1 expired: their deadline has passed, and they end so",
                "       1 answered by the ledger: they ended accepted, and nothing is sent",
                "would stay: 3",
                "       2 b",
                "       1 a\\u{1b}",
                "Expired jobs are not sent. --fresh gives each a new lifetime: do their persons still wait?",
            ]
        );
    }

    #[test]
    fn letters_of_one_job_are_told_as_copies() {
        let mut tally = Tally::default();
        for id in ["a", "b", "a", "a"] {
            tally.add(id, &Fate::Sent);
        }
        for id in ["c", "c"] {
            tally.add(id, &Fate::SentAgain);
        }
        let told = tally.lines(Wanted::default(), false, false).join("\n");
        for said in [
            "would be requeued: 6",
            "4 to be sent: the ledger knows nothing of them (2 jobs: 2 letters are copies)",
            "(any more) (1 job: 1 letter is a copy)",
            "for 1 job: these persons",
        ] {
            assert!(told.contains(said), "{said} is not in:\n{told}");
        }
    }

    #[test]
    fn a_second_otp_is_said_plainly() {
        for (fates, said) in [
            (
                vec![Fate::SentAgain, Fate::NewId("a:again".into())],
                Some("for 2 jobs: these persons may get a second one"),
            ),
            (vec![Fate::NewId("a:again".into())], Some("for 1 job: these persons may get a second one")),
            (vec![Fate::Sent, Fate::TriedAnew("failed"), Fate::GoesOn], None),
        ] {
            let told = tally(&fates).lines(Wanted::default(), true, false).join("\n");
            assert_eq!(told.contains("second"), said.is_some(), "{told}");
            assert!(told.contains(said.unwrap_or_default()), "{told}");
        }
        let told = tally(&[Fate::NotTold]).lines(Wanted::default(), true, true).join("\n");
        assert!(told.contains("OTP_LEDGER_URL is memory:"), "{told}");
    }
}
