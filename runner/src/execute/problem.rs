//! Why a program could not be started, said so that its author can mend it.

use std::io;
use std::path::PathBuf;

/// Why a program did not start. Each text says what, where, and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum SpawnProblem {
    /// The argument list is empty, or its first entry is.
    #[error("no program is named; give `argv` at least one entry that is not empty")]
    NoProgram,
    /// An argument or variable holds a NUL byte, or a variable has an impossible name.
    #[error(
        "{place} {fault}; no program on Linux can be given that, so write it to a file or encode it"
    )]
    Unpassable {
        /// Which argument or variable.
        place: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The working folder is not there, or cannot be entered.
    #[error("working folder `{}` {fault}; create it, correct the task's `cwd`, or grant access", path.display())]
    WorkingFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// No such program.
    #[error("program `{program}` was not found {place}; install it, or correct the name or `PATH`")]
    NotFound {
        /// As the task named it.
        program: String,
        /// Where it was looked for.
        place: String,
    },
    /// The file is there but cannot be executed.
    #[error("`{}` {fault}", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and how to mend it.
        fault: &'static str,
    },
    /// Arguments and environment are larger than Linux allows.
    #[error(
        "argument list too long: arguments and environment take {bytes} bytes, the longest entry {longest}, \
         while Linux takes 128 KiB in one entry and commonly 2 MiB in all; pass large values in `input` or a file"
    )]
    TooLong {
        /// Bytes of all arguments and variables.
        bytes: usize,
        /// Bytes of the longest of them.
        longest: usize,
    },
    /// The host would not: out of processes, memory or files. Not the task's fault.
    #[error(
        "the host could not start `{program}` ({doing}); free its resources or raise its limits"
    )]
    Host {
        /// As the task named it.
        program: String,
        /// The step that failed.
        doing: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}
