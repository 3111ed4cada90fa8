//! Needs that nothing can meet: itself, a circle, a task that nobody has published.

use air_protocol::record::Status;
use air_tests::{Installation, check};
use serde_json::json;

use crate::{failed_saying, goes_on, tolerant};

#[tokio::test]
async fn a_task_that_needs_itself_fails_at_once() {
    let air = tolerant().await;
    let seq = air
        .publish("j", r#"{"id":"me","run":"true","needs":["me"]}"#)
        .await;
    let record = air
        .wait_record("j", &format!("_{seq}"), Status::Failed)
        .await;
    failed_saying(&record, &["`me`", "itself"]);
    let by_job = r#"{"id":"me","run":"true","needs":["j/me"]}"#;
    air.publish("j", by_job).await;
    let record = air.wait_record("j", "me", Status::Failed).await;
    failed_saying(&record, &["me → "]);
    goes_on(&air).await;
}

#[tokio::test]
async fn a_circle_in_one_job_fails_and_names_itself() {
    let air = tolerant().await;
    for (task, need) in [("a", "b"), ("b", "c"), ("c", "a"), ("after", "a")] {
        let task = json!({ "id": task, "needs": [need], "run": "true" });
        air.publish("j", &task.to_string()).await;
    }
    let counters = air.wait_completed("j").await.ledger.counters;
    assert_eq!(
        (counters.failed, counters.skipped, counters.attempts),
        (3, 1, 0)
    );
    for (task, circle) in [("a", "a → b → c → a"), ("b", "b → c → a → b")] {
        failed_saying(&air.record("j", task).await.unwrap(), &[circle]);
    }
    goes_on(&air).await;
}

#[tokio::test]
async fn a_circle_across_two_jobs_fails_and_names_itself() {
    for managers in [1, 2] {
        let air = Installation::start(managers).await;
        for job in ["j", "k"] {
            air.spec(job, r#"{"on_failure":"continue"}"#).await;
        }
        air.publish("j", r#"{"id":"a","run":"true","needs":["k/b"]}"#)
            .await;
        air.publish("k", r#"{"id":"b","run":"true","needs":["j/a"]}"#)
            .await;
        // Whoever is looked at first with the circle in sight fails; the other one fails too, or is skipped for it.
        let mut failed = 0;
        for (job, task, circle) in [("j", "a", "a → k/b → a"), ("k", "b", "b → j/a → b")] {
            let counters = air.wait_completed(job).await.ledger.counters;
            let ends = (counters.failed + counters.skipped, counters.attempts);
            assert_eq!(ends, (1, 0));
            failed += counters.failed;
            if counters.failed == 1 {
                failed_saying(&air.record(job, task).await.unwrap(), &[circle]);
            }
        }
        assert!(failed >= 1, "neither names the circle");
        goes_on(&air).await;
    }
}

#[tokio::test]
async fn a_need_that_nobody_published_blocks_its_task_alone() {
    let air = tolerant().await;
    air.publish("j", r#"{"id":"waits","run":"true","needs":["nobody"]}"#)
        .await;
    air.publish("j", r#"{"id":"runs","run":"true"}"#).await;
    air.wait_record("j", "runs", Status::Succeeded).await;
    air.wait_state("j", |state| state.name() == "waiting").await;
    assert!(air.record("j", "waits").await.is_none());
    let status = air.airx(&["status", "j"]).output().unwrap();
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        text.contains("nobody"),
        "the status names what it waits for: {text}"
    );
    check(&air).await;
    air.publish("j", r#"{"id":"nobody","run":"true"}"#).await;
    air.wait_completed("j").await;
    assert_eq!(
        air.record("j", "waits").await.unwrap().status,
        Status::Succeeded
    );
    goes_on(&air).await;
}

#[tokio::test]
async fn a_need_that_nobody_published_in_time_skips_its_task() {
    let air = tolerant().await;
    air.spec("j", r#"{"on_failure":"continue","needs_timeout":"2s"}"#)
        .await;
    air.publish("j", r#"{"id":"waits","run":"true","needs":["k/nobody"]}"#)
        .await;
    let record = air.wait_record("j", "waits", Status::Skipped).await;
    let error = record.error.unwrap();
    assert!(
        error.contains("k/nobody") && error.contains("needs_timeout"),
        "{error}"
    );
    let waited = record.ended.since(record.queued.unwrap());
    assert!((2..20).contains(&waited.as_secs()), "{waited:?}");
    goes_on(&air).await;
}

#[tokio::test]
async fn a_need_far_behind_in_the_queue_is_found_before_its_time_is_over() {
    let mut air = Installation::start(0).await;
    air.spec("j", r#"{"needs_timeout":"1ms"}"#).await;
    air.publish("j", r#"{"id":"waits","run":"true","needs":["last"]}"#)
        .await;
    for number in 0..70 {
        let task = json!({ "id": format!("t{number}"), "needs": ["last"], "run": "true" });
        air.publish("j", &task.to_string()).await;
    }
    air.publish("j", r#"{"id":"last","run":"true"}"#).await;
    air.add_manager(&[]);
    let counters = air.wait_completed("j").await.ledger.counters;
    assert_eq!((counters.succeeded, counters.skipped), (72, 0));
    goes_on(&air).await;
}

#[tokio::test]
async fn a_need_that_is_queued_in_another_job_is_no_need_that_nobody_published() {
    let air = tolerant().await;
    air.spec("k", r#"{"paused":true}"#).await;
    air.publish("k", r#"{"id":"first","run":"true"}"#).await;
    air.publish("k", r#"{"id":"there","run":"true"}"#).await;
    air.spec("j", r#"{"on_failure":"continue","needs_timeout":"1ms"}"#)
        .await;
    for (task, need) in [("waits", "k/there"), ("skipped", "k/nobody")] {
        let task = json!({ "id": task, "needs": [need], "run": "true" });
        air.publish("j", &task.to_string()).await;
    }
    air.wait_record("j", "skipped", Status::Skipped).await;
    assert_eq!(
        air.record("j", "waits").await,
        None,
        "it is late, and not in vain"
    );
    air.spec("k", "{}").await;
    air.wait_record("j", "waits", Status::Succeeded).await;
    goes_on(&air).await;
}

#[tokio::test]
async fn a_circle_of_1500_tasks_is_named_in_short() {
    let mut air = Installation::start(0).await;
    air.spec("j", r#"{"on_failure":"continue"}"#).await;
    for number in 0..1500 {
        let id = format!("a-task-with-a-long-name-to-fill-the-text-{number}");
        let need = format!(
            "a-task-with-a-long-name-to-fill-the-text-{}",
            (number + 1) % 1500
        );
        let task = json!({ "id": id, "needs": [need], "run": "true" });
        air.publish("j", &task.to_string()).await;
    }
    air.add_manager(&[]);
    let counters = air.wait_completed("j").await.ledger.counters;
    assert_eq!(counters.failed + counters.skipped, 1500);
    let record = air
        .record("j", "a-task-with-a-long-name-to-fill-the-text-0")
        .await;
    failed_saying(
        &record.unwrap(),
        &[
            "(1490 more) → a-task-with-a-long-name-to-fill-the-text-0;",
            "take one of these needs out",
        ],
    );
    goes_on(&air).await;
}
