//! The exit codes of `airx`: part of its interface, for scripts to branch on.

use std::process::ExitCode;

/// How a run of `airx` ended.
///
/// ```
/// assert_eq!(airx::Exit::TimedOut.code(), 124);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: it did what it was asked to do.
    Done,
    /// 1: the job or task that was waited for failed or was cancelled, or the request was refused.
    Failed,
    /// 2: the command line, a file or a value is wrong; nothing was done.
    Usage,
    /// 3: there is no such job, task or file.
    NotFound,
    /// 4: NATS cannot be reached, does not let us in, or lacks what `airx init` makes.
    Nats,
    /// 124: the time of `--timeout` is over.
    TimedOut,
    /// 130: interrupted from the keyboard.
    Interrupted,
}

impl Exit {
    /// Every way to end, in the order of the codes.
    pub const ALL: [Self; 7] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::NotFound,
        Self::Nats,
        Self::TimedOut,
        Self::Interrupted,
    ];

    /// The code that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Nats => 4,
            Self::TimedOut => 124,
            Self::Interrupted => 130,
        }
    }

    /// What the code means, in a few words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "the job or task failed or was cancelled, or the request was refused",
            Self::Usage => "wrong command line, file or value; nothing was done",
            Self::NotFound => "no such job, task or file",
            Self::Nats => "NATS cannot be reached, or lacks what `airx init` makes",
            Self::TimedOut => "the time of --timeout is over",
            Self::Interrupted => "interrupted",
        }
    }

    /// All codes with their meaning, one a line, as help texts show them.
    pub fn table() -> String {
        let line = |exit: Self| format!("  {:<4} {}", exit.code(), exit.meaning());
        Self::ALL.map(line).join("\n")
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_a_promise() {
        assert_eq!(Exit::ALL.map(Exit::code), [0, 1, 2, 3, 4, 124, 130]);
    }
}
