//! What tasks write into the files of their contract: wrong lines, wrong JSON, and very much of it.

use std::collections::BTreeSet;

use air_protocol::record::Status;
use air_protocol::task::Work;
use air_tests::{HANGS, Installation, Program, check, wait_for_within};
use serde_json::json;

use crate::{failed_saying, goes_on, run, tolerant};

/// Runs the line, which must fail for good at its first attempt and queue nothing.
async fn fails_whole(line: &str, texts: &[&str]) {
    let air = Installation::start(1).await;
    air.spec("j", r#"{"on_failure":"continue","retry":{"max":3}}"#)
        .await;
    let record = run(&air, json!({ "run": line })).await;
    failed_saying(&record, texts);
    assert_eq!(
        (record.exit, record.attempt, record.subtasks),
        (Some(0), 1, 0)
    );
    let counters = air.state("j").await.unwrap().ledger.counters;
    assert_eq!(
        (counters.tasks(), counters.subtasks),
        (1, 0),
        "nothing was queued"
    );
    goes_on(&air).await;
}

#[tokio::test]
async fn a_bad_line_in_the_list_of_sub_tasks_is_named() {
    let good = r#"echo '{"run":"true"}' >> $AIR_TASKS"#;
    let half = format!(r#"{good}; printf '{{"run":"tr' >> $AIR_TASKS"#);
    fails_whole(
        &half,
        &["AIR_TASKS, line 2", "ends in the middle", "whole lines"],
    )
    .await;
    let typo = format!(r#"{good}; {good}; echo '{{"ru":"true"}}' >> $AIR_TASKS; {good}"#);
    fails_whole(&typo, &["AIR_TASKS, line 3", "`ru`", "did you mean `run`?"]).await;
    let binary = format!(r"{good}; printf '\000\377\n' >> $AIR_TASKS");
    fails_whole(&binary, &["AIR_TASKS, line 2", "no JSON"]).await;
    let gone = format!("{good}; rm $AIR_TASKS; mkdir $AIR_TASKS");
    fails_whole(&gone, &["AIR_TASKS", "not a file"]).await;
}

#[tokio::test]
async fn an_output_that_is_no_json_is_named() {
    let queues = r#"echo '{"run":"true"}' >> $AIR_TASKS"#;
    let text = format!(r#"{queues}; printf '{{"a":\n oops' > $AIR_OUTPUT"#);
    fails_whole(
        &text,
        &["AIR_OUTPUT holds no JSON", "line 2", "one JSON value"],
    )
    .await;
    let empty = format!("{queues}; : > $AIR_OUTPUT");
    fails_whole(&empty, &["AIR_OUTPUT holds no JSON"]).await;
    let bytes = format!(r"{queues}; printf '\377' > $AIR_OUTPUT");
    fails_whole(&bytes, &["AIR_OUTPUT holds no JSON"]).await;
}

#[tokio::test]
async fn a_hundred_thousand_sub_tasks_are_queued_and_counted() {
    let air = tolerant().await;
    let count = 100_000;
    // Into a paused job, so that they are queued, and not run.
    air.spec("k", r#"{"paused":true}"#).await;
    let line =
        format!(r#"seq -f '{{"run":"true","id":"s%.0f","job":"k"}}' 1 {count} >> $AIR_TASKS"#);
    air.publish("j", &json!({ "id": "t", "run": line }).to_string())
        .await;
    let record = air.wait_record("j", "t", Status::Succeeded).await;
    assert_eq!(record.subtasks, count);
    wait_for_within(HANGS, "100,000 messages", async || {
        let depth = air.nats.depth("air.tasks.k").await.unwrap();
        match depth
            .messages
            .get("air.tasks.k")
            .copied()
            .unwrap_or_default()
        {
            queued if queued == count => Ok(()),
            queued => Err(queued),
        }
    })
    .await;
    let queue = air.queue("k").await;
    let ids: BTreeSet<_> = queue.iter().map(|queued| queued.id.to_string()).collect();
    let wanted: BTreeSet<_> = (1..=count).map(|number| format!("s{number}")).collect();
    assert!(ids == wanted, "{} ids, of 100,000 wanted", ids.len());
    let is_child = |parent: &Option<String>| parent.as_deref() == Some("j/t");
    assert!(queue.iter().all(|queued| is_child(&queued.parent)));
    let state = air.wait_completed("j").await;
    assert_eq!(state.ledger.counters.subtasks, count);
    let blobs = air
        .nats_cli(&["object", "ls", "air-blobs", "--names"])
        .output();
    let blobs = String::from_utf8(blobs.unwrap().stdout).unwrap();
    assert!(!blobs.contains(&record.run.unwrap().to_string()), "{blobs}");
    let pages = air.records("j").await.into_iter().filter(|(_, record)| {
        let work = record.spec.as_ref().map(|task| &task.work);
        matches!(work, Some(Work::Fanout(_))) && record.status == Status::Succeeded
    });
    assert!(pages.count() >= 99, "a batch holds a thousand");
    let mut cancel = Program::start(&mut air.airx(&["cancel", "k"]));
    air.publish("other", r#"{"run":"true"}"#).await;
    air.wait_completed("other").await;
    wait_for_within(HANGS, "end of `airx cancel`", async || {
        if cancel.has_ended() {
            Ok(())
        } else {
            Err("it waits")
        }
    })
    .await;
    let counters = air.state("k").await.unwrap().ledger.counters;
    assert_eq!((counters.cancelled, counters.tasks()), (count, count));
    check(&air).await;
}
