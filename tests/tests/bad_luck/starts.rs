//! Runners that do not start, through no fault of their task.

use std::process::Command;

use air_protocol::limits::FAILED_STARTS_MAX;
use air_protocol::record::Status;
use air_tests::{Installation, Program, binary, wait_for};

use crate::{ends_well, file, noted, short_leases};

/// Starts a manager whose runners note that they start, and end with `code` until the file `up` is there.
fn manager_with_failing_runners(air: &mut Installation, code: i32) {
    let folder = air.server.folder().display();
    let runner = binary("air-runner");
    let script = format!(
        "#!/bin/sh\necho >> {folder}/starts\ntest -e {folder}/up || exit {code}\nexec {}\n",
        runner.display()
    );
    let (text, program) = (file(air, "text"), file(air, "program"));
    std::fs::write(&text, script).unwrap();
    // By a process of its own: a file that is open for writing here could not be executed.
    let install = Command::new("install").arg(text).arg(&program).status();
    assert!(install.unwrap().success());
    let manager = Program::start(&mut air.manager_command_with(&program, &[]));
    air.managers.push(manager);
}

/// Runners that end with `code` before they start do not bring their task nearer to a failed attempt.
async fn a_start_does_not_count(code: i32) {
    let mut air = short_leases(0).await;
    manager_with_failing_runners(&mut air, code);
    air.publish("j", &noted(&air, "t", "true").to_string())
        .await;
    let state = air
        .wait_state("j", |state| state.start_error.is_some())
        .await;
    assert_eq!(state.failed_starts, 0);
    let error = state.start_error.unwrap();
    assert!(error.contains("could not reach NATS"), "{error}");
    wait_for("starts", async || {
        let starts = std::fs::read_to_string(file(&air, "starts")).unwrap();
        match starts.lines().count() {
            many if many > FAILED_STARTS_MAX as usize => Ok(()),
            few => Err(few),
        }
    })
    .await;
    std::fs::write(file(&air, "up"), "").unwrap();
    ends_well(&air, &["t"]).await;
    let records = air.records("j").await;
    let statuses: Vec<_> = records.iter().map(|(_, record)| record.status).collect();
    assert_eq!(statuses, [Status::Succeeded]);
}

#[tokio::test]
async fn a_runner_without_nats_is_no_failed_start() {
    a_start_does_not_count(69).await;
}

#[tokio::test]
async fn a_runner_that_says_later_is_no_failed_start() {
    a_start_does_not_count(75).await;
}

#[tokio::test]
async fn a_runner_that_ends_by_itself_before_it_starts_is_one() {
    let mut air = short_leases(0).await;
    manager_with_failing_runners(&mut air, 1);
    air.publish("j", &noted(&air, "t", "true").to_string())
        .await;
    air.wait_state("j", |state| state.failed_starts > 0).await;
    std::fs::write(file(&air, "up"), "").unwrap();
    ends_well(&air, &["t"]).await;
}
