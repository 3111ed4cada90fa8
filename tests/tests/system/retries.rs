//! What happens after a failed attempt.

use air_protocol::job::JobStatus;
use air_protocol::record::Status;
use air_tests::Installation;

#[tokio::test]
async fn a_failed_attempt_is_tried_again_later() {
    let air = Installation::start(1).await;
    air.publish(
        "j",
        r#"{"id":"t","run":"test $AIR_ATTEMPT -eq 3","retry":{"backoff":"50ms"}}"#,
    )
    .await;
    let state = air.wait_completed("j").await;
    assert_eq!(
        (
            state.ledger.counters.succeeded,
            state.ledger.counters.attempts
        ),
        (1, 3)
    );
    let records = air.records("j").await;
    let statuses: Vec<_> = records.iter().map(|(_, record)| record.status).collect();
    assert_eq!(
        statuses,
        [Status::Retrying, Status::Retrying, Status::Succeeded]
    );
    assert_eq!(records[1].1.failures, 2);
    let delay = |n: usize| {
        let record = &records[n].1;
        record.retry_at.unwrap().since(record.ended).as_millis()
    };
    assert!(
        (37..=50).contains(&delay(0)) && (75..=100).contains(&delay(1)),
        "doubled, less some jitter"
    );
}

#[tokio::test]
async fn a_task_that_fails_for_good_stops_its_job() {
    let air = Installation::start(1).await;
    air.publish("j", r#"{"id":"bad","run":"exit 7","retry":{"max":0}}"#)
        .await;
    air.publish("j", r#"{"id":"next","run":"true"}"#).await;
    let state = air
        .wait_state("j", |state| {
            matches!(state.status, JobStatus::Failed { .. })
        })
        .await;
    assert_eq!(
        state.status,
        JobStatus::Failed {
            task: Some("bad".parse().unwrap())
        }
    );
    assert_eq!(air.record("j", "bad").await.unwrap().exit, Some(7));
    assert!(
        air.record("j", "next").await.is_none(),
        "nothing more is started"
    );
    assert!(air.airx(&["resume", "j"]).status().unwrap().success());
    let state = air.wait_completed("j").await;
    assert_eq!(
        (
            state.ledger.counters.failed,
            state.ledger.counters.succeeded
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn a_job_may_go_on_after_a_failure() {
    let air = Installation::start(1).await;
    air.spec("j", r#"{"on_failure":"continue","retry":{"max":0}}"#)
        .await;
    for task in ["exit 1", "true", "exit 1"] {
        air.publish("j", &format!(r#"{{"run":"{task}"}}"#)).await;
    }
    let counters = air.wait_completed("j").await.ledger.counters;
    assert_eq!((counters.failed, counters.succeeded), (2, 1));
}

#[tokio::test]
async fn later_is_no_failure() {
    let air = Installation::start(1).await;
    let run = r#"test $AIR_ATTEMPT -eq 2 && exit 0; date -u -d '+2 sec' +%Y-%m-%dT%H:%M:%SZ > $AIR_RETRY_AT; exit 75"#;
    air.publish(
        "j",
        &serde_json::json!({"id": "t", "run": run, "retry": {"max": 0}}).to_string(),
    )
    .await;
    air.wait_completed("j").await;
    let records = air.records("j").await;
    assert_eq!(
        (records[0].1.status, records[0].1.failures),
        (Status::Retrying, 0)
    );
    assert_eq!(records[1].1.status, Status::Succeeded);
    assert!(records[1].1.claimed.unwrap() >= records[0].1.retry_at.unwrap());
}

#[tokio::test]
async fn a_task_does_not_start_before_its_time() {
    let air = Installation::start(1).await;
    let due = air_protocol::time::Time::from(std::time::SystemTime::now())
        .after(std::time::Duration::from_secs(3));
    air.publish(
        "j",
        &serde_json::json!({"id": "late", "run": "true", "not_before": due}).to_string(),
    )
    .await;
    air.publish("j", r#"{"id":"soon","run":"true"}"#).await;
    air.wait_completed("j").await;
    let late = air.record("j", "late").await.unwrap();
    let soon = air.record("j", "soon").await.unwrap();
    assert!(late.started.unwrap() >= due && soon.started.unwrap() < due);
    assert_eq!((late.attempt, late.failures, soon.attempt), (2, 0, 1));
}
