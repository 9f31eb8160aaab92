//! Whether a call was written, and its limit: the job's deadline.
//!
//! The HTTP client reads the body of a call right after it has taken a connection, to write it. So a call whose body
//! was not read was not written, and eSMS does not have it: no connection came in time, or a kept-alive one was closed
//! before its turn.
//!
//! A call that was not written by the deadline is given up. One that was written runs to its end: cutting it off would
//! make it ambiguous.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, sleep_until};

/// Nobody has read the body.
const UNREAD: u8 = 0;
/// The client has read it.
const READ: u8 = 1;
/// The call is given up, and the client will not get the body.
const GIVEN_UP: u8 = 2;

/// What is known of one call.
#[derive(Clone, Debug)]
pub(super) struct Written(Arc<AtomicU8>);

/// The body of a call.
pub(super) struct Watched {
    body: Option<Bytes>,
    written: Written,
}

/// The client asked for the body of a call that was given up.
#[derive(Debug, thiserror::Error)]
#[error("the call was given up")]
pub(super) struct GivenUp;

impl Watched {
    pub(super) fn new(body: Bytes) -> (Self, Written) {
        let written = Written(Arc::new(AtomicU8::new(UNREAD)));
        (Self { body: Some(body), written: written.clone() }, written)
    }
}

impl Written {
    /// Whether the call may have been written.
    pub(super) fn may_be(&self) -> bool {
        self.0.load(Ordering::Acquire) == READ
    }

    /// Returns at the deadline, if the call was not written by then. From then on it never is.
    pub(super) async fn not_by(&self, deadline: Instant) {
        sleep_until(deadline).await;
        if !self.becomes(GIVEN_UP) {
            pending().await
        }
    }

    /// True if it was unread, or this already.
    fn becomes(&self, next: u8) -> bool {
        let before = self.0.compare_exchange(UNREAD, next, Ordering::AcqRel, Ordering::Acquire);
        before.is_ok() || before == Err(next)
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = GivenUp;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, GivenUp>>> {
        if !self.written.becomes(READ) {
            return Poll::Ready(Some(Err(GivenUp)));
        }
        Poll::Ready(self.body.take().map(|body| Ok(Frame::data(body))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.as_ref().map_or(0, |body| body.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::time::Duration;

    fn read(body: &mut Watched) -> Option<Result<Bytes, GivenUp>> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match Pin::new(body).poll_frame(&mut context) {
            Poll::Ready(frame) => frame.map(|frame| frame.map(|frame| frame.into_data().unwrap())),
            Poll::Pending => panic!("the body is there"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_not_written_by_the_deadline_never_is() {
        let (mut body, written) = Watched::new("call".into());
        let began = Instant::now();
        written.not_by(began + Duration::from_secs(1)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        assert!(read(&mut body).unwrap().is_err() && !written.may_be());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_written_runs_to_its_end() {
        let (mut body, written) = Watched::new("call".into());
        assert!(!written.may_be());
        assert_eq!(read(&mut body).unwrap().unwrap(), "call");
        assert!(read(&mut body).is_none() && written.may_be());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(written.not_by(Instant::now()).now_or_never(), None);
    }
}
