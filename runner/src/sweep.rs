//! Finds and kills what runners left on this host.
//!
//! A runner killed by SIGKILL cannot end its tree. The manager that started it calls
//! [`sweep`], which goes by the `AIR_RUNNER` that every process of a task inherits, and by
//! ancestry for those that dropped it. What cannot be seen proves nobody dead.
//! Blocking: call it from a thread that may wait. Never signals the calling process.

mod mark;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::execute::procfs::{Process, family, newest_first};

use mark::Mark;

pub use mark::own_ids;

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
    let mut runners = BTreeSet::new();
    let members = family(
        |process| match Mark::read(process.pid) {
            Mark::Of { runner, role, .. } if process.pid != own && wanted(&runner) => {
                marked.insert(process.pid, runner);
                if role == Role::Runner {
                    runners.insert(process.pid);
                }
                true
            }
            Mark::None | Mark::Of { .. } | Mark::Hidden => false,
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
                role: if runners.contains(&process.pid) {
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

/// The runners that live on this host, as far as this process may see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    runners: BTreeSet<String>,
    /// There are processes that may be runners, and that cannot be told.
    hides: bool,
}

impl Live {
    fn of(marks: impl IntoIterator<Item = Mark>) -> Self {
        let mut live = Self::default();
        for mark in marks {
            match mark {
                Mark::Of {
                    runner,
                    role: Role::Runner,
                    ..
                } => drop(live.runners.insert(runner)),
                Mark::Hidden => live.hides = true,
                Mark::None | Mark::Of { .. } => {}
            }
        }
        live
    }

    /// Whether a runner was seen alive.
    pub fn has(&self, runner: &str) -> bool {
        self.runners.contains(runner)
    }

    /// Whether a runner of this host, user and group is dead for sure.
    pub fn lacks(&self, runner: &str) -> bool {
        !self.hides && !self.has(runner)
    }
}

/// The runners that have a live runner process on this host, whatever its executable is called.
///
/// Fails if `/proc` cannot be listed.
pub fn live_runners() -> io::Result<Live> {
    Ok(Live::of(newest_first()?.into_iter().map(Mark::read)))
}

/// A process, its parent, and its mark.
type Marked = (i32, i32, Mark);

/// The runners of the installation `system` that live no longer, and have left processes behind.
///
/// Those of other installations on this host are left to their own managers: what has no runner in
/// our eyes may have one in theirs. Fails if `/proc` cannot be listed.
pub fn orphaned(system: &str) -> io::Result<BTreeSet<String>> {
    let processes = newest_first()?.into_iter().filter_map(Process::read);
    let processes: Vec<Marked> = processes
        .filter(|process| !process.ended)
        .map(|process| (process.pid, process.parent, Mark::read(process.pid)))
        .collect();
    // In this order: a runner is there before its task, so that one which starts now is no orphan.
    Ok(orphans(&processes, &live_runners()?, system))
}

/// A hidden process is the runner of its children only. It does not keep all others from being swept,
/// since a session of its user often has some that have nothing to do with runners.
fn orphans(processes: &[Marked], live: &Live, system: &str) -> BTreeSet<String> {
    let hidden = |(pid, _, mark): &Marked| (*mark == Mark::Hidden).then_some(*pid);
    let hidden: BTreeSet<i32> = processes.iter().filter_map(hidden).collect();
    let (mut orphans, mut spared) = (BTreeSet::new(), BTreeSet::new());
    for (_, parent, mark) in processes {
        let Mark::Of {
            runner, system: of, ..
        } = mark
        else {
            continue;
        };
        if of.as_deref() == Some(system) && !live.has(runner) {
            orphans.insert(runner.clone());
        }
        if hidden.contains(parent) {
            spared.insert(runner.clone());
        }
    }
    orphans.retain(|runner| !spared.contains(runner));
    orphans
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(runner: &str, role: Role) -> Mark {
        Mark::Of {
            runner: runner.to_owned(),
            role,
            system: Some("ours".to_owned()),
        }
    }

    #[test]
    fn what_cannot_be_seen_proves_nobody_dead() {
        let seen = [of("a", Role::Runner), of("b", Role::Task)];
        let live = Live::of(seen.clone());
        assert!(live.has("a") && !live.lacks("a"));
        assert!(!live.has("b") && live.lacks("b"), "a task is no runner");
        let live = Live::of(seen.into_iter().chain([Mark::Hidden]));
        assert!(live.has("a") && !live.has("b") && !live.lacks("b"));
    }

    #[test]
    fn orphans_are_those_of_our_own_installation_without_a_runner() {
        let elsewhere = |system: Option<&str>| Mark::Of {
            runner: "elsewhere".to_owned(),
            role: Role::Task,
            system: system.map(str::to_owned),
        };
        let processes = [
            (10, 1, of("lives", Role::Runner)),
            (11, 10, of("lives", Role::Task)),
            (12, 1, of("dead", Role::Task)),
            (13, 12, of("dead", Role::Task)),
            (14, 1, elsewhere(Some("theirs"))),
            (19, 1, elsewhere(None)),
            (15, 1, Mark::Hidden),
            (16, 15, of("hidden", Role::Task)),
            (17, 16, of("hidden", Role::Task)),
            (18, 1, Mark::None),
        ];
        let live = Live::of(processes.iter().map(|(_, _, mark)| mark.clone()));
        let found = orphans(&processes, &live, "ours");
        assert_eq!(found, BTreeSet::from(["dead".to_owned()]));
    }
}
