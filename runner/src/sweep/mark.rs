//! What tells a process of a runner: its environment, as `/proc` shows it. Never signals anybody.

use std::io;

use super::Role;

/// In the environment of every process of a runner: the runner's id.
const RUNNER: &[u8] = b"AIR_RUNNER=";
/// In the environment of the runner alone: it composes its task's environment, and leaves this out,
/// and a task cannot ask for a name of this kind. The name of the executable would say less: it
/// is whatever the manager was told, and a task may call the same executable.
const RUNNER_ALONE: &[u8] = b"AIR_SEQ=";
/// In the environment of every process of a runner: the installation.
const SYSTEM: &[u8] = b"AIR_SYSTEM=";

/// What the environment of a process says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It belongs to no runner.
    None,
    /// It belongs to a runner.
    Of {
        /// The runner's id.
        runner: String,
        /// What it is to the runner.
        role: Role,
        /// The installation that the runner works for, if it says so.
        system: Option<String>,
    },
    /// It runs as this user, and may not be looked at: it may be any runner. Such is a program that
    /// its user may execute and not read, or one with privileges of its own.
    Hidden,
}

impl Mark {
    /// Reads the mark of a process; one that is gone has none.
    pub(super) fn read(pid: i32) -> Self {
        match std::fs::read(format!("/proc/{pid}/environ")) {
            Ok(environment) => Self::of_environment(&environment),
            Err(error) if is_gone(&error) => Self::None,
            Err(_) => match std::fs::read_to_string(format!("/proc/{pid}/status")) {
                Ok(status) => Self::of_unreadable(&status, own_ids().map(|(user, _)| user)),
                Err(error) if is_gone(&error) => Self::None,
                Err(_) => Self::Hidden,
            },
        }
    }

    pub(super) fn of_environment(environment: &[u8]) -> Self {
        let variable = |name: &[u8]| {
            let mut lines = environment.split(|byte| *byte == 0);
            let value = lines.find_map(|line| line.strip_prefix(name))?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let Some(runner) = variable(RUNNER) else {
            return Self::None;
        };
        let role = match variable(RUNNER_ALONE) {
            Some(_) => Role::Runner,
            None => Role::Task,
        };
        let system = variable(SYSTEM);
        Self::Of {
            runner,
            role,
            system,
        }
    }

    /// The mark of a process whose environment may not be read, by its `/proc/PID/status`. Nobody
    /// asks here for runners of other users.
    fn of_unreadable(status: &str, own: Option<u32>) -> Self {
        let is_ours = match (own, ids(status, "Uid:")) {
            (Some(own), Some(ids)) => ids.contains(&own),
            _ => true,
        };
        if is_ours { Self::Hidden } else { Self::None }
    }
}

fn is_gone(error: &io::Error) -> bool {
    let no_process = nix::errno::Errno::ESRCH as i32;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(no_process)
}

/// The user and the group by which the kernel judges what this process may see of others.
pub fn own_ids() -> Option<(u32, u32)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let file_system = |name| ids(&status, name)?.last().copied();
    Some((file_system("Uid:")?, file_system("Gid:")?))
}

/// The ids behind `name`: real, effective, saved, and that for the file system.
fn ids(status: &str, name: &str) -> Option<Vec<u32>> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let ids = line.split_ascii_whitespace().map(str::parse);
    ids.collect::<Result<Vec<u32>, _>>().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tair\nUid:\t1000\t0\t0\t0\nGid:\t7\t7\t7\t8\n";

    #[test]
    fn a_runner_is_told_from_its_task_by_what_it_keeps_to_itself() {
        let of = |role, system: Option<&str>| Mark::Of {
            runner: "r".into(),
            role,
            system: system.map(str::to_owned),
        };
        let read = |text: &str| Mark::of_environment(text.replace(' ', "\0").as_bytes());
        assert_eq!(read("AIR_RUNNER=r A=b"), of(Role::Task, None));
        assert_eq!(read("AIR_SEQ=7 AIR_RUNNER=r"), of(Role::Runner, None));
        let task = read("AIR_SYSTEM=AIR@1 AIR_RUNNER=r");
        assert_eq!(task, of(Role::Task, Some("AIR@1")));
        assert_eq!(read("AIR_SEQ=7 XAIR_RUNNER=r"), Mark::None);
        assert_eq!(read(""), Mark::None);
    }

    #[test]
    fn whom_our_user_may_not_look_at_may_be_a_runner_of_ours() {
        for (own, mark) in [
            (Some(1000), Mark::Hidden),
            (Some(0), Mark::Hidden),
            (Some(7), Mark::None),
            (None, Mark::Hidden),
        ] {
            assert_eq!(Mark::of_unreadable(STATUS, own), mark, "{own:?}");
        }
        assert_eq!(Mark::of_unreadable("", Some(7)), Mark::Hidden);
    }

    #[test]
    fn the_ids_that_count_are_those_for_files() {
        assert_eq!(ids(STATUS, "Gid:").unwrap(), [7, 7, 7, 8]);
        assert!(own_ids().is_some());
    }
}
