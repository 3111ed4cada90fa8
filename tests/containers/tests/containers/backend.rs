//! The Docker backend stands the conformance suite, in an image that knows nothing of Air-Executor.

use std::path::PathBuf;

use air_tests::conformance::{Alone, Ground, Stand, Started};
use air_tests::ok;
use uuid::Uuid;

use crate::docker;

struct Containers;

/// The containers of a runner, with these options of `docker ps`.
fn of(runner: Uuid, options: &[&str]) -> String {
    let filter = format!("label=air.runner={runner}");
    let ps = ["ps", "--quiet", "--filter", &filter];
    ok(docker(&ps).args(options)).trim().to_owned()
}

impl Stand for Containers {
    fn backend(&self, ground: &Ground) -> String {
        let (door, folder) = (ground.door(), ground.folder().display().to_string());
        let runner = ground.runner_of(self);
        format!(
            r#"
            [[backend]]
            name = "tested"
            kind = "docker"
            host = "unix://{}"
            image = "air-shell"
            runner = "{}"
            network = "host"
            mounts = ["{folder}:{folder}"]
            read_only = true
            cap_drop = ["ALL"]
            "#,
            door.display(),
            runner.display(),
        )
    }

    fn runner(&self) -> PathBuf {
        let images = std::env::var_os("AIR_IMAGES").expect("run by `cargo xtask test --all`");
        PathBuf::from(images).join("air-runner")
    }

    fn door(&self) -> PathBuf {
        let host = std::env::var("DOCKER_HOST");
        let host = host.unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let path = host
            .strip_prefix("unix://")
            .expect("a daemon behind a socket");
        PathBuf::from(path)
    }

    fn murder(&self, runner: Uuid) {
        ok(&mut docker(&["kill", "--signal", "KILL", &of(runner, &[])]));
    }

    fn is_left(&self, runner: Uuid) -> bool {
        !of(runner, &["--all"]).is_empty()
    }

    fn is_elsewhere(&self) -> bool {
        true
    }
}

impl Alone for Containers {
    fn name(&self) -> &'static str {
        "docker run"
    }

    async fn alone(&self, ground: &Ground, started: &Started) {
        let folder = ground.folder().display();
        let mount = format!("{folder}:{folder}");
        let run = ["run", "--rm", "--network", "host", "--volume", &mount];
        ok(docker(&run).args(["air-shell", "sh", "-c", &started.line()]));
    }
}

air_tests::conformance!(Containers);

/// What is asked of a container arrives in it, and the container is as closed as it was configured.
#[tokio::test]
async fn resources_and_rights_are_those_that_were_asked_for() {
    let mut ground = Ground::new(&Containers).await;
    ground.manager(&Containers, "");
    let mut task = ground.noted("t", "while ! test -e go; do sleep 0.02; done");
    task["resources"] = serde_json::json!({ "cpu": "500m", "memory": "64Mi" });
    ground.publish(&task).await;
    let runner = ground.started("t", 1).await;
    let id = of(runner, &[]);
    let format = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.SecurityOpt}} {{.HostConfig.CapDrop}}";
    let seen = ok(&mut docker(&["inspect", "--format", format, &id]));
    assert_eq!(
        seen.trim(),
        "67108864 500000000 true [no-new-privileges] [ALL]"
    );
    let labels = ok(&mut docker(&[
        "inspect",
        "--format",
        "{{json .Config.Labels}}",
        &id,
    ]));
    assert!(!labels.contains("nats"), "{labels}");
    ground.let_go("go");
    ground.ends_well().await;
    ground.is_gone(&Containers, runner).await;
}

/// A task that asks for an image and names no backend goes past the processes of the same manager.
#[tokio::test]
async fn an_image_chooses_the_backend_that_has_images() {
    let mut ground = Ground::new(&Containers).await;
    ground.manager(&Containers, "[[backend]]\nkind = \"process\"");
    ground
        .publish(&serde_json::json!({ "id": "plain", "run": "true" }))
        .await;
    ground
        .publish(&serde_json::json!({ "id": "boxed", "run": "true", "image": "air-shell" }))
        .await;
    ground.ends_well().await;
    for (task, backend) in [("plain", "process"), ("boxed", "tested")] {
        let record = ground.air.record("j", task).await.unwrap();
        assert_eq!(record.backend.as_deref(), Some(backend));
    }
}

/// What only the first backend has no room for runs on the second.
#[tokio::test]
async fn what_is_too_much_for_processes_overflows_to_containers() {
    let mut ground = Ground::new(&Containers).await;
    ground.manager(
        &Containers,
        "[[backend]]\nkind = \"process\"\nmax_runners = 1",
    );
    let line = format!(
        "cd {}; touch up.$AIR_JOB; while ! test -e go; do sleep 0.02; done",
        ground.folder().display()
    );
    for job in ["k", "l"] {
        let task = serde_json::json!({ "id": "t", "run": line });
        ground.air.publish(job, &task.to_string()).await;
    }
    for job in ["k", "l"] {
        let file = ground.file(&format!("up.{job}"));
        air_tests::wait_for("both at once", async || {
            if file.exists() { Ok(()) } else { Err(job) }
        })
        .await;
    }
    ground.let_go("go");
    let mut backends = Vec::new();
    for job in ["k", "l"] {
        ground.air.wait_completed(job).await;
        backends.extend(ground.air.record(job, "t").await.unwrap().backend);
    }
    backends.sort();
    assert_eq!(backends, ["process", "tested"]);
}
