//! What users do to jobs and tasks, at any moment.

use air_protocol::job::JobStatus;
use air_protocol::record::Status;
use air_tests::{Installation, ServerOptions, ok, wait_for};
use serde_json::json;

const HANG: &str = "touch up; while :; do sleep 0.05; done";

/// A job whose first task hangs, with `more` tasks behind it.
async fn hanging(air: &Installation, more: usize) {
    let folder = air.server.folder().to_owned();
    air.publish(
        "j",
        &json!({"id": "hangs", "run": HANG, "cwd": folder}).to_string(),
    )
    .await;
    for n in 0..more {
        air.publish("j", &format!(r#"{{"id":"t{n}","run":"true"}}"#))
            .await;
    }
    wait_for("start", async || {
        if folder.join("up").exists() {
            Ok(())
        } else {
            Err("not up")
        }
    })
    .await;
}

#[tokio::test]
async fn a_working_job_is_cancelled_whole() {
    let air = Installation::start(1).await;
    hanging(&air, 3).await;
    ok(&mut air.airx(&["cancel", "j"]));
    let state = air
        .wait_state("j", |state| {
            matches!(state.status, JobStatus::Cancelled { .. })
        })
        .await;
    assert_eq!(
        (
            state.ledger.counters.cancelled,
            state.ledger.counters.tasks()
        ),
        (4, 4)
    );
    assert!(
        air.nats
            .depth("air.tasks.j")
            .await
            .unwrap()
            .messages
            .is_empty()
    );
    air.publish("j", r#"{"id":"new","run":"true"}"#).await;
    air.wait_completed("j").await;
    assert_eq!(
        air.record("j", "new").await.unwrap().status,
        Status::Succeeded
    );
}

#[tokio::test]
async fn one_task_is_cancelled_wherever_it_is() {
    let air = Installation::start(1).await;
    air.publish(
        "j",
        r#"{"id":"later","run":"exit 1","retry":{"backoff":"1h"}}"#,
    )
    .await;
    air.wait_record("j", "later", Status::Retrying).await;
    hanging(&air, 2).await;
    for task in ["later", "t0", "hangs"] {
        ok(&mut air.airx(&["cancel", "j", task]));
    }
    let state = air.wait_completed("j").await;
    assert_eq!(
        (
            state.ledger.counters.cancelled,
            state.ledger.counters.succeeded
        ),
        (3, 1)
    );
    assert!(
        air.nats
            .depth("air.schedules.j.*")
            .await
            .unwrap()
            .messages
            .is_empty()
    );
}

#[tokio::test]
async fn a_failed_job_is_tried_again() {
    let air = Installation::start(1).await;
    let folder = air.server.folder();
    let task = json!({"id": "t", "run": "test -e mended", "cwd": folder, "retry": {"max": 0}});
    air.publish("j", &task.to_string()).await;
    air.publish("j", r#"{"id":"after","run":"true","needs":["t"]}"#)
        .await;
    air.wait_state("j", |state| {
        matches!(state.status, JobStatus::Failed { .. })
    })
    .await;
    std::fs::write(folder.join("mended"), "").unwrap();
    ok(&mut air.airx(&["retry", "j"]));
    let state = air.wait_completed("j").await;
    assert_eq!(
        (
            state.ledger.counters.succeeded,
            state.ledger.counters.failed
        ),
        (2, 0)
    );
    let statuses: Vec<_> = air
        .records("j")
        .await
        .iter()
        .map(|(_, record)| record.status)
        .collect();
    assert_eq!(
        statuses,
        [
            Status::Failed,
            Status::Reset,
            Status::Succeeded,
            Status::Succeeded
        ]
    );
}

#[tokio::test]
async fn a_paused_job_waits() {
    let air = Installation::start(1).await;
    ok(&mut air.airx(&["pause", "j"]));
    air.publish("j", r#"{"id":"t","run":"true"}"#).await;
    air.publish("k", r#"{"id":"t","run":"true"}"#).await;
    air.wait_completed("k").await;
    assert!(air.record("j", "t").await.is_none());
    ok(&mut air.airx(&["resume", "j"]));
    air.wait_completed("j").await;
}

#[tokio::test]
async fn a_paused_job_waits_also_while_the_watch_of_specs_has_told_nothing() {
    // Nobody can make a watch of specs: as if it hung for ever.
    let extra = r#"
        no_auth_user: deaf
        authorization { users: [ { user: deaf, password: deaf, permissions: {
            publish: { deny: ["$JS.API.CONSUMER.CREATE.KV_air-specs"] } } } ] }
    "#;
    let mut air = Installation::start_on(
        ServerOptions {
            extra,
            ..ServerOptions::default()
        },
        0,
    )
    .await;
    air.spec("j", r#"{"paused":true}"#).await;
    air.publish("j", r#"{"id":"t","run":"true"}"#).await;
    air.add_manager(&[]);
    for round in 0..3 {
        air.publish(
            "k",
            &json!({ "id": format!("t{round}"), "run": "true" }).to_string(),
        )
        .await;
        air.wait_completed("k").await;
    }
    assert!(air.record("j", "t").await.is_none());
    air.spec("j", "{}").await;
    air.wait_completed("j").await;
}

#[tokio::test]
async fn the_spec_of_a_removed_job_is_not_that_of_the_next_one() {
    let air = Installation::start(3).await;
    air.spec("j", r#"{"on_failure":"continue","retry":{"max":0}}"#)
        .await;
    air.publish("j", r#"{"id":"t","run":"true"}"#).await;
    air.wait_completed("j").await;
    ok(&mut air.airx(&["pause", "j"]));
    ok(&mut air.airx(&["rm", "--yes", "j"]));
    for number in 0..20 {
        air.publish("j", &format!(r#"{{"id":"t{number}","run":"true"}}"#))
            .await;
    }
    air.wait_completed("j").await;
}

#[tokio::test]
async fn a_removed_job_leaves_nothing() {
    let air = Installation::start(1).await;
    hanging(&air, 2).await;
    ok(&mut air.airx(&["rm", "--yes", "j"]));
    assert_eq!(
        air.nats.job(&"j".parse().unwrap()).await.unwrap(),
        air_nats::jobs::Key::Absent
    );
    assert!(air.records("j").await.is_empty());
    for subject in ["air.tasks.j", "air.schedules.j.*", "air.results.j.*"] {
        assert!(
            air.nats.depth(subject).await.unwrap().messages.is_empty(),
            "{subject}"
        );
    }
    air.publish("j", r#"{"id":"t0","run":"true"}"#).await;
    let state = air.wait_completed("j").await;
    assert_eq!(
        state.ledger.counters.succeeded, 1,
        "a new job of the same name starts at once"
    );
}

#[tokio::test]
async fn a_fan_out_that_is_removed_leaves_no_page() {
    let air = Installation::start(1).await;
    let blobs = async || air.nats.stream_messages("OBJ_air-blobs").await.unwrap();
    let line = r#"seq 1500 | sed 's/.*/{"run":"sleep 600"}/' > $AIR_TASKS"#;
    for (job, verb) in [("waits", None), ("over", Some("cancel"))] {
        let task = json!({ "id": "parent", "run": line });
        air.publish(job, &task.to_string()).await;
        air.wait_record(job, "parent", Status::Succeeded).await;
        assert!(blobs().await > 0);
        if let Some(verb) = verb {
            ok(&mut air.airx(&[verb, job]));
            assert!(blobs().await > 0, "it can still be tried again");
        }
        ok(&mut air.airx(&["rm", "--yes", job]));
        assert_eq!(blobs().await, 0, "{job}");
    }
}

#[tokio::test]
async fn a_wait_ends_with_the_job() {
    let air = Installation::start(1).await;
    air.publish("j", r#"{"run":"sleep 0.2"}"#).await;
    ok(&mut air.airx(&["wait", "j", "--timeout", "30s"]));
    air.publish("j", r#"{"run":"exit 1","retry":{"max":0}}"#)
        .await;
    assert_eq!(
        air.airx(&["wait", "j", "--timeout", "30s"])
            .status()
            .unwrap()
            .code(),
        Some(1)
    );
    ok(&mut air.airx(&["pause", "k"]));
    air.publish("k", r#"{"run":"true"}"#).await;
    assert_eq!(
        air.airx(&["wait", "k", "--timeout", "500ms"])
            .status()
            .unwrap()
            .code(),
        Some(124)
    );
}

#[tokio::test]
async fn a_submission_waits_for_all_that_it_queued() {
    let air = Installation::start(1).await;
    let script = "airx task add --job other --id grandchild -- sh -c 'sleep 0.3'";
    ok(&mut air.airx(&["submit", "j", "--id", "root", "--wait", "--run", script]));
    assert_eq!(
        air.record("other", "grandchild").await.unwrap().status,
        Status::Succeeded
    );
}

#[tokio::test]
async fn a_key_that_was_deleted_is_held_when_a_verb_writes_it_anew() {
    let air = Installation::start(0).await;
    for (job, verb) in [("a", "cancel"), ("b", "rm")] {
        air.publish(job, r#"{"run":"true"}"#).await;
        ok(&mut air.nats_cli(&["kv", "put", "air-jobs", job, "{}"]));
        ok(&mut air.nats_cli(&["kv", "del", "air-jobs", job, "--force"]));
        let mut command = air.airx(&[verb, job, "--no-wait"]);
        if verb == "rm" {
            command.arg("--yes");
        }
        ok(&mut command);
        let state = air.state(job).await.unwrap();
        let ttl = std::time::Duration::from_secs(30);
        assert_eq!(state.zombie_until, Some(state.updated.after(ttl)));
        assert_eq!(state.hold_until, state.zombie_until);
    }
}

#[tokio::test]
async fn a_task_that_is_tried_again_keeps_its_parent_and_its_trace() {
    let air = Installation::start(1).await;
    air.spec("j", r#"{"retry":{"max":0},"on_failure":"continue"}"#)
        .await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let child =
        r#"echo '{"id":"child","run":"test $TRACEPARENT -a $AIR_ATTEMPT -gt 1"}' >> $AIR_TASKS"#;
    let task = json!({ "id": "parent", "run": child }).to_string();
    let header = format!("traceparent:{trace}");
    ok(&mut air.nats_cli(&["pub", "air.tasks.j", "-H", &header, &task]));
    air.wait_record("j", "child", Status::Failed).await;
    ok(&mut air.airx(&["retry", "j", "child"]));
    air.wait_record("j", "child", Status::Succeeded).await;
    let records = air.records("j").await;
    let child = records
        .iter()
        .filter(|(_, record)| record.task.as_str() == "child");
    for (_, record) in child {
        assert_eq!(record.parent.as_deref(), Some("j/parent"), "{record:?}");
        assert_eq!(record.traceparent.as_deref(), Some(trace), "{record:?}");
    }
}

#[tokio::test]
async fn a_job_whose_records_somebody_purged_goes_on() {
    let air = Installation::start(1).await;
    air.publish("j", r#"{"id":"t","run":"true"}"#).await;
    air.wait_completed("j").await;
    air.publish("j", r#"{"id":"u","run":"true"}"#).await;
    air.wait_completed("j").await;
    let purge = [
        "stream",
        "purge",
        "AIR",
        "--subject",
        "air.results.j.u",
        "--force",
    ];
    ok(&mut air.nats_cli(&purge));
    air.spec("j", r#"{"lease_ttl":"3s"}"#).await;
    // The key may have counted it by now, or still name it.
    air.publish("j", r#"{"id":"v","run":"true"}"#).await;
    air.wait_record("j", "v", Status::Succeeded).await;
}
