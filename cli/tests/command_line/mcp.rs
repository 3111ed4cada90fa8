//! `airx mcp` as an MCP client uses it: inside a task by its files, elsewhere over NATS; with good calls and hostile ones.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use air_protocol::record::Status;
use serde_json::{Value, json};

use crate::world::{World, airx, job};

/// A client, with the server that it has started.
struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    number: u64,
}

impl Client {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut client = Self {
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
            number: 0,
        };
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
        let server = client.request("initialize", hello);
        assert_eq!(server["result"]["serverInfo"]["name"], "air", "{server}");
        client.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        client
    }

    fn say(&mut self, message: &Value) {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{message}").unwrap();
        stdin.flush().unwrap();
    }

    fn request(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let id = self.number;
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        loop {
            let mut line = String::new();
            assert!(
                self.stdout.read_line(&mut line).unwrap() > 0,
                "the server ended"
            );
            let answer: Value = serde_json::from_str(&line).unwrap();
            if answer["id"] == id {
                return answer;
            }
        }
    }

    fn tools(&mut self) -> Vec<String> {
        let answer = self.request("tools/list", json!({}));
        let tools = answer["result"]["tools"].as_array().unwrap();
        let name = |tool: &Value| tool["name"].as_str().unwrap().to_owned();
        tools.iter().map(name).collect()
    }

    /// Calls a tool, as the call of this id; what it says, and whether it is an error.
    fn call_as(&mut self, id: Option<&str>, tool: &str, arguments: Value) -> (String, bool) {
        let mut params = json!({"name": tool, "arguments": arguments});
        if let Some(id) = id {
            params["_meta"] = json!({"claudecode/toolUseId": id, "progressToken": 2});
        }
        let answer = self.request("tools/call", params);
        let result = &answer["result"];
        let text = result["content"][0]["text"].as_str();
        let text = text.map_or_else(|| answer.to_string(), str::to_owned);
        let is_error = result["isError"].as_bool() == Some(true) || !answer["error"].is_null();
        (text, is_error)
    }

    #[track_caller]
    fn good(&mut self, tool: &str, arguments: Value) -> Value {
        let (text, is_error) = self.call_as(None, tool, arguments);
        assert!(!is_error, "{text}");
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    }

    #[track_caller]
    fn bad(&mut self, tool: &str, arguments: Value) -> String {
        let (text, is_error) = self.call_as(None, tool, arguments);
        assert!(is_error, "{text}");
        text
    }

    /// Closes standard input, as clients do; the server's exit code.
    fn end(mut self) -> Option<i32> {
        self.stdin.take();
        self.child.wait().unwrap().code()
    }
}

/// The files of a task.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tasks"), "").unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    fn client(&self) -> Client {
        let mut command = airx(&["mcp"]);
        command.env("AIR_JOB", "j").env("AIR_TASK", "t");
        for (name, file) in [
            ("AIR_TASKS", "tasks"),
            ("AIR_NEEDS", "needs"),
            ("AIR_QUESTION", "question"),
            ("AIR_REPLIES", "replies"),
        ] {
            command.env(name, self.path(file));
        }
        Client::start(&mut command)
    }

    fn tasks(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("tasks")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

#[test]
fn inside_a_task_tasks_are_queued_in_its_file_and_a_repeated_call_once() {
    let files = Files::new();
    let mut client = files.client();
    let tools = client.tools();
    assert_eq!(
        tools,
        [
            "queue_task",
            "queue_tasks",
            "list_tasks",
            "read_result",
            "report_progress",
            "ask_human"
        ]
    );
    let call = json!({"run": "make", "labels": {"a": "b"}, "needs": ["x"]});
    let (first, _) = client.call_as(Some("toolu_1"), "queue_task", call.clone());
    let (again, is_error) = client.call_as(Some("toolu_1"), "queue_task", call.clone());
    assert!(
        !is_error && again.contains(r#""were_queued_already":1"#),
        "{again}"
    );
    client.call_as(Some("toolu_2"), "queue_task", call.clone());
    let tasks = files.tasks();
    assert_eq!(tasks.len(), 2);
    let first: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(first["queued"][0]["task"], tasks[0]["id"]);
    assert_eq!(tasks[0]["run"], "make");
    // A server that was started anew, as after a crash, knows of it too.
    assert_eq!(client.end(), Some(0));
    let mut client = files.client();
    client.call_as(Some("toolu_1"), "queue_task", call);
    assert_eq!(files.tasks().len(), 2);
    // What other programs of the task append counts.
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(files.path("tasks"))
        .unwrap();
    file.write_all(b"{\"id\":\"mine\",\"run\":\"a\"}\n")
        .unwrap();
    let text = client.bad("queue_task", json!({"id": "mine", "run": "b"}));
    assert!(text.contains("another task"), "{text}");
    let list = client.good("list_tasks", json!({}));
    assert_eq!(list["queued_in_all"], 3, "{list}");
    let list = client.good("list_tasks", json!({"after": 2}));
    assert_eq!(
        list["queued_by_this_task"],
        json!([{"job": "j", "task": "mine"}])
    );
}

#[test]
fn a_thousand_tasks_are_queued_in_one_call_or_in_many() {
    let files = Files::new();
    let mut client = files.client();
    let task = |n: usize| json!({"run": format!("do {n}"), "job": format!("j{}", n % 3)});
    let tasks: Vec<_> = (0..1000).map(task).collect();
    for _ in 0..2 {
        let all = json!({"tasks": tasks});
        let (text, is_error) = client.call_as(Some("all"), "queue_tasks", all);
        assert!(!is_error, "{text}");
    }
    assert_eq!(files.tasks().len(), 1000);
    for n in 0..1000 {
        client.good("queue_task", task(n));
    }
    assert_eq!(files.tasks().len(), 2000);
    let mut ids: Vec<_> = files
        .tasks()
        .iter()
        .map(|task| task["id"].to_string())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 2000);
}

/// Calls to `queue_task` that are refused, and a word of what is said.
fn hostile_tasks() -> Vec<(&'static str, Value, &'static str)> {
    let long = "x".repeat(600_000);
    vec![
        ("queue_task", json!({}), "run"),
        ("queue_task", json!({"run": 7}), "no text"),
        (
            "queue_task",
            json!({"run": "a", "approved": true}),
            "approved",
        ),
        (
            "queue_task",
            json!({"run": "a", "approval": "granted"}),
            "granted",
        ),
        ("queue_task", json!({"run": "a", "replies": []}), "replies"),
        (
            "queue_task",
            json!({"run": "a", "id": "../../etc/passwd"}),
            "id",
        ),
        ("queue_task", json!({"run": "a", "id": "a\nb"}), "id"),
        (
            "queue_task",
            json!({"run": "a", "id": "_1"}),
            "only the system",
        ),
        ("queue_task", json!({"run": "a", "job": "a.b"}), "job"),
        ("queue_task", json!({"run": "a", "job": ">"}), "job"),
        (
            "queue_task",
            json!({"run": "a", "env": {"AIR_TASKS": "/x"}}),
            "AIR_",
        ),
        ("queue_task", json!({"run": "a", "timeout": -1}), "timeout"),
        ("queue_task", json!({"run": "a", "v": 9}), "9"),
        ("queue_task", json!({"run": long}), "bytes"),
        (
            "queue_task",
            json!({"claude": {"prompt": "a", "model": "--dangerously-skip-permissions"}}),
            "model",
        ),
        ("queue_task", json!({"claude": {"prompt": ""}}), "prompt"),
        (
            "queue_task",
            json!({"fanout": {"run": "00000000-0000-0000-0000-000000000001", "parent": "a/b", "page": 1, "pages": 2}}),
            "system only",
        ),
    ]
}

/// Calls to other tools that are refused, and a word of what is said.
fn hostile_others() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        (
            "queue_tasks",
            json!({"tasks": [{"run": "a"}, {"run": ""}]}),
            "tasks[1]",
        ),
        ("queue_tasks", json!({"tasks": {"run": "a"}}), "list"),
        (
            "read_result",
            json!({"task": "../needs"}),
            "no task that this one needs",
        ),
        ("read_result", json!({"task": 7}), "string"),
        ("list_tasks", json!({"after": -1}), "-1"),
        ("list_tasks", json!({"job": "k"}), "job"),
        (
            "report_progress",
            json!({"message": "y".repeat(501)}),
            "501",
        ),
        (
            "report_progress",
            json!({"message": "a", "percent": 101}),
            "100",
        ),
        ("ask_human", json!({"question": " "}), "0 characters"),
        ("ask_human", json!({"question": "z".repeat(2001)}), "2001"),
        ("approve", json!({"job": "j", "task": "t"}), "no tool"),
    ]
}

#[test]
fn hostile_arguments_queue_nothing_and_end_nothing() {
    let files = Files::new();
    let mut client = files.client();
    for (tool, arguments, word) in hostile_tasks().into_iter().chain(hostile_others()) {
        let text = client.bad(tool, arguments);
        assert!(text.contains(word), "{tool} {word}: {text}");
        assert!(text.len() < 4000, "{} bytes", text.len());
    }
    let (text, is_error) = client.call_as(None, "queue_task", json!([1]));
    assert!(is_error, "{text}");
    client.say(&json!({"jsonrpc": "2.0", "method": "no/such"}));
    assert!(files.tasks().is_empty() && !files.path("question").exists());
    assert_eq!(
        client.good("report_progress", json!({"message": "half", "percent": 50})),
        "noted"
    );
    client.good("queue_task", json!({"run": "true"}));
    assert_eq!(files.tasks().len(), 1);
}

#[test]
fn who_has_asked_a_person_ends() {
    let files = Files::new();
    let mut client = files.client();
    client.good("queue_task", json!({"run": "true"}));
    client.good("ask_human", json!({"question": "Which colour? "}));
    assert_eq!(
        std::fs::read_to_string(files.path("question")).unwrap(),
        "Which colour?"
    );
    client.good("ask_human", json!({"question": "Which colour?"}));
    let text = client.bad("ask_human", json!({"question": "And which size?"}));
    assert!(text.contains("end your turn"), "{text}");
    client.bad("queue_task", json!({"run": "true"}));
    assert_eq!(files.tasks().len(), 1);
    // The next attempt, which knows the answer.
    std::fs::remove_file(files.path("question")).unwrap();
    let replies =
        json!([{"question": "Which colour?", "text": "blue", "at": "2026-01-31T08:00:00.000Z"}]);
    std::fs::write(files.path("replies"), replies.to_string()).unwrap();
    let answer = client.good("ask_human", json!({"question": "Which colour?"}));
    assert!(answer.as_str().unwrap().contains("blue"), "{answer}");
    assert!(!files.path("question").exists());
}

#[test]
fn inside_a_task_the_results_of_its_needs_are_read() {
    let files = Files::new();
    let needs = json!({"a": {"status": "succeeded", "output": {"n": 7}}, "k/b": {"status": "failed", "error": "no"}});
    std::fs::write(files.path("needs"), needs.to_string()).unwrap();
    let mut client = files.client();
    assert_eq!(
        client.good("read_result", json!({"task": "a"}))["output"]["n"],
        7
    );
    assert_eq!(
        client.good("read_result", json!({"task": "k/b"}))["error"],
        "no"
    );
    let text = client.bad("read_result", json!({"task": "c"}));
    assert!(text.contains("a, k/b"), "{text}");
    let list = client.good("list_tasks", json!({}));
    assert_eq!(list["needs"], json!({"a": "succeeded", "k/b": "failed"}));
}

#[tokio::test]
async fn outside_a_task_it_works_with_the_users_own_rights() {
    let world = World::new().await;
    let mut client = Client::start(&mut world.command(&["mcp"]));
    assert_eq!(
        client.tools(),
        ["queue_task", "queue_tasks", "list_tasks", "read_result"]
    );
    let text = client.bad("queue_task", json!({"run": "true"}));
    assert!(text.contains("`job` is missing"), "{text}");
    let task = json!({"job": "j", "run": "true"});
    for _ in 0..3 {
        let (text, is_error) = client.call_as(Some("toolu_1"), "queue_task", task.clone());
        assert!(!is_error, "{text}");
    }
    let queued = world.nats.all_queued(&job("j"), u64::MAX).await.unwrap();
    assert_eq!(queued.len(), 1, "a repeated call is one message");
    let many: Vec<_> = (0..100)
        .map(|n| json!({"job": "k", "id": format!("n{n}"), "run": "true"}))
        .collect();
    client.good("queue_tasks", json!({"tasks": many}));
    let list = client.good("list_tasks", json!({"job": "k", "after": 98}));
    assert_eq!(
        (&list["in_all"], &list["tasks"][0]["task"]),
        (&json!(100), &json!("n98"))
    );
    world.record("k", "n0", Status::Succeeded, 1, &[]).await;
    let result = client.good("read_result", json!({"job": "k", "task": "n0"}));
    assert_eq!(result["status"], "succeeded");
    let result = client.good("read_result", json!({"job": "k", "task": "n1"}));
    assert_eq!(result["status"], "queued");
    client.bad("read_result", json!({"job": "k", "task": "nobody"}));
    client.bad("list_tasks", json!({"job": "nothing"}));
    assert_eq!(client.end(), Some(0));
}

#[test]
fn without_nats_it_says_so_and_a_client_that_leaves_ends_it() {
    let mut command = airx(&["mcp"]);
    command.env("NATS_URL", "nats://127.0.0.1:9");
    assert_eq!(crate::world::run(&mut command).code, 4);
    let files = Files::new();
    let mut command = airx(&["mcp"]);
    command.env("AIR_TASKS", files.path("tasks"));
    assert_eq!(crate::world::run(&mut command).code, 0);
}
