//! Managers side by side on one host: none takes for dead what it cannot see, or does not know by its name.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use air_protocol::record::Status;
use air_tests::{Installation, Program, binary, wait_for};

use crate::{POLL, ends_well, exists, file, murder, noted, running, runs, short_leases};

/// Runs until the file `go` is there.
const WAITS: &str = "touch up; while ! test -e go; do sleep 0.02; done";

/// The user `nobody`, whom every system has.
const NOBODY: [&str; 4] = ["--reuid", "65534", "--regid", "65534"];

/// Starts a manager that runs as another user; says so and gives `false` where that cannot be.
fn manager_of_another_user(air: &mut Installation) -> bool {
    let as_nobody = |program: &std::ffi::OsStr| {
        let mut command = Command::new("setpriv");
        command.args(NOBODY).arg("--clear-groups").arg(program);
        command
    };
    let mut probe = as_nobody(binary("airx").as_os_str());
    let probe = probe.arg("--version").stdout(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!(
            "SKIPPED: these tests cannot run {:?} as another user",
            binary("airx")
        );
        return false;
    }
    let manager = air.manager_command(&[]);
    let mut command = as_nobody(manager.get_program());
    command.args(manager.get_args()).stdout(Stdio::null());
    let variables = manager.get_envs();
    command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
    air.managers.push(Program::start(&mut command));
    true
}

/// Waits until this many managers have been heard of.
async fn managers(air: &Installation, number: usize) {
    wait_for("managers", async || {
        match air.nats.managers().await.unwrap().len() {
            found if found == number => Ok(()),
            found => Err(found),
        }
    })
    .await;
}

/// Waits until each manager has polled at least twice since now, as the renewals of a runner tell.
async fn polled_twice(air: &Installation) {
    let renewed = async || Some(air.state("j").await?.lease()?.renewed);
    let since = renewed().await.expect("the job is worked on");
    wait_for("renewals", async || match renewed().await {
        Some(now) if now.since(since) > 2 * POLL + Duration::from_millis(500) => Ok(()),
        other => Err(other),
    })
    .await;
}

/// The task `t`, which waits for `go`, runs once to its end.
async fn runs_once_to_its_end(air: &Installation) {
    polled_twice(air).await;
    std::fs::write(file(air, "go"), "").unwrap();
    ends_well(air, &["t"]).await;
    let records = air.records("j").await;
    let statuses: Vec<_> = records.iter().map(|(_, record)| record.status).collect();
    assert_eq!((runs(air, "t"), statuses), (1, vec![Status::Succeeded]));
}

#[tokio::test]
async fn a_manager_of_another_user_takes_no_runner_for_dead() {
    let mut air = short_leases(1).await;
    air.publish("j", &noted(&air, "t", WAITS).to_string()).await;
    exists(&file(&air, "up")).await;
    if manager_of_another_user(&mut air) {
        managers(&air, 2).await;
        runs_once_to_its_end(&air).await;
    }
}

#[tokio::test]
async fn a_runner_by_any_other_name_lives_as_well() {
    let mut air = short_leases(0).await;
    let renamed = file(&air, "renamed");
    // By a process of its own: a file that is open for writing here could not be executed.
    let copied = Command::new("cp")
        .arg(binary("air-runner"))
        .arg(&renamed)
        .status();
    assert!(copied.unwrap().success());
    let manager = Program::start(&mut air.manager_command_with(&renamed, &[]));
    air.managers.push(manager);
    air.publish("j", &noted(&air, "t", WAITS).to_string()).await;
    running(&air, "t").await;
    // One that has it as its child, and one that only sees it.
    air.add_manager(&[]);
    managers(&air, 2).await;
    runs_once_to_its_end(&air).await;
}

#[tokio::test]
async fn who_recovers_a_dead_runner_kills_what_it_left_though_it_is_nobodys_child() {
    let mut air = Installation::start(1).await;
    let line = "test $AIR_ATTEMPT -eq 2 && exit 0; setsid sleep 600 & sleep 600";
    air.publish("j", &noted(&air, "t", line).to_string()).await;
    let runner = running(&air, "t").await;
    // Its sweep at the start is over long before the runner dies, and finds nothing.
    air.add_manager(&[]);
    managers(&air, 2).await;
    air.managers[0].kill();
    air.publish("other", r#"{"run":"true"}"#).await;
    air.wait_completed("other").await;
    murder(runner);
    ends_well(&air, &["t"]).await;
    let lost = air.records("j").await.remove(0).1;
    assert!(lost.lost);
    // Long before its lease of 30 s ends: who is not its parent misses it in the list of processes. Others than
    // root may have processes that they may not look at, so that nobody is judged by the list.
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        assert_eq!(lost.error.unwrap(), "runner lost: its process is gone");
    }
}

/// A process that seems to be left by a dead runner of the installation `system`.
fn orphan(system: &str) -> Program {
    let mut command = Command::new("sleep");
    command
        .arg("600")
        .env("AIR_RUNNER", uuid::Uuid::now_v7().to_string())
        .env("AIR_SYSTEM", system);
    Program::start(&mut command)
}

/// A temporary folder of a runner, which nobody has touched for an hour.
fn old_folder() -> (PathBuf, File) {
    let folder = std::env::temp_dir().join(format!("air-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&folder).unwrap();
    let open = File::open(&folder).unwrap();
    let before = SystemTime::now() - Duration::from_secs(3600);
    open.set_modified(before).unwrap();
    (folder, open)
}

#[tokio::test]
async fn a_manager_removes_temporary_folders_that_no_runner_holds() {
    let mut air = short_leases(0).await;
    let ((held, lock), (left, _)) = (old_folder(), old_folder());
    lock.try_lock().unwrap();
    air.add_manager(&[]);
    wait_for("end of the folder", async || {
        let there = left.exists();
        (!there).then_some(()).ok_or("it is there")
    })
    .await;
    assert!(held.exists(), "somebody works in it");
    std::fs::remove_dir(held).unwrap();
}

#[tokio::test]
async fn a_manager_that_starts_sweeps_its_own_installation_only() {
    let mut air = short_leases(0).await;
    let system = air.nats.system().await.unwrap();
    let mut others = [orphan("AIR@elsewhere"), orphan(&format!("{system}0"))];
    let mut own = orphan(&system);
    air.add_manager(&[]);
    wait_for("end of the orphan", async || {
        if own.has_ended() {
            Ok(())
        } else {
            Err("it lives")
        }
    })
    .await;
    // All are judged by one look: by the end of one, it is over for the others as well.
    for other in &mut others {
        assert!(!other.has_ended(), "a process of another installation");
    }
    // What its tasks leave is marked so that a later manager finds it.
    let line = "echo $AIR_SYSTEM > system";
    air.publish("j", &noted(&air, "t", line).to_string()).await;
    ends_well(&air, &["t"]).await;
    let told = std::fs::read_to_string(file(&air, "system")).unwrap();
    assert_eq!(told.trim(), system);
}
