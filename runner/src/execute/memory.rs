//! The memory that a program may take: what limits it, and how the kernel says that it was too little.
//!
//! The manager limits, and tells the runner by its environment how: `AIR_CGROUP` is the folder of a cgroup (v1 or v2) that
//! the runner is in already, `AIR_MEMORY_MAX` are bytes that the runner has to see to itself. Start at [`Memory`].

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What limits the memory of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// Nothing.
    #[default]
    Free,
    /// This cgroup, which holds the runner as well.
    Group(PathBuf),
    /// The kernel's limit on the address space of each process, in bytes.
    AddressSpace(u64),
}

/// How readily the kernel takes a process of the task when a cgroup is full: before the runner, which has to tell of it,
/// always. 1000 is the most.
const SCORE: &str = "1000";
const SCORE_FILE: &str = "/proc/self/oom_score_adj";

impl Memory {
    /// What the environment of the runner tells; `var` looks a variable up.
    pub fn from_env(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let bytes = var("AIR_MEMORY_MAX").and_then(|text| text.to_str()?.parse().ok());
        match (var("AIR_CGROUP"), bytes) {
            (Some(folder), _) => Self::Group(folder.into()),
            (None, Some(bytes)) => Self::AddressSpace(bytes),
            (None, None) => Self::Free,
        }
    }

    /// The command that becomes the program at `path`, called `name`.
    ///
    /// There is no safe way to run code between fork and exec, so that a shell takes the limit upon itself.
    pub(super) fn command(&self, path: &Path, name: &OsStr) -> Command {
        use std::os::unix::process::CommandExt as _;
        let Self::AddressSpace(bytes) = self else {
            let mut command = Command::new(path);
            command.arg0(name);
            return command;
        };
        let mut command = Command::new("/bin/sh");
        let limit = format!("ulimit -v {} && exec \"$0\" \"$@\"", bytes.div_ceil(1024));
        command.args(["-c", &limit]).arg(path);
        command
    }

    /// Does `start`, whose child the kernel takes before the runner when the memory is used up. A score is inherited at the
    /// fork, so that no process of the task is ever without it.
    pub(super) fn preferring<T>(&self, start: impl FnOnce() -> T) -> T {
        let own = match self {
            Self::Group(_) => fs::read_to_string(SCORE_FILE).ok(),
            Self::Free | Self::AddressSpace(_) => None,
        };
        let Some(own) = own else {
            return start();
        };
        let _ = fs::write(SCORE_FILE, SCORE);
        let started = start();
        let _ = fs::write(SCORE_FILE, own.trim());
        started
    }

    /// The limit in bytes, if the kernel has killed a process of the cgroup and it was reached: a process may also be killed
    /// because the whole machine lacks memory, which version 1 does not tell apart.
    pub(super) fn exceeded(&self) -> Option<u64> {
        let Self::Group(folder) = self else {
            return None;
        };
        let read = |name| fs::read_to_string(folder.join(name)).ok();
        let is_full = match read("memory.events") {
            Some(events) => count(&events, "oom_kill") > 0 && count(&events, "oom") > 0,
            // cgroup v1, whose counters of failures stayed 0 when this was tried.
            None => count(&read("memory.oom_control")?, "oom_kill") > 0,
        };
        if !is_full {
            return None;
        }
        let limit = read("memory.max").or_else(|| read("memory.limit_in_bytes"))?;
        limit.trim().parse().ok()
    }
}

/// What the kernel has counted under a name, one a line.
fn count(events: &str, name: &str) -> u64 {
    let mut counts = events.lines().filter_map(|line| line.split_once(' '));
    let found = counts.find(|(counted, _)| *counted == name);
    found.map_or(0, |(_, count)| count.trim().parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_as_both_versions_tell_them() {
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        let v2 = "low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\noom_group_kill 0\n";
        assert_eq!((count(v1, "oom_kill"), count(v2, "oom_kill")), (3, 2));
        assert_eq!((count("", "oom"), count(v2, "oom")), (0, 1));
    }

    #[test]
    fn only_a_kill_at_the_limit_is_told_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let group = Memory::Group(folder.path().to_owned());
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        put("memory.oom_control", "oom_kill 1\n");
        put("memory.limit_in_bytes", "4096\n");
        assert_eq!(group.exceeded(), Some(4096));
        put("memory.events", "oom 0\noom_kill 1\n");
        put("memory.max", "8192\n");
        assert_eq!(group.exceeded(), None, "the machine was full");
        put("memory.events", "oom 1\noom_kill 1\n");
        assert_eq!(group.exceeded(), Some(8192));
        put("memory.events", "oom 1\noom_kill 0\n");
        assert_eq!(group.exceeded(), None);
    }

    #[test]
    fn the_environment_says_what_limits() {
        let env = |pairs: &[(&str, &str)]| {
            let find = |name: &str| pairs.iter().find(|(key, _)| *key == name);
            Memory::from_env(|name| find(name).map(|(_, value)| OsString::from(value)))
        };
        assert_eq!(env(&[]), Memory::Free);
        assert_eq!(env(&[("AIR_MEMORY_MAX", "7")]), Memory::AddressSpace(7));
        assert_eq!(env(&[("AIR_CGROUP", "/g")]), Memory::Group("/g".into()));
    }

    #[test]
    fn a_group_that_is_not_there_says_nothing() {
        assert_eq!(Memory::Group("/nowhere".into()).exceeded(), None);
        assert_eq!(Memory::Free.exceeded(), None);
    }
}
