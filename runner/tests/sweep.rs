//! Processes left by runners, found and killed by their mark.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic, its helpers too"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use air_runner::sweep::{Role, Whom, find, live_runners, own_ids, sweep};

const LIMIT: Duration = Duration::from_secs(20);

/// A stand-in for the runner: the shell with what only a runner has, and a task below it, which
/// is the same executable.
struct Stand {
    id: String,
    runner: Child,
    output: BufReader<ChildStdout>,
}

impl Stand {
    /// Starts it, and waits for the line with which `line` must say that all is there.
    fn start(line: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", std::process::id());
        let mut runner = Command::new("/bin/sh")
            .args(["-c", &format!("unset AIR_SEQ; {line}")])
            .env("AIR_RUNNER", &id)
            .env("AIR_SEQ", "7")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(runner.stdout.take().unwrap());
        assert_eq!(read_line(&mut output), "ready");
        Self { id, runner, output }
    }

    fn roles(&self) -> (usize, usize) {
        let found = find(|id| id == self.id).unwrap();
        assert!(found.iter().all(|found| found.runner == self.id));
        let runners = found
            .iter()
            .filter(|found| found.role == Role::Runner)
            .count();
        (runners, found.len() - runners)
    }

    /// Waits until the numbers of runners and others satisfy `wanted`: a child counts as a
    /// runner until it has executed its own program.
    fn wait_for(&self, wanted: impl Fn((usize, usize)) -> bool) {
        let started = Instant::now();
        while !wanted(self.roles()) {
            assert!(started.elapsed() < LIMIT, "{:?}", self.roles());
            std::thread::yield_now();
        }
    }

    fn sweep(&self, whom: Whom) -> usize {
        let swept = sweep(|id| id == self.id, whom, LIMIT).unwrap();
        assert!(swept.left.is_empty(), "{swept:?}");
        swept.killed
    }

    /// Waits until nobody holds the output any more: the end of every process.
    fn all_gone(mut self) {
        self.runner.wait().unwrap();
        self.output.read_to_end(&mut Vec::new()).unwrap();
    }
}

fn read_line(output: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn a_live_runner_is_told_from_its_task_and_spared() {
    let stand = Stand::start("setsid sleep 1000 & sleep 1000 & echo ready; read for_ever");
    stand.wait_for(|roles| roles == (1, 2));
    assert!(live_runners().unwrap().has(&stand.id));
    assert_eq!(stand.sweep(Whom::Tasks), 2);
    let (runners, _) = stand.roles();
    assert_eq!(runners, 1);
    stand.sweep(Whom::TasksAndRunners);
    assert_eq!(stand.roles(), (0, 0));
    assert!(!live_runners().unwrap().has(&stand.id));
    stand.all_gone();
}

#[test]
fn what_a_killed_runner_left_is_killed_to_the_last_also_when_it_forks() {
    let mut stand = Stand::start(
        "perl -e 'use POSIX; $SIG{TERM} = \"IGNORE\"; fork; POSIX::setsid(); $| = 1; \
         print \"ready\\n\" if fork; while (1) { if (!fork) { sleep 1; exit 0 } select(undef, \
         undef, undef, 0.005); waitpid(-1, WNOHANG) }' & wait",
    );
    stand.runner.kill().unwrap();
    stand.runner.wait().unwrap();
    assert!(!live_runners().unwrap().has(&stand.id));
    assert!(stand.sweep(Whom::Tasks) >= 4);
    stand.all_gone();
}

#[test]
fn a_process_that_drops_the_mark_is_found_by_its_ancestors() {
    let stand =
        Stand::start("sh -c 'env -i /bin/sh -c \"sleep 1000 & echo ready; wait\"; :' & wait");
    // sh, the shell without mark, and its sleep; `env` becomes that shell.
    stand.wait_for(|roles| roles == (1, 3));
    assert_eq!(stand.sweep(Whom::Tasks), 3);
    stand.sweep(Whom::TasksAndRunners);
    stand.all_gone();
}

#[test]
fn the_runners_executable_called_by_a_task_is_no_runner() {
    let mut stand = Stand::start("setsid /bin/sh -c 'echo ready; kill -STOP $$' & wait");
    stand.runner.kill().unwrap();
    stand.runner.wait().unwrap();
    stand.wait_for(|(runners, _)| runners == 0);
    assert!(!live_runners().unwrap().has(&stand.id));
    stand.sweep(Whom::Tasks);
    stand.all_gone();
}

/// Starts the test `unreadable_runner` of this binary anew; by root, who may look at everything, as
/// another user.
fn as_a_user_with_limits() -> Command {
    let own = std::env::current_exe().unwrap();
    let mut command = match own_ids().unwrap() {
        (0, _) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
            command.arg(own);
            command
        }
        _ => Command::new(own),
    };
    command.args(["--ignored", "--exact", "unreadable_runner"]);
    command
}

#[test]
fn a_runner_that_may_not_be_looked_at_is_not_dead() {
    let probe = as_a_user_with_limits().arg("--list").output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        eprintln!("SKIPPED: this test cannot start itself as a user who is not root");
        return;
    }
    let output = as_a_user_with_limits().output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[test]
#[ignore = "started by the test above, as a user who is not root"]
fn unreadable_runner() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    let run = |name: &str, what: &str| {
        let status = Command::new(name).arg(what).arg(&program).status();
        assert!(status.unwrap().success());
    };
    run("cp", "/bin/cat");
    // Whoever may execute a program and not read it may not look at its process either.
    run("chmod", "111");
    let mut runner = Command::new(&program)
        .envs([("AIR_RUNNER", "r"), ("AIR_SEQ", "7")])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let live = live_runners().unwrap();
    runner.kill().unwrap();
    runner.wait().unwrap();
    assert!(!live.lacks("r"), "{live:?}");
}

#[test]
fn other_runners_are_left_alone() {
    let one = Stand::start("sleep 1000 & echo ready; wait");
    let other = Stand::start("sleep 1000 & echo ready; wait");
    other.wait_for(|roles| roles == (1, 1));
    let wanted = BTreeSet::from([one.id.clone()]);
    let swept = sweep(|id| wanted.contains(id), Whom::TasksAndRunners, LIMIT).unwrap();
    assert!(swept.killed >= 1 && swept.left.is_empty());
    assert_eq!(other.roles(), (1, 1));
    other.sweep(Whom::TasksAndRunners);
    other.all_gone();
    one.all_gone();
}
