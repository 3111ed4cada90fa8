//! Managers and runners that die with something reserved.

use air_protocol::record::Status;
use air_tests::{Installation, Program, check, wait_for};

use crate::{account, settled};

/// An installation whose job `j` may have one task at once, and whose first manager, or its first runner, dies at
/// the step; another manager takes over.
async fn dies_at(step: &str, budget: &str) -> Installation {
    let mut air = Installation::start(0).await;
    let spec = format!(r#"{{"lease_ttl":"3s","budget":{budget},"retry":{{"backoff":"10ms"}}}}"#);
    air.spec("j", &spec).await;
    let died = air.server.folder().join("died");
    let mut command = air.manager_command(&[]);
    command.env("AIR_CRASH_AT", format!("{step}@{}", died.display()));
    air.managers.push(Program::start(&mut command));
    air.publish("j", r#"{"id":"t","run":"true"}"#).await;
    wait_for(&format!("death at {step}"), async || {
        died.exists().then_some(()).ok_or("none has died")
    })
    .await;
    air.add_manager(&[]);
    air
}

/// The task ends all the same, and nothing stays reserved.
async fn ends_well(air: &Installation, tasks: u64) {
    air.wait_record("j", "t", Status::Succeeded).await;
    air.wait_completed("j").await;
    let account = settled(air, "j", tasks).await;
    assert_eq!(account.overrun, None);
    check(air).await;
}

#[tokio::test]
async fn a_manager_dies_between_reservation_and_claim() {
    let air = dies_at("reserved", r#"{"tasks":1}"#).await;
    let left = account(&air.nats, "j").await.unwrap();
    assert_eq!(left.reserved.len(), 1, "it holds all that there is");
    ends_well(&air, 1).await;
}

#[tokio::test]
async fn a_manager_dies_between_claim_and_start() {
    let air = dies_at("claimed", r#"{"tasks":1}"#).await;
    ends_well(&air, 1).await;
}

#[tokio::test]
async fn a_runner_dies_when_it_has_begun_to_spend() {
    let air = dies_at("spending", r#"{"tasks":1}"#).await;
    ends_well(&air, 1).await;
    let losses = air.state("j").await.unwrap().ledger.counters.losses;
    assert_eq!(losses, 1);
}

#[tokio::test]
async fn a_runner_dies_between_commit_and_settling() {
    let air = dies_at("committed", r#"{"tasks":1}"#).await;
    ends_well(&air, 1).await;
}
