//! Records and keys that nobody can read: garbage is passed over, and what a newer version wrote is left alone.

use std::path::PathBuf;

use air_nats::jobs::Key;
use air_protocol::record::Status;
use air_tests::{Installation, Program, check, wait_for};

/// An installation whose manager tells its errors in a file.
async fn told() -> (Installation, PathBuf) {
    let mut air = Installation::start(0).await;
    let log = air.server.folder().join("manager.log");
    let mut command = air.manager_command(&[]);
    command.stderr(std::fs::File::create(&log).unwrap());
    air.managers.push(Program::start(&mut command));
    (air, log)
}

/// Does something with the `nats` command line.
fn nats(air: &Installation, arguments: &[&str]) {
    let output = air.nats_cli(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// What `airx` says when it refuses something.
fn refused(air: &Installation, arguments: &[&str]) -> String {
    let output = air.airx(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

async fn is_told(log: &PathBuf, texts: &[&str]) {
    wait_for("a line of the manager", async || {
        let log = std::fs::read_to_string(log).unwrap();
        let told = |line: &str| texts.iter().all(|text| line.contains(text));
        if log.lines().any(told) {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
}

const VERSION: &str = "its version `v` is 2, but this version of Air-Executor knows only 1";

#[tokio::test]
async fn hundreds_of_unreadable_records_stop_nothing() {
    let (air, _) = told().await;
    air.publish("j", r#"{"id":"a","run":"true"}"#).await;
    air.wait_completed("j").await;
    nats(&air, &["pub", "air.results.j.x", "nonsense", "--count=300"]);
    air.publish("j", r#"{"id":"b","run":"true"}"#).await;
    air.wait_completed("j").await;
    check(&air).await;
    assert_eq!(air.records("j").await.len(), 2);
    air.publish(
        "j",
        r#"{"id":"c","run":"true","not_before":"2099-01-01T00:00:00.000Z"}"#,
    )
    .await;
    nats(&air, &["pub", "air.results.j.x", "nonsense", "--count=300"]);
    air.wait_record("j", "c", Status::Retrying).await;
    for verb in [&["cancel", "j"][..], &["rm", "--yes", "j"]] {
        let output = air.airx(verb).args(["--timeout", "30s"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert!(air.records("j").await.is_empty());
}

#[tokio::test]
async fn a_record_of_a_newer_version_keeps_managers_of_this_one_from_its_job() {
    let (air, log) = told().await;
    air.publish("j", r#"{"id":"a","run":"true"}"#).await;
    let before = air.wait_completed("j").await;
    let newer = r#"{"v":2,"task":"n","status":"pondered"}"#;
    nats(&air, &["pub", "air.results.j.n", newer]);
    let seq = air.publish("j", r#"{"id":"b","run":"true"}"#).await;
    is_told(&log, &["left to managers", "air.results.j.n", VERSION]).await;
    air.publish("other", r#"{"run":"true"}"#).await;
    air.wait_completed("other").await;
    assert!(air.record("j", "b").await.is_none(), "it did not run");
    assert_eq!(air.state("j").await, Some(before), "the key is as it was");
    let text = refused(&air, &["export", "j"]);
    assert!(text.contains(VERSION), "{text}");
    let number = (seq - 1).to_string();
    nats(&air, &["stream", "rmm", "AIR", &number, "--force"]);
    air.wait_completed("j").await;
    check(&air).await;
}

#[tokio::test]
async fn a_key_of_a_newer_version_is_neither_rebuilt_nor_changed() {
    let (air, log) = told().await;
    let newer = r#"{"v":2,"status":"pondering"}"#;
    nats(&air, &["kv", "put", "air-jobs", "j", newer]);
    air.publish("j", r#"{"id":"a","run":"true"}"#).await;
    is_told(&log, &["left to managers", VERSION]).await;
    air.publish("other", r#"{"run":"true"}"#).await;
    air.wait_completed("other").await;
    for verb in [
        &["cancel", "j"][..],
        &["retry", "j"],
        &["rm", "--yes", "j"],
        &["wait", "j"],
    ] {
        let text = refused(&air, verb);
        assert!(text.contains(VERSION), "{verb:?}: {text}");
    }
    for verb in [&["status", "j"][..], &["status"]] {
        let output = air.airx(verb).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(VERSION), "{verb:?}: {text}");
    }
    let key = air.nats.job(&"j".parse().unwrap()).await.unwrap();
    assert!(matches!(key, Key::Newer(1, _)), "{key:?}");
    assert!(air.record("j", "a").await.is_none(), "it did not run");
}
