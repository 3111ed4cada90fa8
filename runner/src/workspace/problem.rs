//! Why a working tree could not be made or finished, in words that say what to do.

use std::io;
use std::path::PathBuf;

use air_protocol::quote::quote;

/// Why a working tree could not be made or finished.
#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    /// There is no git.
    #[error("the workspace needs `git`, which is not on the PATH of the runner; install it there")]
    NoGit,
    /// The order cannot be followed, however often it is tried.
    #[error("{0}")]
    Refused(String),
    /// Git failed.
    #[error("git failed to {doing}: {text}")]
    Git {
        /// What it was to do.
        doing: &'static str,
        /// What it said.
        text: String,
    },
    /// Git took too long.
    #[error("git did not {doing} within {minutes} min; is the repository reached from this host?")]
    Slow {
        /// What it was to do.
        doing: &'static str,
        /// The limit, in minutes.
        minutes: u64,
    },
    /// It was told to stop.
    #[error("the task was ended before its working tree was made")]
    Stopped,
    /// Another runner works there.
    #[error("another runner of this host still works in `{}`", .0.display())]
    Busy(PathBuf),
    /// Paths with conflicts that nobody has resolved.
    #[error("the agent left a merge with conflicts in {}; resolve them, or `git merge --abort`", quote(.0))]
    Conflicts(String),
    /// Files cannot be read or written.
    #[error("the host failed to {doing} `{}`: {source}", .path.display())]
    Host {
        /// What was to be done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl SpaceError {
    /// Whether another attempt would end in the same way.
    pub fn is_for_good(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Conflicts(_) => true,
            Self::NoGit | Self::Git { .. } | Self::Slow { .. } | Self::Stopped => false,
            Self::Busy(_) | Self::Host { .. } => false,
        }
    }

    /// For `map_err`: what was to be done with which file.
    pub(crate) fn host(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Host {
            doing,
            path,
            source,
        }
    }
}
