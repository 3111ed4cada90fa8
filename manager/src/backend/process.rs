//! The process backend: each runner is a child process of the manager, on the same machine.
//!
//! It owns all waiting for children of this process. A manager that starts finds the runners of an
//! earlier one by their environment, and what dead runners left behind.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use air_protocol::limits::START_WITHIN_PROCESS;
use air_protocol::time::Span;
use air_runner::sweep::{self, Whom};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{Backend, End, Exit, Later, Order, SpawnError, Spawned};
use crate::offers::Offer;

/// Time that a sweep of leftover processes may take.
const SWEEP_WITHIN: Duration = Duration::from_secs(10);
/// Time from a claim until its runner has a process, which its manager starts right after it, also on a busy machine. That of a
/// manager that died meanwhile is missed sooner, by the heartbeat.
const SPAWN_WITHIN: Duration = Duration::from_secs(5);

/// Starts runners as processes.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    program: PathBuf,
    env: Vec<(String, String)>,
    /// The installation.
    system: String,
    /// Runners by their process ids.
    children: Mutex<HashMap<i32, Uuid>>,
}

impl Process {
    /// Runners of the installation `system` are `program`, with `env` over the environment of the manager.
    pub(crate) fn new(
        name: String,
        program: PathBuf,
        env: Vec<(String, String)>,
        system: String,
    ) -> Self {
        Self {
            name,
            program,
            env,
            system,
            children: Mutex::default(),
        }
    }

    fn start(&self, order: &Order) -> Result<Spawned, SpawnError> {
        if let Some(image) = &order.image {
            let text = format!(
                "the task wants the image `{image}`, but the process backend runs none; name another backend"
            );
            return Err(SpawnError::Refused(text));
        }
        // Locked across the spawn: the end of a runner that dies at once finds its entry.
        let mut children = self.children();
        if children.values().any(|child| *child == order.runner) {
            return Ok(Spawned::AlreadyThere);
        }
        let child = Command::new(&self.program)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .envs(order.env())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| self.explain(&error))?;
        children.insert(child.id().cast_signed(), order.runner);
        Ok(Spawned::Done)
    }

    fn explain(&self, error: &io::Error) -> SpawnError {
        let program = self.program.display();
        SpawnError::Unavailable(format!("failed to start {program}: {error}"))
    }

    fn children(&self) -> MutexGuard<'_, HashMap<i32, Uuid>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for children, for ever, and tells which runners have ended.
    async fn reap(&self, ends: &mpsc::UnboundedSender<End>) -> io::Result<()> {
        let mut signals = signal(SignalKind::child())?;
        loop {
            loop {
                match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::Exited(pid, code)) => self.ended(pid, Exit::Code(code), ends),
                    Ok(WaitStatus::Signaled(pid, _, _)) => self.ended(pid, Exit::Killed, ends),
                    Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if signals.recv().await.is_none() {
                return Ok(());
            }
        }
    }

    fn ended(&self, pid: Pid, exit: Exit, ends: &mpsc::UnboundedSender<End>) {
        let runner = self.children().remove(&pid.as_raw());
        if let Some(runner) = runner {
            let _ = ends.send(End { runner, exit });
        }
    }
}

impl Backend for Process {
    fn offer(&self) -> Offer {
        Offer {
            realm: realm(),
            start_within: Span(START_WITHIN_PROCESS),
            ..Offer::plain(&self.name)
        }
    }

    fn spawn_within(&self) -> Duration {
        SPAWN_WITHIN
    }

    fn spawn(&self, order: Arc<Order>) -> Later<'_, Result<Spawned, SpawnError>> {
        Box::pin(async move { self.start(&order) })
    }

    fn watch(self: Arc<Self>, ends: mpsc::UnboundedSender<End>) -> Later<'static, ()> {
        Box::pin(async move {
            if let Err(error) = self.reap(&ends).await {
                tracing::error!(%error, "cannot wait for runners");
            }
        })
    }

    fn stop(&self, runner: Uuid) -> Later<'_, ()> {
        let children = self.children();
        let pid = children.iter().find(|(_, child)| **child == runner);
        if let Some((pid, _)) = pid {
            // A child that has ended just now is not waited for yet, so that the id is still its own.
            let _ = nix::sys::signal::kill(Pid::from_raw(*pid), Signal::SIGTERM);
        }
        drop(children);
        Box::pin(async {})
    }

    fn kill(&self, runner: Uuid) -> Later<'_, ()> {
        Box::pin(kill(runner))
    }

    fn gone(&self, runners: HashSet<Uuid>) -> Later<'_, HashSet<Uuid>> {
        Box::pin(async move {
            let live = tokio::task::spawn_blocking(sweep::live_runners).await;
            let Ok(Ok(live)) = live else {
                return HashSet::new();
            };
            let dead = |runner: &Uuid| live.lacks(&runner.to_string());
            runners.into_iter().filter(dead).collect()
        })
    }

    fn clear(&self) -> Later<'_, ()> {
        Box::pin(sweep_orphans(self.system.clone()))
    }
}

/// Processes that this manager can see, and look into: the machine's boot, the namespaces of
/// process ids and of users, the user and the group. A manager of another user would find no
/// runner of ours, and must not take them for dead.
fn realm() -> Option<String> {
    static REALM: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = |kind| std::fs::read_link(format!("/proc/self/ns/{kind}")).ok();
        let (pids, users) = (namespace("pid")?, namespace("user")?);
        let (user, group) = sweep::own_ids()?;
        let (boot, pids, users) = (boot.trim(), pids.display(), users.display());
        Some(format!("{boot}/{pids}/{users}/{user}:{group}"))
    };
    REALM.get_or_init(read).clone()
}

/// Kills a runner that was judged dead, and all that it left behind on this machine.
async fn kill(runner: Uuid) {
    let id = runner.to_string();
    let swept = tokio::task::spawn_blocking(move || {
        sweep::sweep(|found| found == id, Whom::TasksAndRunners, SWEEP_WITHIN)
    });
    match swept.await {
        Ok(Ok(swept)) if swept.left.is_empty() => {
            tracing::debug!(%runner, killed = swept.killed, "swept")
        }
        Ok(Ok(swept)) => {
            tracing::warn!(%runner, left = ?swept.left, "some processes cannot be killed")
        }
        Ok(Err(error)) => tracing::warn!(%runner, %error, "could not look for processes"),
        Err(error) => tracing::warn!(%runner, %error, "could not look for processes"),
    }
}

/// Kills what runners of this installation left behind that live no longer: at the start of a manager.
async fn sweep_orphans(system: String) {
    let swept = tokio::task::spawn_blocking(move || {
        let orphans = sweep::orphaned(&system)?;
        sweep::sweep(|found| orphans.contains(found), Whom::Tasks, SWEEP_WITHIN)
    });
    match swept.await {
        Ok(Ok(swept)) if swept.killed > 0 => {
            tracing::info!(killed = swept.killed, "swept processes of dead runners")
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "could not look for processes"),
        Err(error) => tracing::warn!(%error, "could not look for processes"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// A process that waits for its input, which never comes, in the name of a runner.
    fn waiting(runner: Uuid) -> std::process::Child {
        let mut command = Command::new("cat");
        command.env("AIR_RUNNER", runner.to_string());
        command.env("AIR_SEQ", "7").stdin(Stdio::piped());
        command.spawn().unwrap()
    }

    #[tokio::test]
    async fn a_runner_that_was_judged_dead_is_killed() {
        let (dead, lives) = (Uuid::now_v7(), Uuid::now_v7());
        let (mut dead_one, mut living_one) = (waiting(dead), waiting(lives));
        kill(dead).await;
        // `try_wait` and not `wait`, which would close its input and so end it.
        let ended = dead_one.try_wait().unwrap().map(|status| status.signal());
        let other = living_one.try_wait().unwrap();
        let _ = (dead_one.kill(), living_one.kill());
        let _ = (dead_one.wait(), living_one.wait());
        assert_eq!(ended, Some(Some(Signal::SIGKILL as i32)));
        assert_eq!(other, None, "another runner is left alone");
    }
}
