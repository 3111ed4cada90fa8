//! What the runner's exit code tells whoever started it.

use std::process::ExitCode;

/// How the runner ended. The task's own outcome is not here: it is in its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// A record was committed and the lease given back, whatever became of the task.
    Done = 0,
    /// The claim is not, or no longer, this runner's: nothing has run, nothing was written.
    NotOurs = 3,
    /// The message was gone or the task's record had changed: nothing has run; lease given back.
    Stale = 4,
    /// Somebody else ended the attempt, such as a user who cancelled the task: the result is
    /// discarded; lease given back.
    Over = 5,
    /// The lease was lost, or could not be renewed in time: every process of the task was ended,
    /// nothing was committed.
    LeaseLost = 6,
    /// The environment does not say what to run: nothing has run.
    Usage = 64,
    /// There is no NATS, or it does not let us in, or the manager did not let the runner begin: nothing has run.
    Unavailable = 69,
    /// NATS does not answer, or not as the protocol says, or the runner was asked to end before it had
    /// started: the lease is left to the managers.
    Broken = 70,
}

impl Exit {
    /// Every exit.
    pub const ALL: [Self; 8] = [
        Self::Done,
        Self::NotOurs,
        Self::Stale,
        Self::Over,
        Self::LeaseLost,
        Self::Usage,
        Self::Unavailable,
        Self::Broken,
    ];

    /// The exit code.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The exit of a code; none for one that the runner does not use.
    pub fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| exit.code() == code)
    }

    /// Whether it is certain that nothing of the task has run.
    pub fn nothing_has_run(self) -> bool {
        match self {
            Self::NotOurs | Self::Stale | Self::Usage | Self::Unavailable => true,
            Self::Done | Self::Over | Self::LeaseLost | Self::Broken => false,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
