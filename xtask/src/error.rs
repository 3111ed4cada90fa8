//! What can go wrong in a developer command. Every message stands alone: it is printed once, after `error: `.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The result of a developer command.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why a developer command failed.
#[derive(Debug)]
pub(crate) enum Error {
    /// A program could not be started at all.
    Start { command: String, cause: io::Error },
    /// A program ran and said no; its own output has been shown or is in `output`.
    Failed {
        command: String,
        status: String,
        output: String,
    },
    /// A file or folder could not be read, written or moved.
    File { path: PathBuf, cause: io::Error },
    /// A program answered something that we do not understand.
    Answer { command: String, what: String },
    /// A tool that an environment variable names cannot be used.
    NamedTool {
        variable: &'static str,
        path: PathBuf,
        why: String,
    },
    /// A check of the tests themselves found tests that do not notice what they should.
    Unproven {
        what: &'static str,
        complaints: Vec<String>,
    },
    /// Fuzzing found faults, in words.
    Fuzz(String),
    /// The demo did not do what it shows, in words.
    Demo(String),
    /// A tool was neither found nor could be installed.
    NoTool {
        name: &'static str,
        tried: Vec<String>,
        by_hand: String,
    },
}

impl Error {
    /// Says which file an I/O error is about.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |cause| Self::File { path, cause }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { command, cause } => write!(f, "cannot start `{command}`: {cause}"),
            Self::Failed {
                command,
                status,
                output,
            } if output.is_empty() => write!(f, "`{command}` failed ({status})"),
            Self::Failed {
                command,
                status,
                output,
            } => write!(f, "`{command}` failed ({status}): {output}"),
            Self::File { path, cause } => write!(f, "{}: {cause}", path.display()),
            Self::Answer { command, what } => {
                write!(f, "`{command}` gave an unexpected answer: {what}")
            }
            Self::NamedTool {
                variable,
                path,
                why,
            } => {
                write!(
                    f,
                    "{variable} names {}, which cannot be used: {why}",
                    path.display()
                )
            }
            Self::Unproven { what, complaints } => {
                write!(f, "{what}: {} complaints", complaints.len())?;
                complaints
                    .iter()
                    .try_for_each(|one| write!(f, "\n  - {one}"))
            }
            Self::Fuzz(what) | Self::Demo(what) => write!(f, "{what}"),
            Self::NoTool {
                name,
                tried,
                by_hand,
            } => {
                writeln!(f, "{name} is not here and could not be installed. Tried:")?;
                for reason in tried {
                    writeln!(f, "  - {reason}")?;
                }
                write!(f, "{by_hand}")
            }
        }
    }
}
