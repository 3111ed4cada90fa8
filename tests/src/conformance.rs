//! The conformance suite: what every backend must do, asked of a real one.
//!
//! [`Stand`] says how a manager with the backend is started, and how its infrastructure fails. [`conformance!`](macro@crate::conformance)
//! makes one test of each case. Tasks and the test meet in a folder that both see.

mod fails;
mod gate;
mod overhead;
mod resources;
mod runs;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::history::check;
use crate::installation::Installation;
use crate::process::{Program, binary, pids};
use crate::server::ServerOptions;
use crate::wait::wait_for;

pub use fails::{
    adopt, cancel, duplicate_spawn, infrastructure_down, lost_runner, lost_runner_by,
    refused_image, timeout,
};
pub use overhead::{Alone, Started, overhead};
pub use resources::{cpu_limit, group, memory_limit, no_groups};
pub use runs::{environment, job_file, limits, logs, subtasks};

/// A backend under test.
pub trait Stand: Sync {
    /// Lines of TOML that configure the backend by the name `tested`; its runners are the program `runner`, and its
    /// infrastructure is reached through the path `door`, which the test may take away.
    fn backend(&self, air: &Ground) -> String;

    /// The program of its runners.
    fn runner(&self) -> PathBuf {
        binary("air-runner")
    }

    /// What the path of [`Ground::door`] leads to while the infrastructure is there.
    fn door(&self) -> PathBuf {
        self.runner()
    }

    /// Where NATS listens, so that runners reach it.
    fn address(&self) -> &'static str {
        "127.0.0.1"
    }

    /// Kills a runner without a warning: a process of this machine, unless it is something else.
    fn murder(&self, runner: Uuid) {
        murder_process(runner);
    }

    /// Whether anything of a runner is left: processes of this machine, unless there is something else.
    fn is_left(&self, runner: Uuid) -> bool {
        is_process_left(runner)
    }

    /// Whether its infrastructure is something beside the program of its runners, behind a door of its own.
    fn is_elsewhere(&self) -> bool;
}

/// Kills a runner that is a process of this machine, without a warning.
pub fn murder_process(runner: Uuid) {
    let all = crate::history::runners();
    let (pid, _) = all.iter().find(|(_, run)| *run == runner).unwrap();
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
}

/// Whether a process of this machine is of a runner.
pub fn is_process_left(runner: Uuid) -> bool {
    let mark = format!("AIR_RUNNER={runner}");
    pids().any(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|one| one == mark.as_bytes())
    })
}

/// An installation in which a backend is tried.
pub struct Ground {
    /// The installation.
    pub air: Installation,
}

impl Ground {
    /// A server, and a door that is open.
    pub async fn new(stand: &dyn Stand) -> Self {
        let server = ServerOptions {
            host: Some(stand.address()),
            ..ServerOptions::default()
        };
        let ground = Self {
            air: Installation::start_on(server, 0).await,
        };
        ground
            .air
            .spec("j", r#"{"lease_ttl":"3s","retry":{"backoff":"10ms"}}"#)
            .await;
        ground.mend(stand);
        ground
    }

    /// The folder that tasks and the test see.
    pub fn folder(&self) -> &Path {
        self.air.server.folder()
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// The path through which the infrastructure is reached.
    pub fn door(&self) -> PathBuf {
        self.file("door")
    }

    /// Another address of a server on this machine: nobody answers there while the door is away.
    pub fn gate(&self, server: SocketAddr) -> SocketAddr {
        gate::open(self.door(), server)
    }

    /// The infrastructure is down.
    pub fn break_down(&self) {
        std::fs::remove_file(self.door()).unwrap();
    }

    /// The infrastructure is there again.
    pub fn mend(&self, stand: &dyn Stand) {
        std::os::unix::fs::symlink(stand.door(), self.door()).unwrap();
    }

    /// Starts a manager that has the backend, and further lines of configuration before it.
    pub fn manager(&mut self, stand: &dyn Stand, further: &str) {
        self.manager_with(stand, further, "");
    }

    /// The same, with lines for the backend.
    pub fn manager_with(&mut self, stand: &dyn Stand, further: &str, of_backend: &str) {
        let config = self.file("config.toml");
        let backend = stand.backend(self);
        std::fs::write(&config, format!("{further}\n{backend}\n{of_backend}\n")).unwrap();
        let options = ["--config", config.to_str().unwrap()];
        let mut command = self
            .air
            .manager_command_with(&self.runner_of(stand), &options);
        self.air.managers.push(Program::start(&mut command));
    }

    /// The program of runners: another one where the test has put one.
    pub fn runner_of(&self, stand: &dyn Stand) -> PathBuf {
        let other = self.file("runner");
        if other.exists() {
            other
        } else if stand.is_elsewhere() {
            stand.runner()
        } else {
            self.door()
        }
    }

    /// Waits until a manager is there.
    pub async fn is_up(&self) {
        wait_for("manager", async || {
            let managers = self.air.nats.managers().await.unwrap();
            if managers.is_empty() {
                Err("none")
            } else {
                Ok(())
            }
        })
        .await;
    }

    /// A task for the backend that notes its start in the file `ran`, and then does `line` in the folder.
    pub fn noted(&self, id: &str, line: &str) -> Value {
        let line = format!("echo {id} $AIR_ATTEMPT >> ran; {line}");
        json!({ "id": id, "run": line, "cwd": self.folder(), "backend": "tested" })
    }

    /// Publishes a task into the job `j`.
    pub async fn publish(&self, task: &Value) {
        self.air.publish("j", &task.to_string()).await;
    }

    /// Leases so long that only the backend can tell that a runner is lost.
    pub async fn long_leases(&self) {
        let spec = r#"{"lease_ttl":"10m","retry":{"backoff":"10ms"}}"#;
        self.air.spec("j", spec).await;
    }

    /// How often a task ran.
    pub fn runs(&self, id: &str) -> usize {
        let text = std::fs::read_to_string(self.file("ran")).unwrap_or_default();
        let is_it = |line: &&str| line.split(' ').next() == Some(id);
        text.lines().filter(is_it).count()
    }

    /// Waits until a task has started this often; gives its runner.
    pub async fn started(&self, id: &str, times: usize) -> Uuid {
        wait_for(&format!("start {times} of {id}"), async || {
            let runs = self.runs(id);
            if runs >= times { Ok(()) } else { Err(runs) }
        })
        .await;
        let state = self.air.state("j").await.unwrap();
        state.lease().unwrap().runner
    }

    /// Lets tasks go on that wait for a file.
    pub fn let_go(&self, name: &str) {
        std::fs::write(self.file(name), "").unwrap();
    }

    /// Nothing of a runner is left.
    pub async fn is_gone(&self, stand: &dyn Stand, runner: Uuid) {
        wait_for("end of all that belongs to the runner", async || {
            if stand.is_left(runner) {
                Err(runner)
            } else {
                Ok(())
            }
        })
        .await;
    }

    /// The job is completed, and no invariant is broken.
    pub async fn ends_well(&self) {
        self.air.wait_completed("j").await;
        check(&self.air).await;
    }
}

/// A line that waits for a file in the folder.
pub fn until(name: &str) -> String {
    format!("while ! test -e {name}; do sleep 0.02; done")
}

/// Makes one test of each case for a stand, or of those that are named.
#[macro_export]
macro_rules! conformance {
    ($stand:expr) => {
        $crate::conformance!($stand;
            environment subtasks job_file logs limits cancel timeout lost_runner adopt duplicate_spawn infrastructure_down
            refused_image overhead
        );
    };
    ($stand:expr; $($case:ident)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::conformance::$case(&$stand).await;
            }
        )*
    };
}
