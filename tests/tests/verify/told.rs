//! Each claim and each end of a lease is told by an event with its fence, whoever it was.

use std::collections::{BTreeMap, BTreeSet};

use air_protocol::event::Kind;
use air_protocol::record::Status;
use air_tests::{Installation, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// The fences of the events of some kinds.
async fn fences(air: &Installation, job: &str, kinds: &[Kind]) -> BTreeMap<u64, usize> {
    let mut fences = BTreeMap::new();
    for event in air.events(Some(job)).await {
        if event.known_kind().is_some_and(|kind| kinds.contains(&kind)) {
            *fences.entry(event.data.fence.unwrap()).or_default() += 1;
        }
    }
    fences
}

/// Waits until each claim of the job was told once, and its end once; gives the fences.
async fn all_told(air: &Installation, job: &str) -> BTreeSet<u64> {
    wait_for("end of each claim", async || {
        let claims = fences(air, job, &[Kind::Claimed]).await;
        let ends = fences(air, job, &[Kind::Released, Kind::Recovered]).await;
        let once = claims.values().all(|times| *times == 1);
        if once && claims == ends {
            Ok(claims.into_keys().collect())
        } else {
            Err((claims, ends))
        }
    })
    .await
}

#[tokio::test]
async fn every_claim_and_every_end_is_told() {
    let air = Installation::start(1).await;
    let file = air.server.folder().join("runner");
    let spec = r#"{"lease_ttl":"3s","on_failure":"continue","retry":{"max":1,"backoff":"10ms"}}"#;
    air.spec("j", spec).await;
    let victim = format!(
        "test $AIR_ATTEMPT -ge 2 || {{ echo $PPID > {0}.new; mv {0}.new {0}; exec sleep 600; }}",
        file.display()
    );
    for task in [
        json!({"id": "bad", "run": "exit 1"}),
        json!({"id": "because", "run": "true", "needs": ["bad"]}),
        json!({"id": "victim", "run": victim}),
        json!({"id": "misspelt", "runs": "true"}),
        json!({"id": "parent", "run": "airx task add -- true"}),
    ] {
        air.publish("j", &task.to_string()).await;
    }
    let pid = wait_for("runner", async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.trim().parse().map_err(|_| text)
    })
    .await;
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    air.wait_record("j", "victim", Status::Succeeded).await;
    air.wait_completed("j").await;
    let told = all_told(&air, "j").await;
    let records = air.records("j").await;
    let recorded: BTreeSet<_> = records
        .iter()
        .filter_map(|(_, record)| record.fence)
        .collect();
    assert_eq!(told, recorded, "each claim here left a record");
    let lost = fences(&air, "j", &[Kind::Lost]).await;
    assert_eq!(lost.len(), 1, "{lost:?}");
}

#[tokio::test]
async fn a_claim_whose_runner_cannot_be_started_is_told_to_be_over() {
    let air = Installation::start(1).await;
    let task = r#"{"id":"t","run":"true","backend":"process","image":"no-process-has-one","retry":{"max":0}}"#;
    air.publish("j", task).await;
    // Then nothing more is claimed, and what was claimed is told to be over by a manager that lives.
    air.wait_record("j", "t", Status::Failed).await;
    assert!(!all_told(&air, "j").await.is_empty());
}
