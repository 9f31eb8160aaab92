//! Whether what is published is taken. Whoever begins something whose result must be told asks this first.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Is told each time whether messages are taken now.
pub(super) type OnChange = Box<dyn Fn(bool) + Send + Sync>;

/// See the module.
pub(super) struct Standing {
    state: Mutex<State>,
    on_change: OnChange,
}

/// What is known of the broker's willingness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// A channel is open, and the broker lets this user publish on it.
    pub(super) is_open: bool,
    /// The broker is short of memory or disk, and says so.
    pub(super) is_blocked: bool,
    /// The last message that was answered was refused, or not confirmed in time. A queue may be full.
    pub(super) is_refused: bool,
}

impl State {
    /// Whether a message would be taken, as far as is known.
    const fn is_good(self) -> bool {
        self.is_open && !self.is_blocked && !self.is_refused
    }
}

impl std::fmt::Debug for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.lock().fmt(f)
    }
}

impl Standing {
    pub(super) fn new(on_change: OnChange) -> Self {
        Self { state: Mutex::default(), on_change }
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        let before = *state;
        change(&mut state);
        if before.is_good() != state.is_good() {
            // Still under the lock, so that two changes are told in their order.
            (self.on_change)(state.is_good());
        }
    }

    pub(super) fn is_refused(&self) -> bool {
        self.lock().is_refused
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds this lock, and the state is whole even if some did.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_open_channel_that_is_neither_blocked_nor_refused_is_good() {
        for (is_open, is_blocked, is_refused, good) in [
            (true, false, false, true),
            (false, false, false, false),
            (true, true, false, false),
            (true, false, true, false),
            (false, true, true, false),
        ] {
            assert_eq!(State { is_open, is_blocked, is_refused }.is_good(), good);
        }
    }

    #[test]
    fn a_change_is_told_once() {
        let (told, heard) = std::sync::mpsc::channel();
        let standing = Standing::new(Box::new(move |up| told.send(up).unwrap()));
        standing.set(|state| state.is_open = true);
        standing.set(|state| state.is_open = true);
        standing.set(|state| state.is_refused = true);
        standing.set(|state| state.is_blocked = true);
        standing.set(|state| state.is_refused = false);
        standing.set(|state| state.is_blocked = false);
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [true, false, true]);
    }
}
