//! Backups that are made while jobs run, by the command line of NATS, and restored when they are old.

use std::collections::BTreeMap;

use air_tests::{Installation, check, check_no_process, ok, try_output, wait_for};
use serde_json::json;

use crate::{file, noted, runs};

const TASKS: usize = 60;

/// Tasks of two jobs, some of which queue a sub-task or fail at first.
async fn publish_many(air: &Installation) {
    for number in 0..TASKS {
        let line = match number % 6 {
            2 => format!(r#"echo '{{"id":"s{number}","run":"true"}}' >> $AIR_TASKS"#),
            4 => "test $AIR_ATTEMPT -gt 1".to_owned(),
            _ => "true".to_owned(),
        };
        let task = noted(air, &format!("t{number}"), &line);
        let job = if number % 2 == 0 { "j" } else { "k" };
        air.publish(job, &task.to_string()).await;
    }
}

/// The runs of each task that has a final record.
async fn over(air: &Installation) -> BTreeMap<String, usize> {
    let mut over = BTreeMap::new();
    for job in ["j", "k"] {
        for (_, record) in air.records(job).await {
            if record.status.is_final() {
                let task = record.task.to_string();
                over.insert(task.clone(), runs(air, &task));
            }
        }
    }
    over
}

/// Runs tasks, and makes a backup when some are over and others are not; its managers are `at_rest`, or at work.
async fn backed_up(at_rest: bool) -> (Installation, String) {
    let mut air = Installation::start(0).await;
    // Consumed messages stay for longer than a backup takes.
    air.add_manager(&["--sync-interval", "2m"]);
    for job in ["j", "k"] {
        air.spec(job, r#"{"lease_ttl":"3s","retry":{"backoff":"10ms"}}"#)
            .await;
    }
    publish_many(&air).await;
    air.wait_state("j", |state| state.ledger.counters.succeeded >= 8)
        .await;
    let folder = file(&air, "backup").display().to_string();
    if at_rest {
        air.managers.clear();
        check_no_process(&air).await;
    }
    let backup = ["account", "backup", "--consumers", "--force", &folder];
    ok(&mut air.nats_cli(&backup));
    if at_rest {
        air.add_manager(&[]);
    }
    for job in ["j", "k"] {
        air.wait_completed(job).await;
    }
    (air, folder)
}

/// The managers die with the server, and its disk with both; then there is an empty server again.
async fn all_is_gone(air: &mut Installation) {
    air.managers.clear();
    air.server.kill();
    std::fs::remove_dir_all(file(air, "store")).unwrap();
    air.server.restart();
    wait_for("server", async || {
        try_output(&mut air.nats_cli(&["account", "info"]))
    })
    .await;
}

/// What has a final record in the backup runs no more; everything else runs, and ends once.
async fn goes_on_from_the_backup(mut air: Installation) -> Installation {
    wait_for("streams", async || air.nats.jobs_end().await).await;
    let before = over(&air).await;
    assert!(before.len() >= 8, "{before:?}");
    assert!(before.len() < TASKS, "the backup is older: {before:?}");
    // What lies in memory is in no backup, and neither is a stream that was left out.
    assert!(air.airx(&["init"]).output().unwrap().status.success());
    air.add_manager(&[]);
    air.publish("other", &json!({ "run": "true" }).to_string())
        .await;
    for job in ["j", "k", "other"] {
        air.wait_completed(job).await;
    }
    let after = over(&air).await;
    for (task, count) in &before {
        assert_eq!(after[task], *count, "{task} had its final record already");
    }
    let ours = after.keys().filter(|task| task.starts_with('t'));
    assert_eq!(ours.count(), TASKS, "nothing is lost");
    check_no_process(&air).await;
    air
}

/// Loses everything after a backup, restores it, and lets all go on.
async fn restored(at_rest: bool) -> Installation {
    let (mut air, folder) = backed_up(at_rest).await;
    all_is_gone(&mut air).await;
    ok(&mut air.nats_cli(&["account", "restore", &folder]));
    goes_on_from_the_backup(air).await
}

#[tokio::test]
async fn an_older_backup_of_an_account_runs_nothing_again_that_has_a_final_record() {
    check(&restored(true).await).await;
}

/// An account is saved stream by stream, keys after records. So a key may tell of a lease of which the records know
/// nothing: its task is taken for lost, and has its turn before one that was over; and the key may count what is not
/// there. Nothing runs to its end twice all the same, and nothing is lost.
#[tokio::test]
async fn a_backup_made_while_jobs_run_runs_nothing_again_either() {
    restored(false).await;
}
