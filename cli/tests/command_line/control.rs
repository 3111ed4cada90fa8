//! Cancel, retry, pause, resume, rm and wait: what they write, and what they refuse.

use std::io::{BufRead as _, BufReader};

use air_protocol::job::Event;
use air_protocol::names::TaskId;
use air_protocol::record::Status;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{World, job};

#[tokio::test]
async fn cancel_moves_the_key_and_leaves_the_rest_to_managers() {
    let world = World::new().await;
    assert!(
        world
            .airx("cancel j --no-wait")
            .bad(3)
            .contains("no job `j`")
    );
    world.airx("submit j -- true").good();
    world.airx("cancel j --no-wait").good();
    assert_eq!(world.status("j").await, "cancelling");
    let err = world.airx("cancel j --timeout 200ms").bad(124);
    assert!(err.contains("no manager runs"), "{err}");
    world.apply("j", &[Event::Emptied { at: 1 }]).await;
    assert!(world.airx("cancel j").good().is_empty());
    world.apply("done", &[Event::Drained { at: 5 }]).await;
    assert!(world.airx("cancel done").err.contains("nothing to cancel"));
    assert_eq!(world.status("done").await, "completed");
}

#[tokio::test]
async fn cancel_of_a_task_is_one_record() {
    let world = World::new().await;
    for id in ["a", "b", "c"] {
        world
            .args(&["submit", "j", "--id", id, "--", "true"])
            .good();
    }
    world.record("j", "b", Status::Retrying, 1, &[]).await;
    world.record("j", "c", Status::Succeeded, 1, &[]).await;
    world.airx("cancel j a b").good();
    let a = world.last("j", "a").await;
    assert_eq!(
        (a.status, a.attempt, a.previous),
        (Status::Cancelled, 1, None)
    );
    assert_eq!(a.spec.unwrap().id, Some("a".parse::<TaskId>().unwrap()));
    let b = world.last("j", "b").await;
    assert_eq!(
        (b.status, b.attempt, b.previous),
        (Status::Cancelled, 2, Some(Status::Retrying))
    );
    assert!(b.spec.is_some() && b.after > 0);
    assert!(
        world
            .airx("cancel j c")
            .err
            .contains("over already (succeeded)")
    );
    assert!(
        world
            .airx("cancel j nobody")
            .bad(3)
            .contains("airx tasks j")
    );
    assert!(world.airx("cancel j,k a").bad(2).contains("commas"));
}

#[tokio::test]
async fn retry_resets_failed_tasks_and_what_was_skipped_for_them() {
    let world = World::new().await;
    world.record("j", "a", Status::Failed, 2, &[]).await;
    world.record("j", "b", Status::Skipped, 1, &["a"]).await;
    world.record("j", "c", Status::Failed, 1, &[]).await;
    world.record("j", "d", Status::Succeeded, 1, &[]).await;
    world.apply("j", &[Event::Fail { task: None }]).await;
    assert!(world.airx("retry j a").err.contains("2 tasks queued again"));
    assert_eq!(world.status("j").await, "waiting");
    let a = world.last("j", "a").await;
    assert_eq!(
        (a.status, a.attempt, a.failures, a.previous),
        (Status::Reset, 2, 0, Some(Status::Failed))
    );
    let (queued, _) = world.nats.queued(&job("j"), 1, 10).await.unwrap();
    let said: Vec<_> = queued
        .iter()
        .map(|queued| (queued.id.as_str(), queued.attempt))
        .collect();
    assert_eq!(said, [("a", 3), ("b", 2)]);
    assert!(world.airx("retry j a").bad(1).contains("not over"));
    assert!(world.airx("retry j d").bad(1).contains("has succeeded"));
    assert!(world.airx("retry j nobody").bad(3).contains("nobody"));
    assert!(world.airx("retry j").err.contains("1 task queued again"));
    assert!(world.airx("retry j").err.contains("no task has failed"));
    assert!(world.airx("retry none").bad(3).contains("no job"));
}

#[tokio::test]
async fn pause_and_resume_write_the_spec_and_forgive() {
    let world = World::new().await;
    world.apply("j", &[Event::Fail { task: None }]).await;
    world.args(&["spec", "j", "set", "labels.team=x"]).good();
    world.airx("pause -l team=x").good();
    assert!(world.nats.spec(&job("j")).await.unwrap().0.unwrap().paused);
    assert!(world.airx("status").good().contains("failed (paused)"));
    assert!(
        world
            .airx("resume j*")
            .err
            .contains("without its failed tasks")
    );
    assert!(!world.nats.spec(&job("j")).await.unwrap().0.unwrap().paused);
    assert_eq!(world.status("j").await, "waiting");
    assert!(
        world
            .airx("resume j")
            .err
            .contains("neither paused nor failed")
    );
    assert!(world.airx("resume none").bad(3).contains("none"));
    assert!(world.airx("pause -l team=y").bad(3).contains("team=y"));
    assert!(world.airx("pause").bad(2).contains("name a job"));
}

#[tokio::test]
async fn rm_moves_the_key_and_waits_until_it_is_gone() {
    let world = World::new().await;
    assert!(world.airx("rm j").bad(3).contains("no job"));
    world.record("j", "a", Status::Succeeded, 1, &[]).await;
    world.airx("rm j --no-wait").good();
    assert_eq!(world.status("j").await, "removing");
    assert!(world.airx("retry j").bad(1).contains("removing"));
    let mut rm = world.command(&["rm", "j"]);
    let mut child = rm.stderr(std::process::Stdio::piped()).spawn().unwrap();
    // It warns that no manager runs once it has found the key as it is.
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    err.read_line(&mut said).unwrap();
    assert!(said.contains("no manager runs"), "{said}");
    let revision = world.nats.job(&job("j")).await.unwrap().revision();
    world.nats.erase_job(&job("j"), revision).await.unwrap();
    err.read_line(&mut said).unwrap();
    assert!(said.ends_with("j: removed\n"), "{said}");
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn wait_tells_the_end_by_its_code() {
    let world = World::new().await;
    assert!(world.airx("wait none").bad(3).contains("no job"));
    world.airx("submit j -- true").good();
    let err = world.airx("wait j --timeout 100ms").bad(124);
    assert!(err.contains("100ms"), "{err}");
    world.apply("j", &[Event::Drained { at: 0 }]).await;
    world.airx("wait j --timeout 100ms").bad(124);
    world.apply("j", &[Event::Drained { at: 1 }]).await;
    world.airx("wait j").good();
    world
        .apply(
            "k",
            &[Event::Fail {
                task: Some("t".parse().unwrap()),
            }],
        )
        .await;
    assert!(world.airx("wait j k").bad(1).contains("airx show k t"));
}

#[tokio::test]
async fn ctrl_c_is_code_130() {
    let world = World::new().await;
    world.airx("submit j -- true").good();
    let child = world
        .command(&["wait", "j"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let status = format!("/proc/{pid}/status");
    // The program listens to the signal from its first step on; before that the signal just ends it.
    air_tests::wait_for("listener", async || {
        let text = std::fs::read_to_string(&status).unwrap();
        let caught = text
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .unwrap()
            .trim()
            .to_owned();
        let bits = u64::from_str_radix(&caught, 16).unwrap();
        if bits & 0b10 == 0 {
            Err(caught)
        } else {
            Ok(())
        }
    })
    .await;
    kill(pid, Signal::SIGINT).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
}

#[tokio::test]
async fn a_manager_lives_until_it_is_told_to_stop() {
    let world = World::new().await;
    let mut manager = world.command(&["manager", "--runner", "/bin/false", "--id", "m1"]);
    let mut child = manager.env("AIR_LOG", "error").spawn().unwrap();
    air_tests::wait_for("manager", async || {
        let managers = world.nats.managers().await.unwrap();
        let found = managers.iter().any(|one| one.manager == "m1");
        if found { Ok(()) } else { Err(managers) }
    })
    .await;
    assert!(world.airx("doctor").good().contains("1 manager, 0 of"));
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(world.airx("doctor").bad(1).is_empty());
}
