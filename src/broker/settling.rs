//! How deliveries are settled: acknowledged many at once, or given back one by one.
//!
//! An acknowledgement is handed over and not waited for: the broker does not confirm it anyway. Those that become due
//! in one turn of the event loop go out together. One frame acknowledges every delivery up to a tag, as far as all of
//! them are due; the others have a frame each. A delivery that is not known to be settled is never passed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicRejectOptions};
use lapin::{Acker, Channel};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::debug;

use super::REPLY_WITHIN;

/// Acknowledges the deliveries of one channel, while its `run` is polled.
#[derive(Debug)]
pub struct Settling {
    channel: Channel,
    window: Mutex<Window>,
    is_due: Notify,
}

impl Settling {
    /// Nothing was delivered on the channel yet.
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel, window: Mutex::default(), is_due: Notify::new() }
    }

    /// Hands over what is due, again and again. It never returns; whoever runs it ends it.
    pub(super) async fn run(&self) {
        loop {
            self.is_due.notified().await;
            let acks = self.window().take();
            for Ack { tag, multiple } in acks {
                // Polled once, it has given its frame to the connection.
                let _handed_over = self.channel.basic_ack(tag, BasicAckOptions { multiple }).now_or_never();
            }
        }
    }

    fn acknowledge(&self, tag: u64) {
        self.window().set(tag, State::Due);
        self.is_due.notify_one();
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        // No code panics while it holds this lock.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How one delivery is settled. Only the first of its methods that settles has an effect.
#[derive(Debug)]
pub struct Settle {
    acker: Acker,
    tag: u64,
    settling: Option<Arc<Settling>>,
    is_settled: AtomicBool,
}

impl Settle {
    /// Of the delivery with this tag.
    pub(super) fn new(acker: Acker, tag: u64, settling: &Arc<Settling>) -> Self {
        Self { acker, tag, settling: Some(Arc::clone(settling)), is_settled: AtomicBool::new(false) }
    }

    /// Of a delivery that came from no broker.
    #[cfg(test)]
    pub(crate) fn of_none(acker: Acker) -> Self {
        Self { acker, tag: 0, settling: None, is_settled: AtomicBool::new(false) }
    }

    /// Whether the broker still waits for it, as far as is known.
    pub fn is_live(&self) -> bool {
        self.acker.usable() && !self.is_settled.load(Ordering::Relaxed)
    }

    /// Whether it may be settled now. Nobody else may from then on.
    fn begin(&self) -> bool {
        self.acker.usable() && !self.is_settled.swap(true, Ordering::Relaxed)
    }

    /// Acknowledges it. True if that was handed over to the connection.
    pub fn ack(&self) -> bool {
        if !self.begin() {
            return false;
        }
        if let Some(settling) = &self.settling {
            settling.acknowledge(self.tag);
        }
        true
    }

    /// Gives it back with basic.nack. True if the broker was told.
    pub async fn nack(&self) -> bool {
        let requeue = BasicNackOptions { requeue: true, ..Default::default() };
        self.requeued("nack", self.acker.nack(requeue)).await
    }

    /// Gives it back with basic.reject. True if the broker was told.
    pub async fn reject(&self) -> bool {
        self.requeued("reject", self.acker.reject(BasicRejectOptions { requeue: true })).await
    }

    async fn requeued(&self, method: &str, sent: impl Future<Output = lapin::Result<bool>>) -> bool {
        if !self.begin() {
            return false;
        }
        match timeout(REPLY_WITHIN, sent).await {
            Ok(Ok(told)) => {
                // Only now that it is written may an acknowledgement pass it: one that came first would settle it.
                if let (true, Some(settling)) = (told, &self.settling) {
                    settling.window().set(self.tag, State::Over);
                }
                told
            }
            Ok(Err(error)) => {
                debug!(method, %error, "a delivery could not be settled; the broker delivers it again");
                false
            }
            Err(_) => false,
        }
    }
}

/// What is known of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It must not be acknowledged: it is worked, or was not even taken yet.
    Open,
    /// It is to be acknowledged.
    Due,
    /// It is settled.
    Over,
}

/// One frame to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ack {
    tag: u64,
    /// With every delivery before it.
    multiple: bool,
}

/// The deliveries from the first that is not settled on. Tags count from 1 on.
#[derive(Debug, Default)]
struct Window {
    /// How many are settled before the first of `states`.
    before: u64,
    states: VecDeque<State>,
    due: Vec<u64>,
}

impl Window {
    fn set(&mut self, tag: u64, state: State) {
        let Some(at) = tag.checked_sub(self.before + 1).and_then(|at| usize::try_from(at).ok()) else { return };
        if self.states.len() <= at {
            self.states.resize(at + 1, State::Open);
        }
        if let Some(now) = self.states.get_mut(at) {
            *now = state;
        }
        if state == State::Due {
            self.due.push(tag);
        }
    }

    /// The frames for all that is due. It counts as settled from now on.
    fn take(&mut self) -> Vec<Ack> {
        let due = std::mem::take(&mut self.due);
        let mut upto = None;
        while let Some(State::Due | State::Over) = self.states.front() {
            self.before += 1;
            if self.states.pop_front() == Some(State::Due) {
                upto = Some(self.before);
            }
        }
        let mut acks: Vec<Ack> = upto.map(|tag| Ack { tag, multiple: true }).into_iter().collect();
        let before = self.before;
        for tag in due.into_iter().filter(|tag| *tag > before) {
            self.set(tag, State::Over);
            acks.push(Ack { tag, multiple: false });
        }
        acks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks(window: &mut Window, due: &[u64]) -> Vec<(u64, bool)> {
        due.iter().for_each(|tag| window.set(*tag, State::Due));
        window.take().into_iter().map(|ack| (ack.tag, ack.multiple)).collect()
    }

    #[test]
    fn one_frame_settles_all_before_it_that_are_due() {
        let mut window = Window::default();
        assert_eq!(acks(&mut window, &[2, 1, 3]), [(3, true)]);
        assert_eq!(acks(&mut window, &[]), []);
        assert_eq!(acks(&mut window, &[4]), [(4, true)]);
    }

    #[test]
    fn a_delivery_that_is_worked_or_was_not_taken_yet_is_never_passed() {
        let mut window = Window::default();
        // Nobody has heard of 1 yet.
        assert_eq!(acks(&mut window, &[3, 2]), [(3, false), (2, false)]);
        assert_eq!(acks(&mut window, &[5]), [(5, false)]);
        // Now 1 to 3 are over, and 4 is not.
        assert_eq!(acks(&mut window, &[1]), [(1, true)]);
        assert_eq!(acks(&mut window, &[7, 4]), [(4, true), (7, false)]);
        assert_eq!(acks(&mut window, &[6]), [(6, true)]);
    }

    #[test]
    fn one_that_goes_back_is_passed_only_once_that_is_written() {
        let mut window = Window::default();
        // 1 is on its way back.
        assert_eq!(acks(&mut window, &[2]), [(2, false)]);
        window.set(1, State::Over);
        // Alone it needs no frame.
        assert_eq!(acks(&mut window, &[]), []);
        assert_eq!(acks(&mut window, &[3]), [(3, true)]);
    }

    #[test]
    fn whatever_the_order_every_delivery_is_settled_once_and_none_too_early() {
        use proptest::prelude::*;
        proptest!(|(order in Just((1..=40_u64).collect::<Vec<_>>()).prop_shuffle(), batch in 1..8_usize)| {
            let (mut window, mut due, mut settled) = (Window::default(), Vec::new(), std::collections::BTreeSet::new());
            for tags in order.chunks(batch) {
                due.extend(tags);
                for (tag, multiple) in acks(&mut window, tags) {
                    for tag in if multiple { 1..=tag } else { tag..=tag } {
                        prop_assert!(due.contains(&tag));
                        settled.insert(tag);
                    }
                }
                prop_assert_eq!(settled.len(), due.len());
            }
            prop_assert!(window.states.is_empty());
        });
    }
}
