//! Cases in which something fails, or somebody has enough.

use std::os::unix::fs::PermissionsExt as _;

use air_protocol::record::Status;
use uuid::Uuid;

use super::{Ground, Stand, until};
use crate::process::ok;
use crate::wait::{wait_for, wait_for_within};

/// Time that a manager gets for an infrastructure that comes and goes, or refuses five times: a refused pod takes its node some seconds.
const RECOVERY_MAX: std::time::Duration = std::time::Duration::from_secs(300);

/// A cancelled job ends its running task, and all that belongs to it.
pub async fn cancel(stand: &dyn Stand) {
    let mut ground = Ground::new(stand).await;
    ground.manager(stand, "");
    ground.publish(&ground.noted("t", "sleep 600")).await;
    let runner = ground.started("t", 1).await;
    ok(&mut ground.air.airx(&["cancel", "j"]));
    ground.air.wait_record("j", "t", Status::Cancelled).await;
    ground.is_gone(stand, runner).await;
    assert_eq!(ground.runs("t"), 1);
}

/// A task whose time is over is ended, and failed.
pub async fn timeout(stand: &dyn Stand) {
    let mut ground = Ground::new(stand).await;
    ground.manager(stand, "");
    let mut task = ground.noted("t", "sleep 600");
    task["timeout"] = "500ms".into();
    task["retry"] = serde_json::json!({ "max": 0 });
    ground.publish(&task).await;
    let record = ground.air.wait_record("j", "t", Status::Failed).await;
    ground.is_gone(stand, record.run.unwrap()).await;
}

/// A runner that is killed is missed at once, well before its lease ends by itself; its task runs again, once.
pub async fn lost_runner(stand: &dyn Stand) {
    lost_runner_by(stand, |runner| stand.murder(runner)).await;
}

/// The same, for a runner that ends in another way.
pub async fn lost_runner_by(stand: &dyn Stand, murder: impl FnOnce(Uuid)) {
    let mut ground = Ground::new(stand).await;
    ground.long_leases().await;
    ground.manager(stand, "");
    let line = "test $AIR_ATTEMPT -eq 2 || sleep 600";
    ground.publish(&ground.noted("t", line)).await;
    let runner = ground.started("t", 1).await;
    murder(runner);
    ground.ends_well().await;
    let records = ground.air.records("j").await;
    assert!(
        records[0].1.lost && records[0].1.run == Some(runner),
        "{records:?}"
    );
    assert_eq!((ground.runs("t"), records.len()), (2, 2));
    ground.is_gone(stand, runner).await;
}

/// The runners of a manager that was killed go on, and another manager of the same infrastructure misses those that die.
pub async fn adopt(stand: &dyn Stand) {
    let mut ground = Ground::new(stand).await;
    ground.long_leases().await;
    ground.manager(stand, "");
    ground.publish(&ground.noted("goes-on", &until("go"))).await;
    ground.started("goes-on", 1).await;
    ground.air.managers[0].kill();
    ground.manager(stand, "");
    ground.let_go("go");
    ground
        .air
        .wait_record("j", "goes-on", Status::Succeeded)
        .await;
    let line = "test $AIR_ATTEMPT -eq 2 || sleep 600";
    ground.publish(&ground.noted("dies", line)).await;
    let runner = ground.started("dies", 1).await;
    ground.air.managers[1].kill();
    stand.murder(runner);
    ground.manager(stand, "");
    ground.ends_well().await;
    assert_eq!((ground.runs("goes-on"), ground.runs("dies")), (1, 2));
}

/// A runner that is started twice under one claim runs its task once.
pub async fn duplicate_spawn(stand: &dyn Stand) {
    let mut ground = Ground::new(stand).await;
    let real = ground.file("air-runner");
    std::fs::copy(stand.runner(), &real).unwrap();
    let real = real.display();
    let script = format!("#!/bin/sh\n{real} & first=$!; {real}; wait $first\n");
    let text = ground.file("text");
    std::fs::write(&text, script).unwrap();
    std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&text, ground.file("runner")).unwrap();
    ground.manager(stand, "");
    for number in 0..3 {
        ground
            .publish(&ground.noted(&format!("t{number}"), "true"))
            .await;
    }
    ground.ends_well().await;
    for number in 0..3 {
        assert_eq!(ground.runs(&format!("t{number}")), 1);
    }
    assert_eq!(ground.air.records("j").await.len(), 3);
}

/// While the infrastructure is down its tasks wait, which no attempt pays for, and tasks for another one run; then it is there
/// again, and so are they.
pub async fn infrastructure_down(stand: &dyn Stand) {
    let mut ground = Ground::new(stand).await;
    let other = "[[backend]]\nname = \"other\"\nkind = \"process\"";
    if stand.is_elsewhere() {
        // It is away from the start, and no reason not to start.
        ground.break_down();
        ground.manager(stand, other);
        ground.publish(&ground.noted("t", "true")).await;
        ground
            .air
            .publish("k", r#"{"run":"true","backend":"other"}"#)
            .await;
        ground.air.wait_completed("k").await;
    } else {
        ground.manager(stand, "");
        ground.is_up().await;
        ground.break_down();
        ground.publish(&ground.noted("t", "true")).await;
    }
    let tried = async || {
        let state = ground.air.state("j").await;
        let Some(state) = state else {
            return Err("no state".to_owned());
        };
        match (state.failed_starts, state.status.as_str()) {
            (0, "waiting") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    wait_for("a job that waits", tried).await;
    assert_eq!(ground.runs("t"), 0);
    ground.mend(stand);
    wait_for_within(RECOVERY_MAX, "the task", async || {
        let runs = ground.runs("t");
        if runs == 1 { Ok(()) } else { Err(runs) }
    })
    .await;
    ground.ends_well().await;
    assert_eq!(
        (ground.runs("t"), ground.air.records("j").await.len()),
        (1, 1)
    );
}

/// An image that cannot be had is a failed attempt after some tries, with a text that names it, and no loop.
pub async fn refused_image(stand: &dyn Stand) {
    let mut ground = Ground::new(stand).await;
    ground.manager(stand, "");
    let mut task = ground.noted("t", "true");
    task["image"] = "nowhere.invalid/none:1".into();
    task["retry"] = serde_json::json!({ "max": 0 });
    ground.publish(&task).await;
    let failed = wait_for_within(RECOVERY_MAX, "failed task", async || {
        match ground.air.record("j", "t").await {
            Some(record) if record.status == Status::Failed => Ok(record),
            other => Err(other),
        }
    });
    let error = failed.await.error.unwrap();
    assert!(error.contains("nowhere.invalid/none:1"), "{error}");
    assert_eq!(ground.runs("t"), 0);
}
