//! What proves nothing and refutes nothing: it is not proven, and says why.

use air_protocol::record::Record;
use air_tests::Installation;
use serde_json::Value;
use uuid::Uuid;

use crate::{Said, verify};

/// A job with three tasks that are done, and nobody who goes on with it.
async fn done() -> Installation {
    let mut air = Installation::start(1).await;
    for id in ["a", "b", "c"] {
        let task = format!(r#"{{"id":"{id}","exec":["true"]}}"#);
        air.publish("j", &task).await;
    }
    air.wait_completed("j").await;
    air.managers.clear();
    verify(&air, &["j"]).is_proven();
    air
}

/// It is not proven for this reason, and nothing is refuted.
#[track_caller]
fn assert_doubt(said: &Said, invariant: &str, why: &str) {
    said.doubts(invariant);
    let all = said.json["invariants"].as_array().unwrap();
    let of_it = |one: &&Value| one["invariant"].as_str().unwrap().starts_with(invariant);
    let doubts = all.iter().find(of_it).unwrap()["not_proven"].to_string();
    assert!(doubts.contains(why), "{doubts}");
}

fn store(air: &Installation, subject: &str, text: &str) {
    let stored = air
        .nats_cli(&["pub", "--jetstream", subject, text])
        .output()
        .unwrap();
    assert!(stored.status.success(), "{stored:?}");
}

#[tokio::test]
async fn a_fence_that_no_event_tells_of_is_not_proven() {
    let air = done().await;
    let (seq, last) = air.records("j").await.pop().unwrap();
    let key = air.nats.job(&"j".parse().unwrap()).await.unwrap();
    let forged = Record {
        task: "x".parse().unwrap(),
        run: Some(Uuid::now_v7()),
        fence: Some(key.revision()),
        released: Some(seq),
        ..last
    };
    let text = serde_json::to_string(&forged).unwrap();
    store(&air, "air.results.j.x", &text);
    let said = verify(&air, &["j"]);
    assert_doubt(&said, "I1", "no event tells of its claim");
    assert_doubt(&said, "I8", "not counted yet");
    assert_eq!(verify(&air, &["j", "--strict"]).code, 1);
}

#[tokio::test]
async fn a_record_of_an_older_version_is_not_proven() {
    let air = done().await;
    for (seq, mut record) in air.records("j").await {
        air.nats.delete(seq).await.unwrap();
        record.released = None;
        let text = serde_json::to_string(&record).unwrap();
        store(&air, &format!("air.results.j.{}", record.task), &text);
    }
    let said = verify(&air, &["j"]);
    let all = said.json["invariants"].as_array().unwrap();
    let why = all[0]["not_proven"][0]["why"].as_str().unwrap();
    assert!(why.contains("older version"), "{why}");
}

#[tokio::test]
async fn what_cannot_be_read_is_not_proven() {
    let air = done().await;
    store(&air, "air.results.j.odd", r#"{"v":99}"#);
    assert_doubt(&verify(&air, &["j"]), "I2", "cannot be read");
}

#[tokio::test]
async fn a_job_without_its_key_is_not_proven() {
    let air = done().await;
    let deleted = air
        .nats_cli(&["kv", "del", "air-jobs", "j", "--force"])
        .output()
        .unwrap();
    assert!(deleted.status.success(), "{deleted:?}");
    assert_doubt(&verify(&air, &["j"]), "I8", "has no key");
    assert_eq!(verify(&air, &["j"]).verdict("I2"), "proven");
}

#[tokio::test]
async fn a_duplicate_and_a_task_that_nobody_saw_yet_are_no_violation() {
    let air = done().await;
    air.publish("j", r#"{"id":"a","run":"true"}"#).await;
    verify(&air, &["j", "--strict"]).is_proven();
    air.publish("j", r#"{"id":"new","run":"true"}"#).await;
    assert_doubt(&verify(&air, &["j"]), "I8", "no manager has looked at yet");
}
