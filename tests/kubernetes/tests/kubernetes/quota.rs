//! A namespace that has no room is waited for, and one that never has enough is told.

use air_kubernetes::{Pods, apply};
use air_protocol::record::Status;
use air_tests::conformance::Ground;
use air_tests::wait_for;
use serde_json::json;

fn set_quota(ground: &Ground, hard: &serde_json::Value) {
    let namespace = Pods::make_namespace(ground);
    let metadata = json!({ "name": "quota", "namespace": namespace });
    apply(&[
        json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": { "hard": hard } }),
    ]);
}

/// No attempt pays for a namespace that is full.
#[tokio::test]
async fn a_full_quota_is_waited_for() {
    let mut ground = Ground::new(&Pods).await;
    set_quota(&ground, &json!({ "pods": "0" }));
    ground.manager(&Pods, "");
    ground.publish(&ground.noted("t", "true")).await;
    wait_for("the word of the quota", async || {
        let state = ground.air.state("j").await.ok_or("no state")?;
        let why = serde_json::to_string(&state).unwrap();
        if why.contains("has no room now") && state.failed_starts == 0 {
            Ok(())
        } else {
            Err("another")
        }
    })
    .await;
    set_quota(&ground, &json!({ "pods": "5" }));
    ground.ends_well().await;
    assert_eq!(ground.air.records("j").await.len(), 1);
}

/// A task that asks for more than the whole quota fails, with the text.
#[tokio::test]
async fn a_quota_that_is_too_small_is_a_failed_attempt() {
    let mut ground = Ground::new(&Pods).await;
    set_quota(
        &ground,
        &json!({ "limits.memory": "1Gi", "requests.memory": "1Gi" }),
    );
    ground.manager(&Pods, "");
    let mut task = ground.noted("t", "true");
    task["resources"] = json!({ "memory": "2Gi" });
    task["retry"] = json!({ "max": 0 });
    ground.publish(&task).await;
    let record = air_tests::wait_for_within(
        std::time::Duration::from_secs(120),
        "failed task",
        async || match ground.air.record("j", "t").await {
            Some(record) if record.status == Status::Failed => Ok(record),
            other => Err(other),
        },
    )
    .await;
    let error = record.error.unwrap();
    assert!(
        error.contains("never has what the task asks for") && error.contains("exceeded quota"),
        "{error}"
    );
}
