//! What runners left behind: working trees of tasks that are over, and repositories that nobody uses.
//!
//! Never removes what does not bear our mark, and nothing in which a runner works. Which task is over is not known
//! here: the caller asks NATS. Blocking: call it from a thread that may wait.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::folders::{Mark, Places};
use super::lock::Lock;
use super::{Base, SpaceError};
use crate::execute::workdir::remove_all;

/// A working tree that is on this host.
#[derive(Debug, Clone)]
pub struct Leftover {
    /// The job.
    pub job: String,
    /// The task.
    pub task: String,
    /// The installation.
    pub system: String,
    /// Time since an attempt began in it.
    pub age: Duration,
    places: Places,
}

/// The working trees below `base`, of all installations.
///
/// # Errors
/// The folder cannot be read.
pub fn leftovers(base: &Base) -> Result<Vec<Leftover>, SpaceError> {
    let mut found = Vec::new();
    for system in folders(&base.tasks())? {
        for job in folders(&system)? {
            for task in folders(&job)? {
                found.extend(leftover(base, task));
            }
        }
    }
    Ok(found)
}

fn leftover(base: &Base, meta: PathBuf) -> Option<Leftover> {
    let path = meta.join("mark.json");
    let mark = Mark::read(&path)?;
    let places = Places::of(base, &mark.system, &mark.job, &mark.task);
    // A mark that was moved marks nothing.
    (places.meta == meta).then(|| Leftover {
        job: mark.job,
        task: mark.task,
        system: mark.system,
        age: age(&path),
        places,
    })
}

impl Leftover {
    /// The working tree.
    pub fn path(&self) -> &Path {
        &self.places.tree
    }

    /// Whether a runner of this host works in it now.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn is_in_use(&self) -> Result<bool, SpaceError> {
        Lock::try_take(&self.places.lock()).map(|lock| lock.is_none())
    }

    /// Removes it; false if a runner works in it, or it is gone.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self) -> Result<bool, SpaceError> {
        if Mark::read(&self.places.mark()).is_none() {
            return Ok(false);
        }
        match Lock::try_take(&self.places.lock())? {
            Some(lock) => self.places.remove(lock).map(|()| true),
            None => Ok(false),
        }
    }
}

/// Removes the working tree of one task; false if there is none, or a runner works in it.
///
/// # Errors
/// It cannot be removed.
pub fn remove(base: &Base, system: &str, job: &str, task: &str) -> Result<bool, SpaceError> {
    let meta = Places::of(base, system, job, task).meta;
    leftover(base, meta).map_or(Ok(false), |found| found.remove())
}

/// Removes what was fetched of repositories for which no task asked for `unused`; tells how many. The next task
/// fetches anew.
///
/// # Errors
/// A folder cannot be read or removed.
pub fn forget_repositories(base: &Base, unused: Duration) -> Result<usize, SpaceError> {
    let mut count = 0;
    for folder in folders(&base.repos())? {
        let path = folder.join("lock");
        if !path.exists() || age(&path) < unused {
            continue;
        }
        let Some(lock) = Lock::try_take(&path)? else {
            continue;
        };
        remove_all(&folder).map_err(SpaceError::host("remove", &folder))?;
        drop(lock);
        count += 1;
    }
    Ok(count)
}

/// The folders in a folder; none where there is no such folder.
fn folders(path: &Path) -> Result<Vec<PathBuf>, SpaceError> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(SpaceError::host("read", path))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(SpaceError::host("read", path))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Time since a file was changed; none for a clock that went back.
fn age(path: &Path) -> Duration {
    let changed = fs::metadata(path).and_then(|found| found.modified());
    let changed = changed.unwrap_or_else(|_| SystemTime::now());
    SystemTime::now()
        .duration_since(changed)
        .unwrap_or_default()
}
