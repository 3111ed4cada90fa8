//! A server whose disk is full: what it cannot store it refuses, and nothing is lost when there is room again.

use air_nats::Error;
use air_tests::{Installation, ServerOptions, wait_for};
use serde_json::json;

use crate::{ends_well, file, noted, running, runs};

/// Publishes large tasks into a paused job until the server takes none; gives the refusal.
async fn fill(air: &Installation) -> Error {
    air.spec("filler", r#"{"paused":true}"#).await;
    let task = json!({ "run": "true", "input": "x".repeat(400_000) }).to_string();
    let job = "filler".parse().unwrap();
    loop {
        let payload = task.clone().into_bytes();
        if let Err(error) = air.nats.publish_task(&job, None, payload, None).await {
            return error;
        }
    }
}

/// A task that runs until it may go on, behind which another one waits.
async fn half_done(air: &Installation) {
    let queues = r#"echo '{"id":"child","run":"true"}' >> $AIR_TASKS"#;
    let line = format!("while ! test -e go; do sleep 0.05; done; {queues}");
    air.publish("j", &noted(air, "t", &line).to_string()).await;
    air.publish("j", &noted(air, "next", "true").to_string())
        .await;
}

/// Lets the task go on and waits until its program has ended; nothing tells of it, since nothing can be stored.
async fn ended_but_not_stored(air: &Installation) {
    std::fs::write(file(air, "go"), "").unwrap();
    wait_for("end of the program", async || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let runs = processes.filter(|process| {
            let folder = std::fs::read_link(process.path().join("cwd"));
            folder.is_ok_and(|folder| folder == air.server.folder())
        });
        if runs.count() == 0 {
            Ok(())
        } else {
            Err("it runs")
        }
    })
    .await;
    assert!(air.record("j", "t").await.is_none());
}

#[tokio::test]
async fn a_server_at_its_limit_refuses_and_goes_on_when_there_is_room() {
    let options = ServerOptions {
        store_max: Some("12MB"),
        ..ServerOptions::default()
    };
    let air = Installation::start_on(options, 1).await;
    half_done(&air).await;
    running(&air, "t").await;
    let text = fill(&air).await.to_string();
    assert!(text.contains("insufficient resources"), "{text}");
    ended_but_not_stored(&air).await;
    let stream = air.nats.names().stream();
    let subject = "air.tasks.filler";
    air.nats.purge(&stream, subject, None).await.unwrap();
    ends_well(&air, &["t", "next", "child"]).await;
    assert_eq!((runs(&air, "t"), air.records("j").await.len()), (1, 3));
}

#[tokio::test]
async fn a_disk_that_was_full_has_lost_nothing_when_its_server_is_back() {
    let options = ServerOptions {
        disk: Some("24m"),
        ..ServerOptions::default()
    };
    let mut air = Installation::start_on(options, 1).await;
    half_done(&air).await;
    running(&air, "t").await;
    let text = fill(&air).await.to_string();
    assert!(text.contains("does not answer in time"), "{text}");
    ended_but_not_stored(&air).await;
    air.server.grow_disk("256m");
    air.server.restart();
    wait_for("server", async || air.nats.jobs_end().await).await;
    ends_well(&air, &["t", "next", "child"]).await;
    assert_eq!((runs(&air, "t"), air.records("j").await.len()), (1, 3));
}
