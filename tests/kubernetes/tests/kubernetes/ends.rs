//! Ends that are not the runner's own are told apart in the record.

use std::os::unix::fs::PermissionsExt as _;

use air_kubernetes::{Pods, kubectl, name_of, pods_of};
use air_tests::conformance::{Ground, Stand as _};
use air_tests::ok;
use serde_json::json;

/// A container that had too much memory: the record says so, and the next attempt runs.
#[tokio::test]
async fn a_lack_of_memory_is_told() {
    let mut ground = Ground::new(&Pods).await;
    ground.long_leases().await;
    let real = ground.file("air-runner");
    std::fs::copy(Pods.runner(), &real).unwrap();
    // The first process is what the kernel ends, and not a task of its own: it takes memory once the task has begun.
    let (real, folder) = (real.display(), ground.folder().display().to_string());
    let script = format!(
        "#!/bin/sh\nif test -e {folder}/once; then exec {real}; fi\n{real} &\nwhile ! test -e {folder}/once; do sleep 0.05; done\nx=0123456789; while :; do x=$x$x; done\n"
    );
    let text = ground.file("text");
    std::fs::write(&text, script).unwrap();
    std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&text, ground.file("runner")).unwrap();
    ground.manager(&Pods, "");
    let mut task = ground.noted("t", "test $AIR_ATTEMPT -eq 2 || { touch once; sleep 600; }");
    task["resources"] = json!({ "memory": "64Mi" });
    ground.publish(&task).await;
    ground.ends_well().await;
    let records = ground.air.records("j").await;
    let error = records[0].1.error.as_deref().unwrap_or_default();
    assert!(
        records[0].1.lost && error.contains("ran out of memory (OOMKilled)"),
        "{records:?}"
    );
    assert_eq!(records.len(), 2);
}

/// A pod that is evicted, as a node that is drained does it, hands its task back: no failure, and it runs again.
#[tokio::test]
async fn an_evicted_runner_hands_its_task_back() {
    let mut ground = Ground::new(&Pods).await;
    ground.long_leases().await;
    ground.manager(&Pods, "");
    ground
        .publish(&ground.noted("t", "test $AIR_ATTEMPT -eq 2 || sleep 600"))
        .await;
    let runner = ground.started("t", 1).await;
    evict(&ground, runner);
    ground.ends_well().await;
    let records = ground.air.records("j").await;
    assert_eq!(
        (records.len(), records[1].1.failures, records[1].1.losses),
        (2, 0, 0),
        "{records:?}"
    );
    let error = records[0].1.error.as_deref().unwrap_or_default();
    assert!(error.contains("asked to end"), "{error}");
    ground.is_gone(&Pods, runner).await;
}

/// A runner that does not heed the eviction is lost, and the record says by what.
#[tokio::test]
async fn an_evicted_runner_that_does_not_heed_it_is_lost() {
    let mut ground = Ground::new(&Pods).await;
    ground.long_leases().await;
    let real = ground.file("air-runner");
    std::fs::copy(Pods.runner(), &real).unwrap();
    // A first process that passes no signal on.
    let script = format!("#!/bin/sh\ntrap '' TERM\n{} &\nwait $!\n", real.display());
    let text = ground.file("text");
    std::fs::write(&text, script).unwrap();
    std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&text, ground.file("runner")).unwrap();
    ground.manager(&Pods, "");
    ground
        .publish(&ground.noted("t", "test $AIR_ATTEMPT -eq 2 || sleep 600"))
        .await;
    let runner = ground.started("t", 1).await;
    evict(&ground, runner);
    ground
        .air
        .wait_completed_within("j", std::time::Duration::from_secs(120))
        .await;
    let records = ground.air.records("j").await;
    let error = records[0].1.error.as_deref().unwrap_or_default();
    assert!(
        records[0].1.lost && error.contains("it was evicted"),
        "{records:?}"
    );
}

/// What `kubectl drain` asks for.
fn evict(ground: &Ground, runner: uuid::Uuid) {
    let namespace = Pods::namespace(ground);
    let pods = pods_of(&namespace, runner);
    let name = name_of(&pods[0]);
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name, "namespace": namespace } });
    let file = ground.file("eviction.json");
    std::fs::write(&file, eviction.to_string()).unwrap();
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction");
    ok(&mut kubectl(&[
        "create",
        "--raw",
        &path,
        "--filename",
        file.to_str().unwrap(),
    ]));
}
