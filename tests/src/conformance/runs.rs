//! Cases in which nothing fails: what a task sees, what it queues and prints, and how many run at once.

use air_protocol::record::Status;
use serde_json::json;

use super::{Ground, Stand, until};
use crate::process::ok;

/// A task sees its environment, its input and the outputs of its needs, hands over its own, and sees no credentials.
pub async fn environment(stand: &dyn Stand) {
    let mut ground = Ground::new(stand).await;
    ground.manager(stand, "");
    let first =
        json!({ "id": "first", "run": "echo '{\"n\":7}' > $AIR_OUTPUT", "backend": "tested" });
    ground.publish(&first).await;
    let lines = [
        "test \"$AIR_JOB/$AIR_TASK/$AIR_ATTEMPT\" = j/second/1",
        "test -n \"$AIR_RUNNER\" && test \"$AIR_FENCE\" -gt 0",
        "test -d \"$AIR_WORKDIR\" && test \"$MINE\" = 1 && test -n \"$PATH\"",
        "grep -q 42 \"$AIR_INPUT\" && grep -q 7 \"$AIR_NEEDS\"",
        "! env | grep -E '^(NATS_|AIR_STATE|AIR_SEQ)'",
        "echo '\"seen\"' > \"$AIR_OUTPUT\"",
    ];
    let second = json!({
        "id": "second", "run": lines.join(" && "), "needs": ["first"], "input": { "x": 42 },
        "env": { "MINE": "1" }, "retry": { "max": 0 }, "backend": "tested",
    });
    ground.publish(&second).await;
    ground.ends_well().await;
    let record = ground.air.record("j", "second").await.unwrap();
    assert_eq!(record.status, Status::Succeeded, "{record:?}");
    assert_eq!(record.output, Some(json!("seen")));
    assert_eq!(record.backend.as_deref(), Some("tested"));
}

/// Sub-tasks come by the file and by the command on the `PATH`, and only from an attempt that succeeds.
pub async fn subtasks(stand: &dyn Stand) {
    let mut ground = Ground::new(stand).await;
    ground.manager(stand, "");
    let line = r#"echo '{"id":"a","run":"true"}' >> $AIR_TASKS; airx task add --id b -- true; test $AIR_ATTEMPT -eq 2"#;
    ground.publish(&ground.noted("t", line)).await;
    ground.ends_well().await;
    for id in ["t", "a", "b"] {
        let record = ground.air.record("j", id).await.unwrap();
        assert_eq!(record.status, Status::Succeeded, "{id}: {record:?}");
    }
    assert_eq!(
        (
            ground.runs("t"),
            ground.air.finals("j", &"a".parse().unwrap()).await
        ),
        (2, 1)
    );
}

/// One file of tasks, the same for every backend, which does not know where it runs.
pub async fn job_file(stand: &dyn Stand) {
    let mut ground = Ground::new(stand).await;
    ground.manager(stand, "");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/anywhere/job.yaml");
    ok(&mut ground.air.airx(&["submit", "j", "-f", file]));
    ground.ends_well().await;
    let records = ground.air.records("j").await;
    assert_eq!(records.len(), 6, "{records:?}");
    for (_, record) in &records {
        assert_eq!(record.backend.as_deref(), Some("tested"), "{record:?}");
    }
    let total = ground.air.record("j", "total").await.unwrap();
    assert_eq!(total.output, Some(json!(30)));
}

/// What a task prints is kept while it runs, and stands at the end of its record.
pub async fn logs(stand: &dyn Stand) {
    let mut ground = Ground::new(stand).await;
    ground.manager(stand, "");
    let line = format!("echo one; echo two >&2; {}; echo three", until("go"));
    ground.publish(&ground.noted("t", &line)).await;
    crate::wait::wait_for("output while it runs", async || {
        let log = ground.air.log("j", "t").await;
        if log == b"one\ntwo\n" {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    ground.let_go("go");
    ground.ends_well().await;
    let record = ground.air.record("j", "t").await.unwrap();
    assert_eq!(record.tail.as_deref(), Some("one\ntwo\nthree\n"));
}

/// No more runners than the limit of the backend run at once, and all tasks get their turn.
pub async fn limits(stand: &dyn Stand) {
    let mut ground = Ground::new(stand).await;
    ground.manager_with(stand, "max_runners = 8", "max_runners = 2");
    let folder = ground.folder().to_owned();
    // Each notes how many are there with it.
    let line = "mkdir in.$AIR_JOB; ls -d in.* | wc -l >> seen; sleep 0.2; rmdir in.$AIR_JOB";
    for number in 0..5 {
        let task = json!({ "id": "t", "run": line, "cwd": folder, "backend": "tested" });
        ground
            .air
            .publish(&format!("k{number}"), &task.to_string())
            .await;
    }
    for number in 0..5 {
        ground.air.wait_completed(&format!("k{number}")).await;
    }
    let seen = std::fs::read_to_string(ground.file("seen")).unwrap();
    let seen: Vec<u32> = seen
        .lines()
        .map(|line| line.trim().parse().unwrap())
        .collect();
    assert_eq!(seen.len(), 5);
    assert!(seen.iter().all(|count| *count <= 2), "{seen:?}");
}
