//! Repeats requests to NATS that may work a moment later.

use std::time::Duration;

use air_nats::Error;

/// Tries that take some ten seconds.
const TRIES: u32 = 18;

/// Waits between tries: doubles from 5 ms to 1 s.
#[derive(Debug)]
pub(crate) struct Patience(Duration);

impl Patience {
    pub(crate) fn new() -> Self {
        Self(Duration::from_millis(5))
    }

    /// Waits longer each time.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(Duration::from_secs(1));
    }
}

/// Repeats `request` until it works or fails for a reason that does not pass.
///
/// Source of the errors: [`Error::is_passing`].
pub(crate) async fn again<T>(
    mut request: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let mut patience = Patience::new();
    loop {
        match request().await {
            Err(error) if error.is_passing() => {
                tracing::debug!(%error, "asking again");
                patience.wait().await;
            }
            other => return other,
        }
    }
}

/// Repeats `request`, whatever its error, for some ten seconds: for blobs, whose errors do not tell
/// which of them pass.
pub(crate) async fn for_a_while<T>(
    mut request: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let mut patience = Patience::new();
    for _ in 1..TRIES {
        match request().await {
            Ok(value) => return Ok(value),
            Err(error) => tracing::debug!(%error, "trying again"),
        }
        patience.wait().await;
    }
    request().await
}
