//! Several managers, coming and going.

use std::time::Duration;

use air_protocol::job::JobStatus;
use air_protocol::record::Status;
use air_tests::{Installation, wait_for, wait_for_within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// Publishes `tasks` tasks to each of `jobs` jobs.
async fn publish_many(air: &Installation, jobs: usize, tasks: usize) {
    for task in 0..tasks {
        for job in 0..jobs {
            air.publish(
                &format!("job{job}"),
                &format!(r#"{{"exec":["true"],"id":"t{task}"}}"#),
            )
            .await;
        }
    }
}

#[tokio::test]
async fn a_dead_runner_is_replaced_at_once() {
    let air = Installation::start(1).await;
    let run = "echo $PPID > pid; test $AIR_ATTEMPT -eq 2 || while :; do :; done";
    let folder = air.server.folder().join("work");
    std::fs::create_dir(&folder).unwrap();
    air.publish(
        "j",
        &json!({"id": "t", "run": run, "cwd": folder}).to_string(),
    )
    .await;
    let pid = wait_for("pid of the runner", async || {
        std::fs::read_to_string(folder.join("pid"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or("no pid")
    })
    .await;
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let state = air.wait_completed("j").await;
    assert_eq!(
        (
            state.ledger.counters.succeeded,
            state.ledger.counters.losses
        ),
        (1, 1)
    );
    let records = air.records("j").await;
    assert_eq!(records[0].1.status, Status::Retrying);
    assert!(records[0].1.lost);
    let lost_for = records[1]
        .1
        .claimed
        .unwrap()
        .since(records[0].1.started.unwrap());
    assert!(
        lost_for < Duration::from_secs(20),
        "long before its lease of 30 s ran out: {lost_for:?}"
    );
}

#[tokio::test]
async fn a_dead_manager_loses_nothing() {
    let mut air = Installation::start(1).await;
    publish_many(&air, 5, 40).await;
    air.wait_state("job0", |state| state.ledger.counters.succeeded >= 3)
        .await;
    air.managers[0].kill();
    air.add_manager(&[]);
    for job in 0..5 {
        air.wait_completed(&format!("job{job}")).await;
    }
    for job in 0..5 {
        let state = air.state(&format!("job{job}")).await.unwrap();
        assert_eq!(
            (
                state.ledger.counters.succeeded,
                state.ledger.counters.failed
            ),
            (40, 0)
        );
    }
}

#[tokio::test]
async fn a_runner_outlives_its_manager() {
    let mut air = Installation::start(1).await;
    let folder = air.server.folder().to_owned();
    air.publish("j", &json!({"id": "t", "run": "touch up; while ! test -e go; do sleep 0.02; done", "cwd": folder}).to_string()).await;
    wait_for("start", async || {
        if folder.join("up").exists() {
            Ok(())
        } else {
            Err("not up")
        }
    })
    .await;
    air.managers[0].kill();
    air.add_manager(&[]);
    std::fs::write(folder.join("go"), "").unwrap();
    air.wait_completed("j").await;
    let records = air.records("j").await;
    assert_eq!((records.len(), records[0].1.status), (1, Status::Succeeded));
}

#[tokio::test]
async fn a_drained_manager_finishes_what_it_runs() {
    let mut air = Installation::start(0).await;
    air.add_manager(&["--drain"]);
    let folder = air.server.folder().to_owned();
    air.publish("j", &json!({"id": "t", "run": "touch up; while ! test -e go; do sleep 0.02; done", "cwd": folder}).to_string()).await;
    air.publish("j", r#"{"id":"next","run":"true"}"#).await;
    wait_for("start", async || {
        if folder.join("up").exists() {
            Ok(())
        } else {
            Err("not up")
        }
    })
    .await;
    air.managers[0].signal(Signal::SIGTERM);
    std::fs::write(folder.join("go"), "").unwrap();
    let manager = &mut air.managers[0];
    wait_for_within(Duration::from_secs(20), "end of the manager", async || {
        if manager.has_ended() {
            Ok(())
        } else {
            Err("still there")
        }
    })
    .await;
    assert_eq!(
        air.record("j", "t").await.unwrap().status,
        Status::Succeeded
    );
    assert!(
        air.record("j", "next").await.is_none(),
        "a manager that stops claims nothing"
    );
    assert!(matches!(
        air.state("j").await.unwrap().status,
        JobStatus::Waiting
    ));
}

#[tokio::test]
async fn a_long_job_does_not_starve_another() {
    let mut air = Installation::start(0).await;
    for n in 0..200 {
        air.publish("long", &format!(r#"{{"exec":["true"],"id":"t{n}"}}"#))
            .await;
    }
    air.add_manager(&["--max-runners", "1"]);
    air.wait_state("long", |state| state.ledger.counters.succeeded >= 1)
        .await;
    air.publish("short", r#"{"exec":["true"]}"#).await;
    air.wait_completed("short").await;
    let done = air.state("long").await.unwrap().ledger.counters.succeeded;
    assert!(done < 200, "the short job waited for all of the long one");
}
