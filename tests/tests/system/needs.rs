//! Tasks that wait for others.

use air_protocol::record::Status;
use air_tests::Installation;
use serde_json::json;

#[tokio::test]
async fn a_task_gets_the_outputs_of_its_needs() {
    let air = Installation::start(1).await;
    let sum = r#"python3 -c 'import json,os; n=json.load(open(os.environ["AIR_NEEDS"])); print(sum(v["output"] for v in n.values()))' > $AIR_OUTPUT"#;
    air.publish(
        "j",
        &json!({"id": "sum", "needs": ["a", "b", "k/c"], "run": sum}).to_string(),
    )
    .await;
    for (job, task, value) in [("j", "a", 1), ("j", "b", 20), ("k", "c", 300)] {
        air.publish(
            job,
            &json!({"id": task, "run": format!("echo {value} > $AIR_OUTPUT")}).to_string(),
        )
        .await;
    }
    air.wait_completed("j").await;
    assert_eq!(
        air.record("j", "sum").await.unwrap().output,
        Some(json!(321))
    );
}

#[tokio::test]
async fn what_can_no_longer_be_met_is_skipped() {
    let air = Installation::start(1).await;
    air.spec("j", r#"{"on_failure":"continue","retry":{"max":0}}"#)
        .await;
    for task in [
        json!({"id": "bad", "run": "false"}),
        json!({"id": "after", "needs": ["bad"], "run": "true"}),
        json!({"id": "chain", "needs": ["after"], "run": "true"}),
        json!({"id": "mourner", "needs": [{"task": "bad", "when": "failed"}], "run": "true"}),
        json!({"id": "cleaner", "needs": [{"task": "bad", "when": "done"}, {"task": "chain", "when": "done"}], "run": "true"}),
    ] {
        air.publish("j", &task.to_string()).await;
    }
    let counters = air.wait_completed("j").await.ledger.counters;
    assert_eq!(
        (counters.failed, counters.skipped, counters.succeeded),
        (1, 2, 2)
    );
    let record = air.record("j", "chain").await.unwrap();
    assert_eq!(record.status, Status::Skipped);
    assert!(
        record
            .error
            .unwrap()
            .contains("needs after to succeed, which is skipped")
    );
}

#[tokio::test]
async fn a_circle_is_named() {
    let air = Installation::start(1).await;
    air.spec("j", r#"{"on_failure":"continue"}"#).await;
    for (task, need) in [("a", "b"), ("b", "c"), ("c", "a")] {
        air.publish(
            "j",
            &json!({"id": task, "needs": [need], "run": "true"}).to_string(),
        )
        .await;
    }
    let counters = air.wait_completed("j").await.ledger.counters;
    assert_eq!(counters.failed, 3);
    assert!(
        air.record("j", "a")
            .await
            .unwrap()
            .error
            .unwrap()
            .contains("a → b → c → a")
    );
}

#[tokio::test]
async fn a_need_may_be_published_later() {
    let air = Installation::start(1).await;
    air.publish(
        "j",
        &json!({"id": "waits", "needs": ["k/comes"], "run": "true"}).to_string(),
    )
    .await;
    air.publish("j", r#"{"id":"other","run":"true"}"#).await;
    air.wait_record("j", "other", Status::Succeeded).await;
    assert!(air.record("j", "waits").await.is_none());
    air.publish("k", r#"{"id":"comes","run":"true"}"#).await;
    air.wait_completed("j").await;
    assert_eq!(
        air.record("j", "waits").await.unwrap().status,
        Status::Succeeded
    );
}
