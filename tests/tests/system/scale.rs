//! Many jobs, many tasks, wide fan-outs: the bounded forms; `cargo xtask bench fanout` is the long one.

use std::time::Duration;

use air_protocol::record::Status;
use air_tests::{Installation, wait_for_within};
use serde_json::json;

/// The longest that one of these may take on a slow machine.
const MOST: Duration = Duration::from_secs(600);

#[tokio::test]
async fn three_managers_commit_each_task_of_a_thousand_jobs_once() {
    let air = Installation::start(3).await;
    let (jobs, tasks) = (1000, 10);
    for task in 0..tasks {
        for job in 0..jobs {
            air.publish(
                &format!("job{job}"),
                &format!(r#"{{"exec":["true"],"id":"t{task}"}}"#),
            )
            .await;
        }
    }
    for job in 0..jobs {
        let job = format!("job{job}");
        air.wait_completed_within(&job, MOST).await;
        let records = air.records(&job).await;
        for (_, record) in &records {
            let end = (record.status, record.attempt);
            assert_eq!(end, (Status::Succeeded, 1), "{record:?}");
        }
        assert_eq!(records.len(), tasks);
    }
}

#[tokio::test]
async fn a_fan_out_wider_than_a_batch_runs_whole() {
    let air = Installation::start(1).await;
    let (count, jobs) = (3500_u64, 8);
    let script = format!(
        r#"awk 'BEGIN {{ for (n = 0; n < {count}; n++) printf "{{\"exec\":[\"true\"],\"job\":\"part%d\"}}\n", n % {jobs} }}' >> $AIR_TASKS"#
    );
    air.publish("root", &json!({"id": "root", "run": script}).to_string())
        .await;
    let state = wait_for_within(MOST, "end of the fan-out", async || {
        let mut done = 0;
        for job in 0..jobs {
            let state = air.state(&format!("part{job}")).await;
            done += state.map_or(0, |state| state.ledger.counters.succeeded);
        }
        if done == count {
            Ok(air.wait_completed("root").await)
        } else {
            Err(done)
        }
    })
    .await;
    assert_eq!(state.ledger.counters.subtasks, count);
    for job in 0..jobs {
        let records = air.records(&format!("part{job}")).await;
        assert!(records.iter().all(|(_, record)| record.attempt == 1));
    }
    assert!(
        air.nats
            .depth("air.tasks.*")
            .await
            .unwrap()
            .messages
            .is_empty()
    );
}
