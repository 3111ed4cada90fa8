//! The status of a job, and what goes with some of them.

use serde::{Deserialize, Serialize};

use crate::lease::Lease;
use crate::names::{JobName, TaskId};

/// The status of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "status", rename_all = "lowercase")]
#[allow(clippy::large_enum_variant, reason = "read and written whole")]
pub enum JobStatus {
    /// Nobody works on the job; it has, or may have, tasks.
    Waiting,
    /// Somebody holds the lease.
    Working {
        /// The lease.
        lease: Lease,
    },
    /// No task is left.
    Completed {
        /// The queue was seen empty up to this stream sequence.
        drained: u64,
    },
    /// A task failed for good, and the job's policy is to stop.
    Failed {
        /// The task.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<TaskId>,
    },
    /// A user cancelled the job; managers empty its queue.
    Cancelling,
    /// Cancelled, and nothing of it is queued.
    Cancelled {
        /// The queue was seen empty up to this stream sequence.
        drained: u64,
    },
    /// A user removed the job; managers delete all of it, the key last.
    Removing,
}

impl JobStatus {
    /// The word that stands in JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Working { .. } => "working",
            Self::Completed { .. } => "completed",
            Self::Failed { .. } => "failed",
            Self::Cancelling => "cancelling",
            Self::Cancelled { .. } => "cancelled",
            Self::Removing => "removing",
        }
    }

    /// Whether nothing more happens to the job by itself.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Completed { .. } | Self::Failed { .. } | Self::Cancelled { .. } => true,
            Self::Waiting | Self::Working { .. } | Self::Cancelling | Self::Removing => false,
        }
    }
}

/// The ends of streams, and the spec, as they were while a job was being cancelled or removed, said in its key: what is purged up
/// to there can be no later job's, whatever a reader has seen since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PurgeTo {
    /// Last sequence of the stream of tasks and records.
    pub stream: u64,
    /// Last sequence of the stream of logs.
    pub logs: u64,
    /// Revision of the job's spec; 0 where there was none.
    pub spec: u64,
}

/// Why the next task of a job is not claimed: its account has not enough left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OverBudget {
    /// The account: its root job.
    pub account: JobName,
    /// What is missing.
    pub reason: String,
}
