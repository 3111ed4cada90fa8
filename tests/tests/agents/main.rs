//! Tasks of the kind `claude`: the real CLI against the stand-in of its service.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

mod budget;
mod cli;
mod ends;
mod failures;
mod fix_tests;
mod large;
mod limits;
mod secrets;
mod sessions;
mod tools;
mod work;
mod workspace;

use air_protocol::agent::{AgentRun, Failure};
use air_protocol::record::{Record, Status};
use air_tests::Agents;
use serde_json::{Value, json};

/// Runs one task to its last record, without retries.
async fn run(agents: &Agents, job: &str, claude: Value) -> Record {
    let task = json!({ "id": "t", "claude": claude, "retry": { "max": 0 } });
    agents.air.publish(job, &task.to_string()).await;
    ended(agents, job, "t").await
}

/// The record of a task that is over.
async fn ended(agents: &Agents, job: &str, task: &str) -> Record {
    air_tests::wait_for_within(
        GUARD,
        &format!("end of {job}/{task}"),
        async || match agents.air.record(job, task).await {
            Some(record) if record.status.is_final() => Ok(record),
            other => Err(other),
        },
    )
    .await
}

/// What a record says of the agent.
#[track_caller]
fn agent(record: &Record) -> &AgentRun {
    record
        .agent
        .as_ref()
        .unwrap_or_else(|| panic!("{record:?}"))
}

/// The task failed for this reason, and the error says how to mend it.
#[track_caller]
fn assert_failed(record: &Record, failure: Failure, remedy: &str) {
    let error = record.error.as_deref().unwrap_or_default();
    assert_eq!(record.status, Status::Failed, "{record:?}");
    assert_eq!(agent(record).failure, Some(failure), "{error}");
    assert!(error.contains(remedy), "{error}");
}

/// Against hanging only.
const GUARD: std::time::Duration = std::time::Duration::from_secs(300);
