//! Managers decide which tasks run next, and start their runners.

use std::path::PathBuf;
use std::time::Duration;

/// How a manager is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where NATS is.
    pub nats: air_nats::Options,
    /// Id of the manager, at most 64 of `A-Za-z0-9_-`; made of host and process id when none.
    pub id: Option<String>,
    /// Runners that it may have at once.
    pub runners_max: usize,
    /// Time between two looks at everything.
    pub poll: Duration,
    /// The program `air-runner`.
    pub runner: PathBuf,
    /// On shutdown, wait for the runners instead of leaving them running.
    pub drain: bool,
}

/// The manager cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] air_nats::ConnectError),
}

/// Runs a manager until `shutdown` is ready.
///
/// # Errors
/// [`Error`] when it cannot start.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let _ = options;
    shutdown.await;
    Ok(())
}
