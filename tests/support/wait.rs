//! Waiting for a condition instead of for a time.

use std::time::Duration;

/// The time between two looks. It is short compared with every wait.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls `look` until it gives a value.
///
/// # Panics
///
/// When `look` gives no value within `within`. The message contains `what`.
pub(crate) async fn eventually<T>(what: &str, within: Duration, look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = found(within, look).await;
    found.unwrap_or_else(|| panic!("not within {within:?}: {what}"))
}

/// Calls `look` until it returns true. It panics as [`eventually`] does.
pub(crate) async fn until(what: &str, within: Duration, mut look: impl AsyncFnMut() -> bool) {
    eventually(what, within, async || look().await.then_some(())).await;
}

/// Calls `look` until it gives a value. Returns `None` when `within` passes first.
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
