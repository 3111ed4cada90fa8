//! Control groups: by them the kernel holds a runner, and all that it starts, to what its task asks for.
//!
//! A runner whose task asks for resources gets a group of its own, `air-<installation>-<runner>`, below the base of the
//! backend: one folder with version 2, one for each controller with version 1. Nothing here knows processes but by their ids,
//! and nothing is remembered: whoever looks finds the groups by their names. Start at [`Cgroups`]; `hierarchy` finds the base.

mod hierarchy;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use air_protocol::task::Resources;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use uuid::Uuid;

use self::hierarchy::{Base, Version};
use crate::CgroupOptions;

/// Pause between two rounds of SIGKILL.
const ROUND: Duration = Duration::from_millis(5);
/// Longest time for which the kernel is asked again to remove a group without processes.
const HELD_MAX: Duration = Duration::from_secs(5);
/// The time in which a quota of processor time is used up and given anew, in microseconds.
const PERIOD_US: u64 = 100_000;
/// The same for less than ten thousandths of a processor: the kernel gives no quota below a millisecond.
const PERIOD_LONG_US: u64 = 1_000_000;

/// What the kernel holds the processes of a group to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes of memory, without swap.
    pub(super) memory_bytes: Option<u64>,
    /// Thousandths of a processor.
    pub(super) cpu_millis: Option<u64>,
}

impl Limits {
    /// What a task asks for; none where it asks for nothing.
    pub(super) fn of(resources: Option<&Resources>) -> Option<Self> {
        let asked = resources?;
        let limits = Self {
            memory_bytes: asked.memory_bytes(),
            cpu_millis: asked.cpu_millis(),
        };
        (limits.memory_bytes.is_some() || limits.cpu_millis.is_some()).then_some(limits)
    }

    /// The files of a group that say so, and whether they must be there.
    fn files(self, version: Version) -> Vec<(Controller, &'static str, String, bool)> {
        use Controller::{Cpu, Memory};
        let mut files = Vec::new();
        match (version, self.memory_bytes) {
            (Version::One, Some(bytes)) => {
                let bytes = bytes.to_string();
                files.push((Memory, "memory.limit_in_bytes", bytes.clone(), true));
                // Memory and swap together: a limit that is passed by swap would be none.
                files.push((Memory, "memory.memsw.limit_in_bytes", bytes, false));
            }
            (Version::Two, Some(bytes)) => {
                files.push((Memory, "memory.max", bytes.to_string(), true));
                files.push((Memory, "memory.swap.max", "0".to_owned(), false));
            }
            (_, None) => {}
        }
        if let Some(millis) = self.cpu_millis {
            let period = if millis < 10 {
                PERIOD_LONG_US
            } else {
                PERIOD_US
            };
            let quota = millis.saturating_mul(period) / 1000;
            match version {
                Version::One => {
                    files.push((Cpu, "cpu.cfs_period_us", period.to_string(), true));
                    files.push((Cpu, "cpu.cfs_quota_us", quota.to_string(), true));
                }
                Version::Two => files.push((Cpu, "cpu.max", format!("{quota} {period}"), true)),
            }
        }
        files
    }
}

/// What limits one kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controller {
    Memory,
    Cpu,
}

/// Where the groups of a backend are made.
#[derive(Debug, Clone)]
pub(super) struct Cgroups {
    base: Base,
    /// Of the names of all groups of the installation.
    prefix: String,
}

impl Cgroups {
    /// Finds out whether groups can be made as the options want, by making one; none where they want none. `mark` names the
    /// installation.
    ///
    /// # Errors
    /// Why there can be none.
    pub(super) fn open(options: &CgroupOptions, mark: &str) -> Result<Option<Self>, String> {
        let base = match options {
            CgroupOptions::None => return Ok(None),
            CgroupOptions::Auto => Base::own()?,
            CgroupOptions::Path(path) => Base::at(path)?,
        };
        let cgroups = Self {
            base,
            prefix: format!("air-{mark}-"),
        };
        cgroups.try_out()?;
        Ok(Some(cgroups))
    }

    /// Makes a group with limits, and removes it.
    fn try_out(&self) -> Result<(), String> {
        let group = self.group(Uuid::now_v7());
        let limits = Limits {
            memory_bytes: Some(1 << 30),
            cpu_millis: Some(10),
        };
        let made = group.make().and_then(|()| group.limit(limits));
        group.remove();
        made.map_err(|error| error.to_string())
    }

    /// Where groups are, for people.
    pub(super) fn place(&self) -> String {
        self.base.memory.display().to_string()
    }

    /// The group of a runner, whoever made it, and whether it is there or not.
    pub(super) fn group(&self, runner: Uuid) -> Group {
        let name = format!("{}{runner}", self.prefix);
        let folders = self.base.folders().map(|base| base.join(&name));
        Group {
            version: self.base.version,
            memory: self.base.memory.join(&name),
            cpu: self.base.cpu.join(&name),
            folders: folders.collect(),
        }
    }

    /// The runners that have a group.
    pub(super) fn runners(&self) -> BTreeSet<Uuid> {
        let entries = self
            .base
            .folders()
            .filter_map(|base| fs::read_dir(base).ok());
        let names = entries.flatten().flatten().map(|entry| entry.file_name());
        names
            .filter_map(|name| name.to_str()?.strip_prefix(&self.prefix)?.parse().ok())
            .collect()
    }
}

/// The group of one runner.
#[derive(Debug, Clone)]
pub(super) struct Group {
    version: Version,
    memory: PathBuf,
    cpu: PathBuf,
    /// Those of both controllers, each once.
    folders: BTreeSet<PathBuf>,
}

impl Group {
    /// The folder that tells of memory.
    pub(super) fn memory(&self) -> &Path {
        &self.memory
    }

    /// Makes it; it may be there.
    pub(super) fn make(&self) -> Result<(), Fault> {
        for folder in &self.folders {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Fault::of(folder, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Sets its limits.
    pub(super) fn limit(&self, limits: Limits) -> Result<(), Fault> {
        for (controller, name, value, must) in limits.files(self.version) {
            let file = match controller {
                Controller::Memory => self.memory.join(name),
                Controller::Cpu => self.cpu.join(name),
            };
            match put(&file, &value) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !must => {}
                Err(error) => return Err(Fault::of(&file, error)),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Puts a process into it, and so all that it starts from now on.
    pub(super) fn place(&self, pid: i32) -> Result<(), Fault> {
        for folder in &self.folders {
            let file = folder.join("cgroup.procs");
            put(&file, &pid.to_string()).map_err(|error| Fault::of(&file, error))?;
        }
        Ok(())
    }

    /// Its processes, as far as this one can name them.
    fn members(&self) -> BTreeSet<i32> {
        let own = std::process::id().cast_signed();
        let texts = self.folders.iter();
        let texts = texts.filter_map(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok());
        let pids: Vec<i32> = texts
            .flat_map(|text| {
                let pids = text.lines().filter_map(|line| line.parse().ok());
                pids.collect::<Vec<i32>>()
            })
            .collect();
        // 0 is a process of another namespace.
        let named = pids.into_iter().filter(|pid| *pid > 0 && *pid != own);
        named.collect()
    }

    /// Kills all of its processes, whatever they have become; gives those that are left when the time is over.
    ///
    /// Blocking. The kernel does it at once where it can (`cgroup.kill`, version 2); else they are halted first, so that
    /// they make no more, and killed when a look finds no new one.
    pub(super) fn kill(&self, limit: Duration) -> BTreeSet<i32> {
        let started = Instant::now();
        let mut halted = BTreeSet::new();
        loop {
            let members = self.members();
            if members.is_empty() || started.elapsed() > limit {
                return members;
            }
            let at_once = self
                .folders
                .iter()
                .any(|folder| put(&folder.join("cgroup.kill"), "1").is_ok());
            if !at_once {
                let new: Vec<i32> = members.difference(&halted).copied().collect();
                if !new.is_empty() {
                    signal(&new, Signal::SIGSTOP);
                    halted.extend(new);
                    continue;
                }
                signal(&members, Signal::SIGKILL);
            }
            std::thread::sleep(ROUND);
        }
    }

    /// Removes it, if there is no process in it. Blocking.
    pub(super) fn remove(&self) {
        for folder in &self.folders {
            let started = Instant::now();
            while let Err(error) = fs::remove_dir(folder)
                && error.kind() != io::ErrorKind::NotFound
            {
                // A process that has ended, and was waited for, may hold its group for a moment more.
                let is_held =
                    error.kind() == io::ErrorKind::ResourceBusy && self.members().is_empty();
                if !is_held || started.elapsed() > HELD_MAX {
                    tracing::debug!(folder = %folder.display(), %error, "a cgroup stays");
                    break;
                }
                std::thread::sleep(ROUND);
            }
        }
    }

    /// Whether it is there.
    pub(super) fn exists(&self) -> bool {
        self.folders.iter().any(|folder| folder.exists())
    }
}

fn signal<'a>(pids: impl IntoIterator<Item = &'a i32>, signal: Signal) {
    for pid in pids {
        let _ = kill(Pid::from_raw(*pid), signal);
    }
}

/// Writes into a file of the kernel's, which must be there.
fn put(file: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new().write(true).open(file)?;
    file.write_all(text.as_bytes())
}

/// Something of a group could not be done.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub(super) struct Fault {
    path: PathBuf,
    source: io::Error,
}

impl Fault {
    fn of(path: &Path, source: io::Error) -> Self {
        Self {
            path: path.to_owned(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(version: Version, memory: &str, cpu: &str) -> Vec<String> {
        let limits = Limits::of(Some(&Resources {
            memory: Some(memory.to_owned()),
            cpu: Some(cpu.to_owned()),
        }));
        let files = limits.unwrap().files(version).into_iter();
        files
            .map(|(_, name, value, _)| format!("{name}={value}"))
            .collect()
    }

    #[test]
    fn limits_are_written_as_each_version_wants_them() {
        assert_eq!(
            files(Version::One, "64Mi", "500m"),
            [
                "memory.limit_in_bytes=67108864",
                "memory.memsw.limit_in_bytes=67108864",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000"
            ]
        );
        assert_eq!(
            files(Version::Two, "1Gi", "2"),
            [
                "memory.max=1073741824",
                "memory.swap.max=0",
                "cpu.max=200000 100000"
            ]
        );
        let least = files(Version::Two, "1", "1m");
        assert_eq!(
            least[2], "cpu.max=1000 1000000",
            "a millisecond is the least quota"
        );
    }

    #[test]
    fn who_asks_for_nothing_gets_no_limits() {
        assert_eq!(Limits::of(None), None);
        assert_eq!(Limits::of(Some(&Resources::default())), None);
    }
}
