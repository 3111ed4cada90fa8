//! What a runner does with tasks that wait for people.

use air_protocol::approval::Waits;
use air_protocol::record::Status;
use serde_json::json;

use super::stage::Stage;

/// The manager that claims has not heard of the rule; the runner reads it from the leader.
#[tokio::test]
async fn a_rule_that_the_manager_had_not_heard_of_parks_the_task_before_anything_runs() {
    let stage = Stage::new().await;
    let spec = json!({ "approval": [{ "command": "touch*" }] });
    let spec = air_protocol::codec::decode_spec(spec.to_string().as_bytes()).unwrap();
    stage.nats.write_spec(&stage.job, &spec, 0).await.unwrap();
    let mark = stage.file("mark");
    let run = format!("touch {}", mark.display());
    let (_, record) = stage.run(&json!({ "id": "a", "run": run })).await;
    assert_eq!((record.status, record.attempt), (Status::Parked, 1));
    let Some(Waits::Approval { reason }) = &record.waits else {
        panic!("{record:?}")
    };
    assert!(reason.contains("touch*"), "{reason}");
    assert!(record.started.is_none() && record.failures == 0 && record.error.is_none());
    assert!(record.spec.is_some() && !mark.exists());
    let events = stage.events().await;
    assert!(
        events.iter().any(|event| event.contains("parked")),
        "{events:?}"
    );
    assert!(
        !events.iter().any(|event| event.contains("started")),
        "{events:?}"
    );
    stage.assert_nothing_left();
}

#[tokio::test]
async fn a_question_parks_the_task_and_nothing_of_it_is_queued() {
    let stage = Stage::new().await;
    let run = "echo 'which?' > $AIR_QUESTION; echo '{\"run\":\"true\"}' >> $AIR_TASKS; echo 7 > $AIR_OUTPUT; cat $AIR_REPLIES";
    let (_, record) = stage.run(&json!({ "id": "a", "run": run })).await;
    let question = "which?".to_owned();
    assert_eq!(
        (record.status, record.waits),
        (Status::Parked, Some(Waits::Answer { question }))
    );
    assert_eq!(
        (record.subtasks, record.output, record.exit),
        (0, None, Some(0))
    );
    assert_eq!(record.tail.as_deref(), Some("[]"));
    assert!(record.started.is_some());
    assert!(
        stage
            .queue("demo")
            .await
            .iter()
            .all(|queued| queued.id.as_str() == "a")
    );
    // One that fails, or asks for later, is not parked.
    for (id, exit) in [("b", 1), ("c", 75)] {
        let run = format!("echo 'which?' > $AIR_QUESTION; exit {exit}");
        let (_, record) = stage.run(&json!({ "id": id, "run": run })).await;
        assert_eq!((record.status, record.waits), (Status::Retrying, None));
    }
}
