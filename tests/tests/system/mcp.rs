//! `airx mcp` inside real tasks: what an agent queues runs after it, all of it or nothing.

use air_protocol::approval::Waits;
use air_protocol::record::Status;
use air_tests::{Installation, binary, ok};
use serde_json::{Value, json};

/// A shell line that calls tools as an MCP client does, all in one session, and then goes on.
fn calls(tools: &[(&str, Value)], then: &str) -> String {
    let mut lines = vec![
        json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
    ];
    for (number, (tool, arguments)) in tools.iter().enumerate() {
        let meta = json!({"claudecode/toolUseId": format!("toolu_{number}")});
        let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
        lines.push(
            json!({"jsonrpc": "2.0", "id": number + 1, "method": "tools/call", "params": params}),
        );
    }
    let lines: Vec<_> = lines.iter().map(Value::to_string).collect();
    let airx = binary("airx");
    format!(
        "{} mcp <<'END'\n{}\nEND\n{then}",
        airx.display(),
        lines.join("\n")
    )
}

#[tokio::test]
async fn what_an_agent_queues_runs_after_it_or_not_at_all() {
    let air = Installation::start(2).await;
    let queue = calls(
        &[
            ("queue_task", json!({"id": "own", "run": "true"})),
            (
                "queue_tasks",
                json!({"tasks": [{"id": "far", "job": "k", "run": "true"}, {"id": "last", "run": "true", "needs": ["own", "k/far"]}]}),
            ),
            (
                "report_progress",
                json!({"message": "half way", "percent": 50}),
            ),
        ],
        "test $AIR_ATTEMPT -gt 1",
    );
    let task = json!({"id": "t", "run": queue, "retry": {"backoff": "10ms"}});
    air.publish("j", &task.to_string()).await;
    air.wait_completed("j").await;
    air.wait_completed("k").await;
    let record = air.record("j", "t").await.unwrap();
    assert_eq!(
        (record.status, record.attempt, record.subtasks),
        (Status::Succeeded, 2, 3)
    );
    for (job, task) in [("j", "own"), ("k", "far"), ("j", "last")] {
        let sub = air.record(job, task).await.unwrap();
        assert_eq!((sub.status, sub.attempt), (Status::Succeeded, 1));
        assert_eq!(sub.parent.as_deref(), Some("j/t"));
    }
    let log = String::from_utf8_lossy(&air.log("j", "t").await).into_owned();
    assert!(log.contains("progress (50%): half way"), "{log}");
    // One that fails for good has queued nothing.
    air.publish("f", &json!({"id": "t", "run": calls(&[("queue_task", json!({"run": "true"}))], "exit 1"), "retry": {"max": 0}}).to_string()).await;
    air.wait_record("f", "t", Status::Failed).await;
    assert_eq!(air.records("f").await.len(), 1);
    ok(&mut air.airx(&["verify"]));
}

#[tokio::test]
async fn a_thousand_tasks_of_one_agent_are_all_there() {
    let air = Installation::start(1).await;
    let tasks: Vec<_> = (0..1000)
        .map(|n| json!({"id": format!("n{n}"), "exec": ["true"], "job": format!("k{}", n % 4)}))
        .collect();
    let run = calls(&[("queue_tasks", json!({"tasks": tasks.clone()}))], "");
    air.publish("j", &json!({"id": "t", "run": run}).to_string())
        .await;
    let record = air.wait_record("j", "t", Status::Succeeded).await;
    assert_eq!((record.subtasks, record.jobs.len()), (1000, 4));
    // It counts them wherever they are: none is lost, none is there twice.
    ok(&mut air.airx(&["verify"]));
    ok(&mut air.airx(&["cancel", "k*"]));
    ok(&mut air.airx(&["verify"]));
}

#[tokio::test]
async fn a_task_that_asks_by_its_tool_is_parked_and_gets_the_answer() {
    let air = Installation::start(1).await;
    let ask = calls(
        &[("ask_human", json!({"question": "Which colour?"}))],
        "cat $AIR_REPLIES",
    );
    air.publish("j", &json!({"id": "t", "run": ask}).to_string())
        .await;
    let parked = air.wait_record("j", "t", Status::Parked).await;
    let question = "Which colour?".to_owned();
    assert_eq!(parked.waits, Some(Waits::Answer { question }));
    ok(&mut air.airx(&["answer", "j", "t", "blue"]));
    air.wait_completed("j").await;
    let log = String::from_utf8_lossy(&air.log("j", "t").await).into_owned();
    assert!(log.contains("It was answered before: blue"), "{log}");
}
