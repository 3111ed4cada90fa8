//! Tasks that discover further tasks.

use air_protocol::record::Status;
use air_tests::Installation;
use serde_json::json;

#[tokio::test]
async fn subtasks_are_committed_with_their_task() {
    let air = Installation::start(1).await;
    let run = r#"airx task add --id child -- sh -c 'echo $AIR_TASK; exit 0'; echo '{"run":"true","job":"k","id":"other"}' >> $AIR_TASKS; echo '{"run":"true"}' >> $AIR_TASKS"#;
    air.publish("j", &json!({"id": "parent", "run": run}).to_string())
        .await;
    let state = air.wait_completed("j").await;
    air.wait_completed("k").await;
    assert_eq!(
        (
            state.ledger.counters.succeeded,
            state.ledger.counters.subtasks
        ),
        (3, 3)
    );
    assert_eq!(state.ledger.children, ["k".parse().unwrap()].into());
    let parent = air.record("j", "parent").await.unwrap();
    assert_eq!((parent.subtasks, parent.jobs.len()), (3, 1));
    assert_eq!(air.log("j", "child").await, b"child\n");
    assert_eq!(
        air.record("k", "other").await.unwrap().status,
        Status::Succeeded
    );
}

#[tokio::test]
async fn subtasks_of_a_failed_attempt_never_exist() {
    let air = Installation::start(1).await;
    let run = "airx task add -- true; test $AIR_ATTEMPT -eq 2";
    air.publish(
        "j",
        &json!({"run": run, "retry": {"backoff": "10ms"}}).to_string(),
    )
    .await;
    let counters = air.wait_completed("j").await.ledger.counters;
    assert_eq!((counters.succeeded, counters.subtasks), (2, 1));
}

#[tokio::test]
async fn a_tree_of_tasks_grows_and_ends() {
    let air = Installation::start(1).await;
    // Each task of depth n queues two of depth n + 1, up to 5: 63 tasks, spread over three jobs.
    let run = r#"d=$(cat $AIR_INPUT); [ $d -ge 5 ] && exit 0
        for i in 1 2; do printf '%s\n' "{\"run\":$(cat $RUN),\"input\":$((d+1)),\"env\":{\"RUN\":\"$RUN\"},\"job\":\"tree$(( (d+i) % 3 ))\"}" >> $AIR_TASKS; done"#;
    let file = air.server.folder().join("run.json");
    std::fs::write(&file, serde_json::to_string(run).unwrap()).unwrap();
    air.publish(
        "tree0",
        &json!({"run": run, "input": 0, "env": {"RUN": file}}).to_string(),
    )
    .await;
    air_tests::wait_for("63 tasks", async || {
        let mut done = 0;
        for job in ["tree0", "tree1", "tree2"] {
            done += air
                .state(job)
                .await
                .map_or(0, |state| state.ledger.counters.succeeded);
        }
        if done == 63 { Ok(()) } else { Err(done) }
    })
    .await;
}

#[tokio::test]
async fn an_id_published_twice_runs_once() {
    let air = Installation::start(1).await;
    for _ in 0..3 {
        air.publish("j", r#"{"id":"once","run":"true"}"#).await;
    }
    let state = air.wait_completed("j").await;
    assert_eq!(
        (
            state.ledger.counters.succeeded,
            state.ledger.counters.attempts
        ),
        (1, 1)
    );
    let depth = air.nats.depth("air.tasks.j").await.unwrap();
    assert!(depth.messages.is_empty(), "the duplicates are gone");
    air.publish("j", r#"{"id":"once","run":"true"}"#).await;
    let state = air.wait_completed("j").await;
    assert_eq!(state.ledger.counters.attempts, 1);
}
