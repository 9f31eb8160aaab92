//! Connections that are opened again whenever they are lost.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::backoff::Policy;

/// A session that lasts this long is a good one: after its loss the next one is tried soon. If a session is
/// lost at once, the next would be lost too, so the waits keep growing.
pub(super) const GOOD_SESSION: Duration = Duration::from_secs(10);

/// How one session with the broker ended.
pub(super) enum Ended<E> {
    /// The program is stopping.
    Stopped,
    /// The session was lost, or never began, for this reason. Another session may work.
    Lost(String),
    /// Another session would fail in the same way.
    ForGood(E),
}

/// A part of the worker that has sessions with the broker, one after another.
pub(super) trait Sessions: Send {
    /// Why another session would fail too.
    type ForGood;

    /// Runs one session, from connecting to its end.
    fn session(&mut self) -> impl Future<Output = Ended<Self::ForGood>> + Send;
}

/// Runs one session after another until `stop`, with growing waits in between. When a session is lost,
/// `consequence` is logged: it says what the worker cannot do in the meantime.
///
/// # Errors
/// When a session ends for good.
pub(super) async fn repeat<S: Sessions>(
    consequence: &'static str,
    stop: &CancellationToken,
    mut sessions: S,
) -> Result<(), S::ForGood> {
    let mut waits = Policy::RECONNECT.waits();
    loop {
        let began = Instant::now();
        let why = match sessions.session().await {
            Ended::Stopped => return Ok(()),
            Ended::ForGood(error) => return Err(error),
            Ended::Lost(why) => why,
        };
        if stop.is_cancelled() {
            return Ok(());
        }
        if began.elapsed() >= GOOD_SESSION {
            waits.reset();
        }
        let wait = waits.next_wait();
        warn!(why, retry_in_ms = wait.as_millis() as u64, "{consequence}");
        if stop.run_until_cancelled(sleep(wait)).await.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sessions that last `life` each. The last one ends with `last`.
    struct Scripted {
        life: Duration,
        left: usize,
        last: Option<Ended<&'static str>>,
        began: Vec<Instant>,
    }

    impl Sessions for &mut Scripted {
        type ForGood = &'static str;

        async fn session(&mut self) -> Ended<&'static str> {
            self.began.push(Instant::now());
            sleep(self.life).await;
            self.left -= 1;
            let last = if self.left == 0 { self.last.take() } else { None };
            last.unwrap_or_else(|| Ended::Lost("a test".into()))
        }
    }

    fn scripted(life: Duration, sessions: usize, last: Ended<&'static str>) -> Scripted {
        Scripted { life, left: sessions, last: Some(last), began: Vec::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_that_are_lost_at_once_are_tried_less_and_less_often() {
        let mut sessions = scripted(Duration::ZERO, 20, Ended::Stopped);
        assert_eq!(repeat("a test", &CancellationToken::new(), &mut sessions).await, Ok(()));
        let waits: Vec<Duration> = sessions.began.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(waits.len() == 19 && waits[0] < Duration::from_millis(200), "{waits:?}");
        assert!(waits[10..].iter().all(|wait| *wait >= Duration::from_secs(5)), "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_loss_of_a_good_session_is_mended_soon() {
        let mut sessions = scripted(GOOD_SESSION, 20, Ended::Stopped);
        assert_eq!(repeat("a test", &CancellationToken::new(), &mut sessions).await, Ok(()));
        let waits = sessions.began.windows(2).map(|pair| pair[1] - pair[0] - GOOD_SESSION);
        assert!(waits.max() < Some(Duration::from_millis(200)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_ends_for_good_is_the_last() {
        let mut sessions = scripted(Duration::ZERO, 3, Ended::ForGood("why"));
        assert_eq!(repeat("a test", &CancellationToken::new(), &mut sessions).await, Err("why"));
        assert_eq!(sessions.began.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_the_waiting() {
        let stop = CancellationToken::new();
        stop.cancel();
        let mut sessions = scripted(Duration::ZERO, 3, Ended::Stopped);
        assert_eq!(repeat("a test", &stop, &mut sessions).await, Ok(()));
        assert_eq!(sessions.began.len(), 1);
    }
}
