//! The Airflow backend with KubernetesExecutor: each runner is in a pod of a real cluster, with the image and the resources of its task.
//!
//! `cargo xtask test --all` starts this Airflow before, beside the cluster. Its pods see the folders of this machine that Airflow and
//! the tests need, and so the processes in them are seen and killed from here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

use std::path::PathBuf;

use air_kubernetes::{get, kubectl, name_of};
use air_protocol::record::Status;
use air_schedulers::airflow::{Airflow, Slot};
use air_tests::conformance::{self, Ground, Stand, is_process_left, until};
use air_tests::{ok, runners};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use uuid::Uuid;

const AIRFLOW: Airflow = Airflow("AIR_AIRFLOW_KUBERNETES");
/// Where its pods are, as `cargo xtask` has told it.
const NAMESPACE: &str = "air-airflow";

struct Pods;

impl Stand for Pods {
    fn backend(&self, ground: &Ground) -> String {
        let slot = Slot::of(AIRFLOW, ground);
        slot.connect(&ground.air.server.url());
        slot.runner(&ground.runner_of(self));
        format!("{}kubernetes = true", slot.backend())
    }

    /// Any path will do: what counts is whether the door is there.
    fn door(&self) -> PathBuf {
        AIRFLOW.folder()
    }

    fn address(&self) -> &'static str {
        air_kubernetes::Pods.address()
    }

    fn is_left(&self, runner: Uuid) -> bool {
        !pods_of(runner).is_empty() || is_process_left(runner)
    }

    fn is_elsewhere(&self) -> bool {
        true
    }
}

/// The pods of a runner's run, of which Airflow notes the id.
fn pods_of(runner: Uuid) -> Vec<Value> {
    let mark = format!("air.{runner}.");
    let mut pods = get(NAMESPACE, "pods", "kubernetes_executor=True");
    pods.retain(|pod| {
        let run = pod["metadata"]["annotations"]["run_id"].as_str();
        run.is_some_and(|run| run.starts_with(&mark))
    });
    pods
}

/// The only pod of a runner, which has Airflow's container.
fn only_pod_of(runner: Uuid) -> Value {
    let mut pods = pods_of(runner);
    assert_eq!(pods.len(), 1, "{pods:?}");
    let pod = pods.remove(0);
    assert_eq!(pod["spec"]["containers"][0]["name"], "base");
    pod
}

/// The first process of the container in which a process is, which takes all others with it.
fn first_of(mut pid: u32) -> u32 {
    loop {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = |name| status.lines().find_map(|line| line.strip_prefix(name));
        // Its ids in all namespaces, its own last.
        let ids: Vec<_> = line("NSpid:").unwrap().split_whitespace().collect();
        if ids.len() > 1 && ids.last() == Some(&"1") {
            return pid;
        }
        pid = line("PPid:").unwrap().trim().parse().unwrap();
    }
}

// Without the two that take minutes here: `job_file` is six pods one after another, and what befalls a pod without an image is told by
// Airflow's silence alone, five times.
air_tests::conformance!(Pods; environment subtasks logs limits cancel timeout lost_runner adopt duplicate_spawn infrastructure_down);

/// A task that asks for nothing has the pod of Airflow's template.
#[tokio::test]
async fn a_task_runs_in_a_pod() {
    let mut ground = Ground::new(&Pods).await;
    ground.manager(&Pods, "");
    ground.publish(&ground.noted("t", &until("go"))).await;
    let runner = ground.started("t", 1).await;
    let pod = only_pod_of(runner);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["image"], "air-shell");
    assert_eq!(container["resources"], json!({}));
    assert_eq!(pod["status"]["phase"], "Running");
    ground.let_go("go");
    ground.ends_well().await;
    let record = ground.air.wait_record("j", "t", Status::Succeeded).await;
    assert_eq!(record.run, Some(runner));
    ground.is_gone(&Pods, runner).await;
}

/// Image and resources of a task are those of the container in which its runner is.
#[tokio::test]
async fn image_and_resources_are_those_of_the_pod() {
    let mut ground = Ground::new(&Pods).await;
    ground.manager(&Pods, "");
    let mut task = ground.noted("t", &until("go"));
    let wanted = json!({ "cpu": "300m", "memory": "768Mi" });
    task["image"] = "air-runner".into();
    task["resources"] = wanted.clone();
    ground.publish(&task).await;
    let runner = ground.started("t", 1).await;
    let pod = only_pod_of(runner);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["image"], "air-runner");
    assert_eq!(container["resources"]["limits"], wanted);
    assert_eq!(container["resources"]["requests"], wanted);
    let image = pod["status"]["containerStatuses"][0]["image"].as_str();
    assert!(image.unwrap().contains("air-runner"), "{image:?}");
    ground.let_go("go");
    ground.ends_well().await;
    ground.is_gone(&Pods, runner).await;
}

/// A pod that somebody deletes, as a drained node does, has its runner hand the task back: it runs again, and nothing failed.
#[tokio::test]
async fn a_pod_that_is_deleted_hands_its_task_back() {
    let mut ground = Ground::new(&Pods).await;
    ground.long_leases().await;
    ground.manager(&Pods, "");
    let line = "test $AIR_ATTEMPT -eq 2 || sleep 600";
    ground.publish(&ground.noted("t", line)).await;
    let runner = ground.started("t", 1).await;
    let pods = pods_of(runner);
    let pod = ["pod", name_of(&pods[0]), "--namespace", NAMESPACE];
    ok(kubectl(&["delete", "--wait=false"]).args(pod));
    ground.ends_well().await;
    let records = ground.air.records("j").await;
    let last = &records.last().unwrap().1;
    assert_eq!(
        (records.len(), last.status, last.failures, last.losses),
        (2, Status::Succeeded, 0, 0),
        "{records:?}"
    );
    let error = records[0].1.error.as_deref().unwrap_or_default();
    assert!(error.contains("asked to end"), "{error}");
    assert_eq!(ground.runs("t"), 2);
    ground.is_gone(&Pods, runner).await;
}

/// A pod whose processes are all killed at once leaves no word: its runner counts as lost, well before its lease ends.
#[tokio::test]
async fn a_killed_pod_is_a_lost_runner() {
    conformance::lost_runner_by(&Pods, |runner| {
        let all = runners();
        let (pid, _) = all.iter().find(|(_, run)| *run == runner).unwrap();
        let first = Pid::from_raw(first_of(*pid).cast_signed());
        kill(first, Signal::SIGKILL).unwrap();
    })
    .await;
}
