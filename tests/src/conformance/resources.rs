//! Cases in which a task asks for resources, and gets no more.

use std::path::PathBuf;

use air_protocol::record::Status;
use serde_json::json;
use uuid::Uuid;

use super::{Ground, Stand, until};
use crate::wait::wait_for;

/// A task that takes more memory than it asks for is ended, and its record says why; its neighbours do not notice.
pub async fn memory_limit(stand: &dyn Stand) {
    let mut ground = Ground::new(stand).await;
    ground.manager(stand, "");
    ground.air.spec("k", r#"{"lease_ttl":"3s"}"#).await;
    let mut neighbour = ground.noted("neighbour", &until("go"));
    neighbour["resources"] = json!({ "memory": "64Mi" });
    ground.air.publish("k", &neighbour.to_string()).await;
    // It keeps what it reads until a line ends.
    let mut task = ground.noted("t", "tail /dev/zero");
    task["resources"] = json!({ "memory": "64Mi", "cpu": "2" });
    task["retry"] = json!({ "max": 0 });
    ground.publish(&task).await;
    let record = ground.air.wait_record("j", "t", Status::Failed).await;
    let error = record.error.unwrap();
    assert!(
        error.starts_with("memory limit of 64 MiB exceeded: "),
        "{error}"
    );
    assert!(!record.lost, "its runner lives to tell");
    ground.is_gone(stand, record.run.unwrap()).await;
    ground.let_go("go");
    ground
        .air
        .wait_record("k", "neighbour", Status::Succeeded)
        .await;
    no_groups(&ground, &["j", "k"]).await;
}

/// A task that would take a whole processor is held to the fifth that it asks for.
pub async fn cpu_limit(stand: &dyn Stand) {
    let mut ground = Ground::new(stand).await;
    ground.manager(stand, "");
    let mut task = ground.noted("t", "while ! test -e go; do :; done");
    task["resources"] = json!({ "cpu": "200m" });
    ground.publish(&task).await;
    let runner = ground.started("t", 1).await;
    // It is stopped in each period once its share is used up.
    let throttled = async || {
        let folder = group(runner, "cpu.stat").ok_or("no group")?;
        let stat = std::fs::read_to_string(folder.join("cpu.stat")).unwrap_or_default();
        let count = stat
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled "))
            .and_then(|count| count.parse::<u32>().ok());
        if count >= Some(20) {
            Ok(())
        } else {
            Err("not yet throttled")
        }
    };
    wait_for("a task that is held up", throttled).await;
    ground.let_go("go");
    let record = ground.air.wait_record("j", "t", Status::Succeeded).await;
    let took = record.ended.as_millis() - record.started.unwrap().as_millis();
    let share = record.cpu_ms.unwrap() * 1000 / took.max(1);
    assert!(share <= 300, "{share} thousandths of a processor");
    ground.is_gone(stand, runner).await;
    no_groups(&ground, &["j"]).await;
}

/// Waits until no runner of these jobs has a cgroup: else a test would leave some behind when it kills its managers.
pub async fn no_groups(ground: &Ground, jobs: &[&str]) {
    wait_for("end of all cgroups", async || {
        for job in jobs {
            for (_, record) in ground.air.records(job).await {
                if let Some(left) = record.run.and_then(|run| group(run, "cgroup.procs")) {
                    return Err(left);
                }
            }
        }
        Ok(())
    })
    .await;
}

/// The folder of a runner's cgroup in which there is this file.
pub fn group(runner: Uuid, file: &str) -> Option<PathBuf> {
    let name = runner.to_string();
    let mut groups = groups("/sys/fs/cgroup".into()).into_iter();
    groups.find(|folder| {
        let own = folder.file_name().unwrap_or_default().to_string_lossy();
        own.ends_with(&name) && folder.join(file).exists()
    })
}

/// All cgroups at and below one.
fn groups(folder: PathBuf) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let below = below.flat_map(|entry| groups(entry.path()));
    below.chain([folder.clone()]).collect()
}
