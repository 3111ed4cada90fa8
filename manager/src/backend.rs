//! Backends: the infrastructures that start runners.
//!
//! What a backend answers is the contract; [`process`] is the one there is.

pub(crate) mod process;

use air_protocol::names::JobName;
use uuid::Uuid;

/// A runner to be started. Starting the same one twice is harmless: the second finds its lease started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// The job.
    pub(crate) job: JobName,
    /// Stream sequence of the task's message.
    pub(crate) seq: u64,
    /// Id of the runner.
    pub(crate) runner: Uuid,
    /// Revision of the claim.
    pub(crate) fence: u64,
    /// The key's value at that revision, which spares the runner a read; none where it is too long to hand over.
    pub(crate) state: Option<String>,
    /// Image that the task asks for.
    pub(crate) image: Option<String>,
}

/// A runner was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpawnError {
    /// The infrastructure is down; never counted against the task.
    #[error("{0}")]
    Unavailable(String),
    /// The task asks for what cannot be; the fifth time is a failed attempt.
    #[error("{0}")]
    Refused(String),
}
