//! Who gets the next slot among the calls under way, so that jobs of one template do not block the others. Pure.
//!
//! 1. Of the templates that wait, the one that has the fewest slots goes first; of two with as many, the one that
//!    has waited longer. Within a template, jobs go in the order in which they came.
//! 2. A template is *troubled* when it was given many slots since eSMS last answered one of its calls: more than half
//!    of all, or more than an eighth where that answer was not lately. While another template works, all troubled ones
//!    together get no more than a quarter of the slots. A template that is alone keeps them all.
//!
//! The first rule shares the slots evenly. The second keeps most of them for the templates that work, also in the
//! moments in which none of their jobs waits: a call that hangs would keep such a slot for the whole `ESMS_TIMEOUT`.
//! Many jobs at once of a template that works look the same until the first answer: hence the larger part for it, and
//! it still counts as one that works for a moment.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// One part in so many of the slots, given since the last answer, makes a template troubled.
const TROUBLED_AFTER: usize = 8;

/// The same, of a template that was answered lately.
const TRUSTED_TROUBLED_AFTER: usize = 2;

/// All troubled templates together get one part in so many of the slots.
const TROUBLED_SHARE: usize = 4;

/// A template of which no job came for so long needs no slots kept for it, and an answer as old earns no trust.
const LATELY: Duration = Duration::from_secs(60);

/// A template that was answered within this time works, however many slots it was given since.
const JUST_NOW: Duration = Duration::from_secs(5);

/// How many templates are remembered beside those that have jobs here: whoever publishes jobs chooses their names.
const MOST_IDLE: usize = 256;

/// How the use of a slot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// eSMS answered.
    Answered,
    /// eSMS did not answer, or asked to try later.
    NotAnswered,
    /// No call was made, or it was cut off: nothing is known.
    NoCall,
}

/// The slots, and who waits for one. `W` tells one that waits that it has a slot now.
#[derive(Debug)]
pub(super) struct Fair<W> {
    slots: usize,
    given: usize,
    waiting: usize,
    tickets: u64,
    lines: HashMap<String, Line<W>>,
}

/// The jobs of one template.
#[derive(Debug)]
struct Line<W> {
    /// In the order of their tickets.
    waiting: VecDeque<(u64, W)>,
    given: usize,
    /// Slots given since eSMS last answered.
    unanswered: usize,
    /// When eSMS last answered.
    answered: Option<Instant>,
    /// When a job last came.
    seen: Instant,
}

impl<W> Line<W> {
    fn new(now: Instant) -> Self {
        Self { waiting: VecDeque::new(), given: 0, unanswered: 0, answered: None, seen: now }
    }

    fn is_idle(&self) -> bool {
        self.given == 0 && self.waiting.is_empty()
    }

    fn was_seen_lately(&self, now: Instant) -> bool {
        !self.is_idle() || now.duration_since(self.seen) < LATELY
    }

    fn was_answered(&self, within: Duration, now: Instant) -> bool {
        self.answered.is_some_and(|at| now.duration_since(at) < within)
    }

    fn first(&self) -> Option<u64> {
        self.waiting.front().map(|(ticket, _)| *ticket)
    }
}

impl<W> Fair<W> {
    /// So many slots, all of them free.
    pub(super) fn new(slots: usize) -> Self {
        Self { slots, given: 0, waiting: 0, tickets: 0, lines: HashMap::new() }
    }

    /// A job of this template waits from now on. Returns the ticket with which it may leave the line.
    pub(super) fn join(&mut self, template: &str, waits: W, now: Instant) -> u64 {
        let ticket = self.tickets;
        self.tickets += 1;
        self.waiting += 1;
        if !self.lines.contains_key(template) {
            self.forget(now);
            self.lines.insert(template.to_owned(), Line::new(now));
        }
        if let Some(line) = self.lines.get_mut(template) {
            line.seen = now;
            line.waiting.push_back((ticket, waits));
        }
        ticket
    }

    /// A job does not wait any more. False if it was not waiting: it has a slot.
    pub(super) fn leave(&mut self, template: &str, ticket: u64) -> bool {
        let Some(line) = self.lines.get_mut(template) else { return false };
        let Ok(at) = line.waiting.binary_search_by_key(&ticket, |(ticket, _)| *ticket) else { return false };
        line.waiting.remove(at);
        self.waiting -= 1;
        true
    }

    /// Gives a slot to the next, if there is a slot and somebody may have it.
    pub(super) fn next(&mut self, now: Instant) -> Option<W> {
        if self.waiting == 0 || self.given >= self.slots {
            return None;
        }
        let working = self.working(now);
        let is_held_down = |line: &&Line<W>| self.is_held_down(line, working, now);
        let theirs: usize = self.lines.values().filter(is_held_down).map(|line| line.given).sum();
        let may_all = theirs < (self.slots / TROUBLED_SHARE).max(1);
        let may_have = |line: &&Line<W>| may_all || !is_held_down(line);
        let next = |line: &Line<W>| line.first().map(|ticket| (line.given, ticket));
        let (_, ticket) = self.lines.values().filter(may_have).filter_map(next).min()?;
        let line = self.lines.values_mut().find(|line| line.first() == Some(ticket))?;
        let (_, waits) = line.waiting.pop_front()?;
        line.given += 1;
        line.unanswered += 1;
        self.waiting -= 1;
        self.given += 1;
        Some(waits)
    }

    /// A slot is free again. Returns whether the template is troubled while another works.
    pub(super) fn give_back(&mut self, template: &str, used: Use, now: Instant) -> bool {
        self.given = self.given.saturating_sub(1);
        let Some(line) = self.lines.get_mut(template) else { return false };
        line.given = line.given.saturating_sub(1);
        match used {
            Use::Answered => (line.unanswered, line.answered) = (0, Some(now)),
            Use::NotAnswered => {}
            Use::NoCall => line.unanswered = line.unanswered.saturating_sub(1),
        }
        self.lines.get(template).is_some_and(|line| self.is_held_down(line, self.working(now), now))
    }

    fn is_troubled(&self, line: &Line<W>, now: Instant) -> bool {
        let part = if line.was_answered(LATELY, now) { TRUSTED_TROUBLED_AFTER } else { TROUBLED_AFTER };
        line.unanswered > (self.slots / part).max(1)
    }

    fn works(&self, line: &Line<W>, now: Instant) -> bool {
        line.was_answered(JUST_NOW, now) || (line.was_seen_lately(now) && !self.is_troubled(line, now))
    }

    /// How many templates work.
    fn working(&self, now: Instant) -> usize {
        self.lines.values().filter(|line| self.works(line, now)).count()
    }

    /// Whether the template is troubled while another works, of so many that work.
    fn is_held_down(&self, line: &Line<W>, working: usize, now: Instant) -> bool {
        self.is_troubled(line, now) && working > usize::from(self.works(line, now))
    }

    /// Makes room for a new template: forgets those that nobody needs, and then the one that was seen longest ago.
    fn forget(&mut self, now: Instant) {
        if self.lines.len() < MOST_IDLE {
            return;
        }
        self.lines.retain(|_, line| line.was_seen_lately(now));
        let idle = || self.lines.iter().filter(|(_, line)| line.is_idle());
        if idle().count() < MOST_IDLE {
            return;
        }
        let oldest = idle().min_by_key(|(_, line)| line.seen).map(|(template, _)| template.clone());
        oldest.and_then(|template| self.lines.remove(&template));
    }
}

#[cfg(test)]
mod tests;
