//! Managers decide which tasks of Air-Executor run next, and start their runners.
//!
//! Any number of equal replicas run side by side; none knows anything that NATS does not. Start at
//! [`decide`] for what a manager does next for one job, a pure function; [`backlog`], [`agenda`],
//! [`leases`] and [`circle`] are pure as well. `control` is the loop around them, `advance` one look
//! at one job, and each longer act has a file of its own: [`settle`], [`recover`], [`empty`],
//! `expire`, `remove`; what the first three commit is made by pure functions.

mod advance;
pub mod agenda;
mod backend;
pub mod backlog;
mod budget;
pub mod circle;
mod control;
pub mod decide;
pub mod empty;
mod expire;
mod feeds;
pub mod leases;
pub mod recover;
mod remove;
pub mod requeue;
pub mod settle;
mod shared;
mod workspaces;

pub use advance::hold;

use std::path::PathBuf;
use std::time::Duration;

use air_protocol::limits::{POLL_DEFAULT, POLL_MAX, POLL_MIN};
use air_protocol::names::JobName;
use air_protocol::time::Span;

/// How a manager is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where NATS is.
    pub nats: air_nats::Options,
    /// Id of the manager, at most 64 of `A-Za-z0-9_-`; made of host and process id when none.
    pub id: Option<String>,
    /// Runners that it may have at once.
    pub runners_max: usize,
    /// Time between two looks at everything, 1 s to 60 s.
    pub poll: Duration,
    /// The program `air-runner`.
    pub runner: PathBuf,
    /// What becomes of its runners when it stops.
    pub on_stop: OnStop,
    /// The server's `sync_interval`: consumed messages are deleted only when their records are synced.
    /// Zero where the server syncs always.
    pub sync_interval: Duration,
}

/// What becomes of the runners of a manager that stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// They go on; another manager goes on where they end.
    Leave,
    /// The manager waits until they have ended.
    Drain,
    /// They are told to end, and commit their tasks as to be run later, which counts as no failure.
    HandBack,
}

impl Options {
    /// Options with the defaults: twice as many runners as cores, and the poll of 5 s.
    pub fn new(nats: air_nats::Options, runner: PathBuf) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            nats,
            id: None,
            runners_max: 2 * cores,
            poll: POLL_DEFAULT,
            runner,
            on_stop: OnStop::Leave,
            sync_interval: Duration::from_secs(120),
        }
    }

    fn check(&self) -> Result<(), Error> {
        if self.runners_max == 0 {
            return Err(Error::NoRunners);
        }
        if self.poll < POLL_MIN || self.poll > POLL_MAX {
            return Err(Error::Poll(Span(self.poll)));
        }
        match &self.id {
            Some(id) if id.parse::<JobName>().is_err() => Err(Error::Id(id.clone())),
            _ => Ok(()),
        }
    }
}

/// The manager cannot start, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] air_nats::ConnectError),
    /// A request that must work did not.
    #[error("{0}")]
    Nats(#[from] air_nats::Error),
    /// The streams are missing.
    #[error("{0} is missing; make it with `airx init`")]
    Missing(String),
    /// The streams cannot be looked at.
    #[error(transparent)]
    Topology(#[from] air_nats::topology::TopologyError),
    /// The system does not tell about children.
    #[error("failed to watch the runners' processes: {0}")]
    Children(#[from] std::io::Error),
    /// No place for a runner.
    #[error("--max-runners is 0, but 1 is the least")]
    NoRunners,
    /// A poll that is too short or too long.
    #[error("--poll is {0}, but must be from {min} to {max}", min = Span(POLL_MIN), max = Span(POLL_MAX))]
    Poll(Span),
    /// An id that is none.
    #[error("`{0}` is no id of a manager; use 1 to 64 of the characters A-Z a-z 0-9 _ -")]
    Id(String),
}

/// Runs a manager until `shutdown` is ready. It owns all children of this process: whoever calls
/// this has no other children.
///
/// # Errors
/// [`Error`] when it cannot start.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    options.check()?;
    let nats = air_nats::Nats::connect(&options.nats, "air-manager").await?;
    let missing =
        |found: &air_nats::topology::Found| found.outcome == air_nats::topology::Outcome::Missing;
    let found = nats.init(None, false).await?;
    let mut users = found
        .iter()
        .filter(|found| !nats.is_made_by_managers(found));
    if let Some(found) = users.find(|found| missing(found)) {
        return Err(Error::Missing(found.name.clone()));
    }
    nats.make_managers_bucket().await?;
    control::run(nats, options, shutdown).await
}
