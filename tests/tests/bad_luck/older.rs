//! A server that comes up with an older state under living managers: after a power cut that lost what was
//! not synced, or from a backup.

use std::time::{Duration, Instant};

use air_protocol::job::JobStatus;
use air_protocol::record::Status;
use air_tests::{HANGS, Installation, ok, wait_for, wait_for_within};
use serde_json::json;

use crate::{back, file, noted, running};

/// How long managers of these tests keep a consumed message, and remember it.
const SYNC: Duration = Duration::from_secs(2);

async fn manager_of_lazy_server() -> Installation {
    let mut air = Installation::start(0).await;
    air.add_manager(&["--sync-interval", "2s"]);
    wait_for("manager", async || match air.nats.managers().await {
        Ok(managers) if managers.len() == 1 => Ok(()),
        other => Err(other),
    })
    .await;
    air.spec("a", r#"{"lease_ttl":"3s"}"#).await;
    air.spec("b", r#"{"paused":true}"#).await;
    air
}

/// Runs this many tasks of job `a`.
async fn run_tasks(air: &Installation, tasks: usize) {
    for number in 0..tasks {
        let task = json!({ "id": format!("a{number}"), "exec": ["true"] });
        air.publish("a", &task.to_string()).await;
    }
    air.wait_completed("a").await;
}

/// Publishes tasks to job `b`, which is paused, so that they take the sequences that the server gives anew.
async fn fill(air: &Installation) -> usize {
    for number in 0..40 {
        let task = json!({ "id": format!("b{number}"), "exec": ["true"] });
        air.publish("b", &task.to_string()).await;
    }
    40
}

/// Lets the managers look at job `a` until they have deleted all that they remember of it, and then job `b` go on.
async fn b_is_whole(air: &Installation, tasks: usize) {
    let start = Instant::now();
    let mut number = 0;
    wait_for_within(HANGS, "age of what is remembered", async || {
        number += 1;
        let task = json!({ "id": format!("again{number}"), "exec": ["true"] });
        air.publish("a", &task.to_string()).await;
        air.wait_completed("a").await;
        if start.elapsed() > 2 * SYNC {
            Ok(())
        } else {
            Err(number)
        }
    })
    .await;
    air.spec("b", "{}").await;
    let state = air.wait_completed("b").await;
    assert_eq!(
        state.ledger.counters.succeeded, tasks as u64,
        "no message of b was lost"
    );
}

#[tokio::test]
async fn what_was_remembered_of_a_newer_state_harms_no_other_job() {
    let mut air = manager_of_lazy_server().await;
    let older = air.server.kill_and_copy();
    air.server.restart();
    back(&air).await;
    run_tasks(&air, 20).await;
    air.server.restart_with(&older);
    back(&air).await;
    let tasks = fill(&air).await;
    b_is_whole(&air, tasks).await;
}

#[tokio::test]
async fn a_job_whose_key_went_back_goes_on() {
    let mut air = manager_of_lazy_server().await;
    air.publish(
        "a",
        &noted(&air, "t", "while ! test -e go; do sleep 0.05; done").to_string(),
    )
    .await;
    running(&air, "t").await;
    let older = air.server.kill_and_copy();
    air.server.restart();
    back(&air).await;
    std::fs::write(file(&air, "go"), "").unwrap();
    air.wait_completed("a").await;
    run_tasks(&air, 10).await;
    // Its runner, of which the key tells again, is gone for long.
    air.server.restart_with(&older);
    back(&air).await;
    let state = air
        .wait_state("a", |state| {
            matches!(state.status, JobStatus::Completed { .. })
        })
        .await;
    assert_eq!(state.ledger.counters.succeeded, 1);
    assert_eq!(
        air.record("a", "t").await.unwrap().status,
        Status::Succeeded
    );
}

#[tokio::test]
async fn streams_restored_under_living_managers_harm_no_other_job() {
    let air = manager_of_lazy_server().await;
    let nats = |arguments: &[&str]| ok(&mut air.nats_cli(arguments));
    let streams = ["AIR", "KV_air-jobs", "KV_air-specs"];
    let folder = |stream: &str| file(&air, stream).display().to_string();
    for stream in streams {
        nats(&["stream", "backup", stream, &folder(stream), "--no-progress"]);
    }
    run_tasks(&air, 20).await;
    for stream in streams {
        nats(&["stream", "rm", stream, "--force"]);
        nats(&["stream", "restore", &folder(stream), "--no-progress"]);
    }
    let tasks = fill(&air).await;
    b_is_whole(&air, tasks).await;
}
