//! What happens to a job, and what that does to its state. The transitions are in [`super`].

use uuid::Uuid;

use super::{JobState, OverBudget, PurgeTo};
use crate::lease::{Ending, Lease};
use crate::ledger::Ledger;
use crate::names::TaskId;
use crate::time::Time;

/// Something that happens to a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A live task was seen.
    Work,
    /// A manager claims the job.
    Claim(Lease),
    /// The runner starts.
    Start {
        /// The runner.
        runner: Uuid,
        /// Revision of the claim.
        fence: u64,
        /// Host of the runner.
        host: String,
    },
    /// The holder of the lease lives.
    Renew {
        /// The holder.
        runner: Uuid,
    },
    /// The holder gives the lease back.
    Release {
        /// The holder.
        runner: Uuid,
        /// Stream sequence of the last record that it saw, 0 for none.
        record: u64,
    },
    /// The runner could not be started.
    StartFailed {
        /// The runner.
        runner: Uuid,
        /// No claim before this moment.
        hold_until: Time,
        /// Whether it counts as a failed start: `refused`, not `unavailable`.
        counts: bool,
        /// Why.
        reason: String,
    },
    /// A manager judged the holder dead.
    TakeOver {
        /// The holder.
        runner: Uuid,
        /// The manager.
        by: String,
    },
    /// The work of a dead holder is settled.
    Recovered {
        /// The dead holder.
        runner: Uuid,
        /// Stream sequence of the last record that was seen, 0 for none.
        record: u64,
        /// No claim before this moment.
        hold_until: Option<Time>,
        /// Whether it counts as a failed start, where the runner had not started.
        counts: bool,
        /// Why the holder was judged dead.
        reason: String,
    },
    /// Records were folded.
    Fold(Ledger),
    /// No live task, no schedule, no parked task.
    Drained {
        /// The queue was seen empty up to this stream sequence.
        at: u64,
    },
    /// A task failed for good, and the policy is to stop.
    Fail {
        /// The task.
        task: Option<TaskId>,
    },
    /// A user cancels or removes the job.
    Stop(Ending),
    /// The ends of streams were read: nobody purges more than up to there.
    Bound(PurgeTo),
    /// The queue of a cancelled job was emptied.
    Emptied {
        /// Up to this stream sequence.
        at: u64,
    },
    /// The account of the next task has not enough left, or has it again.
    OverBudget(Option<OverBudget>),
    /// A user queued a task again, or the records hold no failure any more.
    Retry,
    /// A user lets a failed job go on without its failed tasks.
    Resume,
}

impl Event {
    /// A word for the event.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Claim(_) => "claim",
            Self::Start { .. } => "start",
            Self::Renew { .. } => "renew",
            Self::Release { .. } => "release",
            Self::StartFailed { .. } => "start-failed",
            Self::TakeOver { .. } => "take-over",
            Self::Recovered { .. } => "recovered",
            Self::Fold(_) => "fold",
            Self::Drained { .. } => "drained",
            Self::Fail { .. } => "fail",
            Self::Stop(Ending::Cancel) => "cancel",
            Self::Stop(Ending::Remove) => "remove",
            Self::Bound(_) => "bound",
            Self::Emptied { .. } => "emptied",
            Self::OverBudget(_) => "over-budget",
            Self::Retry => "retry",
            Self::Resume => "resume",
        }
    }
}

/// What an event does to a state.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A new state, to be written.
    To(Box<JobState>),
    /// The event has happened already, or means nothing here.
    NoOp,
}

/// An event that cannot happen in a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{event}` cannot happen while the job is {status}")]
pub struct Invalid {
    /// The event.
    pub event: &'static str,
    /// The status, with the phase of its lease.
    pub status: String,
}
