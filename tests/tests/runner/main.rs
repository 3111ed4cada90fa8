//! One runner against a real server; the test plays the manager.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

mod ends;
mod family;
mod paid;
mod people;
mod stage;

use std::fs;
use std::time::Duration;

use air_nats::jobs::Key;
use air_protocol::codec;
use air_protocol::event::Kind;
use air_protocol::job::Event;
use air_protocol::limits::LOG_BYTES_MAX;
use air_protocol::record::Status;
use air_protocol::spec::Wire;
use air_protocol::task::{Task, Work};
use air_tests::wait_for;
use serde_json::{Value, json};

use stage::{Exit, Stage, id, now};

#[tokio::test]
async fn a_task_is_run_recorded_and_released() {
    let stage = Stage::new().await;
    let line = "echo out; echo err >&2; cat $AIR_INPUT > $AIR_OUTPUT";
    let task =
        json!({ "id": "a", "run": line, "input": { "n": [1, null] }, "labels": { "k": "v" } });
    let seq = stage.publish(&task).await;
    let claimed = stage.claim(seq).await;
    assert_eq!(stage.start(claimed).exit().await, Exit::Done);
    let (at, record) = stage.last("a").await.unwrap();
    assert_eq!(
        (record.status, record.attempt, record.exit),
        (Status::Succeeded, 1, Some(0))
    );
    assert_eq!(
        (record.previous, record.after, record.failures),
        (None, 0, 0)
    );
    assert_eq!(record.output, Some(json!({ "n": [1, null] })));
    assert_eq!(record.tail.as_deref(), Some("out\nerr\n"));
    assert_eq!(
        (record.seq, record.run, record.fence),
        (Some(seq), Some(claimed.runner), Some(claimed.fence))
    );
    assert_eq!(record.backend.as_deref(), Some("process"));
    assert!(record.host.is_some() && record.max_rss_kb > Some(0) && record.cpu_ms.is_some());
    assert!(
        record.queued <= record.claimed
            && record.claimed <= record.started
            && record.started <= Some(record.ended)
    );
    assert_eq!(
        serde_json::to_value(record.spec.unwrap()).unwrap()["labels"],
        json!({ "k": "v" })
    );
    assert_eq!(stage.log("a").await, "out\nerr\n");
    let (state, _) = stage.state().await;
    assert_eq!((state.name().as_str(), state.last_record), ("waiting", at));
    let wanted = [Kind::Started, Kind::Committed, Kind::Released].map(Kind::as_str);
    assert_eq!(stage.events().await, wanted);
    stage.assert_nothing_left();
}

#[tokio::test]
async fn a_stale_fence_starts_nothing() {
    let stage = Stage::new().await;
    let marker = stage.file("ran");
    let seq = stage
        .publish(&json!({ "id": "a", "exec": ["touch", marker] }))
        .await;
    let old = stage.claim(seq).await;
    let reason = "slow".to_owned();
    stage
        .apply(Event::StartFailed {
            runner: old.runner,
            hold_until: now(),
            counts: false,
            reason,
        })
        .await;
    let new = stage.claim(seq).await;
    let before = stage.nats.job(&stage.job).await.unwrap();
    assert_eq!(stage.start(old).exit().await, Exit::NotOurs);
    let mixed = stage::Claimed {
        fence: old.fence,
        ..new
    };
    assert_eq!(stage.start(mixed).exit().await, Exit::NotOurs);
    assert_eq!(stage.nats.job(&stage.job).await.unwrap(), before);
    assert!(!marker.exists() && stage.last("a").await.is_none());
    assert_eq!(stage.start(new).exit().await, Exit::Done);
    assert!(marker.exists());
    assert_eq!(stage.start(new).exit().await, Exit::NotOurs);
}

#[tokio::test]
async fn what_is_settled_before_the_start_does_not_run() {
    let stage = Stage::new().await;
    let marker = stage.file("ran");
    let task = json!({ "id": "a", "exec": ["touch", marker] });
    let claimed = stage.claim(stage.publish(&task).await).await;
    let cancelled = stage.cancel_task("a", 0).await;
    assert_eq!(stage.start(claimed).exit().await, Exit::Stale);
    let (state, _) = stage.state().await;
    assert_eq!(
        (state.name().as_str(), state.last_record),
        ("waiting", cancelled)
    );
    assert_eq!(stage.last("a").await.unwrap().0, cancelled);

    let seq = stage
        .publish(&json!({ "id": "b", "exec": ["touch", marker] }))
        .await;
    let claimed = stage.claim(seq).await;
    stage.nats.delete(seq).await.unwrap();
    assert_eq!(stage.start(claimed).exit().await, Exit::Stale);
    assert_eq!(stage.state().await.0.name(), "waiting");
    assert!(!marker.exists() && stage.last("b").await.is_none());
}

#[tokio::test]
async fn a_message_that_is_no_task_fails_under_its_sequence() {
    let stage = Stage::new().await;
    let seq = stage.publish(&json!({ "id": "a", "runn": "true" })).await;
    assert_eq!(stage.run_at(seq).await, Exit::Done);
    let (_, record) = stage.last(&format!("_{seq}")).await.unwrap();
    assert_eq!((record.status, record.spec), (Status::Failed, None));
    assert!(record.error.unwrap().contains("`runn`"));
    assert!(record.tail.unwrap().contains("runn"));
    assert!(stage.last("a").await.is_none());
}

#[tokio::test]
async fn a_task_sees_its_contract_and_nothing_of_ours() {
    let stage = Stage::new().await;
    let (at, needed) = stage
        .run(&json!({ "id": "first", "run": "echo '[7]' > $AIR_OUTPUT" }))
        .await;
    assert!(at > 0 && needed.output == Some(json!([7])));
    let line = "env; echo end; airx status; echo code $?; airx task add --bad; echo code $?; \
                cat $AIR_NEEDS > $AIR_OUTPUT; pwd";
    let task = json!({ "id": "a", "run": line, "env": { "MINE": "1" },
        "needs": ["first", { "task": "demo/first", "when": "done" }] });
    let (_, record) = stage.run(&task).await;
    let log = stage.log("a").await;
    let (env, rest) = log.split_once("\nend\n").unwrap();
    let names: Vec<_> = env
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    for name in [
        "AIR_JOB",
        "AIR_TASK",
        "AIR_ATTEMPT",
        "AIR_RUNNER",
        "AIR_FENCE",
        "AIR_INPUT",
        "AIR_TASKS",
        "MINE",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    let allowed = |name: &str| {
        let ours =
            name.starts_with("AIR_") && !["AIR_PREFIX", "AIR_SEQ", "AIR_BACKEND"].contains(&name);
        ours || [
            "PATH", "HOME", "LANG", "PWD", "OLDPWD", "SHLVL", "_", "MINE",
        ]
        .contains(&name)
    };
    assert_eq!(names.iter().find(|name| !allowed(name)), None);
    assert!(
        rest.contains("only `airx task add` is here") && rest.contains("code 127"),
        "{rest}"
    );
    assert!(
        rest.contains("`--bad` is no option") && rest.contains("code 2"),
        "{rest}"
    );
    let known = json!({ "status": "succeeded", "output": [7], "exit": 0, "error": null });
    assert_eq!(
        record.output,
        Some(json!({ "first": known, "demo/first": known }))
    );
}

#[tokio::test]
async fn a_large_output_goes_to_a_blob_and_on_to_those_who_need_it() {
    let stage = Stage::new().await;
    let line = r#"{ printf '"'; head -c 700000 /dev/zero | tr '\0' x; printf '"'; } > $AIR_OUTPUT"#;
    let (_, record) = stage.run(&json!({ "id": "a", "run": line })).await;
    assert_eq!((record.status, &record.output), (Status::Succeeded, &None));
    let name = record.output_blob.unwrap();
    assert_eq!(name, record.run.unwrap().to_string());
    let blob: Value =
        serde_json::from_slice(&stage.nats.get_blob(&name).await.unwrap().unwrap()).unwrap();
    assert_eq!(blob, json!("x".repeat(700_000)));
    let (_, record) = stage
        .run(&json!({ "id": "b", "run": "wc -c < $AIR_NEEDS > $AIR_OUTPUT", "needs": ["a"] }))
        .await;
    assert!(record.output.unwrap().as_u64() > Some(700_000));
}

#[tokio::test]
async fn a_log_has_an_end_that_says_what_is_missing() {
    let stage = Stage::new().await;
    let beyond = 1_000_000;
    let line = format!("head -c {} /dev/zero; echo end >&2", LOG_BYTES_MAX + beyond);
    let (_, record) = stage.run(&json!({ "id": "a", "run": line })).await;
    assert!(record.tail.unwrap().ends_with("end\n"));
    let (mut chunks, mut from) = (Vec::new(), 1);
    loop {
        let some = stage
            .nats
            .logs(&stage.job, Some(&id("a")), from, 100)
            .await
            .unwrap();
        let Some(last) = some.last() else { break };
        from = last.seq + 1;
        chunks.extend(some);
    }
    let (last, kept) = chunks.split_last().unwrap();
    let bytes: usize = kept.iter().map(|chunk| chunk.payload.len()).sum();
    assert_eq!(bytes as u64, LOG_BYTES_MAX);
    let text = String::from_utf8_lossy(&last.payload);
    assert!(text.contains(&format!("{} bytes", beyond + 4)), "{text}");
}

#[tokio::test]
async fn a_task_that_is_far_longer_in_json_is_recorded_whole() {
    let stage = Stage::new().await;
    let mut task = Task::new(Work::Run("wc -c < $AIR_INPUT; exit 1".into()));
    task.input = Some(json!("\u{1}".repeat(300_000)));
    task.id = Some(id("a"));
    let payload = codec::encode(Wire::Msgpack, &task);
    let published = stage
        .nats
        .publish_task(&stage.job, Some(codec::MSGPACK), payload, None);
    let seq = published.await.unwrap();
    assert_eq!(stage.run_at(seq).await, Exit::Done);
    let (_, record) = stage.last("a").await.unwrap();
    assert_eq!(record.tail.as_deref(), Some("1800002\n"));
    assert_eq!((record.status, record.spec), (Status::Retrying, Some(task)));
    assert!(
        stage.nats.scheduled(&stage.job).await.unwrap()[0]
            .task
            .is_ok()
    );
}

#[tokio::test]
async fn the_jobs_spec_holds_for_its_tasks() {
    let stage = Stage::new().await;
    let spec =
        json!({ "env": { "A": "spec", "B": "spec" }, "retry": { "max": 0 }, "wire": "msgpack" });
    let spec = air_protocol::codec::decode_spec(spec.to_string().as_bytes()).unwrap();
    stage.nats.write_spec(&stage.job, &spec, 0).await.unwrap();
    let line = r#"echo "\"$A $B\"" > $AIR_OUTPUT; airx task add -- true"#;
    let (_, record) = stage
        .run(&json!({ "id": "a", "run": line, "env": { "B": "task" } }))
        .await;
    assert_eq!(record.output, Some(json!("spec task")));
    let queue = stage.queue("demo").await;
    assert!(queue.last().unwrap().task.is_ok());
    let (_, record) = stage.run(&json!({ "id": "b", "run": "exit 1" })).await;
    assert_eq!(record.status, Status::Failed);
}

#[tokio::test]
async fn a_lease_is_renewed_as_long_as_the_task_runs() {
    let mut stage = Stage::new().await;
    stage.ttl = Duration::from_secs(3);
    let go = stage.file("go");
    let line = format!("while [ ! -e {} ]; do sleep 0.02; done", go.display());
    let (running, claimed) = stage.started(&json!({ "id": "a", "run": line })).await;
    wait_for("second renewal", async || {
        match stage.nats.job(&stage.job).await.unwrap() {
            Key::State(_, revision) if revision >= claimed.fence + 3 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    // Whoever writes the key meanwhile does not end the task: its runner goes on from there.
    let (state, revision) = stage.state().await;
    let _ = stage
        .nats
        .write_job(&stage.job, &state, revision)
        .await
        .unwrap();
    let written = stage.state().await.1;
    wait_for("another renewal", async || match stage.state().await.1 {
        now if now > written => Ok(()),
        now => Err(now),
    })
    .await;
    fs::write(go, "").unwrap();
    assert_eq!(running.exit().await, Exit::Done);
    assert_eq!(stage.last("a").await.unwrap().1.status, Status::Succeeded);
    assert_eq!(
        stage
            .nats
            .last_record(&stage.job, &id("a"))
            .await
            .unwrap()
            .unwrap()
            .1
            .attempt,
        1
    );
}
