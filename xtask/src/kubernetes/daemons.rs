//! The processes of the cluster: started with a log and a file of their process id, and ended by it, also by a later call.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Time that a part of the cluster gets to be ready.
const READY_MAX: Duration = Duration::from_secs(180);
/// Time that a process gets to end.
const END_MAX: Duration = Duration::from_secs(10);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The processes of the cluster in a folder.
pub(super) struct Daemons {
    folder: PathBuf,
}

impl Daemons {
    pub(super) fn new(folder: &Path) -> Result<Self> {
        for name in ["log", "pid"] {
            let folder = folder.join(name);
            fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
        }
        let folder = folder.to_owned();
        Ok(Self { folder })
    }

    fn pid_file(&self, name: &str) -> PathBuf {
        self.folder.join("pid").join(name)
    }

    /// Starts a process that goes on when this program has ended.
    pub(super) fn start(&self, name: &str, command: &mut Command) -> Result<()> {
        let path = self.folder.join("log").join(name);
        let log = File::create(&path).map_err(Error::file(&path))?;
        let copy = log.try_clone().map_err(Error::file(&path))?;
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy);
        let child = command.spawn().map_err(|cause| Error::Start {
            command: name.to_owned(),
            cause,
        })?;
        let file = self.pid_file(name);
        fs::write(&file, child.id().to_string()).map_err(Error::file(&file))
    }

    /// Waits until an attempt succeeds.
    pub(super) fn wait(&self, what: &str, mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
        let started = Instant::now();
        loop {
            let Err(error) = attempt() else {
                return Ok(());
            };
            if started.elapsed() > READY_MAX {
                let logs = self.folder.join("log");
                return Err(Error::Answer {
                    command: "kubernetes".into(),
                    what: format!(
                        "{what} is not ready: {error}; the logs are in {}",
                        logs.display()
                    ),
                });
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Ends a process, if it is still the one that was started: asks it first.
    pub(super) fn stop(&self, name: &str) {
        let file = self.pid_file(name);
        let Ok(pid) = fs::read_to_string(&file) else {
            return;
        };
        for signal in ["-TERM", "-KILL"] {
            let started = Instant::now();
            if runs(&pid, name) {
                let _ = Command::new("kill").args([signal, &pid]).status();
            }
            while runs(&pid, name) && started.elapsed() < END_MAX {
                std::thread::sleep(LOOK_EVERY);
            }
        }
        let _ = fs::remove_file(file);
    }
}

/// Whether a process with this id has the name in its command line; one that has ended and is not waited for has none.
fn runs(pid: &str, name: &str) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains(name)
}
