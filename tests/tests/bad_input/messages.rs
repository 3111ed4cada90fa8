//! Messages that are no tasks: each fails under its own sequence and never gets a runner.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use air_protocol::codec::{JSON, MSGPACK};
use air_protocol::event::Kind;
use air_protocol::limits::ERROR_CHARS_MAX;
use air_protocol::record::Status;
use air_tests::{Installation, ServerOptions, check, wait_for};

use crate::{failed_saying, goes_on, tolerant, tolerant_on};

/// Publishes bytes into the job `j`; its record under the message's sequence must say these texts.
async fn fails(air: &Installation, content_type: Option<&str>, bytes: &[u8], texts: &[&str]) {
    let seq = air.publish_as("j", content_type, bytes).await;
    let id = format!("_{seq}");
    let record = air.wait_record("j", &id, Status::Failed).await;
    failed_saying(&record, texts);
    assert_eq!(
        (record.seq, record.started, record.attempt),
        (Some(seq), None, 1)
    );
    assert!(record.spec.is_none(), "it was no task: {record:?}");
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]).into_owned();
    assert_eq!(record.tail.unwrap_or_default(), head);
    wait_for("event `rejected`", async || {
        let events = air.events(Some("j")).await;
        let found = events.iter().find(|event| {
            let is_ours = event
                .data
                .task
                .as_ref()
                .is_some_and(|task| task.as_str() == id);
            event.known_kind() == Some(Kind::Rejected) && is_ours
        });
        match found {
            Some(event) if event.data.reason == record.error => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_no_json_or_messagepack_fails_under_its_sequence() {
    let air = tolerant().await;
    fails(&air, None, b"echo hi", &["no JSON", "line 1 column 1"]).await;
    fails(&air, None, b"{\"run\":\"echo hi\"", &["no JSON", "EOF"]).await;
    fails(&air, None, b"", &["empty", r#"{"run":"echo hi"}"#]).await;
    fails(&air, None, b"[1]", &["a list", "not an object"]).await;
    fails(&air, None, b"\xff\xfe\x00", &["no JSON"]).await;
    fails(&air, Some(JSON), b"nonsense", &["no JSON"]).await;
    fails(&air, Some(MSGPACK), b"\xc1", &["no MessagePack"]).await;
    fails(
        &air,
        Some(MSGPACK),
        br#"{"run":"true"}"#,
        &["13 bytes follow its end", "send one value alone"],
    )
    .await;
    let texts = ["text/yaml", JSON, MSGPACK];
    fails(&air, Some("text/yaml"), b"run: true", &texts).await;
    goes_on(&air).await;
    let started = air.state("j").await.unwrap().ledger.counters.attempts;
    assert_eq!(started, 1, "only the task after them had a runner");
}

#[tokio::test]
async fn what_breaks_a_rule_of_tasks_fails_with_the_rule() {
    let air = tolerant().await;
    let cases: &[(&str, &[&str])] = &[
        (
            r#"{"run":"true","tmeout":"3s"}"#,
            &["`tmeout`", "did you mean `timeout`?"],
        ),
        (r#"{"runn":"true"}"#, &["unknown field `runn`", "`run`"]),
        (
            r#"{"run":"true","zzzzzzzz":1}"#,
            &["unknown field `zzzzzzzz`"],
        ),
        (
            r#"{"run":"true","exec":["true"]}"#,
            &["exactly one of", "`run` and `exec`"],
        ),
        (r#"{"id":"a"}"#, &["exactly one of", "none is there"]),
        (
            r#"{"run":"true","id":"a b"}"#,
            &["`id`", "`a b` is no task id", "A-Z a-z 0-9 _ -"],
        ),
        (
            r#"{"run":"true","id":"-a"}"#,
            &["is no task id", "the first a letter or digit"],
        ),
        (r#"{"run":"true","id":""}"#, &["`id`", "is no task id"]),
        (
            r#"{"run":"true","id":"_7777"}"#,
            &["`_7777`", "only the system gives"],
        ),
        (r#"{"run":"true","id":7}"#, &["`id`", "integer"]),
        (r#"{"run":"echo \u0000"}"#, &["run", "NUL"]),
        (r#"{"exec":["echo","\u0000"]}"#, &["exec", "NUL"]),
        (r#"{"run":"true","env":{"A":"\u0000"}}"#, &["env", "NUL"]),
        (r#"{"run":"true","env":{"AIR_JOB":"x"}}"#, &["AIR_JOB"]),
        (r#"{"run":" "}"#, &["empty"]),
        (r#"{"exec":[]}"#, &["empty"]),
        (r#"{"run":"true","timeout":"soon"}"#, &["`timeout`", "soon"]),
        (r#"{"run":"true","v":2}"#, &["version", "update"]),
        (
            r#"{"run":"true","id":"me","needs":["me"]}"#,
            &["me", "itself"],
        ),
        (r#"{"run":"true","needs":["a/b/c"]}"#, &["needs"]),
    ];
    for (task, texts) in cases {
        fails(&air, None, task.as_bytes(), texts).await;
    }
    let claimed = air.records("j").await;
    let claims = |id: &str| claimed.iter().any(|(_, record)| record.task.as_str() == id);
    assert!(!claims("me"), "never under an id that it claims");
    goes_on(&air).await;
}

#[tokio::test]
async fn a_bad_message_stops_a_job_by_its_policy_and_no_other() {
    let air = Installation::start(1).await;
    let seq = air.publish("j", "nonsense").await;
    air.publish("j", r#"{"id":"next","run":"true"}"#).await;
    let id = format!("_{seq}");
    let state = air.wait_state("j", |state| state.name() == "failed").await;
    assert_eq!(state.ledger.counters.failed, 1);
    air.publish("other", r#"{"run":"true"}"#).await;
    air.wait_completed("other").await;
    assert!(air.record("j", "next").await.is_none());
    check(&air).await;
    let show = air.airx(&["show", "j", &id]).output().unwrap();
    let text = String::from_utf8(show.stdout).unwrap();
    assert!(text.contains("no JSON"), "{text}");
    assert!(air.airx(&["resume", "j"]).status().unwrap().success());
    air.wait_completed("j").await;
    check(&air).await;
}

#[tokio::test]
async fn a_task_of_two_megabytes_is_refused_by_the_client_or_by_its_record() {
    let task = format!(r#"{{"run":"true","input":"{}"}}"#, "x".repeat(2 << 20));
    let air = tolerant().await;
    let job = "j".parse().unwrap();
    let refused = air
        .nats
        .publish_task(&job, None, task.clone().into_bytes(), None);
    let text = refused.await.unwrap_err().to_string();
    assert!(
        text.contains("larger than the server's max_payload"),
        "{text}"
    );
    let file = air.server.folder().join("task.json");
    std::fs::write(&file, &task).unwrap();
    let submit = air
        .airx(&["submit", "j", "-f", file.to_str().unwrap()])
        .output()
        .unwrap();
    let text = String::from_utf8(submit.stderr).unwrap();
    assert!(
        !submit.status.success() && text.contains("524288 are the most"),
        "{text}"
    );
    goes_on(&air).await;

    let extra = "max_payload: 4MB\n";
    let air = tolerant_on(ServerOptions {
        extra,
        ..ServerOptions::default()
    })
    .await;
    let texts = ["524288 are the most", "as a file or address"];
    fails(&air, None, task.as_bytes(), &texts).await;
    goes_on(&air).await;
}

#[tokio::test]
async fn a_long_name_is_told_in_short() {
    let air = tolerant().await;
    for _ in 0..5 {
        let task = format!(r#"{{"run":"true","{}":1}}"#, "x".repeat(400_000));
        let seq = air.publish("j", &task).await;
        let record = air
            .wait_record("j", &format!("_{seq}"), Status::Failed)
            .await;
        let error = record.error.unwrap();
        assert!(error.chars().count() <= ERROR_CHARS_MAX, "{error}");
        assert!(error.contains("xxxx"));
    }
    goes_on(&air).await;
}

#[tokio::test]
async fn a_name_that_no_job_can_have_is_told_and_its_tasks_are_deleted() {
    let air = tolerant().await;
    let long = "x".repeat(65);
    for name in ["a:b", "ü", &long] {
        let subject = format!("air.tasks.{name}");
        let mut publish = air.nats_cli(&["pub", &subject, r#"{"run":"true"}"#]);
        assert!(publish.output().unwrap().status.success());
        wait_for("rejection", async || {
            let events = air.events(None).await.into_iter();
            let mut told = events.filter(|event| event.known_kind() == Some(Kind::Rejected));
            let wanted = format!("`{name}` is no job name; use 1 to 64");
            let reason = told.find_map(|event| event.data.reason);
            let is_told = air.events(None).await.iter().any(|event| {
                event
                    .data
                    .reason
                    .as_ref()
                    .is_some_and(|text| text.contains(&wanted))
            });
            if is_told { Ok(()) } else { Err(reason) }
        })
        .await;
        wait_for("deletion", async || {
            match air.nats.depth("air.tasks.*").await.unwrap().messages {
                left if left.is_empty() => Ok(()),
                left => Err(left),
            }
        })
        .await;
    }
    goes_on(&air).await;
}

/// Publishes a message with a header line as no client sends it, and waits until the server has it.
fn publish_raw(air: &Installation, header: &str, task: &str) {
    let address = air.server.url().replace("nats://", "");
    let mut stream = TcpStream::connect(address).unwrap();
    let headers = format!("NATS/1.0\r\n{header}\r\n\r\n");
    let (head, all) = (headers.len(), headers.len() + task.len());
    let options = r#"CONNECT {"verbose":false,"headers":true,"no_responders":true}"#;
    let publish = format!("HPUB air.tasks.j {head} {all}\r\n{headers}{task}\r\n");
    write!(stream, "{options}\r\n{publish}PING\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "PONG"));
}

#[tokio::test]
async fn a_header_that_closes_connections_stops_no_job() {
    let air = tolerant().await;
    publish_raw(&air, "bad name: x", r#"{"id":"odd","run":"true"}"#);
    air.publish("j", r#"{"id":"next","run":"true"}"#).await;
    for task in ["odd", "next"] {
        air.wait_record("j", task, Status::Succeeded).await;
    }
    air.wait_completed("j").await;
    goes_on(&air).await;
    check(&air).await;
}
