//! The git working tree in which an agent's task works, from the repository to a branch.
//!
//! Knows nothing of NATS, records or the CLI: values and paths come in and go out. Start at [`prepare`],
//! which gives a [`Space`]; that is asked for its folder, for a [`Space::save`] when the task goes on
//! elsewhere, for a [`Space::finish`] when an attempt has ended, and for [`Space::remove`] when the task is over.
//!
//! ```text
//! <base>/<system>/<job>/<task>          the working tree: one path for a task, the same on every host
//! <base>/.tasks/<system>/<job>/<task>/  mark.json, lock, config, git: what belongs to it, out of the agent's way
//! <base>/.repos/<repository>/           git, lock: what was fetched, kept for the next task of the repository
//! ```
//!
//! Each task has a repository of its own, not a worktree in a shared one: branches, stashes, settings and hooks of
//! one agent are nothing to another (decision 0020). Its objects are hard links to those that were fetched.
//! A runner that is killed leaves all this behind: the next attempt goes on in it or throws it away, and
//! [`leftovers`](sweep::leftovers) finds what belongs to nobody.

mod begin;
mod cache;
mod finish;
mod folders;
mod git;
mod lock;
mod problem;
mod saved;
pub mod sweep;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use air_protocol::claude::Workspace;

pub use begin::prepare;
pub use finish::{Change, Summary};
pub use folders::Base;
pub use problem::SpaceError;

use folders::{Mark, Places};
use git::Git;
use lock::Lock;

/// Whose working tree is wanted, and what is in it.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// Below which all working trees of this host are.
    pub base: &'a Base,
    /// The installation, as `AIR_SYSTEM` names it.
    pub system: &'a str,
    /// The job.
    pub job: &'a str,
    /// The task.
    pub task: &'a str,
    /// The attempt.
    pub attempt: u32,
    /// The runner, in whose name programs run.
    pub runner: &'a str,
    /// The repository, and where to start.
    pub workspace: &'a Workspace,
    /// With `workspace.from`: the commit that the needed task's record names, which its branch leads to.
    pub from_commit: Option<&'a str>,
}

/// What an attempt begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start<'a> {
    /// With nothing of an earlier attempt.
    Fresh,
    /// Where the earlier attempt stopped, as far as that is known: in the folder that it left on this host, or with
    /// what it saved, whichever is younger; else with nothing.
    Resume {
        /// What an attempt saved, and its number.
        saved: Option<(u32, &'a Path)>,
    },
}

/// Where a working tree came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It is as the repository is.
    Fresh,
    /// An earlier attempt left it on this host.
    Kept,
    /// An earlier attempt saved it.
    Restored,
}

/// A working tree that is ours as long as this value lives.
#[derive(Debug)]
pub struct Space {
    places: Places,
    mark: Mark,
    git: Git,
    origin: Origin,
    /// Held until the end: nobody else works here, or sweeps it.
    lock: Lock,
}

impl Space {
    /// The folder in which the agent works.
    pub fn path(&self) -> &Path {
        &self.places.tree
    }

    /// Where it came from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The branch on which the commits end up.
    pub fn branch(&self) -> &str {
        &self.mark.branch
    }

    /// The commit from which the task started.
    pub fn base(&self) -> &str {
        &self.mark.base
    }

    /// Removes the working tree and all that belongs to it: the task is over.
    ///
    /// # Errors
    /// Something cannot be removed; [`sweep`] tries again.
    pub fn remove(self) -> Result<(), SpaceError> {
        self.places.remove(self.lock)
    }

    fn saved_to(&self) -> PathBuf {
        self.places.meta.join("save.index")
    }
}
