//! Specs and states that users put by hand, and that are none.

use air_protocol::codec::{MSGPACK, encode};
use air_protocol::record::Status;
use air_protocol::spec::Wire;
use air_tests::{Program, wait_for};
use serde_json::json;

use crate::{goes_on, tolerant};

#[tokio::test]
async fn a_spec_that_cannot_be_read_holds_its_job_and_says_why() {
    let air = tolerant().await;
    let cases = [
        ("not json", "no JSON"),
        (r#"{"lease_tll":"3s"}"#, "did you mean `lease_ttl`?"),
        (r#"{"lease_ttl":"1s"}"#, "lease_ttl"),
        (r#"{"on_failure":"explode"}"#, "on_failure"),
    ];
    for (number, (spec, text)) in cases.into_iter().enumerate() {
        let job = format!("bad{number}");
        let put = air
            .nats_cli(&["kv", "put", "air-specs", &job, spec])
            .output();
        assert!(put.unwrap().status.success());
        air.publish(&job, r#"{"id":"t","run":"true"}"#).await;
        air.publish("other", r#"{"run":"true"}"#).await;
        air.wait_completed("other").await;
        assert!(
            air.record(&job, "t").await.is_none(),
            "{job} must not be claimed"
        );
        for verb in ["status", "spec"] {
            let output = air.airx(&[verb, &job]).output().unwrap();
            let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
            said += &String::from_utf8_lossy(&output.stderr);
            assert!(
                said.contains(text),
                "airx {verb} {job} says nothing of `{text}`: {said}"
            );
        }
        let mended = air
            .nats_cli(&["kv", "put", "air-specs", &job, "{}"])
            .output();
        assert!(mended.unwrap().status.success());
        air.wait_completed(&job).await;
        assert_eq!(
            air.record(&job, "t").await.unwrap().status,
            Status::Succeeded
        );
    }
    goes_on(&air).await;
}

#[tokio::test]
async fn a_state_that_is_none_is_built_anew_from_the_records() {
    let air = tolerant().await;
    air.spec(
        "j",
        r#"{"on_failure":"continue","retry":{"max":0},"lease_ttl":"3s"}"#,
    )
    .await;
    for (id, line) in [("a", "true"), ("b", "exit 1")] {
        air.publish("j", &format!(r#"{{"id":"{id}","run":"{line}"}}"#))
            .await;
    }
    let before = air.wait_completed("j").await.ledger;
    for value in ["garbage", "{}", r#"{"v":1,"status":"working"}"#] {
        let put = air
            .nats_cli(&["kv", "put", "air-jobs", "j", value])
            .output();
        assert!(put.unwrap().status.success());
        let state = air.wait_completed("j").await;
        assert_eq!(state.ledger.counters, before.counters, "after {value}");
    }
    goes_on(&air).await;
}

#[tokio::test]
async fn a_record_of_a_newer_version_holds_its_job_until_somebody_understands_it() {
    let air = tolerant().await;
    let record = r#"{"v":2,"task":"t","status":"succeeded"}"#;
    let mut publish = air.nats_cli(&["pub", "air.results.j.t", record]);
    assert!(publish.output().unwrap().status.success());
    let task = json!({ "id": "t", "run": "echo >> ran", "cwd": air.server.folder() });
    air.publish("j", &task.to_string()).await;
    for number in 0..5 {
        air.publish("other", &format!(r#"{{"id":"t{number}","run":"true"}}"#))
            .await;
    }
    air.wait_completed("other").await;
    let show = air.airx(&["show", "j", "t"]).output().unwrap();
    assert!(!show.status.success());
    let text = String::from_utf8(show.stderr).unwrap();
    assert!(text.contains("air.results.j.t"), "{text}");
    let stream = air.nats.names().stream();
    air.nats
        .purge(&stream, "air.results.j.t", None)
        .await
        .unwrap();
    air.wait_completed("j").await;
    let ran = std::fs::read(air.server.folder().join("ran")).unwrap();
    assert_eq!(
        ran.len(),
        1,
        "it ran once, when nothing spoke against it any more"
    );
    goes_on(&air).await;
}

/// A task whose input takes one byte a character in MessagePack, and six in JSON: 3 MB, more than a server takes.
fn larger_in_json(id: &str, line: &str, needs: &[&str]) -> Vec<u8> {
    let input = "\u{1}".repeat(500_000);
    let task = json!({ "id": id, "run": line, "needs": needs, "input": input });
    encode(Wire::Msgpack, &task)
}

#[tokio::test]
async fn a_record_that_is_too_large_in_json_is_written_all_the_same() {
    let air = tolerant().await;
    let dies_first = "test $AIR_ATTEMPT -eq 2 || kill -9 $PPID";
    for (id, line, needs, status) in [
        ("runs", "exit 3", &[][..], Status::Failed),
        ("skipped", "true", &["runs"], Status::Skipped),
        ("dies", dies_first, &[], Status::Succeeded),
    ] {
        let task = larger_in_json(id, line, needs);
        air.publish_as("j", Some(MSGPACK), &task).await;
        let record = air.wait_record("j", id, status).await;
        let input = record.spec.and_then(|task| task.input);
        assert_eq!(input.unwrap().as_str().map(str::len), Some(500_000));
    }
    goes_on(&air).await;
}

#[tokio::test]
async fn a_task_that_is_too_large_in_json_is_cancelled_all_the_same() {
    let air = tolerant().await;
    air.spec("k", r#"{"paused":true}"#).await;
    let task = larger_in_json("never", "true", &[]);
    air.publish_as("k", Some(MSGPACK), &task).await;
    let mut cancel = Program::start(&mut air.airx(&["cancel", "k"]));
    air.wait_state("k", |state| state.name() == "cancelled")
        .await;
    let record = air.record("k", "never").await.unwrap();
    assert_eq!(record.status, Status::Cancelled);
    wait_for("end of `airx cancel`", async || {
        if cancel.has_ended() {
            Ok(())
        } else {
            Err("it waits")
        }
    })
    .await;
    goes_on(&air).await;
}
