//! Waiting for a condition.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Time after which a test counts as hanging: no measure of anything, so long that the busiest machine does not reach it.
pub const HANGS: Duration = Duration::from_secs(900);

/// Waits until `look` gives `Ok`; panics with what it last saw when it [`HANGS`].
pub async fn wait_for<T, E: Debug>(what: &str, look: impl AsyncFnMut() -> Result<T, E>) -> T {
    wait_for_within(HANGS, what, look).await
}

/// Waits until `look` gives `Ok`; panics after `most` with what it last saw.
pub async fn wait_for_within<T, E: Debug>(
    most: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > most => {
                panic!("no {what} within {most:?}; last seen: {seen:?}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Lets time pass that is itself what a test does: how long a fault lasts, how often a load comes. Never to wait for
/// something to have happened.
pub async fn time_passes(time: Duration) {
    tokio::time::sleep(time).await;
}
