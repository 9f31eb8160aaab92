//! The limit on connecting that belongs to a job: its deadline.
//!
//! A connection that is not made by then is given up, and one that was made a moment too late is not used. So a
//! deadline that passes while a call connects means that no byte of the call was sent. A call whose connection was
//! made in time runs to its end: cutting it off would make it ambiguous.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, timeout_at};
use tower_layer::Layer;
use tower_service::Service;

type BoxError = Box<dyn Error + Send + Sync>;

tokio::task_local! {
    /// The client's pool connects within the task of the call, so this reaches it without a parameter.
    static CONNECT_BY: Instant;
}

/// Makes a call that must have its connection by `deadline`.
pub(super) async fn connected_by<T>(deadline: Instant, call: impl Future<Output = T>) -> T {
    CONNECT_BY.scope(deadline, call).await
}

/// The layer of the client's connector that keeps the limit.
#[derive(Clone, Debug)]
pub(super) struct ByDeadline;

impl<S> Layer<S> for ByDeadline {
    type Service = Connecting<S>;

    fn layer(&self, connector: S) -> Self::Service {
        Connecting(connector)
    }
}

/// A connector that keeps the limit.
#[derive(Clone, Debug)]
pub(super) struct Connecting<S>(S);

impl<S, R> Service<R> for Connecting<S>
where
    S: Service<R, Error = BoxError>,
    S::Future: Send + 'static,
    S::Response: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let deadline = CONNECT_BY.try_with(|deadline| *deadline).ok();
        let connecting = self.0.call(request);
        Box::pin(async move {
            let Some(deadline) = deadline else { return connecting.await };
            let connection = timeout_at(deadline, connecting).await.map_err(|_| too_late())??;
            if Instant::now() >= deadline { Err(too_late()) } else { Ok(connection) }
        })
    }
}

fn too_late() -> BoxError {
    "the job's deadline passed before there was a connection".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A connector that needs this long, and gives itself.
    #[derive(Clone, Debug)]
    struct Slow(Duration);

    impl Service<()> for Slow {
        type Response = Duration;
        type Error = BoxError;
        type Future = Pin<Box<dyn Future<Output = Result<Duration, BoxError>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            let needs = self.0;
            Box::pin(async move {
                tokio::time::sleep(needs).await;
                Ok(needs)
            })
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn connecting_ends_at_the_deadline_at_the_latest() {
        for (needs, is_made) in [(SECOND / 2, true), (SECOND, false), (2 * SECOND, false)] {
            let (mut connector, began) = (ByDeadline.layer(Slow(needs)), Instant::now());
            let connected = connected_by(began + SECOND, async { connector.call(()).await }).await;
            assert_eq!(connected.is_ok(), is_made, "{needs:?}");
            assert!(began.elapsed() <= SECOND + Duration::from_millis(1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_a_deadline_has_no_such_limit() {
        assert_eq!(ByDeadline.layer(Slow(60 * SECOND)).call(()).await.unwrap(), 60 * SECOND);
    }
}
