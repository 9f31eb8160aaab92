//! Waiting for a condition instead of for a time.

use std::time::Duration;

/// Time between two looks. Short beside anything that is waited for.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls `look` until it gives a value.
///
/// # Panics
///
/// With `what` in the message, when `within` has passed before.
pub(crate) async fn eventually<T>(what: &str, within: Duration, look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = found(within, look).await;
    found.unwrap_or_else(|| panic!("not within {within:?}: {what}"))
}

/// Calls `look` until it is true; otherwise as [`eventually`].
pub(crate) async fn until(what: &str, within: Duration, mut look: impl AsyncFnMut() -> bool) {
    eventually(what, within, async || look().await.then_some(())).await;
}

/// Calls `look` until it gives a value; `None` when `within` has passed before.
pub(crate) async fn found<T>(within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let looking = async {
        loop {
            if let Some(value) = look().await {
                return value;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(within, looking).await.ok()
}
