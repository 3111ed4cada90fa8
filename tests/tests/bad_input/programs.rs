//! Programs that misbehave: each ends in a record that tells, and leaves no process behind.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use air_protocol::limits::LOG_BYTES_MAX;
use air_protocol::record::Status;
use air_tests::check_no_process;
use serde_json::json;

use crate::{failed_saying, goes_on, run, tolerant};

#[tokio::test]
async fn a_program_that_cannot_start_says_why() {
    let air = tolerant().await;
    let folder = air.server.folder();
    let plain = folder.join("plain");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&plain, Permissions::from_mode(0o644)).unwrap();
    let cases = [
        (
            json!({ "exec": ["no-such-program"] }),
            vec!["`no-such-program` was not found", "install"],
        ),
        (
            json!({ "exec": ["/no/such"] }),
            vec!["`/no/such` was not found"],
        ),
        (
            json!({ "exec": [plain] }),
            vec!["is not executable", "chmod +x"],
        ),
        (
            json!({ "exec": [folder] }),
            vec!["is a folder, not a program"],
        ),
        (
            json!({ "exec": ["true"], "cwd": "/no/such" }),
            vec!["`/no/such` does not exist", "cwd"],
        ),
        (
            json!({ "exec": ["true", "x".repeat(200_000)] }),
            vec!["argument list too long"],
        ),
    ];
    for (number, (mut task, texts)) in cases.into_iter().enumerate() {
        let id = format!("t{number}");
        task["id"] = id.clone().into();
        air.publish("j", &task.to_string()).await;
        let record = air.wait_record("j", &id, Status::Failed).await;
        failed_saying(&record, &texts);
        assert_eq!((record.exit, record.started), (None, None));
    }
    goes_on(&air).await;
}

#[tokio::test]
async fn a_program_killed_by_a_signal_says_which() {
    let air = tolerant().await;
    let record = run(&air, json!({ "run": "echo last words; kill -SEGV $$" })).await;
    failed_saying(&record, &["signal 11 (SIGSEGV)"]);
    assert_eq!((record.signal, record.exit), (Some(11), None));
    assert_eq!(record.tail.as_deref(), Some("last words\n"));
    goes_on(&air).await;
}

#[tokio::test]
async fn output_may_be_any_bytes() {
    let air = tolerant().await;
    let record = run(&air, json!({ "run": r"printf '\377\376\000ok\n'" })).await;
    assert_eq!(record.status, Status::Succeeded);
    assert_eq!(record.tail.as_deref(), Some("\u{fffd}\u{fffd}\0ok\n"));
    assert_eq!(air.log("j", "t").await, b"\xff\xfe\0ok\n");
    goes_on(&air).await;
}

#[tokio::test]
async fn a_gigabyte_of_output_is_cut_and_counted() {
    let air = tolerant().await;
    let bytes: u64 = 1 << 30;
    let line = format!("head -c {bytes} /dev/zero; echo the end");
    let record = run(&air, json!({ "run": line })).await;
    assert_eq!(record.status, Status::Succeeded, "{:?}", record.error);
    assert!(record.tail.unwrap().ends_with("the end\n"));
    let log = air.log("j", "t").await;
    let zeros = log.iter().take_while(|byte| **byte == 0).count() as u64;
    assert!(zeros <= LOG_BYTES_MAX, "{zeros} bytes were kept");
    let last = String::from_utf8_lossy(&log[usize::try_from(zeros).unwrap()..]).into_owned();
    let missing = bytes + 8 - zeros;
    assert!(
        last.contains(&missing.to_string()),
        "{missing} are missing, but it says: {last}"
    );
    goes_on(&air).await;
}

#[tokio::test]
async fn a_program_need_not_read_its_input() {
    let air = tolerant().await;
    let input = "x".repeat(400_000);
    let line = "exec <&-; test $(wc -c < $AIR_INPUT) -eq 400002";
    let record = run(&air, json!({ "run": line, "input": input })).await;
    assert_eq!(record.status, Status::Succeeded, "{:?}", record.error);
    goes_on(&air).await;
}

#[tokio::test]
async fn a_program_may_close_its_files_and_live_on() {
    let air = tolerant().await;
    let line = "echo before; exec <&- >&- 2>&-; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo '\"lived\"' > $AIR_OUTPUT";
    let record = run(&air, json!({ "run": line })).await;
    assert_eq!(
        (record.status, record.output),
        (Status::Succeeded, Some(json!("lived")))
    );
    assert_eq!(air.log("j", "t").await, b"before\n");
    goes_on(&air).await;
}

#[tokio::test]
async fn two_hundred_children_end_with_their_parent() {
    let air = tolerant().await;
    let line = r#"i=0; while [ $i -lt 200 ]; do i=$((i+1))
        case $((i % 3)) in 0) sleep 600 & ;; 1) setsid sleep 600 & ;; 2) (setsid sleep 600 &) ;; esac
        done; exit 3"#;
    let record = run(&air, json!({ "run": line })).await;
    failed_saying(&record, &["exit code 3"]);
    check_no_process(&air).await;
    goes_on(&air).await;
}

#[tokio::test]
async fn a_program_that_ignores_sigterm_is_killed_after_the_grace() {
    let air = tolerant().await;
    air.spec(
        "j",
        r#"{"on_failure":"continue","retry":{"max":0},"lease_ttl":"4s"}"#,
    )
    .await;
    let line = "trap '' TERM; sleep 600 & wait; while :; do sleep 600; done";
    let record = run(&air, json!({ "run": line, "timeout": "300ms" })).await;
    failed_saying(&record, &["its time was over", "`timeout`"]);
    let took = record.ended.since(record.started.unwrap());
    assert!(
        took < Duration::from_secs(10),
        "the grace is less than the lease of 4 s: {took:?}"
    );
    assert!(!record.lost && record.losses == 0);
    check_no_process(&air).await;
    goes_on(&air).await;
}
