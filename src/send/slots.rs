//! The slots among the calls under way (`OTP_CONCURRENCY`). A job has one for each attempt, and none while it waits
//! for the next. The file `fair.rs` decides whose the next slot is.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::fair::{Fair, Use};

/// See the module.
#[derive(Debug)]
pub struct Slots {
    fair: Mutex<Fair<oneshot::Sender<()>>>,
}

/// A slot. It is free again when this is dropped.
#[derive(Debug)]
pub struct Slot<'a> {
    slots: &'a Slots,
    template: &'a str,
    is_free: bool,
}

impl Slots {
    /// So many slots.
    pub fn new(slots: u16) -> Self {
        Self { fair: Mutex::new(Fair::new(usize::from(slots))) }
    }

    /// Waits for a slot. Whoever stops waiting loses their turn.
    pub async fn take<'a>(&'a self, template: &'a str) -> Slot<'a> {
        let template = beginning(template);
        let (tells, told) = oneshot::channel();
        let mut waiting = {
            let (mut fair, now) = (self.fair(), Instant::now());
            let ticket = fair.join(template, tells, now);
            serve(&mut fair, now);
            Waiting { slots: self, template, ticket: Some(ticket) }
        };
        // Nobody drops the other end without telling: it is in the line until then.
        let _ = told.await;
        waiting.ticket = None;
        Slot { slots: self, template, is_free: false }
    }

    fn give_back(&self, template: &str, used: Use) -> bool {
        let (mut fair, now) = (self.fair(), Instant::now());
        let is_the_templates = fair.give_back(template, used, now);
        serve(&mut fair, now);
        is_the_templates
    }

    fn fair(&self) -> MutexGuard<'_, Fair<oneshot::Sender<()>>> {
        // No code panics while it holds this lock.
        self.fair.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Templates are remembered, and their names come from outside: so much of a name tells it from others.
const BEGINNING: usize = 64;

fn beginning(template: &str) -> &str {
    let end = template.char_indices().nth(BEGINNING).map(|(end, _)| end);
    end.and_then(|end| template.get(..end)).unwrap_or(template)
}

/// Gives the free slots away. One that was told and has just stopped waiting gives its slot back by itself.
fn serve(fair: &mut Fair<oneshot::Sender<()>>, now: Instant) {
    while let Some(tells) = fair.next(now) {
        let _ = tells.send(());
    }
}

impl Slot<'_> {
    /// The call is over. Returns whether its template fails while another does not.
    pub fn over(mut self, answered: bool) -> bool {
        self.is_free = true;
        self.slots.give_back(self.template, if answered { Use::Answered } else { Use::NotAnswered })
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if !self.is_free {
            self.slots.give_back(self.template, Use::NoCall);
        }
    }
}

/// A turn in the line.
struct Waiting<'a> {
    slots: &'a Slots,
    template: &'a str,
    ticket: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let is_waiting = self.slots.fair().leave(self.template, ticket);
        if !is_waiting {
            self.slots.give_back(self.template, Use::NoCall);
        }
    }
}

/// Waits for something else. Whoever has to wait gives the slot back first: it is for calls.
pub async fn without<T>(slot: &mut Option<Slot<'_>>, what: impl Future<Output = T>) -> T {
    let mut what = pin!(what);
    if let Some(done) = what.as_mut().now_or_never() {
        return done;
    }
    *slot = None;
    what.await
}

#[cfg(test)]
mod tests;
