//! Messages of tasks that are to be tried again, and that somebody deleted: a backup may lack them as well.

use air_protocol::record::{Record, Status};
use air_tests::{Installation, check, ok};

use crate::{ends_well, noted, runs};

/// An installation whose job `j` tries again after six seconds at least.
async fn slow_retries() -> Installation {
    let air = Installation::start(1).await;
    air.spec("j", r#"{"lease_ttl":"3s","retry":{"backoff":"8s"}}"#)
        .await;
    air
}

/// A task that fails at its first attempt.
async fn fails_once(air: &Installation, id: &str) {
    let task = noted(air, id, "test $AIR_ATTEMPT -gt 1");
    air.publish("j", &task.to_string()).await;
}

/// Waits until the task is to be tried again, and deletes its schedule.
async fn loses_its_schedule(air: &Installation, id: &str) -> Record {
    let record = air.wait_record("j", id, Status::Retrying).await;
    let subject = format!("{}.schedules.j.{id}", air.nats.names().prefix());
    let before = air.nats.depth(&subject).await.unwrap();
    assert_eq!(before.messages[&subject], 1, "it is too late");
    purge(air, &subject);
    record
}

fn purge(air: &Installation, subject: &str) {
    let stream = air.nats.names().stream();
    let command = ["stream", "purge", &stream, "--subject", subject, "--force"];
    ok(&mut air.nats_cli(&command));
}

#[tokio::test]
async fn a_task_whose_schedule_is_gone_is_tried_again_at_its_time() {
    let air = slow_retries().await;
    fails_once(&air, "t").await;
    let first = loses_its_schedule(&air, "t").await;
    ends_well(&air, &["t"]).await;
    assert_eq!(runs(&air, "t"), 2);
    let second = air.record("j", "t").await.unwrap();
    assert_eq!(
        (second.attempt, second.previous),
        (2, Some(Status::Retrying))
    );
    assert!(second.started >= first.retry_at, "{second:?}");
}

#[tokio::test]
async fn so_is_one_that_another_task_needs() {
    let air = slow_retries().await;
    fails_once(&air, "t").await;
    fails_once(&air, "healthy").await;
    let mut waits = noted(&air, "waits", "true");
    waits["needs"] = serde_json::json!(["t", "healthy"]);
    air.publish("j", &waits.to_string()).await;
    air.wait_record("j", "healthy", Status::Retrying).await;
    loses_its_schedule(&air, "t").await;
    ends_well(&air, &["t", "healthy", "waits"]).await;
    assert_eq!(
        (runs(&air, "t"), runs(&air, "healthy"), runs(&air, "waits")),
        (2, 2, 1)
    );
}

#[tokio::test]
async fn so_is_one_that_a_user_wants_to_try_again() {
    let air = slow_retries().await;
    let mut task = noted(&air, "t", "test $AIR_ATTEMPT -gt 1");
    task["retry"] = serde_json::json!({ "max": 0 });
    air.publish("j", &task.to_string()).await;
    air.wait_record("j", "t", Status::Failed).await;
    ok(&mut air.airx(&["pause", "j"]));
    ok(&mut air.airx(&["retry", "j"]));
    air.wait_record("j", "t", Status::Reset).await;
    purge(&air, &format!("{}.tasks.j", air.nats.names().prefix()));
    ok(&mut air.airx(&["resume", "j"]));
    air.wait_completed("j").await;
    air.wait_record("j", "t", Status::Succeeded).await;
    assert_eq!(runs(&air, "t"), 2);
    check(&air).await;
}
