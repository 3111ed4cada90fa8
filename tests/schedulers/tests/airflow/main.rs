//! The Airflow backend stands the conformance suite, on a real Airflow with Postgres.
//!
//! `cargo xtask test --all` starts it before, as `integrations/airflow/scripts/airflow` does. Each test has a DAG of its own
//! there, and comes to it through a door of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

use std::path::{Path, PathBuf};

use air_protocol::record::Status;
use air_schedulers::airflow::{Airflow, Slot};
use air_tests::conformance::{Alone, Ground, Stand, Started, until};
use air_tests::{ok, wait_for};
use serde_json::json;

const AIRFLOW: Airflow = Airflow("AIR_AIRFLOW");

struct Runs;

impl Stand for Runs {
    fn backend(&self, ground: &Ground) -> String {
        let slot = Slot::of(AIRFLOW, ground);
        slot.connect(&ground.air.server.url());
        slot.runner(&ground.runner_of(self));
        slot.backend()
    }

    /// Any path will do: what counts is whether the door is there.
    fn door(&self) -> PathBuf {
        AIRFLOW.folder()
    }

    /// Images would need KubernetesExecutor; but runners are started elsewhere, behind the door.
    fn is_elsewhere(&self) -> bool {
        true
    }
}

impl Alone for Runs {
    fn name(&self) -> &'static str {
        "Airflow's own task"
    }

    async fn alone(&self, _: &Ground, started: &Started) {
        let body = json!({ "logical_date": null, "conf": { "file": started.file() } });
        let run = AIRFLOW.ask("POST", "/api/v2/dags/alone/dagRuns", Some(&body));
        let id = run["dag_run_id"].as_str().unwrap();
        let path = format!("/api/v2/dags/alone/dagRuns/{id}");
        // Nobody asks, and takes Airflow's time, until it has started.
        started.opened().await;
        wait_for("end of Airflow's own run", async || {
            let state = AIRFLOW.ask("GET", &path, None)["state"].take();
            if state == "success" {
                Ok(())
            } else {
                Err(state)
            }
        })
        .await;
    }
}

air_tests::conformance!(Runs);

/// A run that somebody ends in Airflow has its runner hand the task back: it runs again, and nothing failed.
#[tokio::test]
async fn a_run_that_is_ended_in_airflow_hands_its_task_back() {
    let mut ground = Ground::new(&Runs).await;
    ground.long_leases().await;
    ground.manager(&Runs, "");
    let line = format!("test -e again || {{ touch again; {}; }}", until("never"));
    ground.publish(&ground.noted("t", &line)).await;
    let runner = ground.started("t", 1).await;
    let slot = Slot::of(AIRFLOW, &ground);
    let path = format!("{}/dagRuns/{}", slot.path(), slot.run_of(runner));
    AIRFLOW.ask("PATCH", &path, Some(&json!({ "state": "failed" })));
    ground.is_gone(&Runs, runner).await;
    ground.ends_well().await;
    let records = ground.air.records("j").await;
    let last = &records.last().unwrap().1;
    assert_eq!(
        (last.status, last.failures),
        (Status::Succeeded, 0),
        "{records:?}"
    );
    assert_eq!(ground.runs("t"), 2);
}

/// What ended while Airflow could not be asked is found when it can be again.
#[tokio::test]
async fn an_airflow_that_goes_away_proves_nobody_dead() {
    let mut ground = Ground::new(&Runs).await;
    ground.long_leases().await;
    ground.manager(&Runs, "");
    ground.publish(&ground.noted("goes-on", &until("go"))).await;
    ground.started("goes-on", 1).await;
    ground.break_down();
    wait_for("a manager without its backend", async || {
        let managers = ground.air.nats.managers().await.unwrap();
        let all: Vec<_> = managers.into_iter().flat_map(|one| one.backends).collect();
        if all.is_empty() { Ok(()) } else { Err(all) }
    })
    .await;
    ground.let_go("go");
    ground
        .air
        .wait_record("j", "goes-on", Status::Succeeded)
        .await;
    let line = "test $AIR_ATTEMPT -eq 2 || sleep 600";
    ground.mend(&Runs);
    ground.publish(&ground.noted("dies", line)).await;
    let runner = ground.started("dies", 1).await;
    ground.break_down();
    Runs.murder(runner);
    ground.mend(&Runs);
    ground.ends_well().await;
    assert_eq!((ground.runs("goes-on"), ground.runs("dies")), (1, 2));
}

/// A run whose conf is no claim is refused by Airflow, and its conf cannot say what is started.
#[tokio::test]
async fn only_a_claim_is_triggered() {
    let ground = Ground::new(&Runs).await;
    let path = format!("{}/dagRuns", Slot::of(AIRFLOW, &ground).path());
    let conf = json!({ "job": "j; true", "command": "true" });
    let body = json!({ "logical_date": null, "conf": conf });
    let answer = AIRFLOW.try_ask("POST", &path, Some(&body));
    assert_eq!(answer.unwrap_err(), 400);
}

/// A wrong password is told, and no attempt pays for it.
#[tokio::test]
async fn a_wrong_password_is_a_backend_that_is_away() {
    let mut ground = Ground::new(&Runs).await;
    let wrong = ground.file("password");
    std::fs::write(&wrong, "wrong").unwrap();
    let config = ground.file("config.toml");
    let right = AIRFLOW.password_file().display().to_string();
    let text = Runs
        .backend(&ground)
        .replace(&right, &wrong.display().to_string());
    std::fs::write(&config, text).unwrap();
    let options = ["--config", config.to_str().unwrap()];
    let mut command = ground
        .air
        .manager_command_with(Path::new(&Runs.runner()), &options);
    ground
        .air
        .managers
        .push(air_tests::Program::start(&mut command));
    ground.publish(&ground.noted("t", "true")).await;
    wait_for("a job that waits", async || {
        match ground.air.state("j").await {
            Some(state) if state.failed_starts == 0 && state.status.as_str() == "waiting" => Ok(()),
            other => Err(other.map(|state| state.status.as_str().to_owned())),
        }
    })
    .await;
    std::fs::write(&wrong, std::fs::read(&right).unwrap()).unwrap();
    ground.ends_well().await;
    let doctor = ok(&mut ground.air.airx(&["tasks", "j"]));
    assert!(doctor.contains("succeeded"), "{doctor}");
}
