//! Histories that the system wrote, with all that may happen to a job in them: nothing is refuted.

use std::path::PathBuf;

use air_protocol::job::JobStatus;
use air_protocol::record::Status;
use air_tests::{Installation, check, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::verify;

#[tokio::test]
async fn a_mixed_history_is_proven() {
    let air = Installation::start(2).await;
    air.spec(
        "j",
        r#"{"lease_ttl":"3s","on_failure":"continue","retry":{"max":1,"backoff":"10ms"}}"#,
    )
    .await;
    air.spec("wide", r#"{"paused":true}"#).await;
    let spread = r#"airx task add --id child -- true; airx task add --job k -- true"#;
    let wide =
        r#"for i in $(seq 1100); do echo "{\"run\":\"true\",\"job\":\"wide\"}"; done > $AIR_TASKS"#;
    let soon = air_protocol::time::Time::from(std::time::SystemTime::now())
        .after(std::time::Duration::from_secs(2));
    let file = pid_file(&air);
    let victim = format!(
        "test $AIR_ATTEMPT -ge 2 || {{ echo $PPID > {}.new; mv {0}.new {0}; sleep 600; }}",
        file.display()
    );
    for task in [
        json!({"id": "spread", "run": spread}),
        json!({"id": "flaky", "run": "test $AIR_ATTEMPT -eq 2"}),
        json!({"id": "after", "run": "true", "needs": ["flaky", "k/none-such"]}),
        json!({"id": "bad", "run": "exit 1"}),
        json!({"id": "because", "run": "true", "needs": ["bad"]}),
        json!({"id": "late", "run": "true", "not_before": soon}),
        json!({"id": "later", "run": "test $AIR_ATTEMPT -eq 2 || exit 75"}),
        json!({"id": "wide", "run": wide}),
        json!({"id": "victim", "run": victim}),
    ] {
        air.publish("j", &task.to_string()).await;
    }
    air.publish("j", r#"{"runs":"misspelt"}"#).await;
    air.publish("j", r#"{"id":"flaky","run":"true"}"#).await;
    kill(runner(&file).await, Signal::SIGKILL).unwrap();
    air.wait_record("j", "because", Status::Skipped).await;
    air.wait_record("j", "victim", Status::Succeeded).await;
    assert!(
        air.airx(&["cancel", "j", "after"])
            .status()
            .unwrap()
            .success()
    );
    let state = air.wait_completed("j").await;
    assert!(state.ledger.counters.losses > 0);
    verify(&air, &["j"]).is_proven();

    assert!(air.airx(&["retry", "j", "bad"]).status().unwrap().success());
    air.wait_state("j", |state| {
        state.ledger.counters.skipped > 0 && matches!(state.status, JobStatus::Completed { .. })
    })
    .await;
    cancel_while_it_runs(&air).await;
    let said = verify(&air, &[]);
    said.is_proven();
    assert_eq!(said.json["jobs"], 4, "{:#}", said.json);
    assert_eq!(said.json["working"], 1, "the paused one: {:#}", said.json);
    assert_eq!(verify(&air, &["--strict"]).code, 0);
    check(&air).await;
}

fn pid_file(air: &Installation) -> PathBuf {
    air.server.folder().join("runner")
}

/// The runner of the task that waits to be killed.
async fn runner(file: &PathBuf) -> Pid {
    let pid = wait_for("runner", async || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.trim().parse().map_err(|_| text)
    })
    .await;
    Pid::from_raw(pid)
}

async fn cancel_while_it_runs(air: &Installation) {
    for task in ["sleep 600", "true", "true"] {
        air.publish("c", &json!({ "run": task }).to_string()).await;
    }
    air.wait_state("c", |state| {
        state
            .lease()
            .is_some_and(|lease| lease.phase.as_str() == "running")
    })
    .await;
    assert!(air.airx(&["cancel", "c"]).status().unwrap().success());
}

#[tokio::test]
async fn a_job_at_work_is_checked_as_far_as_it_has_gone() {
    let air = Installation::start(1).await;
    let again = r#"{"run":"test $AIR_ATTEMPT -eq 2","retry":{"backoff":"1ms"}}"#;
    for _ in 0..30 {
        air.publish("j", r#"{"exec":["true"]}"#).await;
        air.publish("j", again).await;
    }
    let file = pid_file(&air);
    let held = format!(
        "echo $PPID > {}.new; mv {0}.new {0}; sleep 600",
        file.display()
    );
    air.publish("j", &json!({"id": "held", "run": held}).to_string())
        .await;
    air.publish("j", r#"{"id":"next","run":"true"}"#).await;
    // While it works its key and queue change under the reading.
    let mut looks = 0;
    while !file.exists() {
        verify(&air, &["j"]).is_proven();
        looks += 1;
    }
    assert!(looks > 0);
    let said = verify(&air, &["j"]);
    said.is_proven();
    assert_eq!(said.json["working_jobs"], json!(["j (working/running)"]));
    let table = air.airx(&["verify", "j"]).output().unwrap();
    let (out, err) = (
        String::from_utf8(table.stdout).unwrap(),
        String::from_utf8(table.stderr).unwrap(),
    );
    assert!(out.contains("I1 one-runner      proven"), "{out}");
    assert!(
        err.contains("as far as they have gone: j (working/running)"),
        "{err}"
    );
    assert!(air.airx(&["cancel", "j"]).status().unwrap().success());
    verify(&air, &["j"]).is_proven();
}

#[tokio::test]
async fn records_prove_it_without_any_event() {
    let air = Installation::start(1).await;
    for _ in 0..3 {
        air.publish("j", r#"{"exec":["true"]}"#).await;
    }
    air.wait_completed("j").await;
    let events = air.nats.names().events_stream();
    air.nats.purge(&events, "air.events.>", None).await.unwrap();
    verify(&air, &["j", "--strict"]).is_proven();
    let removed = air.airx(&["rm", "j", "-y"]).status().unwrap();
    assert!(removed.success());
    let gone = air.airx(&["verify", "j"]).output().unwrap();
    assert_eq!(gone.status.code(), Some(3), "{gone:?}");
}

#[tokio::test]
async fn a_job_that_was_removed_and_made_anew_is_not_accused_of_its_former_children() {
    let air = Installation::start(1).await;
    air.spec("k", r#"{"paused":true}"#).await;
    let once = r#"{"id":"all","run":"airx task add --job k -- true"}"#;
    air.publish("j", once).await;
    air.wait_completed("j").await;
    verify(&air, &["--strict"]).is_proven();
    assert!(air.airx(&["rm", "j", "-y"]).status().unwrap().success());
    verify(&air, &[]).doubts("I5");
    air.publish("j", r#"{"id":"other","run":"true"}"#).await;
    air.wait_completed("j").await;
    verify(&air, &[]).doubts("I5");
    air.publish("j", once).await;
    air.wait_completed("j").await;
    verify(&air, &[]).doubts("I5");
}
