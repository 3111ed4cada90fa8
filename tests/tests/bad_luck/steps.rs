//! Death at every step of a task's life: a runner or a manager is gone as by `kill -9`, and what it left
//! is settled within the time-outs.

use std::path::PathBuf;
use std::time::Instant;

use air_protocol::lease::Phase;
use air_protocol::record::Status;
use air_tests::{Installation, Program, check, check_no_process, wait_for_within};
use serde_json::json;

use crate::{
    POLL, SLACK, TTL, ends_well, exists, file, murder, noted, running, runs, short_leases,
};

/// Starts a manager that dies, or whose first runner dies, at the step; gives the file that tells of it.
fn manager_until(air: &mut Installation, step: &str) -> PathBuf {
    let died = file(air, "died");
    let mut command = air.manager_command(&[]);
    command.env("AIR_CRASH_AT", format!("{step}@{}", died.display()));
    air.managers.push(Program::start(&mut command));
    died
}

/// Waits until the first manager has died; a second one takes its place.
async fn succeed_the_manager(air: &mut Installation) {
    let first = &mut air.managers[0];
    wait_for_within(SLACK * 5, "death of the manager", async || {
        if first.has_ended() {
            Ok(())
        } else {
            Err("it lives")
        }
    })
    .await;
    air.add_manager(&[]);
}

/// Waits until the job is held by nobody, or by a runner younger than the death that was seen just now.
async fn recovered(air: &Installation, dead_since: Instant) {
    let most = TTL + POLL + SLACK;
    wait_for_within(most, "recovery", async || match air.state("j").await {
        Some(state) => match state.lease() {
            None => Ok(()),
            Some(lease) => match lease.phase {
                Phase::Running(ref running) if running.target.attempt > 1 => Ok(()),
                _ => Err(state.name()),
            },
        },
        None => Err("no key".to_owned()),
    })
    .await;
    assert!(dead_since.elapsed() < most);
}

/// A runner dies at the step; `executions` of its task follow, and `losses` are counted.
async fn runner_dies(step: &str, executions: usize, losses: u64) {
    let mut air = short_leases(0).await;
    let died = manager_until(&mut air, step);
    let child = r#"echo '{"id":"child","run":"true"}' >> $AIR_TASKS"#;
    air.publish("j", &noted(&air, "t", child).to_string()).await;
    air.publish("j", &noted(&air, "next", "true").to_string())
        .await;
    exists(&died).await;
    recovered(&air, Instant::now()).await;
    ends_well(&air, &["t", "next", "child"]).await;
    assert_eq!(runs(&air, "t"), executions, "executions of the task");
    let counters = air.state("j").await.unwrap().ledger.counters;
    assert_eq!((counters.losses, counters.subtasks), (losses, 1));
    assert_eq!((counters.succeeded, counters.failed), (3, 0));
}

#[tokio::test]
async fn a_runner_dies_before_it_starts() {
    runner_dies("starting", 1, 0).await;
}

#[tokio::test]
async fn a_runner_dies_when_it_has_started() {
    runner_dies("started", 1, 1).await;
}

#[tokio::test]
async fn a_runner_dies_before_it_commits() {
    runner_dies("committing", 2, 1).await;
}

#[tokio::test]
async fn a_runner_dies_between_commit_and_release() {
    runner_dies("committed", 1, 0).await;
}

#[tokio::test]
async fn a_runner_dies_when_it_has_released() {
    runner_dies("released", 1, 0).await;
}

#[tokio::test]
async fn a_runner_dies_while_its_task_runs_and_takes_all_its_children_along() {
    let air = short_leases(1).await;
    let line = "test $AIR_ATTEMPT -eq 2 && exit 0; sleep 600 & setsid sleep 600 & (setsid sleep 600 &); wait";
    air.publish("j", &noted(&air, "t", line).to_string()).await;
    air.publish("j", &noted(&air, "next", "true").to_string())
        .await;
    murder(running(&air, "t").await);
    recovered(&air, Instant::now()).await;
    ends_well(&air, &["t", "next"]).await;
    let records = air.records("j").await;
    let lost = &records[0].1;
    assert_eq!(
        (lost.status, lost.lost, lost.failures),
        (Status::Retrying, true, 0)
    );
    assert!(lost.error.as_ref().unwrap().contains("runner lost"));
    assert_eq!(runs(&air, "t"), 2);
}

#[tokio::test]
async fn a_runner_that_dies_again_and_again_fails_its_task_and_says_so() {
    let air = short_leases(1).await;
    air.publish(
        "j",
        &noted(&air, "t", "kill -9 $PPID; sleep 600").to_string(),
    )
    .await;
    let record = air.wait_record("j", "t", Status::Failed).await;
    assert_eq!((record.attempt, record.losses), (5, 5));
    assert!(record.error.unwrap().contains("runner lost 5 times"));
    check_no_process(&air).await;
    air.wait_state("j", |state| state.name() == "failed").await;
    check(&air).await;
}

/// The manager dies at the step, with two tasks in the job; its successor goes on.
async fn manager_dies(step: &str, executions: usize) {
    let mut air = short_leases(0).await;
    let died = manager_until(&mut air, step);
    air.publish("j", &noted(&air, "t", "true").to_string())
        .await;
    air.publish("j", &noted(&air, "next", "true").to_string())
        .await;
    exists(&died).await;
    succeed_the_manager(&mut air).await;
    recovered(&air, Instant::now()).await;
    ends_well(&air, &["t", "next"]).await;
    assert_eq!((runs(&air, "t"), runs(&air, "next")), (executions, 1));
    assert_eq!(air.state("j").await.unwrap().ledger.counters.losses, 0);
}

#[tokio::test]
async fn a_manager_dies_between_claim_and_spawn() {
    manager_dies("claimed", 1).await;
}

#[tokio::test]
async fn a_manager_dies_when_it_has_spawned() {
    manager_dies("spawned", 1).await;
}

#[tokio::test]
async fn a_manager_dies_while_a_runner_runs() {
    let mut air = short_leases(1).await;
    let line = "while ! test -e go; do sleep 0.05; done";
    air.publish("j", &noted(&air, "t", line).to_string()).await;
    air.publish("j", &noted(&air, "next", "true").to_string())
        .await;
    running(&air, "t").await;
    air.managers[0].kill();
    air.add_manager(&[]);
    std::fs::write(file(&air, "go"), "").unwrap();
    ends_well(&air, &["t", "next"]).await;
    assert_eq!((runs(&air, "t"), air.records("j").await.len()), (1, 2));
}

#[tokio::test]
async fn a_manager_and_its_runner_die_together() {
    let mut air = short_leases(1).await;
    let line = "test $AIR_ATTEMPT -eq 2 && exit 0; setsid sleep 600 & sleep 600";
    air.publish("j", &noted(&air, "t", line).to_string()).await;
    let runner = running(&air, "t").await;
    air.managers[0].kill();
    murder(runner);
    air.add_manager(&[]);
    recovered(&air, Instant::now()).await;
    ends_well(&air, &["t"]).await;
    assert_eq!(runs(&air, "t"), 2);
}

/// The manager dies at the step, while it skips a task whose need failed.
async fn settler_dies(step: &str) {
    let mut air = short_leases(0).await;
    let spec = r#"{"lease_ttl":"3s","on_failure":"continue","retry":{"max":0}}"#;
    air.spec("j", spec).await;
    let died = manager_until(&mut air, step);
    air.publish("j", r#"{"id":"bad","run":"false"}"#).await;
    for number in 0..3 {
        let task = json!({ "id": format!("s{number}"), "needs": ["bad"], "run": "true" });
        air.publish("j", &task.to_string()).await;
    }
    air.publish("j", r#"{"id":"good","run":"true"}"#).await;
    exists(&died).await;
    succeed_the_manager(&mut air).await;
    recovered(&air, Instant::now()).await;
    ends_well(&air, &["good"]).await;
    let records = air.records("j").await;
    let skipped = records
        .iter()
        .filter(|(_, record)| record.status == Status::Skipped);
    assert_eq!((skipped.count(), records.len()), (3, 5), "one record each");
}

#[tokio::test]
async fn a_manager_dies_when_it_has_decided() {
    settler_dies("settling").await;
}

#[tokio::test]
async fn a_manager_dies_when_it_has_committed_its_decisions() {
    settler_dies("settled").await;
}

/// The manager dies at the step, while it recovers from the death of a runner.
async fn rescuer_dies(step: &str) {
    let mut air = short_leases(0).await;
    let died = manager_until(&mut air, step);
    let line = "test $AIR_ATTEMPT -eq 2 && exit 0; setsid sleep 600 & sleep 600";
    air.publish("j", &noted(&air, "t", line).to_string()).await;
    murder(running(&air, "t").await);
    exists(&died).await;
    succeed_the_manager(&mut air).await;
    recovered(&air, Instant::now()).await;
    ends_well(&air, &["t"]).await;
    let state = air.state("j").await.unwrap();
    assert_eq!((runs(&air, "t"), state.ledger.counters.losses), (2, 1));
}

#[tokio::test]
async fn a_manager_dies_when_it_has_taken_over() {
    rescuer_dies("recovering").await;
}

#[tokio::test]
async fn a_manager_dies_when_it_has_taken_over_and_another_one_is_there() {
    let mut air = short_leases(0).await;
    let died = manager_until(&mut air, "recovering");
    let line = "test $AIR_ATTEMPT -eq 2 && exit 0; setsid sleep 600 & sleep 600";
    air.publish("j", &noted(&air, "t", line).to_string()).await;
    let runner = running(&air, "t").await;
    air.add_manager(&[]);
    wait_for_within(SLACK, "second manager", async || {
        match air.nats.managers().await.unwrap().len() {
            2 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    murder(runner);
    // Only the first has the runner as its child, and so hears of its death at once.
    exists(&died).await;
    recovered(&air, Instant::now()).await;
    ends_well(&air, &["t"]).await;
    assert_eq!(runs(&air, "t"), 2);
}

#[tokio::test]
async fn a_manager_dies_when_it_has_committed_for_a_dead_runner() {
    rescuer_dies("recovered").await;
}

/// The manager dies at the step, while it cancels a job that works.
async fn canceller_dies(step: &str) {
    let mut air = short_leases(0).await;
    let died = manager_until(&mut air, step);
    air.publish("j", &noted(&air, "t", "sleep 600").to_string())
        .await;
    for number in 0..5 {
        let task = json!({ "id": format!("t{number}"), "run": "true" });
        air.publish("j", &task.to_string()).await;
    }
    running(&air, "t").await;
    let mut cancel = Program::start(&mut air.airx(&["cancel", "j"]));
    exists(&died).await;
    succeed_the_manager(&mut air).await;
    air.wait_state("j", |state| state.name() == "cancelled")
        .await;
    wait_for_within(SLACK, "end of `airx cancel`", async || {
        if cancel.has_ended() {
            Ok(())
        } else {
            Err("it waits")
        }
    })
    .await;
    let records = air.records("j").await;
    let cancelled = records
        .iter()
        .filter(|(_, record)| record.status == Status::Cancelled);
    assert_eq!(
        (cancelled.count(), records.len()),
        (6, 6),
        "one record each"
    );
    assert!(air.queue("j").await.is_empty());
    check_no_process(&air).await;
    check(&air).await;
    air.publish("j", &noted(&air, "after", "true").to_string())
        .await;
    ends_well(&air, &["after"]).await;
}

#[tokio::test]
async fn a_manager_dies_while_it_cancels() {
    canceller_dies("cancelling").await;
}

#[tokio::test]
async fn a_manager_dies_when_it_has_emptied_the_queue() {
    canceller_dies("emptied").await;
}
