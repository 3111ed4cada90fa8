//! The process backend: each runner is a child process of the manager, on the same machine.
//!
//! It owns all waiting for children of this process. A manager that starts finds the runners of an
//! earlier one by their environment, and what dead runners left behind.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use air_runner::sweep::{self, Live, Whom};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use uuid::Uuid;

use super::{Order, SpawnError};

/// Name of the backend.
pub(crate) const NAME: &str = "process";
/// Time that a sweep of leftover processes may take.
const SWEEP_WITHIN: Duration = Duration::from_secs(10);

/// A runner's process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The runner.
    pub(crate) runner: Uuid,
    /// Its exit code; none when a signal ended it.
    pub(crate) code: Option<i32>,
}

impl Exit {
    /// Whether it ended as it should.
    pub(crate) fn is_clean(self) -> bool {
        self.code == Some(0)
    }

    /// Whether it says that it could not try: there was no NATS; or what a program around the runner
    /// says for `later` (`EX_TEMPFAIL`).
    pub(crate) fn is_unavailable(self) -> bool {
        let later = [air_runner::Exit::Unavailable.code(), 75];
        later.map(|code| Some(i32::from(code))).contains(&self.code)
    }
}

#[derive(Debug)]
struct Child {
    runner: Uuid,
    /// The place that the runner takes among those that the manager may have at once.
    _place: OwnedSemaphorePermit,
}

/// Starts runners as processes.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    program: PathBuf,
    env: Arc<Vec<(String, String)>>,
    children: Arc<Mutex<HashMap<i32, Child>>>,
}

impl Process {
    /// Runners are `program`, with `env` over the environment of the manager.
    pub(crate) fn new(program: PathBuf, env: Vec<(String, String)>) -> Self {
        Self {
            program,
            env: Arc::new(env),
            children: Arc::default(),
        }
    }

    /// Processes that this manager can see, and look into: the machine's boot, the namespaces of
    /// process ids and of users, the user and the group. A manager of another user would find no
    /// runner of ours, and must not take them for dead.
    pub(crate) fn realm() -> Option<String> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = |kind| std::fs::read_link(format!("/proc/self/ns/{kind}")).ok();
        let (pids, users) = (namespace("pid")?, namespace("user")?);
        let (user, group) = sweep::own_ids()?;
        let (boot, pids, users) = (boot.trim(), pids.display(), users.display());
        Some(format!("{boot}/{pids}/{users}/{user}:{group}"))
    }

    /// Starts a runner; `place` is given back when its process has ended.
    ///
    /// # Errors
    /// [`SpawnError`] when it cannot be started.
    pub(crate) fn spawn(
        &self,
        order: &Order,
        place: OwnedSemaphorePermit,
    ) -> Result<(), SpawnError> {
        if let Some(image) = &order.image {
            let text = format!(
                "the task wants the image `{image}`, but the process backend runs none; name another backend"
            );
            return Err(SpawnError::Refused(text));
        }
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        let child = Command::new(&self.program)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env("AIR_JOB", order.job.as_str())
            .env("AIR_SEQ", order.seq.to_string())
            .env("AIR_RUNNER", order.runner.to_string())
            .env("AIR_FENCE", order.fence.to_string())
            .env("AIR_BACKEND", NAME)
            .envs(order.state.as_ref().map(|state| ("AIR_STATE", state)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| self.explain(&error))?;
        children.insert(
            child.id().cast_signed(),
            Child {
                runner: order.runner,
                _place: place,
            },
        );
        Ok(())
    }

    fn explain(&self, error: &io::Error) -> SpawnError {
        let program = self.program.display();
        SpawnError::Unavailable(format!("failed to start {program}: {error}"))
    }

    /// Runners that this manager started and that live.
    pub(crate) fn running(&self) -> usize {
        self.children
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// The runners that this manager started and has not waited for: what ends them, it hears.
    pub(crate) fn children(&self) -> HashSet<Uuid> {
        let children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.values().map(|child| child.runner).collect()
    }

    /// Tells all runners of this manager to end.
    pub(crate) fn terminate(&self) {
        let children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        for pid in children.keys() {
            // A child that has ended just now is not waited for yet, so that the id is still its own.
            let _ = nix::sys::signal::kill(Pid::from_raw(*pid), Signal::SIGTERM);
        }
    }

    /// Waits for children, for ever, and tells which runners have ended.
    ///
    /// # Errors
    /// The system does not tell about children.
    pub(crate) async fn reap(self, exits: mpsc::UnboundedSender<Exit>) -> io::Result<()> {
        let mut signals = signal(SignalKind::child())?;
        loop {
            loop {
                match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::Exited(pid, code)) => self.ended(pid, Some(code), &exits),
                    Ok(WaitStatus::Signaled(pid, _, _)) => self.ended(pid, None, &exits),
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

    fn ended(&self, pid: Pid, code: Option<i32>, exits: &mpsc::UnboundedSender<Exit>) {
        let child = self
            .children
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&pid.as_raw());
        if let Some(child) = child {
            let _ = exits.send(Exit {
                runner: child.runner,
                code,
            });
        }
    }
}

/// The runners that live on this machine.
///
/// # Errors
/// The list of processes cannot be read.
pub(crate) async fn live_runners() -> io::Result<Live> {
    tokio::task::spawn_blocking(sweep::live_runners)
        .await
        .map_err(io::Error::other)?
}

/// A runner was killed, as far as this machine sees it. Only [`kill`] makes it, and nothing is committed on
/// behalf of a runner without it: what still runs of its task must not work beside the next attempt.
#[derive(Debug)]
pub(crate) struct Killed(());

/// Kills a runner that was judged dead, and all that it left behind on this machine.
pub(crate) async fn kill(runner: Uuid) -> Killed {
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
    Killed(())
}

/// Kills what runners of this installation left behind that live no longer: at the start of a manager.
pub(crate) async fn sweep_orphans(system: String) {
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
        let Killed(()) = kill(dead).await;
        // `try_wait` and not `wait`, which would close its input and so end it.
        let ended = dead_one.try_wait().unwrap().map(|status| status.signal());
        let other = living_one.try_wait().unwrap();
        let _ = (dead_one.kill(), living_one.kill());
        let _ = (dead_one.wait(), living_one.wait());
        assert_eq!(ended, Some(Some(Signal::SIGKILL as i32)));
        assert_eq!(other, None, "another runner is left alone");
    }
}
