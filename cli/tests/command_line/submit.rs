//! `airx submit`: what is sent, what is refused before anything is sent, and what is warned of.

use air_protocol::job::Event;
use air_protocol::record::Status;
use serde_json::json;

use crate::world::{World, job, run};

#[tokio::test]
async fn tasks_are_sent_as_described() {
    let world = World::new().await;
    let sent = world.args(&[
        "submit",
        "j",
        "--id",
        "a",
        "--retries",
        "1",
        "--env",
        "A=b",
        "--here",
        "-o",
        "json",
        "--",
        "echo",
        "hi",
    ]);
    assert!(sent.err.contains("no manager runs"), "{}", sent.err);
    assert_eq!(sent.json(), json!([{"job": "j", "task": "a", "seq": 1}]));
    assert_eq!(
        world.args(&["submit", "j", "--run", "echo hi"]).good(),
        "j/_2\n"
    );
    let (queued, _) = world.nats.queued(&job("j"), 1, 10).await.unwrap();
    let task = queued[0].task.as_ref().unwrap();
    let here = std::env::current_dir().unwrap().display().to_string();
    assert_eq!(
        (task.cwd.as_deref(), task.env["A"].as_str()),
        (Some(here.as_str()), "b")
    );
}

#[tokio::test]
async fn a_file_is_sent_as_a_whole_or_not_at_all() {
    let world = World::new().await;
    let bad = world.file("bad.yaml", "- run: a\n- run: b\n  time_out: 1\n");
    let err = world.args(&["submit", "j", "-f", &bad]).bad(2);
    assert!(
        err.contains("bad.yaml:2: unknown field `time_out`; did you mean `timeout`?"),
        "{err}"
    );
    assert_eq!(world.nats.last_queued(&job("j")).await.unwrap(), None);
    let good = world.file(
        "good.jsonl",
        "{\"run\":\"a\",\"id\":\"a\"}\n{\"run\":\"b\",\"job\":\"k\"}\n",
    );
    assert_eq!(
        world.args(&["submit", "j", "-f", &good]).good(),
        "j/a\nk/_2\n"
    );
    let mut command = world.command(&["submit", "j", "-f", "-"]);
    let file = std::fs::File::open(world.file("in.json", "[{\"run\":\"c\"}]")).unwrap();
    assert_eq!(run(command.stdin(file)).good(), "j/_3\n");
    assert!(
        world
            .args(&["submit", "j", "-f", "/nonexistent/x.yaml"])
            .bad(3)
            .contains("no file")
    );
}

#[tokio::test]
async fn many_tasks_keep_their_order() {
    let world = World::new().await;
    let lines: String = (0..300)
        .map(|n| format!("{{\"id\":\"t{n}\",\"run\":\"x\"}}\n"))
        .collect();
    let file = world.file("many.jsonl", &lines);
    world.args(&["submit", "j", "-f", &file]).good();
    let (queued, _) = world.nats.queued(&job("j"), 1, 500).await.unwrap();
    let ids: Vec<_> = queued.iter().map(|queued| queued.id.to_string()).collect();
    assert_eq!(ids, (0..300).map(|n| format!("t{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_keeps_tasks_waiting_is_warned_of() {
    let world = World::new().await;
    world.apply("j", &[Event::Fail { task: None }]).await;
    world.airx("pause k").good();
    world.record("l", "a", Status::Succeeded, 1, &[]).await;
    let err = |line: &str| world.airx(line).err;
    assert!(err("submit j -- true").contains("airx resume j"));
    assert!(err("submit k -- true").contains("is paused"));
    assert!(err("submit l --id a -- true").contains("the same id runs once"));
}

#[tokio::test]
async fn without_streams_the_way_to_make_them_is_named() {
    let server = air_tests::Server::start();
    let mut command = crate::world::airx(&["submit", "j", "--", "true"]);
    let err = run(command.env("NATS_URL", server.url())).bad(4);
    assert!(err.contains("airx init"), "{err}");
}

#[tokio::test]
async fn waiting_ends_with_the_tasks() {
    let world = World::new().await;
    let mut waiting = world.command(&["submit", "j", "--id", "a", "--wait", "--run", "x"]);
    waiting
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped());
    let child = waiting.spawn().unwrap();
    air_tests::wait_for("message", async || {
        world
            .nats
            .last_queued(&job("j"))
            .await
            .unwrap()
            .ok_or("an empty queue")
    })
    .await;
    world.record("j", "a", Status::Failed, 1, &[]).await;
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("j/a: failed"));
    world.record("j", "b", Status::Succeeded, 1, &[]).await;
    world
        .args(&["submit", "j", "--id", "b", "--wait", "--run", "x"])
        .good();
}
