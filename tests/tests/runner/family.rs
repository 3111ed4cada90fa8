//! Sub-tasks: with the record or not at all, however many.

use air_protocol::record::Status;
use air_protocol::task::{Fanout, Work};
use serde_json::json;

use crate::stage::{Exit, Stage};

#[tokio::test]
async fn sub_tasks_go_with_the_record_into_any_job() {
    let stage = Stage::new().await;
    let line = r#"
        airx task add --id one --label k=v -- echo "a b" &&
        echo '{"run":"true","job":"other","id":"two"}' >> $AIR_TASKS &&
        (airx task add --job other --run 'echo 3' & airx task add --needs one --input '{"n":1}' -- true & wait)
    "#;
    let (at, record) = stage.run(&json!({ "id": "a", "run": line })).await;
    assert_eq!((record.status, record.subtasks), (Status::Succeeded, 4));
    assert_eq!(record.jobs, ["other".parse().unwrap()]);
    let (own, other) = (stage.queue("demo").await, stage.queue("other").await);
    let mut sequences: Vec<_> = own[1..]
        .iter()
        .chain(&other)
        .map(|queued| queued.seq)
        .collect();
    sequences.sort_unstable();
    assert_eq!(sequences, [at + 1, at + 2, at + 3, at + 4]);
    for queued in own[1..].iter().chain(&other) {
        assert_eq!(
            (queued.parent.as_deref(), queued.attempt),
            (Some("demo/a"), 1)
        );
        assert_eq!(queued.task.as_ref().unwrap().job, None);
    }
    assert_eq!(
        own[1].task.as_ref().unwrap().work,
        Work::Exec(vec!["echo".into(), "a b".into()])
    );
    assert_eq!((own[1].id.as_str(), other[0].id.as_str()), ("one", "two"));
    assert_eq!(own[2].task.as_ref().unwrap().input, Some(json!({ "n": 1 })));
    assert_eq!(own[2].id.as_str().len(), 32);
}

#[tokio::test]
async fn sub_tasks_of_a_failed_attempt_never_exist() {
    let stage = Stage::new().await;
    let (_, record) = stage
        .run(&json!({ "id": "a", "run": "airx task add -- true; exit 1" }))
        .await;
    assert_eq!((record.status, record.subtasks), (Status::Retrying, 0));
    assert_eq!(stage.queue("demo").await.len(), 1);
}

#[tokio::test]
async fn a_bad_line_fails_for_good_and_queues_nothing() {
    let stage = Stage::new().await;
    for (task, bad, part) in [
        ("a", r#"{"runn":"x"}\n"#, "`run`"),
        ("b", r#"{"run":"x""#, "middle"),
        ("c", r#"{"run":"x","id":"_1"}\n"#, "leading _"),
    ] {
        let line = format!("airx task add -- true && printf '{bad}' >> $AIR_TASKS");
        let (_, record) = stage.run(&json!({ "id": task, "run": line })).await;
        assert_eq!(
            (record.status, record.subtasks, record.exit),
            (Status::Failed, 0, Some(0))
        );
        let error = record.error.unwrap();
        assert!(
            error.contains("AIR_TASKS, line 2") && error.contains(part),
            "{error}"
        );
    }
    assert_eq!(stage.queue("demo").await.len(), 3);
}

#[tokio::test]
async fn what_the_server_refuses_ends_in_a_plain_record() {
    let mut stage = Stage::new().await;
    let conf = stage.server.folder().join("nats.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(&conf, text.replace("batch {", "batch { max_msgs: 3,")).unwrap();
    stage.server.restart();
    stage.nats = stage.server.connect().await;
    let line = r#"echo 1 > $AIR_OUTPUT; seq 1500 | sed 's/.*/{"run":"true"}/' > $AIR_TASKS"#;
    let (_, record) = stage.run(&json!({ "id": "a", "run": line })).await;
    assert_eq!(
        (record.status, record.subtasks, record.output),
        (Status::Failed, 0, None)
    );
    let error = record.error.unwrap();
    assert!(error.contains("batch is too large"), "{error}");
    assert_eq!(stage.queue("demo").await.len(), 1);
    assert!(record.spec.is_some());
    let left = stage.nats.stream_messages("OBJ_air-blobs").await.unwrap();
    assert_eq!(left, 0, "no page of what was refused is left");
}

/// The fan-out that waits in the queue, and its sequence.
async fn pending(stage: &Stage) -> Option<(u64, Fanout)> {
    let queue = stage.queue("demo").await;
    let last = queue.last()?;
    match &last.task.as_ref().unwrap().work {
        Work::Fanout(fanout) => Some((last.seq, fanout.clone())),
        _ => None,
    }
}

#[tokio::test]
async fn a_fan_out_of_any_size_arrives_whole() {
    let stage = Stage::new().await;
    let line = r#"seq 2500 | sed 's/.*/{"run":"true","id":"s&"}/' > $AIR_TASKS"#;
    let (_, record) = stage.run(&json!({ "id": "a", "run": line })).await;
    assert_eq!((record.status, record.subtasks), (Status::Succeeded, 2500));
    let run = record.run.unwrap();
    let mut pages = Vec::new();
    while let Some((seq, fanout)) = pending(&stage).await {
        pages.push((fanout.page, fanout.pages, fanout.parent.clone(), fanout.run));
        let blob = format!("{run}.{}", fanout.page);
        let before = stage.queue("demo").await;
        let lines = stage
            .nats
            .get_blob(&blob)
            .await
            .unwrap()
            .expect("the page lies in a blob");
        if fanout.page == 1 {
            // A missing page is waited for, and nothing is lost.
            stage.nats.delete_blob(&blob).await.unwrap();
            assert_eq!(stage.run_at(seq).await, Exit::Done);
            // The next attempt is scheduled, and may have come by now.
            let after = stage.queue("demo").await;
            let first = after.iter().filter(|queued| queued.attempt == 1).count();
            assert_eq!(first, before.len());
            let id = before.iter().find(|queued| queued.seq == seq).unwrap();
            let (_, record) = stage.last(id.id.as_str()).await.unwrap();
            assert_eq!((record.status, record.failures), (Status::Retrying, 0));
            assert!(record.error.unwrap().contains(&blob));
            stage.nats.put_blob(&blob, &lines).await.unwrap();
            let again = air_tests::wait_for("next try", async || {
                let last = stage.queue("demo").await.pop();
                last.filter(|queued| queued.attempt == 2)
                    .map(|queued| queued.seq)
                    .ok_or("none")
            });
            assert_eq!(stage.run_at(again.await).await, Exit::Done);
        } else {
            assert_eq!(stage.run_at(seq).await, Exit::Done);
        }
        assert_eq!(stage.nats.get_blob(&blob).await.unwrap(), None);
    }
    let parent = || "demo/a".to_owned();
    assert_eq!(pages, [(1, 3, parent(), run), (2, 3, parent(), run)]);
    let queue = stage.queue("demo").await;
    let subtasks = queue
        .iter()
        .filter(|queued| queued.id.as_str().starts_with('s'));
    let names: Vec<_> = subtasks
        .clone()
        .map(|queued| queued.id.as_str().to_owned())
        .collect();
    let wanted: Vec<_> = (1..=2500).map(|n| format!("s{n}")).collect();
    assert_eq!(names, wanted);
    assert!(
        subtasks
            .into_iter()
            .all(|queued| queued.parent.as_deref() == Some("demo/a"))
    );
}
