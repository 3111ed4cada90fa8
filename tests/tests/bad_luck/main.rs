//! Bad luck on a real installation: processes die or freeze at any moment, keys vanish, disks fill up,
//! clocks jump. Nothing is lost, nothing is committed twice, and no job is stuck.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

mod backup;
mod clocks;
mod disk;
mod frozen;
mod leases;
mod lost;
mod neighbours;
mod older;
mod servers;
mod starts;
mod steps;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use air_protocol::record::Status;
use air_tests::{Installation, Program, check, check_no_process, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// The lease of the jobs here: the shortest that there is.
const TTL: Duration = Duration::from_secs(3);
/// What a busy machine may add to a time-out.
const SLACK: Duration = Duration::from_secs(30);
/// The poll of the managers.
const POLL: Duration = Duration::from_secs(1);

/// An installation whose job `j` has the shortest lease.
async fn short_leases(managers: usize) -> Installation {
    let air = Installation::start(managers).await;
    air.spec("j", r#"{"lease_ttl":"3s","retry":{"backoff":"10ms"}}"#)
        .await;
    air
}

/// Lets a frozen runner, which nobody could kill, go on to its end.
async fn thawed_to_its_end(runner: Pid) {
    kill(runner, Signal::SIGCONT).expect("nobody could kill it");
    wait_for("end of the runner", async || match kill(runner, None) {
        Err(_) => Ok(()),
        Ok(()) => Err("it lives"),
    })
    .await;
}

/// A file that tasks and tests see.
fn file(air: &Installation, name: &str) -> PathBuf {
    air.server.folder().join(name)
}

/// A task that writes a line into the file `ran`, and then does `line`, in the test's folder.
fn noted(air: &Installation, id: &str, line: &str) -> Value {
    let line = format!("echo {id} $AIR_ATTEMPT $PPID >> ran; {line}");
    json!({ "id": id, "run": line, "cwd": air.server.folder() })
}

/// How often a task ran, by what it noted.
fn runs(air: &Installation, id: &str) -> usize {
    let text = std::fs::read_to_string(file(air, "ran")).unwrap_or_default();
    let is_it = |line: &&str| line.split(' ').next() == Some(id);
    text.lines().filter(is_it).count()
}

/// Waits until a task has noted that it runs; gives the process id of its runner.
async fn running(air: &Installation, id: &str) -> Pid {
    let pid = wait_for("note of the task", async || {
        let text = std::fs::read_to_string(file(air, "ran")).unwrap_or_default();
        let words = text
            .lines()
            .rev()
            .map(|line| line.split(' ').collect::<Vec<_>>());
        let mut ours = words.filter(|words| words.len() == 3 && words[0] == id);
        ours.find_map(|words| words[2].parse().ok()).ok_or(text)
    })
    .await;
    Pid::from_raw(pid)
}

/// Waits until the server answers the test again.
async fn back(air: &Installation) {
    wait_for("server", async || air.nats.jobs_end().await).await;
}

async fn exists(path: &Path) {
    let look = async || if path.exists() { Ok(()) } else { Err(path) };
    wait_for("file", look).await;
}

/// Starts a manager that sees no other processes than those of a namespace of its own, as on another machine.
fn manager_elsewhere(air: &mut Installation) {
    let manager = air.manager_command(&[]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--pid", "--fork"]);
    command.args(["--kill-child", "--mount-proc"]);
    command.arg(manager.get_program()).args(manager.get_args());
    let variables = manager.get_envs();
    command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
    air.managers.push(Program::start(&mut command));
}

/// Kills a process without a warning.
fn murder(pid: Pid) {
    kill(pid, Signal::SIGKILL).unwrap();
}

/// Waits for the end of the job `j`: each of these tasks succeeded, each with one final record; another
/// job runs; no process is left; no invariant is broken.
async fn ends_well(air: &Installation, tasks: &[&str]) {
    air.wait_completed("j").await;
    for task in tasks {
        let record = air.record("j", task).await;
        let status = record.as_ref().map(|record| record.status);
        assert_eq!(status, Some(Status::Succeeded), "{task}: {record:?}");
        assert_eq!(air.finals("j", &task.parse().unwrap()).await, 1, "{task}");
    }
    air.publish("other", r#"{"run":"true"}"#).await;
    air.wait_completed("other").await;
    check_no_process(air).await;
    check(air).await;
}
