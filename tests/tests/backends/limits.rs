//! What processes are held to: resources, a nice value, a user, and nothing that is left of dead runners and managers.
//!
//! These tests need root and cgroups that can be written, and fail where there are none: they say so.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use air_protocol::record::Status;
use air_tests::conformance::{self, Ground, Stand, group, no_groups, until};
use air_tests::{HANGS, binary, check, pids, wait_for};
use serde_json::json;
use uuid::Uuid;

use crate::process::Processes;

/// `nobody`, on any machine.
const NOBODY: u32 = 65534;

/// Managers make groups below their own.
fn needs_cgroups() {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let can_write = mounts
        .lines()
        .filter(|line| line.contains(" - cgroup"))
        .any(|line| {
            let point = Path::new(line.split(' ').nth(4).unwrap());
            let folder = point.join(format!("air-test-{}", Uuid::now_v7()));
            std::fs::create_dir(&folder)
                .and_then(|()| std::fs::remove_dir(&folder))
                .is_ok()
        });
    assert!(
        can_write,
        "this test needs cgroups that it can write: run it as root, where they are mounted for writing"
    );
}

fn needs_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test needs root: only root can start processes as another user"
    );
}

/// Whether a process of this command line lives.
fn lives(words: &str) -> bool {
    pids().any(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").trim() == words
    })
}

async fn is_there(what: &str, there: impl Fn() -> bool) {
    wait_for(what, async || if there() { Ok(()) } else { Err(()) }).await;
}

/// Lets other users use the folder, in which they find the programs too: that of the repository may be closed.
fn open_to_all(ground: &Ground) {
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(ground.folder(), open).unwrap();
}

async fn group_is_gone(runner: Uuid) {
    is_there("end of a cgroup", || {
        group(runner, "cgroup.procs").is_none()
    })
    .await;
}

#[tokio::test]
async fn memory_limit() {
    needs_cgroups();
    conformance::memory_limit(&Processes).await;
}

#[tokio::test]
async fn cpu_limit() {
    needs_cgroups();
    conformance::cpu_limit(&Processes).await;
}

/// A task that asks for nothing costs no cgroup, and one that does loses its own when it is over.
#[tokio::test]
async fn only_tasks_that_ask_have_a_cgroup() {
    needs_cgroups();
    let mut ground = Ground::new(&Processes).await;
    ground.manager(&Processes, "");
    ground.publish(&ground.noted("plain", &until("go"))).await;
    let plain = ground.started("plain", 1).await;
    assert_eq!(group(plain, "cgroup.procs"), None);
    ground.let_go("go");
    let mut task = ground.noted("held", &until("on"));
    task["resources"] = json!({ "cpu": "1", "memory": "128Mi" });
    ground.publish(&task).await;
    let held = ground.started("held", 1).await;
    let folder = group(held, "cgroup.procs").expect("a cgroup of its own");
    let members = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap();
    assert!(
        members.lines().count() >= 2,
        "the runner and its task: {members}"
    );
    ground.let_go("on");
    ground.ends_well().await;
    no_groups(&ground, &["j"]).await;
}

/// What is less than a runner itself needs is refused with a text, and no loop.
#[tokio::test]
async fn too_little_memory_is_refused() {
    let mut ground = Ground::new(&Processes).await;
    ground.manager(&Processes, "");
    let mut task = ground.noted("t", "true");
    task["resources"] = json!({ "memory": "1Mi" });
    task["retry"] = json!({ "max": 0 });
    ground.publish(&task).await;
    let record = ground.air.wait_record("j", "t", Status::Failed).await;
    let error = record.error.unwrap();
    assert!(error.contains("16777216 are the least"), "{error}");
    assert_eq!(ground.runs("t"), 0);
}

/// A process that has shed environment and ancestry is found by its cgroup when its runner is killed.
#[tokio::test]
async fn nothing_in_the_cgroup_of_a_dead_runner_survives() {
    needs_cgroups();
    let mut ground = Ground::new(&Processes).await;
    ground.long_leases().await;
    ground.manager(&Processes, "");
    let words = format!("sleep 6{}", std::process::id());
    // Its parent ends, so that it is nobody's child but the runner's, and then the manager's.
    let shed = format!("setsid env -i sh -c '{words} >/dev/null 2>&1 & exit'");
    let line = format!("test $AIR_ATTEMPT -eq 2 || {{ {shed}; touch shed; sleep 600; }}");
    let mut task = ground.noted("t", &line);
    task["resources"] = json!({ "memory": "64Mi" });
    ground.publish(&task).await;
    let runner = ground.started("t", 1).await;
    let file = ground.file("shed");
    is_there("a process that has shed all marks", || {
        file.exists() && lives(&words)
    })
    .await;
    Processes.murder(runner);
    ground.ends_well().await;
    is_there("its end", || !lives(&words)).await;
    ground.is_gone(&Processes, runner).await;
    no_groups(&ground, &["j"]).await;
}

/// What is left of a killed manager and its runner goes when the next manager starts; a runner that lives keeps its group.
#[tokio::test]
async fn a_manager_clears_away_the_cgroups_of_a_killed_one() {
    needs_cgroups();
    let mut ground = Ground::new(&Processes).await;
    ground.long_leases().await;
    ground.manager(&Processes, "");
    let mut task = ground.noted("ends", &until("go"));
    task["resources"] = json!({ "memory": "64Mi" });
    ground.publish(&task).await;
    let ends = ground.started("ends", 1).await;
    task = ground.noted("lives", &until("on"));
    task["resources"] = json!({ "memory": "64Mi" });
    ground.air.publish("k", &task.to_string()).await;
    is_there("the other task", || ground.runs("lives") == 1).await;
    let lives = ground.air.state("k").await.unwrap();
    let lives = lives.lease().unwrap().runner;
    ground.air.managers[0].kill();
    ground.let_go("go");
    ground.air.wait_record("j", "ends", Status::Succeeded).await;
    is_there("end of the runner", || !Processes.is_left(ends)).await;
    assert!(
        group(ends, "cgroup.procs").is_some(),
        "nobody is there to remove it"
    );
    ground.manager(&Processes, "");
    group_is_gone(ends).await;
    assert!(group(lives, "cgroup.procs").is_some(), "its runner lives");
    ground.let_go("on");
    ground.air.wait_completed("k").await;
    check(&ground.air).await;
    // The group of a runner that outlived its manager goes when the next one starts.
    ground.air.managers[1].kill();
    ground.manager(&Processes, "");
    no_groups(&ground, &["j", "k"]).await;
}

/// Without cgroups the address space of each process is limited, of a line as of a program.
#[tokio::test]
async fn without_cgroups_address_space_is_limited() {
    let mut ground = Ground::new(&Processes).await;
    ground.manager_with(&Processes, "", "cgroup = \"none\"");
    let mut line = ground.noted("line", "ulimit -v; ulimit -H -v; ! tail /dev/zero");
    line["resources"] = json!({ "memory": "64Mi", "cpu": "1" });
    ground.publish(&line).await;
    let program = json!({
        "id": "program", "exec": ["tail", "/dev/zero"], "resources": { "memory": "64Mi" },
        "retry": { "max": 0 }, "backend": "tested",
    });
    ground.publish(&program).await;
    let record = ground.air.wait_record("j", "line", Status::Succeeded).await;
    let tail = record.tail.unwrap();
    assert!(tail.starts_with("65536\n65536\n"), "{tail}");
    let record = ground.air.wait_record("j", "program", Status::Failed).await;
    assert!(record.tail.unwrap().contains("exhausted"));
    assert_eq!(group(record.run.unwrap(), "cgroup.procs"), None);
}

/// Runners and their tasks have the nice value of the configuration, from their first moment on.
#[tokio::test]
async fn runners_have_the_nice_value() {
    let mut ground = Ground::new(&Processes).await;
    ground.manager_with(&Processes, "", "nice = 7");
    ground
        .publish(&ground.noted("t", "nice; nice -n 2 nice"))
        .await;
    let record = ground.air.wait_record("j", "t", Status::Succeeded).await;
    assert_eq!(record.tail.as_deref(), Some("7\n9\n"));
}

/// Runners run as the user of the configuration, are seen by their manager, and end as others do.
#[tokio::test]
async fn runners_run_as_another_user() {
    needs_root();
    let mut ground = Ground::new(&Processes).await;
    ground.long_leases().await;
    open_to_all(&ground);
    std::fs::copy(binary("air-runner"), ground.file("runner")).unwrap();
    ground.manager_with(&Processes, "", "user = \"nobody\"");
    let line = "test $AIR_ATTEMPT -eq 2 || sleep 600; id -u; id -G | wc -w; echo $HOME; stat -c %u $AIR_WORKDIR";
    let mut task = ground.noted("t", line);
    task["resources"] = json!({ "memory": "64Mi" });
    ground.publish(&task).await;
    let runner = ground.started("t", 1).await;
    Processes.murder(runner);
    ground.ends_well().await;
    let record = ground.air.record("j", "t").await.unwrap();
    let tail = record.tail.unwrap();
    let said: Vec<&str> = tail.split_whitespace().collect();
    assert_eq!(
        (said[0], said[1], said[3]),
        ("65534", "1", "65534"),
        "{tail}"
    );
    assert_eq!((record.attempt, record.losses), (2, 1));
    ground.is_gone(&Processes, runner).await;
    no_groups(&ground, &["j"]).await;
}

/// A runner whose manager is killed before it is in its place runs nothing.
#[test]
fn nothing_runs_at_a_gate_that_stays_closed() {
    let mut runner = Command::new(binary("air-runner"));
    runner.env("AIR_GATE", "stdin").stdin(Stdio::null());
    let output = runner.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(
        said.contains("did not put this runner in its place"),
        "{said}"
    );
}

/// What a configuration wants and the machine does not give ends the manager with one error.
#[tokio::test]
async fn what_cannot_be_is_told_at_the_start() {
    needs_root();
    let ground = Ground::new(&Processes).await;
    open_to_all(&ground);
    let airx = ground.file("airx");
    std::fs::copy(binary("airx"), &airx).unwrap();
    let url = ground.air.server.url();
    let config = ground.file("wrong.toml");
    let own = nice();
    assert!(own > -20, "a nice value below this test's own is needed");
    for (line, as_nobody, told) in [
        (
            "user = \"no-such-user\"".to_owned(),
            false,
            "there is no user `no-such-user` on this machine".to_owned(),
        ),
        (
            "user = \"root\"".to_owned(),
            true,
            "this manager runs as user 65534, and only root can start processes as somebody else"
                .to_owned(),
        ),
        (
            format!("nice = {}", own - 1),
            true,
            format!(
                "`nice` is {}, but this manager has {own} and may not go below",
                own - 1
            ),
        ),
        (
            "cgroup = \"/air\"".to_owned(),
            true,
            "there can be no cgroups below `/air`".to_owned(),
        ),
    ] {
        std::fs::write(
            &config,
            format!("[[backend]]\nkind = \"process\"\n{line}\n"),
        )
        .unwrap();
        // A manager that starts all the same is a failure, and no test that hangs.
        let mut command = Command::new("timeout");
        command
            .arg(HANGS.as_secs().to_string())
            .arg(&airx)
            .args(["manager", "--runner"])
            .arg(&airx)
            .arg("--config")
            .arg(&config);
        command.env("NATS_URL", &url).stdin(Stdio::null());
        if as_nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {said}");
        assert!(
            said.contains("backend `process`: ") && said.contains(&told),
            "{line}: {said}"
        );
    }
}

/// The nice value of this process.
fn nice() -> i32 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, after) = stat.rsplit_once(')').unwrap();
    after.split_whitespace().nth(16).unwrap().parse().unwrap()
}
