//! Status, tasks, show, logs, events, export, init and doctor: what they say of a job.

use air_protocol::event::{Data, Kind};
use air_protocol::job::Event;
use air_protocol::record::Status;
use serde_json::json;
use uuid::Uuid;

use crate::world::{World, job, run};

#[tokio::test]
async fn status_and_tasks_say_what_waits_for_what() {
    let world = World::new().await;
    assert_eq!(world.airx("status -o json").json(), json!([]));
    world.record("j", "done", Status::Succeeded, 1, &[]).await;
    world
        .args(&[
            "submit", "j", "--id", "free", "--needs", "done", "--run", "x",
        ])
        .good();
    world
        .args(&[
            "submit",
            "j",
            "--id",
            "stuck",
            "--needs",
            "free,nobody",
            "--run",
            "y",
        ])
        .good();
    world.apply("j", &[Event::Work]).await;
    let lines = world.airx("tasks j").good();
    let said: Vec<_> = lines
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().take(3).collect::<Vec<_>>())
        .collect();
    assert_eq!(
        said,
        [
            ["done", "succeeded", "1"],
            ["free", "queued", "1"],
            ["stuck", "blocked", "1"]
        ]
    );
    assert!(!lines.contains(['\t', '\x1b']), "{lines}");
    let blocked = world.airx("tasks j --status blocked -o json").json();
    assert_eq!(blocked[0]["unknown"], json!(["nobody"]));
    assert_eq!(blocked[0]["waits_for"], json!(["free", "nobody"]));
    let detail = world.airx("status j").good();
    assert!(detail.contains("! the task stuck needs nobody"), "{detail}");
    assert!(detail.contains("! no manager runs"), "{detail}");
    let all = world.airx("status").good();
    assert!(
        all.lines().nth(1).unwrap().starts_with("j    waiting  2"),
        "{all}"
    );
    assert!(world.airx("status none").bad(3).contains("no job"));
    assert!(world.airx("tasks none").bad(3).contains("no job"));
    assert!(
        world
            .airx("tasks j --status odd")
            .bad(2)
            .contains("blocked")
    );
}

#[tokio::test]
async fn status_filters_jobs_by_patterns() {
    let world = World::new().await;
    for job in ["build-a", "build-b", "test"] {
        world.airx(&format!("submit {job} -- true")).good();
    }
    let names = |word: &str| {
        let rows = world.airx(&format!("status {word} -o json")).json();
        let rows = rows.as_array().unwrap().clone();
        rows.iter()
            .map(|row| row["job"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("build-*"), ["build-a", "build-b"]);
    assert_eq!(names("test,*-b"), ["build-b", "test"]);
    assert!(world.airx("status x*").bad(3).contains("no job fits"));
    let text = world.airx("status test").good();
    assert!(text.contains("queue"), "one job in detail: {text}");
}

#[tokio::test]
async fn status_says_that_no_manager_has_the_backend() {
    let world = World::new().await;
    let mut heartbeat = air_nats::managers::Heartbeat {
        v: 1,
        manager: "m".into(),
        host: "h".into(),
        backends: vec!["process".into()],
        runners: 0,
        runners_max: 1,
        since: airx::app::now(),
        version: String::new(),
    };
    world
        .airx("submit j --id t --backend docker -- true")
        .good();
    // Every look is within the life of a heartbeat that was just sent.
    world.nats.beat(&heartbeat).await.unwrap();
    let text = world.airx("status j").good();
    let wanted = "the task t waits for the backend `docker`, which no manager has";
    assert!(text.contains(wanted), "{text}");
    heartbeat.backends.push("docker".into());
    world.nats.beat(&heartbeat).await.unwrap();
    let text = world.airx("status j").good();
    assert!(!text.contains("docker"), "{text}");
}

#[tokio::test]
async fn show_and_export_tell_all_attempts() {
    let world = World::new().await;
    world.record("j", "a", Status::Retrying, 1, &[]).await;
    world.record("j", "a", Status::Failed, 2, &[]).await;
    let shown = world.airx("show j a -o json").json();
    assert_eq!(
        (
            shown["status"].as_str(),
            shown["attempts"].as_array().unwrap().len()
        ),
        (Some("failed"), 2)
    );
    assert_eq!(shown["spec"]["run"], "do a");
    assert!(world.airx("show j a").good().contains("do a"));
    assert!(world.airx("show j b").bad(3).contains("no task `b`"));
    let csv = world.airx("export j -o csv").good();
    assert_eq!(csv.lines().count(), 3, "{csv}");
    assert!(csv.contains("j,a,2,failed,"), "{csv}");
    assert_eq!(
        world.airx("export j").json()["tasks"][0]["attempts"][1]["status"],
        "failed"
    );
    assert!(world.airx("export none").bad(3).contains("no job"));
}

#[tokio::test]
async fn logs_are_raw_for_one_task_and_lines_for_several() {
    let world = World::new().await;
    let mut writer = world
        .nats
        .log_writer(&job("j"), &"a".parse().unwrap(), 1, Uuid::nil());
    writer.write(b"one\ntw".to_vec().into()).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(world.airx("logs j").good(), "one\ntw");
    let mut other = world
        .nats
        .log_writer(&job("j"), &"b".parse().unwrap(), 1, Uuid::nil());
    other.write(b"x\n\xff\n".to_vec().into()).await.unwrap();
    other.finish().await.unwrap();
    writer.write(b"o\n".to_vec().into()).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(world.airx("logs j a").good(), "one\ntwo\n");
    let several = world.command(&["logs", "j"]).output().unwrap();
    assert_eq!(several.stdout, b"a: one\nb: x\nb: \xff\na: two\n");
    world.apply("j", &[Event::Drained { at: 0 }]).await;
    assert!(
        world
            .command(&["logs", "j", "-f"])
            .output()
            .unwrap()
            .status
            .success()
    );
    assert!(world.airx("logs j none").bad(3).contains("no task"));
    assert!(world.airx("logs none").bad(3).contains("no job"));
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_failure() {
    let world = World::new().await;
    let mut writer = world
        .nats
        .log_writer(&job("j"), &"a".parse().unwrap(), 1, Uuid::nil());
    for _ in 0..40 {
        writer.write(vec![b'x'; 60_000].into()).await.unwrap();
    }
    writer.finish().await.unwrap();
    let mut child = world
        .command(&["logs", "j"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn events_are_one_a_line() {
    let world = World::new().await;
    let data = Data {
        job: Some(job("j")),
        task: Some("a".parse().unwrap()),
        attempt: Some(1),
        ..Data::default()
    };
    world.nats.emit(Kind::Started, data).await;
    world.nats.flush().await;
    air_tests::wait_for("event", async || {
        let lines = world.airx("events j").good();
        if lines.contains("started") && lines.contains("j/a  attempt 1") {
            Ok(())
        } else {
            Err(lines)
        }
    })
    .await;
    let event = world.airx("events -o json --since 1h").json();
    assert_eq!(
        (&event["type"], &event["subject"]),
        (&json!("air.started"), &json!("j/a"))
    );
    assert_eq!(world.airx("events k").good(), "");
}

#[tokio::test]
async fn init_says_what_it_found() {
    let server = air_tests::Server::start();
    let airx = |line: &str| {
        let args: Vec<_> = line.split(' ').collect();
        run(crate::world::airx(&args).env("NATS_URL", server.url()))
    };
    let lines = airx("init").good();
    let words: Vec<_> = lines
        .lines()
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>())
        .collect();
    assert_eq!(
        (&words[0], &words[1]),
        (&vec!["NAME", "FOUND"], &vec!["AIR", "created"])
    );
    let again = airx("init -o json").json();
    assert!(
        again
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["found"] == "same"),
        "{again}"
    );
    assert!(airx("--prefix other init").good().contains("OTHER_LOGS"));
    assert!(airx("--prefix Bad init").bad(2).contains("no prefix"));
}

#[tokio::test]
async fn doctor_says_what_is_wrong_and_how_to_mend_it() {
    let world = World::new().await;
    let checks = world.airx("doctor");
    assert_eq!(checks.code, 1, "no manager runs");
    assert!(
        checks.out.contains("airx manager") && checks.out.contains("Nats-Rollup"),
        "{}",
        checks.out
    );
    world.apply("j", &[Event::Fail { task: None }]).await;
    let out = world.airx("doctor").out;
    assert!(out.contains("airx retry j"), "{out}");
    let server = air_tests::Server::start();
    let bare = run(crate::world::airx(&["doctor"]).env("NATS_URL", server.url()));
    assert_eq!(bare.code, 1);
    assert!(bare.out.contains("airx init"), "{}", bare.out);
}
