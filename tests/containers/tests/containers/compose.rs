//! `compose.yaml` with the images built here: three servers with TLS between them, and three managers.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use air_tests::{ok, try_output, wait_for_within};

/// Time that containers get to start and to fail over.
const WITHIN: Duration = Duration::from_secs(300);

/// A project that is taken down again, with its volumes.
struct Project;

impl Project {
    fn up() -> Self {
        ok(compose().args(["up", "--detach"]));
        Self
    }

    /// Waits until a task is submitted from a manager's container, and printed what it should.
    async fn says_hi(&self, manager: &str, job: &str) {
        wait_for_within(WITHIN, "task", async || {
            let submit = ["airx", "submit", job, "--id", "t", "--wait", "--"];
            try_output(exec(manager, &submit).args(["echo", "hi"]))
        })
        .await;
        let logs = ok(&mut exec(manager, &["airx", "logs", job, "t"]));
        assert_eq!(logs, "hi\n");
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = compose().args(["logs", "--tail", "30"]).status();
        }
        let down = ["down", "--volumes", "--timeout", "5"];
        let _ = compose().args(down).output();
    }
}

fn compose() -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let root = root.unwrap();
    let images = std::env::var("AIR_IMAGES").expect("run by `cargo xtask test --all`");
    let mut compose = Command::new(std::env::var_os("AIR_DOCKER_COMPOSE").unwrap());
    compose
        .args(["--project-name", "air-test", "--file"])
        .arg(root.join("compose.yaml"))
        .env("AIR_NATS_IMAGE", "air-nats")
        .env("AIR_TLS_DIR", format!("{images}/tls"))
        .env("AIR_NATS_PORT", "0");
    compose
}

fn exec(service: &str, args: &[&str]) -> Command {
    let mut command = compose();
    command.args(["exec", "--no-TTY", service]).args(args);
    command
}

#[tokio::test]
async fn the_project_survives_a_server_and_a_manager() {
    let project = Project::up();
    project.says_hi("manager-1", "before").await;
    let get = ["wget", "-qO-", "http://127.0.0.1:8222/varz"];
    let about: serde_json::Value = serde_json::from_str(&ok(&mut exec("nats-1", &get))).unwrap();
    let cluster = &about["cluster"];
    assert_eq!(cluster["tls_required"], true, "{cluster}");
    ok(compose().args(["kill", "nats-2", "manager-3"]));
    project.says_hi("manager-1", "after").await;
    let verify = exec("manager-2", &["airx", "verify"]).output().unwrap();
    let said = String::from_utf8_lossy(&verify.stdout);
    assert!(verify.status.success(), "{said}");
}
