//! Processes that freeze between two steps, are taken for dead, and go on when it is too late: what they
//! still write is refused.

use air_protocol::record::Status;
use air_tests::{Installation, Program, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::{
    back, ends_well, file, manager_elsewhere, noted, runs, short_leases, thawed_to_its_end,
};

/// Queues a sub-task that must never exist.
const QUEUES: &str = r#"echo '{"id":"ghost","run":"true"}' >> $AIR_TASKS"#;

/// Starts a manager that freezes, or whose first runner freezes, at the step.
fn manager_until(air: &mut Installation, step: &str) {
    let mut command = air.manager_command(&[]);
    let frozen = file(air, "frozen");
    command.env("AIR_FREEZE_AT", format!("{step}@{}", frozen.display()));
    air.managers.push(Program::start(&mut command));
}

/// Waits until a process is frozen; gives its id.
async fn frozen(air: &Installation) -> Pid {
    wait_for("frozen process", async || {
        let text = std::fs::read_to_string(file(air, "frozen")).unwrap_or_default();
        let pid = text.trim().parse().map_err(|_| text)?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.contains(") T ") {
            Ok(Pid::from_raw(pid))
        } else {
            Err(stat)
        }
    })
    .await
}

/// A runner freezes at the step; a manager that cannot kill it gives its task to another; it thaws.
async fn runner_freezes(step: &str, line: &str, executions: usize) {
    let mut air = short_leases(0).await;
    manager_until(&mut air, step);
    let line = format!("test $AIR_ATTEMPT -eq 1 || exit 0; {line}");
    air.publish("j", &noted(&air, "t", &line).to_string()).await;
    let runner = frozen(&air).await;
    air.managers[0].kill();
    manager_elsewhere(&mut air);
    air.wait_record("j", "t", Status::Succeeded).await;
    thawed_to_its_end(runner).await;
    ends_well(&air, &["t"]).await;
    let records = air.records("j").await;
    let statuses: Vec<_> = records.iter().map(|(_, record)| record.status).collect();
    assert_eq!(statuses, [Status::Retrying, Status::Succeeded]);
    assert!(air.record("j", "ghost").await.is_none());
    assert_eq!(runs(&air, "t"), executions);
}

#[tokio::test]
async fn a_runner_that_froze_when_it_had_started_runs_nothing() {
    runner_freezes("started", QUEUES, 1).await;
}

#[tokio::test]
async fn a_runner_that_froze_before_its_commit_commits_nothing() {
    runner_freezes("committing", "true", 2).await;
}

#[tokio::test]
async fn a_runner_that_froze_before_its_commit_queues_nothing() {
    runner_freezes("committing", QUEUES, 2).await;
}

#[tokio::test]
async fn a_runner_that_nats_never_lets_start_ends() {
    let mut air = short_leases(0).await;
    manager_until(&mut air, "starting");
    air.publish("j", &noted(&air, "t", "true").to_string())
        .await;
    let runner = frozen(&air).await;
    air.managers.clear();
    air.server.kill();
    thawed_to_its_end(runner).await;
    air.server.restart();
    back(&air).await;
    air.add_manager(&[]);
    ends_well(&air, &["t"]).await;
    assert_eq!(runs(&air, "t"), 1, "the first runner ran nothing");
}

/// A manager freezes at the step, another one goes on to the end, and it thaws.
async fn manager_freezes(step: &str) {
    let mut air = short_leases(0).await;
    let spec = r#"{"lease_ttl":"3s","on_failure":"continue","retry":{"max":0}}"#;
    air.spec("j", spec).await;
    manager_until(&mut air, step);
    let dies = "test $AIR_ATTEMPT -eq 2 || kill -9 $PPID";
    air.publish("j", &noted(&air, "dies", dies).to_string())
        .await;
    air.publish("j", &noted(&air, "bad", "false").to_string())
        .await;
    let skipped = json!({ "id": "skipped", "needs": ["bad"], "run": "true" });
    air.publish("j", &skipped.to_string()).await;
    let manager = frozen(&air).await;
    air.add_manager(&[]);
    air.wait_record("j", "skipped", Status::Skipped).await;
    air.wait_completed("j").await;
    kill(manager, Signal::SIGCONT).unwrap();
    wait_for("both managers", async || {
        match air.nats.managers().await.unwrap().len() {
            2 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    air.publish("j", &noted(&air, "after", "true").to_string())
        .await;
    ends_well(&air, &["dies", "after"]).await;
    let records = air.records("j").await;
    assert_eq!(records.len(), 5, "each attempt has one record: {records:?}");
    assert_eq!((runs(&air, "dies"), runs(&air, "bad")), (2, 1));
}

#[tokio::test]
async fn a_manager_that_froze_before_it_spawned_starts_no_second_runner() {
    manager_freezes("claimed").await;
}

#[tokio::test]
async fn a_manager_that_froze_before_it_committed_decides_nothing_twice() {
    manager_freezes("settling").await;
}

#[tokio::test]
async fn a_manager_that_froze_after_a_take_over_commits_nothing_twice() {
    manager_freezes("recovering").await;
}
