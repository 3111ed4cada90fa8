//! What the kernel says of a process: memory, threads, open files, children.

use std::fs;

/// A line of `/proc/PID/status` that begins with this; the number in it. None when the process is gone.
pub(crate) fn status(pid: u32, line: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rest = text.lines().find_map(|one| one.strip_prefix(line))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// How many files a process has open.
pub(crate) fn files(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64
}

/// The live children of these processes.
pub(crate) fn children(parents: &[u32]) -> Vec<u32> {
    let child = |pid: &u32| {
        // `PID (name) state parent …`, and the name may hold anything.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let mut words = rest.split(' ');
        let (state, parent) = (words.next(), words.next());
        let parent = parent.and_then(|parent| parent.parse().ok());
        state != Some("Z") && parent.is_some_and(|parent| parents.contains(&parent))
    };
    air_tests::pids().filter(child).collect()
}
