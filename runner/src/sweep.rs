//! Finds and kills what runners left on this host.
//!
//! A runner killed by SIGKILL cannot end its tree. The manager that started it calls
//! [`sweep`], which goes by the `AIR_RUNNER` that every process of a task inherits, and by
//! ancestry for those that dropped it. Blocking: call it from a thread that may wait.
//! Never signals the calling process.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::execute::procfs::{Process, family};
use crate::execute::workdir::LINK_NAME;

/// File name of the runner's executable.
const RUNNER_NAME: &str = "air-runner";
/// What the kernel puts behind the name of an executable that was replaced since.
const REPLACED: &[u8] = b" (deleted)";
/// Pause between two rounds of SIGKILL.
const ROUND: Duration = Duration::from_millis(5);

/// What a process is to its runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The runner process itself.
    Runner,
    /// A process of its task.
    Task,
}

/// A process that belongs to a runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Process id.
    pub pid: i32,
    /// The runner's id: the value of `AIR_RUNNER`, its own or of the nearest ancestor.
    pub runner: String,
    /// What it is to the runner.
    pub role: Role,
    start_ticks: u64,
}

/// Whom [`sweep`] kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Processes of tasks only; a runner that lives is left alone.
    Tasks,
    /// The runners too.
    TasksAndRunners,
}

/// What a sweep did.
#[derive(Debug, Default)]
pub struct Swept {
    /// Number of processes that got SIGKILL.
    pub killed: usize,
    /// Those still there when the time was over: of another user, or stuck in the kernel.
    pub left: Vec<Found>,
}

/// Lists the processes whose runner's id satisfies `wanted`, in the order of their ids.
///
/// Processes of other users are not seen unless the caller may read their environment. Fails
/// if `/proc` cannot be listed.
pub fn find(mut wanted: impl FnMut(&str) -> bool) -> io::Result<Vec<Found>> {
    let own = std::process::id().cast_signed();
    let mut marked = BTreeMap::new();
    let members = family(
        |process| match runner_id(process.pid).filter(|id| wanted(id)) {
            Some(id) if process.pid != own => {
                marked.insert(process.pid, id);
                true
            }
            _ => false,
        },
        |_| {},
    )?;
    let found = members
        .values()
        .filter(|process| process.pid != own && !process.ended)
        .map(|process| {
            let id = marked.get(&process.pid);
            Found {
                pid: process.pid,
                runner: id
                    .or_else(|| ancestor(process, &members, &marked))
                    .cloned()
                    .unwrap_or_default(),
                role: if id.is_some() && is_runner(process.pid) {
                    Role::Runner
                } else {
                    Role::Task
                },
                start_ticks: process.start_ticks,
            }
        });
    Ok(found.collect())
}

/// The id of the nearest marked ancestor.
fn ancestor<'a>(
    process: &Process,
    members: &BTreeMap<i32, Process>,
    marked: &'a BTreeMap<i32, String>,
) -> Option<&'a String> {
    let mut process = process;
    // Parents were read one by one, so that a circle is conceivable: bounded by the number.
    for _ in 0..members.len() {
        if let Some(id) = marked.get(&process.parent) {
            return Some(id);
        }
        process = members.get(&process.parent)?;
    }
    None
}

/// The ids of all runners that have a live runner process on this host.
///
/// Fails if `/proc` cannot be listed.
pub fn live_runners() -> io::Result<BTreeSet<String>> {
    let found = find(|_| true)?.into_iter();
    Ok(found
        .filter(|found| found.role == Role::Runner)
        .map(|found| found.runner)
        .collect())
}

/// Kills `whom` of the runners whose id satisfies `wanted`, until a look at all processes
/// finds none of them, or `limit` is over.
///
/// Fails if `/proc` cannot be listed.
pub fn sweep(
    mut wanted: impl FnMut(&str) -> bool,
    whom: Whom,
    limit: Duration,
) -> io::Result<Swept> {
    let started = Instant::now();
    let mut seen = BTreeSet::new();
    let mut killed = BTreeSet::new();
    loop {
        let mut targets = find(&mut wanted)?;
        targets.retain(|found| whom == Whom::TasksAndRunners || found.role == Role::Task);
        let over = started.elapsed() > limit;
        if targets.is_empty() || over {
            return Ok(Swept {
                killed: killed.len(),
                left: targets,
            });
        }
        // Halted first, so that they make no more children and keep their ancestry; killed
        // when a look finds none that is new.
        let mut is_new = false;
        for found in &targets {
            if seen.insert((found.pid, found.start_ticks)) {
                is_new = true;
                send(found, Signal::SIGSTOP);
            }
        }
        if is_new {
            continue;
        }
        for found in &targets {
            send(found, Signal::SIGKILL);
            killed.insert((found.pid, found.start_ticks));
        }
        std::thread::sleep(ROUND);
    }
}

/// Signals the process that was found, not one that got its id since.
fn send(found: &Found, signal: Signal) {
    if Process::read(found.pid).is_some_and(|now| now.start_ticks == found.start_ticks) {
        // Gone, or not ours to kill: the next look tells.
        let _ = kill(Pid::from_raw(found.pid), signal);
    }
}

/// `AIR_RUNNER` in the environment of a process, if it may be read.
fn runner_id(pid: i32) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let id = environment
        .split(|byte| *byte == 0)
        .find_map(|line| line.strip_prefix(b"AIR_RUNNER="))?;
    Some(String::from_utf8_lossy(id).into_owned())
}

/// Whether a process is a runner, and not the runner's executable called by its task as
/// `airx`, which the environment alone does not tell.
fn is_runner(pid: i32) -> bool {
    let Ok(executable) = std::fs::read_link(format!("/proc/{pid}/exe")) else {
        return false;
    };
    let executable = executable.as_os_str().as_bytes();
    let executable = executable.strip_suffix(REPLACED).unwrap_or(executable);
    let Ok(arguments) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let called = arguments
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    file_name(executable) == Some(OsStr::new(RUNNER_NAME))
        && file_name(called) != Some(OsStr::new(LINK_NAME))
}

fn file_name(path: &[u8]) -> Option<&OsStr> {
    Path::new(OsStr::from_bytes(path)).file_name()
}
