//! A lock that its holder's death gives back: `flock` on a file.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::SpaceError;

/// Pause between two tries.
const AGAIN: Duration = Duration::from_millis(20);

/// A lock that is held.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock if nobody holds it.
    pub(super) fn try_take(path: &Path) -> Result<Option<Self>, SpaceError> {
        loop {
            let mut options = OpenOptions::new();
            options.create(true).truncate(false).write(true);
            let file = (options.open(path)).map_err(SpaceError::host("open", path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    return Err(SpaceError::host("lock", path)(error));
                }
            }
            // Its last holder may have removed the file: then the lock is on nothing.
            let ours = file.metadata().ok().map(|found| found.ino());
            let there = std::fs::metadata(path).ok().map(|found| found.ino());
            if ours.is_some() && ours == there {
                let path = path.to_owned();
                return Ok(Some(Self { file, path }));
            }
        }
    }

    /// Waits for the lock, for at most `within`.
    pub(super) async fn take(path: &Path, within: Duration) -> Result<Self, SpaceError> {
        let begun = Instant::now();
        loop {
            if let Some(lock) = Self::try_take(path)? {
                return Ok(lock);
            }
            if begun.elapsed() > within {
                return Err(SpaceError::Busy(path.to_owned()));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Notes that what it guards was used now.
    pub(super) fn touch(&self) -> Result<(), SpaceError> {
        let now = std::time::SystemTime::now();
        (self.file.set_modified(now)).map_err(SpaceError::host("date", &self.path))
    }
}
