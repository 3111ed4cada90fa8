//! Ends a process tree to its last member.
//!
//! The tree is all descendants of the runner. Whether one is left is asked of the kernel (see
//! [`Reaper::reap`]); `/proc` only says whom to signal.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::{Signal as Number, kill, killpg};
use nix::unistd::Pid;
use tokio::signal::unix::Signal;
use tokio::time::{Instant, sleep, timeout};

use super::procfs::{Process, family};
use super::reaper::{Main, Reaper};

/// Looks for processes not yet halted, before those that were found are killed all the same.
const HALT_PASSES_MAX: usize = 50;
/// Longest wait for news between two rounds of SIGKILL.
const ROUND: Duration = Duration::from_millis(20);
/// Time after which a tree that survives SIGKILL is worth a word in the log.
const STUCK: Duration = Duration::from_secs(5);

/// All processes of the program.
pub(super) struct Tree {
    reaper: Reaper,
    child_signals: Signal,
}

impl Tree {
    pub(super) fn new(child: Child, child_signals: Signal) -> Self {
        Self {
            reaper: Reaper::new(child),
            child_signals,
        }
    }

    /// Waits for the end of the main process. Safe to drop and to call again.
    pub(super) async fn main_ended(&mut self) -> Main {
        loop {
            self.reaper.reap();
            if let Some(main) = self.reaper.main() {
                return main;
            }
            self.news().await;
        }
    }

    /// Ends all: SIGTERM, then SIGKILL to what is left after `grace`. Returns when none is.
    pub(super) async fn end(&mut self, grace: Duration) {
        if !self.reaper.reap() {
            return;
        }
        self.terminate();
        if timeout(grace, self.all_ended()).await.is_err() {
            self.kill().await;
        }
    }

    async fn all_ended(&mut self) {
        while self.reaper.reap() {
            self.news().await;
        }
    }

    /// Waits until some child has changed since the last look.
    async fn news(&mut self) {
        if self.child_signals.recv().await.is_none() {
            // The runtime has stopped listening: look again from time to time.
            sleep(ROUND).await;
        }
    }

    /// Sends SIGTERM once to every process: many take a second one as "at once".
    fn terminate(&self) {
        let family = descendants(|_| {}).unwrap_or_default();
        let group = self.reaper.main_pid();
        let by_group = self.group_is_ours(&family);
        if by_group {
            // In one go, as seen by a process that is forking.
            let _ = killpg(group, Number::SIGTERM);
        }
        for process in family.values() {
            if !(by_group && process.group == group.as_raw()) {
                send(process, Number::SIGTERM);
            }
            if process.halted {
                send(process, Number::SIGCONT);
            }
        }
    }

    /// Kills in rounds until none is left, however fast they fork.
    ///
    /// Each round first halts: a halted process makes no more children, and still fills its
    /// place under a limit on processes, so that even a fork bomb runs dry. Measured with 16
    /// chains of processes that fork and end: 0.6 s, against 5 to 10 s by SIGKILL alone.
    async fn kill(&mut self) {
        let started = Instant::now();
        let mut told = false;
        while self.reaper.reap() {
            let family = self.halt().await;
            if self.group_is_ours(&family) {
                let _ = killpg(self.reaper.main_pid(), Number::SIGKILL);
            }
            for process in family.values() {
                send(process, Number::SIGKILL);
            }
            if !told && started.elapsed() > STUCK {
                told = true;
                let pids: Vec<_> = family.keys().collect();
                tracing::warn!(
                    ?pids,
                    "processes of the task survive SIGKILL; waiting for them"
                );
            }
            let _ = timeout(ROUND, self.news()).await;
        }
    }

    /// Halts processes until a look at all of them finds no new one.
    async fn halt(&mut self) -> BTreeMap<i32, Process> {
        let mut halted = BTreeSet::new();
        let mut family = BTreeMap::new();
        for _ in 0..HALT_PASSES_MAX {
            let before = halted.len();
            let look = descendants(|process| {
                if halted.insert((process.pid, process.start_ticks)) {
                    send(process, Number::SIGSTOP);
                }
            });
            family = look.unwrap_or_default();
            if halted.len() == before || !self.reaper.reap() {
                break;
            }
            // Output and lease renewal have their turn too.
            tokio::task::yield_now().await;
        }
        family
    }

    /// Whether the id of the program's group cannot have passed to strangers: it stays taken
    /// as long as the program is not collected, or somebody is in the group.
    fn group_is_ours(&self, family: &BTreeMap<i32, Process>) -> bool {
        let group = self.reaper.main_pid().as_raw();
        self.reaper.main().is_none() || family.values().any(|process| process.group == group)
    }
}

/// All descendants of this process.
fn descendants(found: impl FnMut(&Process)) -> io::Result<BTreeMap<i32, Process>> {
    let own = std::process::id().cast_signed();
    family(|process| process.parent == own, found)
}

/// Signals one process. One that is gone, or is not ours to signal, is no error: the caller
/// looks again anyway.
fn send(process: &Process, number: Number) {
    let _ = kill(Pid::from_raw(process.pid), number);
}
