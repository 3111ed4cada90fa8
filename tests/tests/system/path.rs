//! One task, one runner, one commit.

use air_protocol::record::Status;
use air_tests::Installation;

#[tokio::test]
async fn a_published_task_runs_to_its_record() {
    let air = Installation::start(1).await;
    let seq = air.publish("hello", r#"{"run":"echo hi"}"#).await;
    let state = air.wait_completed("hello").await;
    assert_eq!(state.ledger.counters.succeeded, 1);
    let id = format!("_{seq}");
    let record = air.record("hello", &id).await.unwrap();
    assert_eq!(
        (record.status, record.exit, record.attempt),
        (Status::Succeeded, Some(0), 1)
    );
    assert_eq!(record.tail.as_deref(), Some("hi\n"));
    assert_eq!(air.log("hello", &id).await, b"hi\n");
}

#[tokio::test]
async fn tasks_of_a_job_run_in_order_one_at_a_time() {
    let air = Installation::start(1).await;
    for n in 0..20 {
        air.publish("j", &format!(r#"{{"exec":["true"],"id":"t{n}"}}"#))
            .await;
    }
    let state = air.wait_completed("j").await;
    assert_eq!(state.ledger.counters.succeeded, 20);
    let records = air.records("j").await;
    let order: Vec<_> = records
        .iter()
        .map(|(_, record)| record.task.to_string())
        .collect();
    assert_eq!(order, (0..20).map(|n| format!("t{n}")).collect::<Vec<_>>());
    for pair in records.windows(2) {
        assert!(
            pair[0].1.ended <= pair[1].1.claimed.unwrap(),
            "one at a time"
        );
    }
}

#[tokio::test]
async fn a_task_for_all_jobs_is_deleted_and_nothing_else() {
    let mut air = Installation::start(0).await;
    air.spec("j", r#"{"paused":true}"#).await;
    air.publish("j", r#"{"run":"true"}"#).await;
    for subject in ["air.tasks.*", "air.tasks.>"] {
        // The server stores a wildcard that is published to as it is written.
        assert!(
            air.nats_cli(&["pub", subject, "x"])
                .output()
                .unwrap()
                .status
                .success()
        );
    }
    air.add_manager(&[]);
    air_tests::wait_for("only the task of j", async || {
        let depth = air.nats.depth("air.tasks.>").await.unwrap();
        if depth.messages.len() == 1 && depth.messages.contains_key("air.tasks.j") {
            Ok(())
        } else {
            Err(depth)
        }
    })
    .await;
}
