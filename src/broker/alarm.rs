//! A broker that is short of memory or disk, and says so (<https://www.rabbitmq.com/docs/connection-blocked>).

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use lapin::Event;
use tokio::sync::watch;
use tokio::time::sleep;

/// Whether the broker blocks publishers. All clones are one alarm.
#[derive(Clone, Debug)]
pub struct Alarm(watch::Sender<bool>);

impl Default for Alarm {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Alarm {
    /// The broker has said that it blocks publishers, or that it does not any more.
    pub fn set(&self, is_blocked: bool) {
        self.0.send_replace(is_blocked);
    }

    /// Follows what the broker says of itself on a connection. `tell` gets its reason when it blocks publishers, and
    /// nothing when it does not any more.
    pub async fn follow(
        &self,
        mut events: impl Stream<Item = Event> + Unpin,
        tell: impl Fn(Option<&str>),
    ) -> Infallible {
        while let Some(event) = events.next().await {
            match event {
                Event::ConnectionBlocked(reason) => {
                    self.set(true);
                    tell(Some(reason.as_str()));
                }
                Event::ConnectionUnblocked => {
                    self.set(false);
                    tell(None);
                }
                // Whoever uses the connection sees that it is lost.
                _ => {}
            }
        }
        pending().await
    }

    /// Returns when an answer is overdue. A broker that is short of memory or disk says so, and answers once
    /// it has room. Publishing again would only give it more messages to take then.
    pub async fn silence(&self, limit: Duration) {
        let mut blocked = self.0.subscribe();
        loop {
            let is_blocked = *blocked.borrow_and_update();
            tokio::select! {
                // `self` owns a sender, so this cannot fail.
                _ = blocked.changed() => {}
                () = sleep(limit), if !is_blocked => return,
            }
        }
    }
}

/// What a person is told of it: the broker's reason when it blocks publishers, and nothing when it does not any more.
pub fn in_words(blocked: Option<&str>) -> String {
    match blocked {
        Some(reason) => format!(
            "the broker takes no messages now ({reason}): it is short of memory or disk. Waiting until it has room"
        ),
        None => "the broker takes messages again".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, timeout};

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn nothing_is_overdue_while_the_broker_blocks() {
        let alarm = Alarm::default();
        let began = Instant::now();
        alarm.silence(LIMIT).await;
        assert_eq!(began.elapsed(), LIMIT);
        alarm.set(true);
        assert!(timeout(LIMIT * 100, alarm.silence(LIMIT)).await.is_err());
        let over = async {
            sleep(LIMIT * 5).await;
            alarm.set(false);
        };
        let began = Instant::now();
        tokio::join!(alarm.silence(LIMIT), over);
        assert_eq!(began.elapsed(), LIMIT * 6);
    }
}
