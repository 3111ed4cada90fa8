//! The process backend: each runner is a child process of the manager, on the same machine.
//!
//! It owns all waiting for children of this process. A manager that starts finds the runners of an
//! earlier one by their environment, and what dead runners left behind. `cgroup` holds runners to the resources that their
//! tasks ask for, `user` lets them run as somebody else, `left` ends and clears away what they leave.

mod cgroup;
mod left;
mod user;

use std::collections::{HashMap, HashSet};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use air_protocol::limits::{PROCESS_MEMORY_BYTES_MIN, START_WITHIN_PROCESS};
use air_protocol::time::Span;
use air_runner::{gate, sweep};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use uuid::Uuid;

use self::cgroup::{Cgroups, Group, Limits};
use self::user::User;
use super::{Backend, End, Exit, Later, Order, SpawnError, Spawned, fnv};
use crate::offers::Offer;
use crate::{CgroupOptions, ProcessOptions};

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
    nice: Option<i32>,
    user: Option<User>,
    /// Where runners are held to what their tasks ask for; none where that cannot be.
    cgroups: Option<Cgroups>,
    /// Runners by their process ids.
    children: Mutex<HashMap<i32, Runner>>,
}

/// A child that is a runner.
#[derive(Debug)]
struct Runner {
    id: Uuid,
    /// Its cgroup, where it has one.
    group: Option<Group>,
}

impl Process {
    /// Runners of the installation `system` are `program`, with `env` over the environment of the manager.
    ///
    /// # Errors
    /// What the options want and cannot be had, and how to mend it.
    pub(crate) fn new(
        name: String,
        program: PathBuf,
        env: Vec<(String, String)>,
        system: &str,
        options: &ProcessOptions,
    ) -> Result<Self, String> {
        let user = options.user.as_deref().map(User::of).transpose()?;
        if let Some(nice) = options.nice {
            check_nice(nice)?;
        }
        let mark = format!("{:016x}", fnv(system.bytes()));
        let cgroups = match (Cgroups::open(&options.cgroup, &mark), &options.cgroup) {
            (Ok(cgroups), _) => cgroups,
            (Err(text), CgroupOptions::Path(path)) => {
                return Err(format!("there can be no cgroups below `{path}`: {text}"));
            }
            (Err(reason), CgroupOptions::Auto | CgroupOptions::None) => {
                tracing::info!(backend = name, %reason, "no cgroups: of what tasks ask for, memory is limited by address space, and processors are not");
                None
            }
        };
        if let Some(cgroups) = &cgroups {
            tracing::debug!(backend = name, place = cgroups.place(), "has cgroups");
        }
        Ok(Self {
            name,
            program,
            env,
            system: system.to_owned(),
            nice: options.nice,
            user,
            cgroups,
            children: Mutex::default(),
        })
    }

    async fn start(&self, order: &Order) -> Result<Spawned, SpawnError> {
        if let Some(image) = &order.image {
            let text = format!(
                "the task wants the image `{image}`, but the process backend runs none; name another backend"
            );
            return Err(SpawnError::Refused(text));
        }
        let limits = Limits::of(order.resources.as_ref());
        if let Some(bytes) = limits.and_then(|limits| limits.memory_bytes)
            && bytes < PROCESS_MEMORY_BYTES_MIN
        {
            let text = format!(
                "the task asks for {bytes} bytes of memory, but {PROCESS_MEMORY_BYTES_MIN} are the least: its runner is held to them too; give it more by `resources`"
            );
            return Err(SpawnError::Refused(text));
        }
        let group = limits.and(self.cgroups.as_ref());
        let group = group.map(|cgroups| cgroups.group(order.runner));
        let command = self.command(order, limits, group.as_ref());
        let Some((pid, gate)) = self.spawn_child(order.runner, command, group.clone())? else {
            return Ok(Spawned::AlreadyThere);
        };
        let Some(gate) = gate else {
            return Ok(Spawned::Done);
        };
        let nice = self.nice;
        let placing = move || place(pid, nice, group.zip(limits), gate);
        let placed = tokio::task::spawn_blocking(placing).await;
        match placed.unwrap_or_else(|error| Err(SpawnError::Unavailable(error.to_string()))) {
            Ok(()) => Ok(Spawned::Done),
            Err(error) => {
                let waits = self.children().remove(&pid).is_some();
                self.kill(order.runner).await;
                // One that has ended by itself meanwhile was told of, and its exit says more.
                if waits { Err(error) } else { Ok(Spawned::Done) }
            }
        }
    }

    fn command(&self, order: &Order, limits: Option<Limits>, group: Option<&Group>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .envs(order.env())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(user) = &self.user {
            let known = user.known.as_ref();
            command.uid(user.uid).gid(user.gid);
            command.env(
                "HOME",
                known.map_or("/".as_ref(), |known| known.home.as_os_str()),
            );
            if let Some(known) = known {
                command.env("USER", &known.name).env("LOGNAME", &known.name);
            }
        }
        let memory = limits.and_then(|limits| limits.memory_bytes);
        match (group, memory) {
            (Some(group), Some(_)) => drop(command.env("AIR_CGROUP", group.memory())),
            (None, Some(bytes)) => drop(command.env("AIR_MEMORY_MAX", bytes.to_string())),
            (_, None) => {}
        }
        if group.is_some() || self.nice.is_some() {
            command.env(gate::VARIABLE, "stdin").stdin(Stdio::piped());
        }
        command
    }

    /// Starts a child, unless there is one of this runner; gives its process id, and its gate if it has one.
    fn spawn_child(
        &self,
        runner: Uuid,
        mut command: Command,
        group: Option<Group>,
    ) -> Result<Option<(i32, Option<ChildStdin>)>, SpawnError> {
        // Locked across the spawn: the end of a runner that dies at once finds its entry.
        let mut children = self.children();
        if children.values().any(|child| child.id == runner) {
            return Ok(None);
        }
        let mut child: Child = command.spawn().map_err(|error| self.explain(&error))?;
        let pid = child.id().cast_signed();
        children.insert(pid, Runner { id: runner, group });
        Ok(Some((pid, child.stdin.take())))
    }

    fn explain(&self, error: &io::Error) -> SpawnError {
        let program = self.program.display();
        SpawnError::Unavailable(format!("failed to start {program}: {error}"))
    }

    fn children(&self) -> MutexGuard<'_, HashMap<i32, Runner>> {
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
            let id = runner.id;
            runner.clear();
            let _ = ends.send(End { runner: id, exit });
        }
    }
}

impl Runner {
    /// Has its cgroup removed, unless a process of its task has outlived it: whoever recovers its lease ends that.
    fn clear(self) {
        if let Some(group) = self.group {
            tokio::task::spawn_blocking(move || group.remove());
        }
    }
}

/// Puts a child that waits at its gate where it shall be, and opens the gate.
fn place(
    pid: i32,
    nice: Option<i32>,
    limited: Option<(Group, Limits)>,
    mut gate: ChildStdin,
) -> Result<(), SpawnError> {
    let unavailable = |text: String| SpawnError::Unavailable(text);
    if let Some(nice) = nice {
        let child = rustix::process::Pid::from_raw(pid);
        rustix::process::setpriority_process(child, nice)
            .map_err(|error| unavailable(format!("cannot set the nice value {nice}: {error}")))?;
    }
    if let Some((group, limits)) = limited {
        (group.make()).map_err(|fault| unavailable(format!("cannot make a cgroup: {fault}")))?;
        (group.limit(limits)).map_err(|fault| {
            let text = format!("the kernel takes what the task asks for as no limit: {fault}");
            SpawnError::Refused(text)
        })?;
        let placed = group.place(pid);
        placed.map_err(|fault| unavailable(format!("cannot use a cgroup: {fault}")))?;
    }
    gate.write_all(b"\n")
        .map_err(|error| unavailable(format!("the runner ended before it began: {error}")))
}

/// Checks that runners can have a nice value: any from that of this process on, and lower ones with the rights for it.
fn check_nice(nice: i32) -> Result<(), String> {
    use rustix::process::{getpriority_process, setpriority_process};
    let own = getpriority_process(None).map_err(|error| error.to_string())?;
    if nice >= own {
        return Ok(());
    }
    // Of this thread, and there and back: who may go down may go up.
    setpriority_process(None, nice)
        .and_then(|()| setpriority_process(None, own))
        .map_err(|error| {
            format!("`nice` is {nice}, but this manager has {own} and may not go below: {error}; run it as root, or write {own} or more")
        })
}

impl Backend for Process {
    fn offer(&self) -> Offer {
        Offer {
            realm: realm(),
            start_within: Span(START_WITHIN_PROCESS),
            resources: self.cgroups.is_some(),
            ..Offer::plain(&self.name)
        }
    }

    fn spawn_within(&self) -> Duration {
        SPAWN_WITHIN
    }

    fn spawn(&self, order: Arc<Order>) -> Later<'_, Result<Spawned, SpawnError>> {
        Box::pin(async move { self.start(&order).await })
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
        let pid = children.iter().find(|(_, child)| child.id == runner);
        if let Some((pid, _)) = pid {
            // A child that has ended just now is not waited for yet, so that the id is still its own.
            let _ = nix::sys::signal::kill(Pid::from_raw(*pid), Signal::SIGTERM);
        }
        drop(children);
        Box::pin(async {})
    }

    fn kill(&self, runner: Uuid) -> Later<'_, Option<Exit>> {
        let group = self.cgroups.as_ref().map(|cgroups| cgroups.group(runner));
        Box::pin(async move {
            blocking(move || left::kill(runner, group)).await;
            None
        })
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
        let (system, cgroups) = (self.system.clone(), self.cgroups.clone());
        Box::pin(blocking(move || left::clear(&system, cgroups.as_ref())))
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

/// Does what blocks, apart from the loop.
async fn blocking(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        tracing::warn!(%error, "could not clear away what runners left");
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

    #[test]
    fn a_runner_that_was_judged_dead_is_killed() {
        let (dead, lives) = (Uuid::now_v7(), Uuid::now_v7());
        let (mut dead_one, mut living_one) = (waiting(dead), waiting(lives));
        left::kill(dead, None);
        // `try_wait` and not `wait`, which would close its input and so end it.
        let ended = dead_one.try_wait().unwrap().map(|status| status.signal());
        let other = living_one.try_wait().unwrap();
        let _ = (dead_one.kill(), living_one.kill());
        let _ = (dead_one.wait(), living_one.wait());
        assert_eq!(ended, Some(Some(Signal::SIGKILL as i32)));
        assert_eq!(other, None, "another runner is left alone");
    }
}
