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
            Err(_) => {
                let file = |name| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
                let own = own_ids().map(|(user, _)| user);
                Self::of_unreadable(pid, &file("status"), &file("cmdline"), own)
            }
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

    /// The mark of a process whose environment may not be read, by what else `/proc` says of it: nothing,
    /// if it is gone by now, or may not be read either.
    ///
    /// Nobody asks here for runners of other users. Process 1 was there before any manager. A runner gets
    /// no arguments, and what a script would add to its own line can be read by its user.
    fn of_unreadable(pid: i32, status: &[u8], command_line: &[u8], own: Option<u32>) -> Self {
        let users = ids(&String::from_utf8_lossy(status), "Uid:");
        let is_foreign = own.zip(users).is_some_and(|(own, ids)| !ids.contains(&own));
        let words = command_line.iter().filter(|byte| **byte == 0).count();
        if pid == 1 || is_foreign || words > 1 {
            Self::None
        } else {
            Self::Hidden
        }
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
        let status = STATUS.as_bytes();
        let line = b"/opt/runner\0";
        for (own, mark) in [
            (Some(1000), Mark::Hidden),
            (Some(0), Mark::Hidden),
            (Some(7), Mark::None),
            (None, Mark::Hidden),
        ] {
            assert_eq!(Mark::of_unreadable(9, status, line, own), mark, "{own:?}");
        }
        assert_eq!(Mark::of_unreadable(9, b"", b"", Some(7)), Mark::Hidden);
    }

    #[test]
    fn what_can_be_no_runner_hides_none() {
        let status = STATUS.as_bytes();
        let agent = Mark::of_unreadable(9, status, b"ssh-agent\0-D\0", Some(0));
        let init = Mark::of_unreadable(1, status, b"init\0", Some(0));
        assert_eq!((agent, init), (Mark::None, Mark::None));
    }

    #[test]
    fn the_ids_that_count_are_those_for_files() {
        assert_eq!(ids(STATUS, "Gid:").unwrap(), [7, 7, 7, 8]);
        assert!(own_ids().is_some());
    }
}
