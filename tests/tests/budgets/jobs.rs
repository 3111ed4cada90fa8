//! Jobs that share a budget: tasks, depth, time, and a key of the service that is limited.

use std::fs;
use std::time::Duration;

use air_protocol::job::JobStatus;
use air_protocol::record::Status;
use air_protocol::time::Time;
use air_tests::{Installation, check, ok, wait_for};
use serde_json::json;

use crate::{account, over_budget, settled};

/// A task that queues one more in each of so many jobs.
fn fanning_out(children: usize) -> String {
    let line = format!(
        r#"for n in $(seq {children}); do echo "{{\"id\":\"t\",\"run\":\"true\",\"job\":\"c$n\"}}" >> $AIR_TASKS; done"#
    );
    json!({ "id": "t", "run": line }).to_string()
}

/// A task that queues itself for ever: a script that everybody can read.
fn queues_itself(air: &Installation) -> String {
    let script = air.server.folder().join("again.sh");
    let task = json!({ "run": format!("sh {}", script.display()) }).to_string();
    fs::write(&script, format!("echo '{task}' >> $AIR_TASKS\n")).unwrap();
    task
}

#[tokio::test]
async fn tasks_of_all_jobs_count_and_more_can_be_granted() {
    let air = Installation::start(2).await;
    air.spec("root", r#"{"budget":{"tasks":5}}"#).await;
    air.publish("root", &fanning_out(10)).await;
    let waiting = wait_for("six jobs that rest", async || {
        let mut waiting = Vec::new();
        for n in 1..=10 {
            let job = format!("c{n}");
            let state = air.state(&job).await;
            if state.is_some_and(|state| state.over_budget.is_some()) {
                waiting.push(job);
            }
        }
        if waiting.len() == 6 {
            Ok(waiting)
        } else {
            Err(waiting)
        }
    })
    .await;
    let five = settled(&air, "root", 5).await;
    let why = five.overrun.unwrap();
    assert!(why.contains("0 of its tasks are left"), "{why}");
    for job in &waiting {
        let said = over_budget(&air, job).await;
        assert!(said.starts_with("root: "), "{said}");
        assert!(air.records(job).await.is_empty(), "no task failed");
    }
    let shown = ok(&mut air.airx(&["status", &waiting[0]]));
    assert!(shown.contains("airx resume root --budget-usd 5"), "{shown}");
    assert!(shown.contains("5 of 5 tasks"), "{shown}");
    let all = ok(&mut air.airx(&["status"]));
    assert!(all.contains("over budget: "), "{all}");
    let told = ok(&mut air.airx(&["events", &waiting[0]]));
    assert!(told.contains("over-budget"), "{told}");

    ok(&mut air.airx(&["resume", &waiting[0], "--budget-tasks", "2"]));
    settled(&air, "root", 7).await;
    ok(&mut air.airx(&["resume", "root", "--budget-tasks", "20"]));
    for job in &waiting {
        let state = air.wait_completed(job).await;
        assert_eq!(state.over_budget, None);
    }
    let account = settled(&air, "root", 11).await;
    assert_eq!(account.granted.tasks, Some(22));
    let record = air.record("c1", "t").await.unwrap();
    assert_eq!(
        (
            record.budget.as_ref().map(|root| root.as_str()),
            record.depth
        ),
        (Some("root"), 1)
    );
    check(&air).await;
}

#[tokio::test]
async fn a_task_that_queues_itself_is_stopped_by_depth() {
    let air = Installation::start(1).await;
    air.spec("root", r#"{"budget":{"depth":3}}"#).await;
    air.publish("root", &queues_itself(&air)).await;
    let failed =
        |state: &air_protocol::job::JobState| matches!(state.status, JobStatus::Failed { .. });
    let state = air.wait_state("root", failed).await;
    assert_eq!(state.ledger.counters.succeeded, 4, "0, 1, 2 and 3");
    let records = air.records("root").await;
    let (_, last) = records.last().unwrap();
    assert_eq!((last.status, last.depth), (Status::Failed, 4));
    let error = last.error.as_ref().unwrap();
    assert!(
        error.contains("4 generations") && error.contains("allows 3"),
        "{error}"
    );
    settled(&air, "root", 4).await;
    check(&air).await;
}

#[tokio::test]
async fn a_task_that_queues_itself_is_stopped_by_its_number() {
    let air = Installation::start(1).await;
    air.spec("root", r#"{"budget":{"tasks":4}}"#).await;
    air.publish("root", &queues_itself(&air)).await;
    let said = over_budget(&air, "root").await;
    assert!(said.contains("wants 1 of its tasks"), "{said}");
    let account = settled(&air, "root", 4).await;
    assert_eq!(account.granted.tasks, None);
    assert_eq!(air.records("root").await.len(), 4);
    ok(&mut air.airx(&["cancel", "root"]));
    let cancelled = |state: &air_protocol::job::JobState| {
        matches!(state.status, JobStatus::Cancelled { .. }) && state.over_budget.is_none()
    };
    air.wait_state("root", cancelled).await;
    check(&air).await;
}

#[tokio::test]
async fn what_is_tried_again_stays_on_its_leash_and_counts_once() {
    let air = Installation::start(1).await;
    air.spec(
        "root",
        r#"{"budget":{"tasks":2},"retry":{"backoff":"10ms"}}"#,
    )
    .await;
    let child = r#"{"id":"child","job":"other","run":"test $AIR_ATTEMPT -ge 3","retry":{"backoff":"10ms"}}"#;
    let parent = json!({ "id": "p", "run": format!("echo '{child}' >> $AIR_TASKS") });
    air.publish("root", &parent.to_string()).await;
    air.wait_record("other", "child", Status::Succeeded).await;
    for (_, record) in air.records("other").await {
        assert_eq!(
            record.budget.as_ref().map(|root| root.as_str()),
            Some("root")
        );
        assert_eq!(record.depth, 1);
    }
    settled(&air, "root", 2).await;
    check(&air).await;
}

#[tokio::test]
async fn nothing_is_claimed_when_the_time_is_over() {
    let air = Installation::start(1).await;
    air.spec("root", r#"{"budget":{"wall":"1ms"}}"#).await;
    air.publish("root", r#"{"id":"first","run":"sleep 0.1"}"#)
        .await;
    air.publish("root", r#"{"id":"second","run":"true"}"#).await;
    let said = over_budget(&air, "root").await;
    assert!(said.contains("its time of 1ms is over"), "{said}");
    assert!(air.record("root", "first").await.is_some());
    ok(&mut air.airx(&["resume", "root", "--budget-wall", "1h"]));
    air.wait_record("root", "second", Status::Succeeded).await;
}

#[tokio::test]
async fn a_removed_job_takes_its_account_along_and_lets_nobody_off() {
    let air = Installation::start(1).await;
    air.spec("root", r#"{"budget":{"tasks":1}}"#).await;
    air.publish("root", &fanning_out(1)).await;
    over_budget(&air, "c1").await;
    ok(&mut air.airx(&["rm", "root", "--yes"]));
    assert_eq!(account(&air.nats, "root").await, None);
    air.wait_state("c1", |state| {
        let lack = state.over_budget.as_ref();
        lack.is_some_and(|lack| lack.reason.contains("no account"))
    })
    .await;
    air.spec("root", r#"{"budget":{"tasks":1}}"#).await;
    air.wait_record("c1", "t", Status::Succeeded).await;
}

#[tokio::test]
async fn agents_whose_key_is_limited_wait_and_others_do_not() {
    let mut air = Installation::start(0).await;
    let key = "sk-of-this-machine";
    let until = Time::from(std::time::SystemTime::now()).after(Duration::from_secs(4));
    // As `printf %s sk-of-this-machine | sha256sum` begins.
    let id = air_runner_key_id(key);
    air.nats
        .limit_key(&id, until, std::time::SystemTime::now().into())
        .await
        .unwrap();
    let mut command = air.manager_command(&[]);
    command.env("ANTHROPIC_API_KEY", key);
    air.managers.push(air_tests::Program::start(&mut command));
    air.publish("agents", r#"{"id":"a","claude":"hi","retry":{"max":0}}"#)
        .await;
    air.publish("plain", r#"{"id":"b","run":"true"}"#).await;
    air.wait_record("plain", "b", Status::Succeeded).await;
    let record = wait_for("record of the agent", async || {
        air.record("agents", "a").await.ok_or("none")
    })
    .await;
    assert!(record.claimed.unwrap() >= until, "{record:?}");
}

/// The id of a key, as a shell would find it.
fn air_runner_key_id(key: &str) -> String {
    let line = format!("printf %s {key} | sha256sum | cut -c 1-12");
    let shown = ok(std::process::Command::new("sh").args(["-c", &line]));
    shown.trim().to_owned()
}
