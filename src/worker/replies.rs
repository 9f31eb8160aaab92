//! Whether replies are published. A user without permission on the default exchange gets each reply refused.
//! So after a refusal none is tried for a while: no job waits for a reply that is known to be refused.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::{Policy, Waits};

/// The waits after refusals, from a second to a few minutes: a person must give the permission.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// Longer than one reply takes. Meanwhile it alone finds out whether replies are possible again.
const TRYING: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Replies(Mutex<Option<Pause>>);

#[derive(Debug)]
struct Pause {
    until: Instant,
    waits: Waits,
    /// A reply is on its way, to find out.
    is_tried: bool,
}

impl Replies {
    /// Whether a reply may be tried now. After a pause one reply may, and the others wait for what it finds.
    pub(super) fn may_try(&self) -> bool {
        let now = Instant::now();
        match &mut *self.lock() {
            None => true,
            Some(pause) if pause.until <= now => {
                pause.until = now + TRYING;
                pause.is_tried = true;
                true
            }
            Some(_) => false,
        }
    }

    /// Whether replies are known to be refused.
    pub(super) fn are_paused(&self) -> bool {
        self.lock().is_some()
    }

    /// A reply was refused. True for the first of a series.
    pub(super) fn refused(&self) -> bool {
        let mut pause = self.lock();
        let now = Instant::now();
        match &mut *pause {
            // Several replies may have been on their way when the first was refused. Only one that was tried
            // after the pause makes it longer.
            Some(pause) => {
                if std::mem::take(&mut pause.is_tried) {
                    pause.until = now + pause.waits.next_wait();
                }
                false
            }
            None => {
                let mut waits = waits();
                *pause = Some(Pause { until: now + waits.next_wait(), waits, is_tried: false });
                true
            }
        }
    }

    /// A reply was taken. True if replies were paused.
    pub(super) fn taken(&self) -> bool {
        self.lock().take().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Pause>> {
        // No code panics while it holds this lock, and the pause is whole even if some did.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn waits() -> Waits {
    let (first, longest) = PAUSES;
    Policy::new(first, longest).unwrap_or(Policy::RECONNECT).waits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn after_a_refusal_one_reply_at_a_time_is_tried_after_pauses_that_grow() {
        let replies = Replies::default();
        assert!(replies.may_try() && replies.may_try() && !replies.are_paused());
        assert!(replies.refused(), "the first is told");
        let mut tried = 0;
        for _ in 0..3600 {
            if replies.may_try() {
                assert!(!replies.may_try(), "one at a time");
                assert!(!replies.refused(), "told once");
                tried += 1;
            }
            advance(Duration::from_secs(1)).await;
        }
        assert!((10..60).contains(&tried), "{tried} tries in an hour");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_that_is_taken_ends_the_pause() {
        let replies = Replies::default();
        replies.refused();
        assert!(!replies.may_try());
        advance(Duration::from_secs(2)).await;
        assert!(replies.may_try() && replies.taken());
        assert!(replies.may_try() && replies.may_try() && !replies.taken());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_that_tries_and_never_tells_does_not_end_replies() {
        let replies = Replies::default();
        replies.refused();
        advance(Duration::from_secs(2)).await;
        assert!(replies.may_try());
        advance(TRYING).await;
        assert!(replies.may_try());
    }
}
