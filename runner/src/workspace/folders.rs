//! Where working trees are, and the mark by which they are known as ours.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use air_protocol::quote::quote;
use serde::{Deserialize, Serialize};

use super::lock::Lock;
use super::{Order, SpaceError};
use crate::execute::workdir::remove_all;

/// Names the folder below which all working trees of a host are.
const VARIABLE: &str = "AIR_WORKSPACES";
/// Below the base: what belongs to tasks, out of their sight. No job has a name with a dot.
const TASKS: &str = ".tasks";
/// Below the base: what was fetched.
const REPOS: &str = ".repos";
/// What a mark says of who made it.
const MAKER: &str = "air-runner";
/// Tries to make a folder whose parents another process removes.
const TRIES: u32 = 20;

/// The folder below which all working trees of a host are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base(PathBuf);

impl Base {
    /// A folder of the caller's choice.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder that `AIR_WORKSPACES` names, else one below `/var/tmp`, which outlives a restart of the host. All
    /// hosts of an installation must have the same: a session goes on only in the same folder.
    pub fn from_env(var: impl Fn(&str) -> Option<std::ffi::OsString>) -> Self {
        let named = var(VARIABLE).filter(|path| !path.is_empty());
        let user = own_user();
        Self(named.map_or_else(
            || PathBuf::from(format!("/var/tmp/air-workspaces-{user}")),
            PathBuf::from,
        ))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn tasks(&self) -> PathBuf {
        self.0.join(TASKS)
    }

    pub(super) fn repos(&self) -> PathBuf {
        self.0.join(REPOS)
    }

    /// Makes the folder, closed to others; one that another user could have put there is refused.
    pub(super) fn make(&self) -> Result<(), SpaceError> {
        if !self.0.is_absolute() {
            let text = format!(
                "{VARIABLE} is `{}`; give an absolute path",
                self.0.display()
            );
            return Err(SpaceError::Refused(text));
        }
        make(&self.0)?;
        let found =
            (fs::symlink_metadata(&self.0)).map_err(SpaceError::host("look at", &self.0))?;
        let owner = own_user();
        let is_link = found.file_type().is_symlink();
        if is_link || found.uid() != owner || found.mode() & 0o022 != 0 {
            let text = format!(
                "`{}` belongs to another user, is a link, or others may write to it; name another folder in {VARIABLE}",
                self.0.display()
            );
            return Err(SpaceError::Refused(text));
        }
        Ok(())
    }
}

/// The user by whose rights this process makes files.
fn own_user() -> u32 {
    crate::sweep::own_ids().map_or(0, |(user, _)| user)
}

/// The folders of one task.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) tree: PathBuf,
    pub(super) meta: PathBuf,
}

impl Places {
    pub(super) fn of(base: &Base, system: &str, job: &str, task: &str) -> Self {
        let system = short(system);
        Self {
            tree: base.path().join(&system).join(job).join(task),
            meta: base.tasks().join(&system).join(job).join(task),
        }
    }

    pub(super) fn git(&self) -> PathBuf {
        self.meta.join("git")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.meta.join("lock")
    }

    pub(super) fn mark(&self) -> PathBuf {
        self.meta.join("mark.json")
    }

    /// The settings of the task's repository as we made them.
    pub(super) fn config(&self) -> PathBuf {
        self.meta.join("config")
    }

    /// Makes the folder of what belongs to the task, and takes it.
    pub(super) async fn take(&self, within: std::time::Duration) -> Result<Lock, SpaceError> {
        let mut tries = 0;
        loop {
            make(&self.meta)?;
            match Lock::take(&self.lock(), within).await {
                // The last holder has removed the folder just now.
                Err(SpaceError::Host { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && tries < TRIES =>
                {
                    tries += 1;
                }
                Err(SpaceError::Busy(_)) => return Err(SpaceError::Busy(self.tree.clone())),
                taken => return taken,
            }
        }
    }

    /// Removes what there is of the working tree, but not the mark.
    pub(super) fn clear(&self) -> Result<(), SpaceError> {
        for path in [&self.tree, &self.git()] {
            remove_all(path).map_err(SpaceError::host("remove", path))?;
        }
        Ok(())
    }

    /// Removes everything. The mark goes after what it marks, so that nothing is ever without one.
    pub(super) fn remove(&self, lock: Lock) -> Result<(), SpaceError> {
        self.clear()?;
        remove_all(&self.meta).map_err(SpaceError::host("remove", &self.meta))?;
        drop(lock);
        for folder in [&self.tree, &self.meta] {
            // Those of the job and of the installation, where they are empty.
            for parent in folder.ancestors().skip(1).take(2) {
                let _ = fs::remove_dir(parent);
            }
        }
        Ok(())
    }
}

/// What stands beside each working tree: that it is ours, and whose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) made_by: String,
    pub(super) system: String,
    pub(super) job: String,
    pub(super) task: String,
    /// The last attempt that worked here.
    pub(super) attempt: u32,
    pub(super) repo: String,
    /// Where the task was to start, as its order says.
    pub(super) wanted: String,
    /// The branch.
    pub(super) branch: String,
    /// The commit from which it started; empty as long as the tree is not whole.
    pub(super) base: String,
}

impl Mark {
    pub(super) fn of(order: &Order<'_>) -> Self {
        let Order { job, task, .. } = order;
        let wanted = match (&order.workspace.from, &order.workspace.reference) {
            (Some(from), _) => format!("task {from}"),
            (None, Some(reference)) => format!("ref {reference}"),
            (None, None) => "HEAD".to_owned(),
        };
        Self {
            made_by: MAKER.to_owned(),
            system: order.system.to_owned(),
            job: (*job).to_owned(),
            task: (*task).to_owned(),
            attempt: order.attempt,
            repo: order.workspace.repo.clone(),
            wanted,
            branch: branch(job, task),
            base: String::new(),
        }
    }

    /// Whether a tree with this mark is whole, and is what `order` asks for.
    pub(super) fn serves(&self, order: &Self) -> bool {
        let same = |mark: &Self| (mark.system.clone(), mark.repo.clone(), mark.wanted.clone());
        !self.base.is_empty() && same(self) == same(order)
    }

    /// The mark in a file; none where there is none, or not one of ours.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let mark: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (mark.made_by == MAKER).then_some(mark)
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), SpaceError> {
        let text = serde_json::to_vec(self).map_err(io::Error::from);
        let text = text.map_err(SpaceError::host("write", path))?;
        write(path, &text)
    }
}

/// The branch of a task.
pub(super) fn branch(job: &str, task: &str) -> String {
    format!("air/{job}/{task}")
}

/// Writes a file as a whole: a crash leaves the old one or the new one.
pub(super) fn write(path: &Path, text: &[u8]) -> Result<(), SpaceError> {
    let beside = path.with_extension("new");
    fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, path))
        .map_err(SpaceError::host("write", path))
}

/// Makes a folder with those above it, closed to other users.
pub(super) fn make(path: &Path) -> Result<(), SpaceError> {
    let mut tries = 0;
    loop {
        match DirBuilder::new().mode(0o700).recursive(true).create(path) {
            // A sweep has removed an empty one above it just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => tries += 1,
            made => return made.map_err(SpaceError::host("make", path)),
        }
    }
}

/// A short name for a text of any kind; the same on every host (FNV-1a).
pub(super) fn short(text: &str) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    format!("{hash:016x}")
}

/// Refuses names that would lead out of a folder. Those of jobs and tasks never do; a caller might.
pub(super) fn check_name(name: &str) -> Result<(), SpaceError> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.is_empty() && name.chars().all(is_word) {
        return Ok(());
    }
    let text = format!("`{}` cannot be part of a folder's name", quote(name));
    Err(SpaceError::Refused(text))
}
