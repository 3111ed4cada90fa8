//! Records go when their time (`keep`) is over; what they counted stays.

use std::time::SystemTime;

use air_nats::commit::{Commit, Committed};
use air_protocol::record::{Record, Status};
use air_protocol::spec::Wire;
use air_protocol::time::Time;
use air_tests::{Installation, wait_for};

const DAY: u64 = 24 * 3600 * 1000;

/// A record as it was committed `days` ago.
async fn commit_days_ago(air: &Installation, task: &str, status: Status, days: u64) -> u64 {
    let now = Time::from(SystemTime::now()).as_millis();
    let ended = Time::from_millis(now - days * DAY);
    let record = Record::new(task.parse().unwrap(), status, 1, ended);
    let commit = Commit {
        job: "j".parse().unwrap(),
        record,
        with: Vec::new(),
        wire: Wire::Json,
    };
    match air.nats.commit(&commit).await.unwrap() {
        Committed::At(seq) => seq,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn old_records_go_and_stay_counted() {
    let mut air = Installation::start(0).await;
    commit_days_ago(&air, "old", Status::Succeeded, 9).await;
    let last = commit_days_ago(&air, "older", Status::Cancelled, 8).await;
    commit_days_ago(&air, "young", Status::Succeeded, 6).await;
    air.publish("j", r#"{"id":"new","run":"true"}"#).await;
    air.add_manager(&[]);
    air.wait_completed("j").await;
    let left = wait_for("purge", async || {
        let records = air.records("j").await;
        let tasks: Vec<_> = records
            .iter()
            .map(|(_, record)| record.task.to_string())
            .collect();
        if tasks == ["young", "new"] {
            Ok(tasks)
        } else {
            Err(tasks)
        }
    })
    .await;
    let ledger = air.state("j").await.unwrap().ledger;
    assert_eq!(
        (ledger.counters.succeeded, ledger.counters.cancelled),
        (3, 1),
        "{left:?}"
    );
    assert_eq!(ledger.purged_to, last);
    assert_eq!(ledger.purged.unwrap().finished(), 2);
}

#[tokio::test]
async fn a_record_that_a_task_needs_stays() {
    let mut air = Installation::start(0).await;
    commit_days_ago(&air, "needed", Status::Succeeded, 9).await;
    air.publish(
        "j",
        r#"{"id":"waits","run":"true","needs":["needed","missing"]}"#,
    )
    .await;
    air.publish("j", r#"{"id":"new","run":"true"}"#).await;
    air.add_manager(&[]);
    air.wait_record("j", "new", Status::Succeeded).await;
    assert!(
        air.record("j", "needed").await.is_some(),
        "its need is met, and its record still wanted"
    );
    air.publish("j", r#"{"id":"missing","run":"true"}"#).await;
    air.wait_completed("j").await;
    assert_eq!(
        air.record("j", "waits").await.unwrap().status,
        Status::Succeeded
    );
}

/// More than are looked at in one go.
const MANY: usize = 600;

#[tokio::test]
async fn however_many_are_old_they_go_at_once() {
    let mut air = Installation::start(0).await;
    for number in 0..2 * MANY {
        commit_days_ago(&air, &format!("t{number}"), Status::Succeeded, 9).await;
    }
    air.publish("j", r#"{"id":"new","run":"true"}"#).await;
    air.add_manager(&[]);
    air.wait_completed("j").await;
    all_gone_but(&air, "new").await;
    let ledger = air.state("j").await.unwrap().ledger;
    assert_eq!(ledger.counters.succeeded, 2 * MANY as u64 + 1);
    assert_eq!(ledger.purged.unwrap().succeeded, 2 * MANY as u64);
}

#[tokio::test]
async fn a_task_that_was_tried_again_much_later_holds_nothing_up() {
    let mut air = Installation::start(0).await;
    let first = commit_days_ago(&air, "again", Status::Retrying, 9).await;
    for number in 0..MANY {
        commit_days_ago(&air, &format!("t{number}"), Status::Succeeded, 9).await;
    }
    let now = Time::from(SystemTime::now()).as_millis();
    let (ended, task) = (Time::from_millis(now - DAY), "again".parse().unwrap());
    let mut record = Record::new(task, Status::Succeeded, 2, ended);
    (record.after, record.previous) = (first, Some(Status::Retrying));
    let commit = Commit {
        job: "j".parse().unwrap(),
        record,
        with: Vec::new(),
        wire: Wire::Json,
    };
    let committed = air.nats.commit(&commit).await.unwrap();
    assert!(matches!(committed, Committed::At(_)), "{committed:?}");
    air.add_manager(&[]);
    air.publish("j", r#"{"id":"new","run":"true"}"#).await;
    air.wait_completed("j").await;
    let left = wait_for("purge", async || match air.records("j").await {
        left if left.len() == 2 => Ok(left),
        left => Err(left.len()),
    })
    .await;
    assert_eq!(left[0].1.task.as_str(), "again");
    let ledger = air.state("j").await.unwrap().ledger;
    assert_eq!(
        (ledger.counters.succeeded, ledger.counters.retrying),
        (MANY as u64 + 2, 0)
    );
    air_tests::check(&air).await;
}

async fn all_gone_but(air: &Installation, task: &str) {
    wait_for("purge", async || match &air.records("j").await[..] {
        [(_, left)] if left.task.as_str() == task => Ok(()),
        left => Err(left.len()),
    })
    .await;
}
