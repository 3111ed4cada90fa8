//! Bad input on a real installation: the record says what is wrong and how to mend it, the job goes on
//! by its policy, other jobs go on, and the invariants hold.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

mod contract;
mod messages;
mod needs;
mod programs;
mod specs;
mod times;
mod versions;

use air_protocol::record::{Record, Status};
use air_tests::{Installation, ServerOptions, check};
use serde_json::Value;

/// An installation with one manager and the job `j`, which goes on after failures and tries nothing twice.
async fn tolerant() -> Installation {
    tolerant_on(ServerOptions::default()).await
}

/// The same, on a server with options.
async fn tolerant_on(options: ServerOptions) -> Installation {
    let air = Installation::start_on(options, 1).await;
    air.spec("j", r#"{"on_failure":"continue","retry":{"max":0}}"#)
        .await;
    air
}

/// Runs one task with the id `t` in the job `j`; gives its record.
async fn run(air: &Installation, mut task: Value) -> Record {
    task["id"] = "t".into();
    air.publish("j", &task.to_string()).await;
    air.wait_completed("j").await;
    air.record("j", "t").await.unwrap()
}

/// The job still takes tasks, so does another one, and no invariant is broken.
async fn goes_on(air: &Installation) {
    for job in ["j", "other"] {
        air.publish(job, r#"{"id":"next","run":"true"}"#).await;
        let next = air.wait_record(job, "next", Status::Succeeded).await;
        assert_eq!(next.attempt, 1);
        air.wait_completed(job).await;
    }
    check(air).await;
}

/// The error of a record that failed for good; it must hold every one of these texts.
fn failed_saying(record: &Record, texts: &[&str]) {
    assert_eq!(record.status, Status::Failed, "{record:?}");
    let error = record.error.as_deref().unwrap_or_default();
    for text in texts {
        assert!(error.contains(text), "`{text}` is not in: {error}");
    }
}
