//! Clocks that jump, under managers and runners: no lease is judged by the wall clock, and a runner whose
//! machine was suspended knows that its lease may be over.

use std::time::{Duration, Instant};

use air_protocol::limits::KILL_GRACE;
use air_protocol::record::Status;
use air_tests::{Installation, check, wait_for};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{ends_well, exists, file, noted, running, runs, short_leases};

const DAY: i64 = 24 * 3600;

#[tokio::test]
async fn a_wall_clock_that_jumps_by_days_changes_nothing() {
    let mut air = short_leases(0).await;
    air.shift_clocks(0, 0);
    air.add_manager_of_a_fake_clock(&[], None);
    let line = "while ! test -e go; do sleep 0.05; done";
    air.publish("long", &noted(&air, "long", line).to_string())
        .await;
    running(&air, "long").await;
    for number in 0..60 {
        let task = json!({ "id": format!("t{number}"), "exec": ["true"] });
        air.publish("j", &task.to_string()).await;
    }
    for (done, wall) in [(10, DAY), (25, -DAY), (40, 0)] {
        air.wait_state("j", |state| state.ledger.counters.succeeded >= done)
            .await;
        air.shift_clocks(wall, 0);
    }
    air.wait_completed("j").await;
    std::fs::write(file(&air, "go"), "").unwrap();
    air.wait_completed("long").await;
    let records = air.records("j").await;
    assert_eq!(records.len(), 60);
    assert!(
        records
            .iter()
            .all(|(_, record)| record.status == Status::Succeeded)
    );
    assert_eq!(
        runs(&air, "long"),
        1,
        "no lease was judged by the wall clock"
    );
    check(&air).await;
}

#[tokio::test]
async fn a_hold_by_a_clock_far_ahead_does_not_hold_the_job_for_a_day() {
    let mut air = short_leases(0).await;
    air.shift_clocks(DAY, 0);
    let died = file(&air, "died");
    air.add_manager_of_a_fake_clock(&[], Some(&died));
    air.publish("j", &noted(&air, "t", "true").to_string())
        .await;
    exists(&died).await;
    air.wait_state("j", |state| state.failed_starts > 0).await;
    air.shift_clocks(0, 0);
    ends_well(&air, &["t"]).await;
}

#[tokio::test]
async fn a_retry_is_due_by_the_clock_of_the_server() {
    let mut air = short_leases(0).await;
    for (id, wall) in [("ahead", DAY), ("behind", -DAY)] {
        air.shift_clocks(wall, 0);
        if air.managers.is_empty() {
            air.add_manager_of_a_fake_clock(&[], None);
        }
        let retry = json!({ "backoff": "2s" });
        let line = "test $AIR_ATTEMPT -eq 2";
        let task = json!({ "id": id, "run": line, "retry": retry });
        air.publish("j", &task.to_string()).await;
        air.wait_completed("j").await;
        let records = air.records("j").await;
        let [.., (_, failed), (_, again)] = &records[..] else {
            panic!("{records:?}")
        };
        let (due, queued) = (failed.retry_at.unwrap(), again.queued.unwrap());
        assert!(due <= queued, "{id}: {failed:?}");
        let late = queued.since(due);
        assert!(late < Duration::from_secs(120), "{id}: {late:?}");
    }
    check(&air).await;
}

#[tokio::test]
async fn a_job_whose_lease_a_clock_far_ahead_took_is_removed_within_a_lease() {
    let mut air = short_leases(0).await;
    air.shift_clocks(DAY, 0);
    air.add_manager_of_a_fake_clock(&[], None);
    let line = "test $AIR_ATTEMPT -eq 2 || sleep 600";
    air.publish("j", &noted(&air, "t", line).to_string()).await;
    crate::murder(running(&air, "t").await);
    let state = air.wait_completed("j").await;
    assert!(state.zombie_until.is_some());
    air.shift_clocks(0, 0);
    let rm = ["rm", "--yes", "--timeout", "40s", "j"];
    let removed = air.airx(&rm).output().unwrap();
    assert!(removed.status.success(), "{removed:?}");
    assert!(air.records("j").await.is_empty());
}

#[tokio::test]
async fn a_runner_whose_machine_was_suspended_ends_its_task_at_once() {
    let mut air = Installation::start(0).await;
    air.shift_clocks(0, 0);
    air.add_manager_of_a_fake_clock(&[], None);
    let line = "test $AIR_ATTEMPT -eq 2 || { setsid sleep 600 & sleep 600; }";
    air.publish("j", &noted(&air, "t", line).to_string()).await;
    let runner = running(&air, "t").await;
    // Nobody can tell it whether its lease is still its own.
    air.server.program().signal(Signal::SIGSTOP);
    let asleep = Instant::now();
    air.shift_clocks(3600, 3600);
    wait_for("end of the runner", async || {
        match nix::sys::signal::kill(runner, None) {
            Err(_) => Ok(()),
            Ok(()) => Err("it lives"),
        }
    })
    .await;
    let took = asleep.elapsed();
    assert!(
        took < KILL_GRACE,
        "long before 18 s of a clock that stood still: {took:?}"
    );
    air.server.program().signal(Signal::SIGCONT);
    ends_well(&air, &["t"]).await;
    let records = air.records("j").await;
    let statuses: Vec<_> = records.iter().map(|(_, record)| record.status).collect();
    assert_eq!(statuses, [Status::Retrying, Status::Succeeded]);
    assert!(records[0].1.lost && records[0].1.exit.is_none());
    assert_eq!(runs(&air, "t"), 2);
}
