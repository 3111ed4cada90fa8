//! A client in five languages, and the one description of what each of them does.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use air_protocol::job::JobStatus;
use air_protocol::record::Status;
use air_tests::{Installation, wait_for};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::install;

#[tokio::test]
async fn shell() {
    behaves(install::shell).await;
}

#[tokio::test]
async fn python() {
    behaves(install::python).await;
}

#[tokio::test]
async fn typescript() {
    behaves(install::typescript).await;
}

#[tokio::test]
async fn go() {
    behaves(install::go).await;
}

#[tokio::test]
async fn rust() {
    behaves(install::rust).await;
}

/// What `report` saw of the tasks that it needs, and put out.
const REPORT: &str = concat!(
    r#"{"letters":{"error":null,"exit":0,"output":16,"status":"succeeded"},"#,
    r#""words":{"error":null,"exit":0,"output":4,"status":"succeeded"}}"#
);

async fn behaves(client: fn() -> Command) {
    // Before the server starts: nothing else is to be timed or to time out while something compiles.
    drop(client());
    let air = Installation::start(1).await;

    let done = |word| {
        format!(
            "{}demo completed: 4 succeeded\nreport {REPORT}\n",
            published(word)
        )
    };
    assert_eq!(run(client(), "demo", &air).await, (Some(0), done("queued")));
    assert_eq!(
        run(client(), "demo", &air).await,
        (Some(0), done("known")),
        "the second run"
    );
    let ran: Vec<_> = air
        .records("demo")
        .await
        .into_iter()
        .map(|(_, record)| record)
        .collect();
    let order: Vec<_> = ran.iter().map(|record| record.task.to_string()).collect();
    assert_eq!(order, ["words", "plan", "letters", "report"]);
    assert!(
        ran.iter()
            .all(|record| record.status == Status::Succeeded && record.attempt == 1),
        "{ran:?}"
    );

    air.publish("broken", r#"{"run":"false","retry":{"max":0}}"#)
        .await;
    air.wait_state("broken", |state| {
        matches!(state.status, JobStatus::Failed { .. })
    })
    .await;
    let failed = format!("{}broken failed: 0 succeeded\n", published("queued"));
    assert_eq!(run(client(), "broken", &air).await, (Some(1), failed));
}

fn published(word: &str) -> String {
    ["words", "plan", "report"]
        .map(|task| format!("{word} {task}\n"))
        .concat()
}

/// Runs a client to its end: its exit code and what it printed.
async fn run(mut client: Command, job: &str, air: &Installation) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let printed = folder.path().join("printed");
    client
        .arg(job)
        .env("NATS_URL", air.server.url())
        .stdin(Stdio::null())
        .stdout(File::create(&printed).unwrap());
    // A context that somebody chose for the `nats` of this machine is not for the test.
    client
        .env("XDG_CONFIG_HOME", folder.path())
        .process_group(0);
    let child = client
        .spawn()
        .unwrap_or_else(|error| panic!("failed to start {client:?}: {error}"));
    let mut running = Running(child);
    let status = wait_for("end of the client", async || {
        match running.0.try_wait().unwrap() {
            Some(status) => Ok(status),
            None => Err(std::fs::read_to_string(&printed)),
        }
    });
    let status = status.await;
    (status.code(), std::fs::read_to_string(printed).unwrap())
}

/// A client that is killed, with all that it started, should the test give it up.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        // Refused where all of them have ended: then nothing is left to do.
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.0.wait();
    }
}
