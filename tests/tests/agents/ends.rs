//! Agents that are ended from outside: nothing of them is left.

use std::path::Path;

use air_protocol::record::Status;
use air_tests::{Agents, Step, ok, wait_for_within};
use serde_json::json;

use super::GUARD;

/// The processes whose environment has this text.
fn with_mark(mark: &str) -> Vec<u32> {
    let has = |pid: &u32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ
            .windows(mark.len())
            .any(|part| part == mark.as_bytes())
    };
    air_tests::pids().filter(has).collect()
}

/// Waits for the file; a task that is over instead will never make it.
async fn until_there(agents: &Agents, job: &str, path: &Path) {
    wait_for_within(GUARD, &format!("{}", path.display()), async || {
        let record = agents.air.record(job, "t").await;
        assert!(record.is_none(), "{record:?}");
        if path.exists() {
            Ok(())
        } else {
            Err("not there")
        }
    })
    .await;
}

/// A shell line whose processes hold on to nothing of their parent, and a file that tells that they run.
fn stubborn(file: &str) -> String {
    format!(
        "trap '' TERM INT HUP; (setsid sh -c 'setsid sleep 1000 & sleep 1000' &) ; touch {file}; sleep 1000"
    )
}

/// Starts an agent whose shell does not end by itself; gives what stands in the environment of its processes.
async fn hold(agents: &Agents, job: &str, timeout: &str, folder: &Path) -> String {
    let (prompt, value) = (
        format!("hold {job}"),
        format!("{job}-{}", std::process::id()),
    );
    let steps = [Step::bash(&stubborn(job)).tokens(700, 70)];
    agents.standin.script(&prompt, steps);
    let task = json!({
        "id": "t", "timeout": timeout, "cwd": folder, "retry": { "max": 0 },
        "env": { "TEST_MARK": value },
        "claude": { "prompt": prompt, "allowed_tools": ["Bash"] },
    });
    agents.air.publish(job, &task.to_string()).await;
    format!("TEST_MARK={value}")
}

#[tokio::test]
async fn cancel_leaves_no_process() {
    let agents = Agents::start(1).await;
    let folder = tempfile::tempdir().unwrap();
    let mark = hold(&agents, "cancelled", "0", folder.path()).await;
    until_there(&agents, "cancelled", &folder.path().join("cancelled")).await;
    wait_for_within(GUARD, "processes of the shell", async || {
        let found = with_mark(&mark);
        if found.len() >= 5 { Ok(()) } else { Err(found) }
    })
    .await;
    ok(&mut agents.air.airx(&["cancel", "cancelled"]));
    let record = agents
        .air
        .wait_record("cancelled", "t", Status::Cancelled)
        .await;
    assert_eq!(with_mark(&mark), [0_u32; 0]);
    let cost = record.cost.unwrap();
    assert!(cost.input_tokens >= 700, "what it took is not lost");
    assert!(record.agent.unwrap().saved.is_some());
}

#[tokio::test]
async fn the_end_of_its_time_leaves_no_process() {
    let agents = Agents::start(1).await;
    let folder = tempfile::tempdir().unwrap();
    // A slow machine has not come to the shell by then; there must be nothing left all the same.
    let mark = hold(&agents, "late", "8s", folder.path()).await;
    let record = super::ended(&agents, "late", "t").await;
    assert_eq!(record.status, Status::Failed);
    assert!(record.error.unwrap().contains("`timeout`"));
    assert_eq!(with_mark(&mark), [0_u32; 0]);
}
