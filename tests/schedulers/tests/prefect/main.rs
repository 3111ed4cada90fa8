//! The Prefect backend stands the conformance suite, on a real Prefect with a work pool of processes.
//!
//! `cargo xtask test --all` starts it before, as `integrations/prefect/scripts/stand` does. Each test has a deployment of its own
//! there, which its manager makes, and comes to it through a gate of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

use std::process::Command;
use std::sync::OnceLock;

use air_protocol::record::Status;
use air_tests::conformance::{Alone, Ground, Stand, Started, until};
use air_tests::{ok, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use uuid::Uuid;

struct FlowRuns;

/// The address of the API, without the scheme.
fn api() -> String {
    let url = std::env::var("AIR_PREFECT_API").expect("run by `cargo xtask test --all`");
    url.strip_prefix("http://").unwrap().to_owned()
}

/// Asks Prefect; a busy one again.
fn ask(method: &str, path: &str, body: &Value) -> Value {
    let url = format!("http://{}{path}", api());
    let curl = [
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        // Without the bodies of refused tries, which would come before that of the answer.
        "--fail",
        "--retry",
        "9",
    ];
    let mut command = Command::new("curl");
    command.args(curl).args(["--request", method]);
    if !body.is_null() {
        let header = "content-type: application/json";
        command.args(["--header", header, "--data", &body.to_string()]);
    }
    serde_json::from_str(&ok(command.arg(url))).unwrap()
}

/// The name of a test's deployment.
fn deployment(ground: &Ground) -> String {
    let folder = ground.folder().file_name().unwrap();
    format!("air-runner-{}", folder.to_str().unwrap().replace('.', ""))
}

/// The flow run of a runner.
fn flow_run(runner: Uuid) -> Value {
    let filter =
        json!({ "flow_runs": { "idempotency_key": { "any_": [format!("air-runner:{runner}")] } } });
    ask("POST", "/flow_runs/filter", &filter)[0].take()
}

impl Stand for FlowRuns {
    fn backend(&self, ground: &Ground) -> String {
        let api = api();
        let (server, path) = api.split_once('/').unwrap();
        let gate = ground.gate(server.parse().unwrap());
        let runner = ground.runner_of(self);
        format!(
            r#"
            [[backend]]
            name = "tested"
            kind = "prefect"
            url = "http://{gate}/{path}"
            work_pool = "air-pool"
            deployment = "{}"
            poll = "1s"
            job_variables = {{ env = {{ AIR_RUNNER_PROGRAM = "{}" }} }}
            "#,
            deployment(ground),
            runner.display()
        )
    }

    fn is_elsewhere(&self) -> bool {
        true
    }
}

/// The deployment of `flows/alone.py`.
fn alone() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let flow = ask("POST", "/flows/", &json!({ "name": "alone" }));
        let body = json!({
            "name": "alone", "flow_id": flow["id"], "work_pool_name": "air-pool",
            "path": concat!(env!("CARGO_MANIFEST_DIR"), "/flows"), "entrypoint": "alone.py:alone",
        });
        let deployment = ask("POST", "/deployments/", &body);
        deployment["id"].as_str().unwrap().to_owned()
    })
}

impl Alone for FlowRuns {
    fn name(&self) -> &'static str {
        "Prefect's own flow run"
    }

    async fn alone(&self, _: &Ground, started: &Started) {
        let create = format!("/deployments/{}/create_flow_run", alone());
        let run = ask(
            "POST",
            &create,
            &json!({ "parameters": { "file": started.file() } }),
        );
        let path = format!("/flow_runs/{}", run["id"].as_str().unwrap());
        // Nobody asks, and takes Prefect's time, until it has started.
        started.opened().await;
        wait_for("end of Prefect's own flow run", async || {
            let state = ask("GET", &path, &Value::Null)["state_type"].take();
            if state == "COMPLETED" {
                Ok(())
            } else {
                Err(state)
            }
        })
        .await;
    }
}

air_tests::conformance!(FlowRuns);

/// A flow run that is cancelled in Prefect hands its task back: it runs again, and no attempt pays for it.
#[tokio::test]
async fn a_flow_run_that_is_cancelled_in_prefect_hands_its_task_back() {
    let mut ground = Ground::new(&FlowRuns).await;
    ground.long_leases().await;
    ground.manager(&FlowRuns, "");
    ground.publish(&ground.noted("t", &until("go"))).await;
    let runner = ground.started("t", 1).await;
    let id = flow_run(runner)["id"].as_str().unwrap().to_owned();
    let body = json!({ "state": { "type": "CANCELLING", "name": "Cancelling" } });
    ask("POST", &format!("/flow_runs/{id}/set_state"), &body);
    ground.started("t", 2).await;
    ground.let_go("go");
    ground.ends_well().await;
    let record = ground.air.record("j", "t").await.unwrap();
    assert_eq!((record.status, record.failures), (Status::Succeeded, 0));
    ground.is_gone(&FlowRuns, runner).await;
}

/// When the process of a flow run is killed its runner does not outlive it, and its task runs again.
#[tokio::test]
async fn a_runner_does_not_outlive_its_flow_run() {
    let mut ground = Ground::new(&FlowRuns).await;
    ground.long_leases().await;
    ground.manager(&FlowRuns, "");
    let line = "test $AIR_ATTEMPT -eq 2 || sleep 600";
    ground.publish(&ground.noted("t", line)).await;
    let runner = ground.started("t", 1).await;
    let all = air_tests::runners();
    let (pid, _) = all.iter().find(|(_, run)| *run == runner).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let parent: i32 = parent.unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(parent), Signal::SIGKILL).unwrap();
    ground.ends_well().await;
    ground.is_gone(&FlowRuns, runner).await;
    assert_eq!(ground.runs("t"), 2);
}

/// Prefect shows a flow run for each runner, with the claim as its parameters, and how it ended.
#[tokio::test]
async fn a_flow_run_shows_the_claim_and_how_it_ended() {
    let mut ground = Ground::new(&FlowRuns).await;
    ground.manager(&FlowRuns, "");
    ground.publish(&ground.noted("t", "true")).await;
    ground.ends_well().await;
    let record = ground.air.record("j", "t").await.unwrap();
    let runner = record.run.unwrap();
    wait_for("flow run that is over", async || {
        let run = flow_run(runner);
        if run["state_type"] == "COMPLETED" {
            Ok(())
        } else {
            Err(run)
        }
    })
    .await;
    let run = flow_run(runner);
    let expected = json!({
        "job": "j", "seq": record.seq, "runner": runner, "fence": record.fence, "backend": "tested",
    });
    assert_eq!(run["parameters"], expected);
    let name = run["name"].as_str().unwrap();
    assert!(name.starts_with("air-j-"), "{name}");
}
