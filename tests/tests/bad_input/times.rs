//! Times and spans at the end of what can be written.

use air_protocol::record::Status;
use air_tests::check;
use serde_json::json;

use crate::{goes_on, tolerant};

/// Longer than the time that anything counts.
const AGES: &str = "100000000000years";

#[tokio::test]
async fn times_far_away_hold_their_task_alone() {
    let air = tolerant().await;
    for (id, more) in [
        ("late", json!({ "not_before": "9999-12-31T23:59:59Z" })),
        (
            "slow",
            json!({ "run": "false", "retry": { "max": 1, "backoff": AGES, "max_backoff": AGES } }),
        ),
        (
            "later",
            json!({ "run": "echo 18446744073709551615 > $AIR_RETRY_AT; exit 75" }),
        ),
    ] {
        let mut task = json!({ "id": id, "run": "true" });
        task.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        air.publish("j", &task.to_string()).await;
        air.wait_record("j", id, Status::Retrying).await;
    }
    air.publish(
        "j",
        &json!({ "id": "patient", "run": "true", "timeout": AGES }).to_string(),
    )
    .await;
    air.wait_record("j", "patient", Status::Succeeded).await;
    let scheduled = air.nats.scheduled(&"j".parse().unwrap()).await.unwrap();
    let records = air.records("j").await;
    assert_eq!(scheduled.len(), 3, "{records:?}");
    air.wait_state("j", |state| {
        state.name() == "waiting" && state.ledger.counters.tasks() == 4
    })
    .await;
    check(&air).await;
    assert!(air.airx(&["cancel", "j"]).status().unwrap().success());
    let state = air
        .wait_state("j", |state| state.name() == "cancelled")
        .await;
    assert_eq!(state.ledger.counters.cancelled, 3);
    goes_on(&air).await;
}

#[tokio::test]
async fn a_lease_of_ages_is_a_lease() {
    let air = tolerant().await;
    let spec = format!(r#"{{"lease_ttl":"{AGES}","keep":"{AGES}","needs_timeout":"{AGES}"}}"#);
    air.spec("j", &spec).await;
    air.publish(
        "j",
        r#"{"id":"t","run":"test $AIR_ATTEMPT -eq 2 || kill -9 $PPID"}"#,
    )
    .await;
    let record = air.wait_record("j", "t", Status::Succeeded).await;
    assert_eq!(record.losses, 1);
    goes_on(&air).await;
}
