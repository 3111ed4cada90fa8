//! Tasks that wait for people: approvals by task and by rule, questions and answers, and who is faster.

use air_protocol::approval::Waits;
use air_protocol::job::JobStatus;
use air_protocol::record::Status;
use air_tests::{Installation, ok, wait_for};
use serde_json::json;

/// What a run of `airx` said on stderr, and whether it was good.
fn said(air: &Installation, arguments: &[&str]) -> (bool, String) {
    let output = air.airx(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), text)
}

async fn verified(air: &Installation) {
    ok(&mut air.airx(&["verify"]));
}

#[tokio::test]
async fn a_task_runs_only_once_it_is_approved_and_others_do_not_wait_for_it() {
    let air = Installation::start(2).await;
    let done = air.server.folder().join("done");
    let ships = json!({"id": "ship", "run": "cat $AIR_REPLIES > done", "cwd": air.server.folder(), "approval": "required"});
    air.publish("j", &ships.to_string()).await;
    air.publish("j", r#"{"id":"after","run":"true","needs":["ship"]}"#)
        .await;
    air.publish("j", r#"{"id":"other","run":"true"}"#).await;
    let parked = air.wait_record("j", "ship", Status::Parked).await;
    assert!(matches!(parked.waits, Some(Waits::Approval { .. })));
    air.wait_record("j", "other", Status::Succeeded).await;
    let state = air
        .wait_state("j", |state| {
            state.ledger.counters.succeeded == 1 && state.lease().is_none()
        })
        .await;
    assert_eq!(state.status, JobStatus::Waiting, "a parked task keeps it");
    assert_eq!(state.ledger.counters.parked, 1);
    assert!(!done.exists() && parked.started.is_none());
    let shown = ok(&mut air.airx(&["status", "j"]));
    assert!(shown.contains("airx approve j ship"), "{shown}");
    let shown = ok(&mut air.airx(&["tasks", "j", "--status", "parked"]));
    assert!(shown.contains("approve?"), "{shown}");
    ok(&mut air.airx(&["approve", "j", "ship", "--note", "looks fine"]));
    air.wait_completed("j").await;
    let replies = std::fs::read_to_string(&done).unwrap();
    assert!(replies.contains("looks fine"), "{replies}");
    let record = air.record("j", "ship").await.unwrap();
    assert_eq!((record.attempt, record.replies.len()), (2, 1));
    assert_eq!(
        air.record("j", "after").await.unwrap().status,
        Status::Succeeded
    );
    let (good, text) = said(&air, &["approve", "j", "ship"]);
    assert!(!good && text.contains("it is succeeded"), "{text}");
    verified(&air).await;
}

#[tokio::test]
async fn an_approval_holds_for_all_further_attempts() {
    let air = Installation::start(1).await;
    air.spec("j", r#"{"approval": [{"command": "*deploy*"}]}"#)
        .await;
    let run = "test $AIR_ATTEMPT -ge 4 # deploy";
    air.publish(
        "j",
        &json!({"id": "t", "run": run, "retry": {"backoff": "10ms"}}).to_string(),
    )
    .await;
    air.publish("j", r#"{"id":"free","run":"true"}"#).await;
    let parked = air.wait_record("j", "t", Status::Parked).await;
    let Some(Waits::Approval { reason }) = parked.waits else {
        panic!("{parked:?}")
    };
    assert!(reason.contains("*deploy*"), "{reason}");
    air.wait_record("j", "free", Status::Succeeded).await;
    ok(&mut air.airx(&["approve", "j", "t"]));
    air.wait_completed("j").await;
    let (job, task) = ("j".parse().unwrap(), "t".parse().unwrap());
    let records = air.nats.task_records(&job, &task).await.unwrap();
    let records: Vec<_> = records.into_iter().map(|(_, one)| one).collect();
    let statuses: Vec<_> = records.iter().map(|record| record.status).collect();
    assert_eq!(
        statuses,
        [
            Status::Parked,
            Status::Reset,
            Status::Retrying,
            Status::Retrying,
            Status::Succeeded
        ]
    );
    assert!(records[1..].iter().all(|record| record.is_approved()));
    verified(&air).await;
}

#[tokio::test]
async fn a_rejected_task_fails_and_asks_again_when_it_is_retried() {
    let air = Installation::start(1).await;
    air.publish("j", r#"{"id":"t","run":"true","approval":"required"}"#)
        .await;
    air.wait_record("j", "t", Status::Parked).await;
    ok(&mut air.airx(&["reject", "j", "t", "--note", "not today"]));
    let record = air.wait_record("j", "t", Status::Failed).await;
    assert_eq!(
        record.error.as_deref(),
        Some("a person rejected it: not today")
    );
    let failed =
        |state: &air_protocol::job::JobState| matches!(state.status, JobStatus::Failed { .. });
    air.wait_state("j", failed).await;
    ok(&mut air.airx(&["retry", "j"]));
    air.wait_record("j", "t", Status::Parked).await;
    ok(&mut air.airx(&["approve", "j", "t"]));
    air.wait_completed("j").await;
    verified(&air).await;
}

const ASKS: &str = r#"case "$(cat $AIR_REPLIES)" in
*blue*) echo '"painted"' > $AIR_OUTPUT ;;
*) echo "which colour?" > $AIR_QUESTION; echo '{"id":"sub","run":"true"}' >> $AIR_TASKS ;;
esac"#;

#[tokio::test]
async fn a_task_asks_and_goes_on_with_the_answer() {
    let air = Installation::start(1).await;
    air.publish("j", &json!({"id": "t", "run": ASKS}).to_string())
        .await;
    let parked = air.wait_record("j", "t", Status::Parked).await;
    let question = "which colour?".to_owned();
    assert_eq!(parked.waits, Some(Waits::Answer { question }));
    assert!(parked.run.is_some() && parked.started.is_some());
    let (good, text) = said(&air, &["approve", "j", "t"]);
    assert!(!good && text.contains("airx answer"), "{text}");
    let shown = ok(&mut air.airx(&["show", "j", "t"]));
    assert!(
        shown.contains("which colour?") && shown.contains("airx answer j t"),
        "{shown}"
    );
    ok(&mut air.airx(&["answer", "j", "t", "red"]));
    let again = wait_for("another question", async || {
        let record = air.record("j", "t").await.unwrap();
        let is_next = record.status == Status::Parked && record.attempt == 2;
        is_next.then_some(record).ok_or("not yet")
    })
    .await;
    assert_eq!(again.replies[0].text, "red");
    ok(&mut air.airx(&["answer", "j", "t", "blue"]));
    air.wait_completed("j").await;
    let record = air.record("j", "t").await.unwrap();
    assert_eq!(record.output, Some(json!("painted")));
    assert_eq!(record.replies.len(), 2);
    assert!(
        air.record("j", "sub").await.is_none(),
        "an attempt that asks queues nothing"
    );
    verified(&air).await;
}

#[tokio::test]
async fn parked_tasks_are_cancelled_with_their_job_or_alone() {
    let air = Installation::start(1).await;
    for id in ["a", "b"] {
        air.publish(
            "j",
            &json!({"id": id, "run": "true", "approval": "required"}).to_string(),
        )
        .await;
    }
    air.wait_record("j", "b", Status::Parked).await;
    ok(&mut air.airx(&["cancel", "j", "a"]));
    let (good, text) = said(&air, &["approve", "j", "a"]);
    assert!(!good && text.contains("it is cancelled"), "{text}");
    let (good, text) = said(&air, &["retry", "j", "b"]);
    assert!(!good && text.contains("airx approve"), "{text}");
    ok(&mut air.airx(&["cancel", "j"]));
    let cancelled =
        |state: &air_protocol::job::JobState| matches!(state.status, JobStatus::Cancelled { .. });
    let state = air.wait_state("j", cancelled).await;
    let counters = state.ledger.counters;
    assert_eq!((counters.cancelled, counters.parked), (2, 0));
    verified(&air).await;
    ok(&mut air.airx(&["rm", "j", "--yes"]));
    wait_for("removal", async || air.state("j").await.map_or(Ok(()), Err)).await;
}

/// Many people and a cancel at once: one of them wins, and the task is what that one said.
#[tokio::test]
async fn of_all_who_reply_at_once_one_wins() {
    let air = Installation::start(1).await;
    air.spec("j", r#"{"on_failure": "continue"}"#).await;
    for round in 0..8 {
        let task = format!("t{round}");
        let body = json!({"id": task, "run": "true", "approval": "required", "retry": {"max": 0}});
        air.publish("j", &body.to_string()).await;
        air.wait_record("j", &task, Status::Parked).await;
        let cancels = ["cancel", "j", &task];
        let all = [
            vec!["approve", "j", &task],
            vec!["approve", "j", &task],
            vec!["reject", "j", &task],
            cancels.to_vec(),
        ];
        let started: Vec<_> = all
            .iter()
            .map(|arguments| {
                let mut command = air.airx(arguments);
                command.stderr(std::process::Stdio::null()).spawn().unwrap()
            })
            .collect();
        let good: Vec<bool> = started
            .into_iter()
            .map(|mut child| child.wait().unwrap().success())
            .collect();
        let last = wait_for("the end of it", async || {
            let last = air.record("j", &task).await.unwrap();
            if last.status.is_final() {
                Ok(last)
            } else {
                Err(last)
            }
        })
        .await;
        // A task that was approved may be cancelled before or while it runs; one that was rejected is over.
        let replies = good[..3].iter().filter(|good| **good).count();
        assert!(replies <= 1, "{good:?}");
        match last.status {
            Status::Succeeded => assert!(good[0] || good[1], "{good:?}"),
            Status::Failed => assert!(good[2], "{good:?}"),
            Status::Cancelled => assert!(good[3], "{good:?}"),
            other => panic!("{other:?}"),
        }
    }
    verified(&air).await;
}

/// A rule that is written just before a task is published: the manager may not have heard of it, the runner reads it.
#[tokio::test]
async fn a_rule_holds_for_what_is_published_after_it() {
    let air = Installation::start(2).await;
    for round in 0..20 {
        let job = format!("j{round}");
        air.publish(&job, r#"{"id":"first","run":"true"}"#).await;
        air.wait_record(&job, "first", Status::Succeeded).await;
        air.spec(&job, r#"{"approval": [{"command": "*"}]}"#).await;
        air.publish(&job, r#"{"id":"t","run":"true"}"#).await;
        let record = wait_for("a record", async || {
            air.record(&job, "t").await.ok_or("none")
        })
        .await;
        assert_eq!(record.status, Status::Parked);
    }
    verified(&air).await;
}
