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

#[tokio::test]
async fn cancel_and_timeout_leave_no_process() {
    let agents = Agents::start(1).await;
    let folder = tempfile::tempdir().unwrap();
    for (job, timeout) in [("cancelled", "0"), ("late", "30s")] {
        let (file, mark) = (
            folder.path().join(job),
            format!("TEST_MARK={job}-{}", std::process::id()),
        );
        agents.standin.script(
            &format!("hold {job}"),
            [Step::bash(&stubborn(job)).tokens(700, 70)],
        );
        let task = json!({
            "id": "t", "timeout": timeout, "cwd": folder.path(), "retry": { "max": 0 },
            "env": { "TEST_MARK": mark.strip_prefix("TEST_MARK=") },
            "claude": { "prompt": format!("hold {job}"), "allowed_tools": ["Bash"] },
        });
        agents.air.publish(job, &task.to_string()).await;
        until_there(&agents, job, &file).await;
        wait_for_within(GUARD, "processes of the shell", async || {
            let found = with_mark(&mark);
            if found.len() >= 5 { Ok(()) } else { Err(found) }
        })
        .await;
        let status = if timeout == "0" {
            ok(&mut agents.air.airx(&["cancel", job]));
            Status::Cancelled
        } else {
            Status::Failed
        };
        let record = agents.air.wait_record(job, "t", status).await;
        assert_eq!(with_mark(&mark), [0_u32; 0], "{job}");
        let cost = record.cost.unwrap();
        assert!(cost.input_tokens >= 700, "what it took is not lost");
        assert!(record.agent.unwrap().saved.is_some());
    }
}
