//! Servers that die, freeze, and come back.

use std::time::Duration;

use air_protocol::record::Status;
use air_tests::{
    HANGS, Installation, check, check_no_process, time_passes, try_output, wait_for,
    wait_for_within,
};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{back, ends_well, file, noted, running, runs, short_leases};

/// Publishes tasks to two jobs, one of which queues a sub-task with each.
async fn publish_many(air: &Installation, tasks: usize) {
    for number in 0..tasks {
        let id = format!("t{number}");
        let queues = format!(r#"echo '{{"id":"s{number}","exec":["true"]}}' >> $AIR_TASKS"#);
        air.publish("j", &json!({ "id": id, "run": queues }).to_string())
            .await;
        air.publish("k", &json!({ "id": id, "exec": ["true"] }).to_string())
            .await;
    }
}

/// Every task of both jobs succeeded with one final record.
async fn all_once(air: &Installation, tasks: usize) {
    for (job, wanted) in [("j", 2 * tasks), ("k", tasks)] {
        let state = air.wait_completed_within(job, HANGS).await;
        let counters = state.ledger.counters;
        assert_eq!(
            (counters.succeeded, counters.tasks()),
            (wanted as u64, wanted as u64)
        );
        let records = air.records(job).await;
        let finals = records
            .iter()
            .filter(|(_, record)| record.status.is_final());
        assert_eq!(finals.count(), wanted);
        assert!(
            records
                .iter()
                .all(|(_, record)| record.status != Status::Failed)
        );
    }
    check_no_process(air).await;
    check(air).await;
}

#[tokio::test]
async fn a_server_killed_in_the_middle_loses_nothing() {
    let mut air = Installation::start(2).await;
    publish_many(&air, 100).await;
    for done in [20, 60] {
        air.wait_state("k", |state| state.ledger.counters.succeeded >= done)
            .await;
        air.server.restart();
        back(&air).await;
    }
    all_once(&air, 100).await;
}

#[tokio::test]
async fn a_server_frozen_for_seconds_loses_nothing() {
    let mut air = short_leases(1).await;
    publish_many(&air, 30).await;
    air.publish(
        "l",
        &noted(&air, "long", "while ! test -e go; do sleep 0.05; done").to_string(),
    )
    .await;
    running(&air, "long").await;
    air.wait_state("k", |state| state.ledger.counters.succeeded >= 10)
        .await;
    air.server.program().signal(Signal::SIGSTOP);
    time_passes(Duration::from_secs(5)).await;
    air.server.program().signal(Signal::SIGCONT);
    std::fs::write(file(&air, "go"), "").unwrap();
    all_once(&air, 30).await;
    air.wait_completed("l").await;
    assert_eq!(
        runs(&air, "long"),
        1,
        "an outage shorter than the lease of 30 s ends nothing"
    );
}

#[tokio::test]
async fn a_read_outlives_a_server_that_is_silent_for_longer_than_one_answer_may_take() {
    let mut air = Installation::start(1).await;
    air.publish("j", &noted(&air, "t", "echo hi").to_string())
        .await;
    air.wait_completed("j").await;
    let (job, task) = ("j".parse().unwrap(), "t".parse().unwrap());
    air.server.program().signal(Signal::SIGSTOP);
    // A server that is silent for longer counts as lost, and is connected to anew.
    let silent = time_passes(Duration::from_secs(6));
    let reads = async {
        tokio::try_join!(
            air.nats.job(&job),
            air.nats.logs(&job, Some(&task), 1, 1),
            air.nats.logs_end(&job, Some(&task)),
            air.nats.logged(&job),
        )
    };
    let server = air.server.program();
    let ((), read) = tokio::join!(
        async {
            silent.await;
            server.signal(Signal::SIGCONT);
        },
        reads
    );
    let (_, chunks, end, logged) = read.unwrap();
    assert_eq!((chunks.len(), logged.len()), (1, 1));
    assert_eq!(chunks[0].seq, end);
}

#[tokio::test]
async fn a_server_that_is_silent_is_noticed_in_time_to_go_to_another() {
    let mut air = Installation::start(0).await;
    let link = air.nats.link();
    assert!(link.borrow().up);
    air.server.program().signal(Signal::SIGSTOP);
    wait_for_within(HANGS, "lost connection", async || {
        if link.borrow().up {
            Err("it counts as up")
        } else {
            Ok(())
        }
    })
    .await;
    air.server.program().signal(Signal::SIGCONT);
    back(&air).await;
}

#[tokio::test]
async fn a_server_gone_for_longer_than_the_lease_ends_the_run_and_the_task_runs_again() {
    let mut air = short_leases(1).await;
    let line = "test $AIR_ATTEMPT -eq 2 || { setsid sleep 600 & sleep 600; }";
    air.publish("j", &noted(&air, "t", line).to_string()).await;
    let runner = running(&air, "t").await;
    air.server.kill();
    wait_for_within(
        HANGS,
        "end of the runner",
        async || match nix::sys::signal::kill(runner, None) {
            Err(_) => Ok(()),
            Ok(()) => Err("it lives"),
        },
    )
    .await;
    air.server.restart();
    back(&air).await;
    ends_well(&air, &["t"]).await;
    assert_eq!(runs(&air, "t"), 2);
    assert!(air.records("j").await[0].1.lost);
}

#[tokio::test]
async fn a_consumer_that_is_deleted_is_made_anew() {
    let air = short_leases(2).await;
    air.publish("j", &noted(&air, "before", "true").to_string())
        .await;
    air.wait_completed("j").await;
    let remove = ["consumer", "rm", "AIR", "managers", "--force"];
    let deleted = air.nats_cli(&remove).output().unwrap();
    assert!(deleted.status.success(), "{deleted:?}");
    air.publish("j", &noted(&air, "t", "true").to_string())
        .await;
    wait_for("consumer", async || {
        try_output(&mut air.nats_cli(&["consumer", "info", "AIR", "managers"]))
    })
    .await;
    ends_well(&air, &["before", "t"]).await;
}

/// Waits until this many managers are heard of.
async fn heard(air: &Installation, managers: usize) {
    wait_for("heartbeats", async || match air.nats.managers().await {
        Ok(heard) if heard.len() == managers => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// What a command that does its work says on stderr.
fn said(air: &Installation, arguments: &[&str]) -> String {
    let output = air.airx(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn heartbeats_that_a_server_lost_are_back_without_init() {
    let mut air = short_leases(1).await;
    heard(&air, 1).await;
    air.server.restart();
    back(&air).await;
    said(&air, &["submit", "j", "--id", "a", "--", "true"]);
    said(&air, &["wait", "j"]);
    heard(&air, 1).await;
    assert!(!said(&air, &["wait", "j"]).contains("no manager runs"));
    air.managers.clear();
    air.server.restart();
    back(&air).await;
    let text = said(&air, &["submit", "j", "--id", "b", "--", "true"]);
    assert!(text.contains("no manager runs"), "{text}");
    air.add_manager(&[]);
    heard(&air, 1).await;
    ends_well(&air, &["a", "b"]).await;
}
