//! Who goes first, and who must wait. A slot is given to a word: `a1` is the first job of the template `a`.

use super::*;

struct Table {
    fair: Fair<&'static str>,
    now: Instant,
}

impl Table {
    fn of(slots: usize) -> Self {
        Self { fair: Fair::new(slots), now: Instant::now() }
    }

    fn template(job: &str) -> &str {
        &job[..1]
    }

    fn join(&mut self, jobs: &[&'static str]) -> Vec<u64> {
        jobs.iter().map(|job| self.fair.join(Self::template(job), job, self.now)).collect()
    }

    /// Everyone who gets a slot now.
    fn served(&mut self) -> Vec<&'static str> {
        std::iter::from_fn(|| self.fair.next(self.now)).collect()
    }

    fn done(&mut self, template: &str, used: Use) -> bool {
        self.fair.give_back(template, used, self.now)
    }

    /// As many jobs of the template come and get no answer as are possible.
    fn hang(&mut self, template: &'static str, jobs: usize) -> usize {
        for _ in 0..jobs {
            self.fair.join(template, template, self.now);
        }
        self.served().len()
    }
}

#[test]
fn one_template_has_every_place_and_goes_in_order() {
    let mut table = Table::of(2);
    table.join(&["a1", "a2", "a3", "a4"]);
    assert_eq!(table.served(), ["a1", "a2"]);
    table.done("a", Use::Answered);
    assert_eq!(table.served(), ["a3"]);
    assert_eq!(table.served(), [""; 0]);
}

#[test]
fn the_template_with_the_fewest_places_goes_first() {
    let mut table = Table::of(4);
    table.join(&["a1", "a2", "a3", "a4", "a5"]);
    assert_eq!(table.served().len(), 4);
    table.join(&["b1", "b2", "b3", "c1"]);
    for (freed, next) in [("a", "b1"), ("a", "c1"), ("a", "a5"), ("b", "b2"), ("c", "b3")] {
        table.done(freed, Use::Answered);
        assert_eq!(table.served(), [next], "after one of {freed}");
    }
}

#[test]
fn of_two_with_as_many_places_the_one_that_has_waited_longer_goes_first() {
    let mut table = Table::of(1);
    table.join(&["a1", "c1", "b1"]);
    for next in ["a1", "c1", "b1"] {
        assert_eq!(table.served(), [next]);
        table.done(&next[..1], Use::Answered);
    }
}

#[test]
fn who_stops_waiting_loses_the_turn_and_who_has_a_place_does_not_wait() {
    let mut table = Table::of(1);
    let tickets = table.join(&["a1", "a2", "a3"]);
    assert_eq!(table.served(), ["a1"]);
    assert!(table.fair.leave("a", tickets[1]));
    assert!(!table.fair.leave("a", tickets[1]), "it has left already");
    assert!(!table.fair.leave("a", tickets[0]), "it has a slot");
    assert!(!table.fair.leave("b", tickets[2]), "of another template");
    table.done("a", Use::NoCall);
    assert_eq!(table.served(), ["a3"]);
}

#[test]
fn a_template_that_hangs_keeps_all_places_alone_and_a_quarter_beside_one_that_works() {
    let mut alone = Table::of(64);
    assert_eq!(alone.hang("h", 100), 64);

    let mut table = Table::of(64);
    table.join(&["w1"]);
    assert_eq!(table.served(), ["w1"]);
    table.done("w", Use::Answered);
    assert_eq!(table.hang("h", 100), 16);
    // What is free while nobody else waits is kept for those that work: they have it at once, all of them together.
    assert_eq!(table.hang("w", 48), 48);
    for _ in 0..48 {
        table.done("w", Use::Answered);
    }
    assert_eq!(table.served(), [""; 0]);
    assert!(table.done("h", Use::NotAnswered), "it is the template's own fault");
    assert_eq!(table.served(), ["h"]);
    // One answer shows that it works again.
    table.done("h", Use::Answered);
    assert!(!table.served().is_empty());
}

#[test]
fn all_troubled_templates_together_have_a_quarter() {
    let mut table = Table::of(64);
    table.join(&["w1"]);
    table.served();
    let given: usize = ["f", "g", "h"].into_iter().map(|template| table.hang(template, 50)).sum();
    // Each gets enough to find out that it is troubled.
    assert!((16..=16 + 2 * 9).contains(&given), "{given}");
    for template in ["f", "g", "h"] {
        table.done(template, Use::NotAnswered);
    }
    assert_eq!(table.served(), [""; 0]);
}

#[test]
fn a_template_that_begins_to_hang_leaves_half_of_the_places() {
    let mut table = Table::of(64);
    for template in ["v", "w"] {
        table.hang(template, 1);
        table.done(template, Use::Answered);
    }
    assert_eq!(table.hang("w", 100), 33);
    assert_eq!(table.hang("v", 100), 31);
    // By and by it is left a quarter.
    for _ in 0..33 {
        table.done("w", Use::NotAnswered);
        table.done("v", Use::Answered);
        table.served();
    }
    assert_eq!((table.fair.lines["w"].given, table.fair.lines["v"].given), (16, 48));
}

#[test]
fn a_template_that_was_not_answered_for_a_moment_does_not_set_one_that_hangs_free() {
    let mut table = Table::of(64);
    table.hang("w", 1);
    table.done("w", Use::Answered);
    assert_eq!(table.hang("h", 100), 16);
    assert_eq!(table.hang("w", 100), 48);
    // A slot of theirs that becomes free is theirs again, until they have not been answered for longer.
    table.done("w", Use::NotAnswered);
    assert_eq!(table.served(), ["w"]);
    table.now += JUST_NOW;
    table.done("w", Use::NotAnswered);
    assert_eq!(table.served(), ["h"]);
}

#[test]
fn where_every_template_is_troubled_nothing_is_kept_for_anyone() {
    let mut table = Table::of(64);
    assert_eq!(table.hang("g", 20), 20);
    assert_eq!(table.hang("h", 100), 44);
    assert!(!table.done("h", Use::NotAnswered), "it is not the template's fault alone");
    assert_eq!(table.served(), ["h"]);
}

#[test]
fn places_are_kept_for_a_while_after_the_last_job_of_a_template_that_works() {
    let mut table = Table::of(8);
    table.join(&["w1"]);
    table.served();
    table.done("w", Use::Answered);
    assert_eq!(table.hang("h", 20), 2);
    table.now += LATELY - Duration::from_millis(1);
    assert_eq!(table.served(), [""; 0]);
    table.now += Duration::from_millis(1);
    assert_eq!(table.served().len(), 6);
}

#[test]
fn a_troubled_template_always_has_a_place_to_show_that_it_works_again() {
    for slots in 1..=16 {
        let mut table = Table::of(slots);
        table.join(&["w1"]);
        table.served();
        table.done("w", Use::Answered);
        assert!(table.hang("h", 100) >= 1, "{slots} slots");
        table.done("h", Use::Answered);
        assert!(!table.served().is_empty(), "{slots} slots");
    }
}

#[test]
fn a_place_without_a_call_says_nothing() {
    let mut table = Table::of(8);
    table.join(&["w1"]);
    table.served();
    for _ in 0..100 {
        assert_eq!(table.hang("h", 1), 1);
        assert!(!table.done("h", Use::NoCall));
    }
}

#[test]
fn templates_without_jobs_are_forgotten() {
    let mut table = Table::of(1_000);
    for n in 0..5 * MOST_IDLE {
        let template = n.to_string();
        table.fair.join(&template, "x", table.now);
        table.served();
        table.fair.give_back(&template, Use::Answered, table.now);
        table.now += Duration::from_millis(1);
    }
    assert!(table.fair.lines.len() <= MOST_IDLE);
    assert!(table.fair.lines.contains_key(&(5 * MOST_IDLE - 1).to_string()), "the latest is remembered");
    table.now += LATELY;
    table.join(&["a1"]);
    assert_eq!(table.fair.lines.len(), 1);
    // Those that have jobs are never forgotten.
    for n in 0..2 * MOST_IDLE {
        table.fair.join(&n.to_string(), "x", table.now);
    }
    table.served();
    assert_eq!(table.fair.lines.len(), 2 * MOST_IDLE + 1);
}
