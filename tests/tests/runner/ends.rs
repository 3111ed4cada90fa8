//! How attempts end other than well: failures, retries, cancels, lost leases.

use std::time::Duration;

use air_nats::jobs::Key;
use air_protocol::job::Event;
use air_protocol::lease::Ending;
use air_protocol::record::Status;
use air_tests::wait_for;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::stage::{Claimed, Exit, Running, Stage, lives, now};

#[tokio::test]
async fn a_failure_is_scheduled_again_until_the_limit() {
    let stage = Stage::new().await;
    let retry = json!({ "max": 1, "backoff": "1s" });
    let task = json!({ "id": "a", "run": "echo no; exit 3", "retry": retry });
    let (at, record) = stage.run(&task).await;
    assert_eq!(
        (record.status, record.failures, record.exit),
        (Status::Retrying, 1, Some(3))
    );
    assert!(record.error.unwrap().contains("exit code 3"));
    let delay = record.retry_at.unwrap().since(record.ended);
    assert!((750..=1000).contains(&delay.as_millis()), "{delay:?}");
    let scheduled = stage.nats.scheduled(&stage.job).await.unwrap();
    assert_eq!(
        (
            scheduled.len(),
            scheduled[0].attempt,
            scheduled[0].id.as_str()
        ),
        (1, 2, "a")
    );
    assert_eq!(
        stage.events().await,
        ["started", "committed", "retrying", "released"]
    );
    let back = wait_for("next attempt", async || {
        match stage.queue("demo").await.pop() {
            Some(queued) if queued.attempt == 2 => Ok(queued.seq),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(stage.run_at(back).await, Exit::Done);
    let (_, record) = stage.last("a").await.unwrap();
    assert_eq!(
        (record.status, record.attempt, record.failures),
        (Status::Failed, 2, 2)
    );
    assert_eq!(
        (record.previous, record.after),
        (Some(Status::Retrying), at)
    );
}

#[tokio::test]
async fn a_retry_without_delay_is_queued_at_once_and_keeps_the_id() {
    let stage = Stage::new().await;
    let seq = stage
        .publish(&json!({ "run": "exit 1", "retry": { "backoff": "0s" } }))
        .await;
    assert_eq!(stage.run_at(seq).await, Exit::Done);
    let next = stage.queue("demo").await.pop().unwrap();
    assert_eq!(
        (next.attempt, next.id.as_str()),
        (2, format!("_{seq}").as_str())
    );
    assert!(next.task.is_ok());
    assert!(stage.nats.scheduled(&stage.job).await.unwrap().is_empty());
}

#[tokio::test]
async fn exit_75_is_no_failure_and_comes_back_when_it_says() {
    let stage = Stage::new().await;
    let (_, record) = stage
        .run(&json!({ "id": "a", "run": "echo 60 > $AIR_RETRY_AT; exit 75" }))
        .await;
    assert_eq!(
        (record.status, record.failures, record.exit),
        (Status::Retrying, 0, Some(75))
    );
    let delay = record
        .retry_at
        .unwrap()
        .since(record.started.unwrap())
        .as_secs();
    assert!((60..62).contains(&delay), "{delay}");
    let (_, record) = stage.run(&json!({ "id": "b", "run": "exit 75" })).await;
    assert_eq!(
        record.retry_at.unwrap().since(record.ended),
        Duration::from_secs(1)
    );
    let (_, record) = stage
        .run(&json!({ "id": "c", "run": "echo soon > $AIR_RETRY_AT; exit 75" }))
        .await;
    assert_eq!(record.status, Status::Failed);
    assert!(record.error.unwrap().contains("`soon`"));
}

#[tokio::test]
async fn an_output_that_is_no_json_fails_for_good() {
    let stage = Stage::new().await;
    let (_, record) = stage
        .run(&json!({ "id": "a", "run": "printf '{\"a\":\n oops' > $AIR_OUTPUT" }))
        .await;
    assert_eq!((record.status, record.output), (Status::Failed, None));
    let error = record.error.unwrap();
    assert!(
        error.contains("AIR_OUTPUT") && error.contains("line 2"),
        "{error}"
    );
}

#[tokio::test]
async fn a_program_that_does_not_start_says_why() {
    let stage = Stage::new().await;
    let task = json!({ "id": "a", "exec": ["no-such-program"], "retry": { "max": 0 } });
    let (_, record) = stage.run(&task).await;
    assert_eq!(
        (record.status, record.exit, record.started),
        (Status::Failed, None, None)
    );
    assert!(record.error.unwrap().contains("`no-such-program`"));
}

#[tokio::test]
async fn a_timeout_ends_the_whole_tree() {
    let stage = Stage::new().await;
    let line = format!(
        "sleep 300 & echo $! > {}; wait",
        stage.file("pid").display()
    );
    let task = json!({ "id": "a", "run": line, "timeout": "300ms", "retry": { "max": 0 } });
    let (_, record) = stage.run(&task).await;
    assert_eq!(record.status, Status::Failed);
    assert!(record.error.unwrap().contains("`timeout`"));
    assert!(!lives(&stage.written("pid").await));
}

/// By then the runner has looked for the first time, and listens.
const LISTENS: &str = "sleep 0.5";

/// A task that runs until it is killed, and the process id of one of its processes.
async fn endless(stage: &Stage) -> (Running, Claimed, String) {
    until_ended(stage, "trap '' TERM").await
}

/// A task that runs until it is ended, and the process id of one of its processes.
async fn until_ended(stage: &Stage, first: &str) -> (Running, Claimed, String) {
    let pid = stage.file("pid");
    let line = format!(
        "{first}; sleep 300 & echo $! > {}; wait; wait",
        pid.display()
    );
    let (running, claimed) = stage.started(&json!({ "id": "a", "run": line })).await;
    let pid = stage.written("pid").await;
    assert!(lives(&pid));
    (running, claimed, pid)
}

/// The exit, which comes long before the next renewal: a signal made the runner look.
async fn exit_at_once(stage: &Stage, running: Running) -> Exit {
    let signalled = now();
    stage.nats.signal(&stage.job).await;
    let exit = running.exit().await;
    let taken = now().since(signalled);
    assert!(taken < stage.ttl / 4, "{taken:?}");
    exit
}

async fn short() -> Stage {
    let mut stage = Stage::new().await;
    stage.ttl = Duration::from_secs(3);
    stage
}

#[tokio::test]
async fn cancelling_the_job_ends_the_task_by_a_record() {
    cancel_after(LISTENS).await;
}

#[tokio::test]
async fn cancelling_the_job_is_seen_even_before_the_runner_listens() {
    cancel_after("true").await;
}

async fn cancel_after(first: &str) {
    let stage = Stage::new().await;
    let (running, _, pid) = until_ended(&stage, first).await;
    stage.apply(Event::Stop(Ending::Cancel)).await;
    assert_eq!(exit_at_once(&stage, running).await, Exit::Done);
    assert!(!lives(&pid));
    let (at, record) = stage.last("a").await.unwrap();
    assert_eq!(
        (record.status, record.attempt, record.failures),
        (Status::Cancelled, 1, 0)
    );
    let (state, _) = stage.state().await;
    assert_eq!(
        (state.name().as_str(), state.last_record),
        ("cancelling", at)
    );
    stage.assert_nothing_left();
}

#[tokio::test]
async fn a_record_by_somebody_else_ends_the_task_without_another() {
    let stage = short().await;
    let (running, _, pid) = endless(&stage).await;
    let cancelled = stage.cancel_task("a", 0).await;
    stage.nats.signal(&stage.job).await;
    assert_eq!(running.exit().await, Exit::Over);
    assert!(!lives(&pid));
    assert_eq!(stage.last("a").await.unwrap().0, cancelled);
    let (state, _) = stage.state().await;
    assert_eq!(
        (state.name().as_str(), state.last_record),
        ("waiting", cancelled)
    );
    assert!(stage.nats.scheduled(&stage.job).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_commit_that_comes_too_late_is_discarded() {
    let stage = Stage::new().await;
    let go = stage.file("go");
    let line = format!(
        "airx task add -- true; echo up > {}; while [ ! -e {} ]; do sleep 0.005; done",
        stage.file("up").display(),
        go.display()
    );
    let (running, _) = stage.started(&json!({ "id": "a", "run": line })).await;
    stage.written("up").await;
    let cancelled = stage.cancel_task("a", 0).await;
    std::fs::write(go, "").unwrap();
    assert_eq!(running.exit().await, Exit::Over);
    assert_eq!(stage.last("a").await.unwrap().0, cancelled);
    assert_eq!(stage.queue("demo").await.len(), 1);
    assert_eq!(stage.state().await.0.last_record, cancelled);
}

#[tokio::test]
async fn a_lease_that_is_taken_over_ends_the_task_without_a_word() {
    let stage = Stage::new().await;
    let (running, claimed, pid) = until_ended(&stage, LISTENS).await;
    stage
        .apply(Event::TakeOver {
            runner: claimed.runner,
            by: "other".into(),
        })
        .await;
    let key = stage.nats.job(&stage.job).await.unwrap();
    assert_eq!(exit_at_once(&stage, running).await, Exit::LeaseLost);
    assert!(!lives(&pid));
    assert!(stage.last("a").await.is_none());
    assert_eq!(stage.nats.job(&stage.job).await.unwrap(), key);
    stage.assert_nothing_left();
}

#[tokio::test]
async fn a_lease_that_somebody_else_holds_by_now_ends_the_task_without_a_word() {
    let stage = Stage::new().await;
    let next = stage.publish(&json!({ "id": "next", "run": "true" })).await;
    let (running, claimed, pid) = until_ended(&stage, LISTENS).await;
    let (runner, by) = (claimed.runner, "other".to_owned());
    stage.apply(Event::TakeOver { runner, by }).await;
    let recovered = Event::Recovered {
        runner,
        record: 0,
        hold_until: None,
        counts: false,
        reason: "it was silent".into(),
    };
    stage.apply(recovered).await;
    let other = stage.claim(next).await;
    let started = Event::Start {
        runner: other.runner,
        fence: other.fence,
        host: "elsewhere".into(),
    };
    stage.apply(started).await;
    let key = stage.nats.job(&stage.job).await.unwrap();
    assert_eq!(exit_at_once(&stage, running).await, Exit::LeaseLost);
    assert!(!lives(&pid) && stage.last("a").await.is_none());
    assert_eq!(stage.nats.job(&stage.job).await.unwrap(), key);
}

#[tokio::test]
async fn a_deleted_key_is_noticed_with_the_next_renewal() {
    let stage = short().await;
    let (running, _, pid) = endless(&stage).await;
    stage
        .nats
        .erase_job(&stage.job, u64::MAX - 1)
        .await
        .unwrap();
    assert_eq!(running.exit().await, Exit::LeaseLost);
    assert!(!lives(&pid) && stage.last("a").await.is_none());
    assert_eq!(stage.nats.job(&stage.job).await.unwrap(), Key::Absent);
}

#[tokio::test]
async fn a_server_that_is_silent_for_too_long_ends_the_task_within_the_lease() {
    let mut stage = short().await;
    let (running, _, pid) = endless(&stage).await;
    stage.server.program().signal(Signal::SIGSTOP);
    let silent = now();
    let exit = running.exit().await;
    let taken = now().since(silent);
    assert!(!lives(&pid));
    stage.server.program().signal(Signal::SIGCONT);
    assert_eq!(exit, Exit::LeaseLost);
    assert!(taken < stage.ttl, "{taken:?}");
    assert!(stage.last("a").await.is_none());
    assert_eq!(stage.state().await.0.name(), "working/running");
}

#[tokio::test]
async fn a_server_that_is_gone_does_not_keep_the_runner() {
    let mut stage = short().await;
    let (running, _, pid) = endless(&stage).await;
    stage.server.kill();
    assert_eq!(running.exit().await, Exit::LeaseLost);
    assert!(!lives(&pid));
    stage.assert_nothing_left();
}

#[tokio::test]
async fn a_runner_that_is_asked_to_end_burns_no_retry() {
    let stage = short().await;
    let (running, _, pid) = endless(&stage).await;
    running.terminate();
    assert_eq!(running.exit().await, Exit::Done);
    assert!(!lives(&pid));
    let (_, record) = stage.last("a").await.unwrap();
    assert_eq!(
        (record.status, record.failures, record.losses),
        (Status::Retrying, 0, 0)
    );
    assert_eq!(stage.nats.scheduled(&stage.job).await.unwrap().len(), 1);
    assert_eq!(stage.state().await.0.name(), "waiting");
}
