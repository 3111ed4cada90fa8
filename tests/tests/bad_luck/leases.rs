//! Leases that are lost: deleted keys, frozen runners, two managers of one name.

use air_protocol::record::Status;
use air_tests::{check, wait_for};
use nix::sys::signal::{Signal, kill};

use crate::{
    ends_well, exists, file, manager_elsewhere, murder, noted, running, runs, short_leases,
    thawed_to_its_end,
};

#[tokio::test]
async fn a_key_that_is_deleted_while_a_task_runs_is_built_anew() {
    let air = short_leases(1).await;
    air.publish("j", &noted(&air, "before", "true").to_string())
        .await;
    air.wait_completed("j").await;
    let line = "test $AIR_ATTEMPT -eq 1 && test ! -e once && touch once && exec sleep 600";
    let line = format!("{line}; true");
    air.publish("j", &noted(&air, "t", &line).to_string()).await;
    let runner = running(&air, "t").await;
    let deleted = air
        .nats_cli(&["kv", "del", "air-jobs", "j", "--force"])
        .output()
        .unwrap();
    assert!(deleted.status.success(), "{deleted:?}");
    // The runner finds its lease gone with its next renewal, and ends its task without a word.
    wait_for("end of the runner", async || match kill(runner, None) {
        Err(_) => Ok(()),
        Ok(()) => Err("it lives"),
    })
    .await;
    ends_well(&air, &["before", "t"]).await;
    assert_eq!(runs(&air, "t"), 2);
    let records = air.records("j").await;
    assert_eq!(
        records.len(),
        2,
        "the first run published nothing: {records:?}"
    );
}

#[tokio::test]
async fn a_task_that_ends_after_its_key_was_deleted_is_committed_once() {
    let air = short_leases(1).await;
    let line = "while ! test -e go; do sleep 0.02; done";
    air.publish("j", &noted(&air, "t", line).to_string()).await;
    running(&air, "t").await;
    let deleted = air
        .nats_cli(&["kv", "del", "air-jobs", "j", "--force"])
        .output()
        .unwrap();
    assert!(deleted.status.success(), "{deleted:?}");
    std::fs::write(file(&air, "go"), "").unwrap();
    ends_well(&air, &["t"]).await;
    assert_eq!(air.records("j").await.len(), 1);
}

#[tokio::test]
async fn a_frozen_runner_publishes_nothing_when_it_thaws() {
    let air = short_leases(1).await;
    let line = r#"test $AIR_ATTEMPT -eq 2 && exit 0; echo '{"id":"ghost","run":"true"}' >> $AIR_TASKS; touch up; while ! test -e go; do sleep 0.02; done"#;
    air.publish("j", &noted(&air, "t", line).to_string()).await;
    let runner = running(&air, "t").await;
    exists(&file(&air, "up")).await;
    kill(runner, Signal::SIGSTOP).unwrap();
    // What it runs goes on and ends, while the runner sleeps.
    std::fs::write(file(&air, "go"), "").unwrap();
    let lost = air.wait_record("j", "t", Status::Succeeded).await;
    assert_eq!(lost.attempt, 2);
    // A manager has killed it by then; where it could not, it finds its lease gone.
    let _ = kill(runner, Signal::SIGCONT);
    ends_well(&air, &["t"]).await;
    let records = air.records("j").await;
    let statuses: Vec<_> = records.iter().map(|(_, record)| record.status).collect();
    assert_eq!(statuses, [Status::Retrying, Status::Succeeded]);
    assert!(records[0].1.lost && records[0].1.run != records[1].1.run);
    assert!(
        air.record("j", "ghost").await.is_none(),
        "its sub-tasks never exist"
    );
}

#[tokio::test]
async fn a_runner_that_no_manager_can_kill_publishes_nothing_when_it_thaws() {
    let mut air = short_leases(0).await;
    air.add_manager(&[]);
    let line =
        "test $AIR_ATTEMPT -eq 2 && exit 0; touch up; while ! test -e go; do sleep 0.02; done";
    air.publish("j", &noted(&air, "t", line).to_string()).await;
    let runner = running(&air, "t").await;
    exists(&file(&air, "up")).await;
    air.managers[0].kill();
    kill(runner, Signal::SIGSTOP).unwrap();
    std::fs::write(file(&air, "go"), "").unwrap();
    manager_elsewhere(&mut air);
    air.wait_record("j", "t", Status::Succeeded).await;
    thawed_to_its_end(runner).await;
    ends_well(&air, &["t"]).await;
    let records = air.records("j").await;
    let statuses: Vec<_> = records.iter().map(|(_, record)| record.status).collect();
    assert_eq!(statuses, [Status::Retrying, Status::Succeeded]);
}

#[tokio::test]
async fn two_managers_of_one_name_do_no_harm() {
    let mut air = short_leases(0).await;
    air.add_manager(&["--id", "twin"]);
    air.add_manager(&["--id", "twin"]);
    for number in 0..40 {
        for job in ["j", "k", "l"] {
            air.publish(job, &format!(r#"{{"id":"t{number}","exec":["true"]}}"#))
                .await;
        }
    }
    air.wait_state("j", |state| state.ledger.counters.succeeded >= 5)
        .await;
    air.managers[0].kill();
    for job in ["j", "k", "l"] {
        let counters = air.wait_completed(job).await.ledger.counters;
        assert_eq!((counters.succeeded, counters.tasks()), (40, 40));
    }
    check(&air).await;
    air.publish(
        "j",
        &noted(&air, "t", "test $AIR_ATTEMPT -eq 2 || sleep 600").to_string(),
    )
    .await;
    murder(running(&air, "t").await);
    ends_well(&air, &["t"]).await;
}
