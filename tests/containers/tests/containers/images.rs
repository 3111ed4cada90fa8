//! Each image on its own, and a small installation of their containers.

use std::time::Duration;

use air_nats::{Nats, Options};
use air_protocol::names::JobName;
use air_protocol::record::Status;
use air_tests::{ok, try_output, wait_for, wait_for_within};
use serde_json::json;
use testcontainers::core::{IntoContainerPort as _, WaitFor};
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, GenericImage, ImageExt as _};

use crate::docker;

const LATEST: &str = "latest";
const NETWORK: &str = "air-containers";
/// The server, as its network names it.
const SERVER: &str = "nats://air-containers-nats:4222";

/// A server, on a network of its own, and a connection to it from outside.
async fn server() -> (ContainerAsync<GenericImage>, Nats) {
    let server = GenericImage::new("air-nats", LATEST)
        .with_exposed_port(4222.tcp())
        .with_wait_for(WaitFor::message_on_stderr("Server is ready"))
        .with_cmd(["--jetstream", "--store_dir", "/tmp/store"])
        .with_network(NETWORK)
        .with_container_name(format!("{NETWORK}-nats"))
        .start()
        .await
        .unwrap();
    let port = server.get_host_port_ipv4(4222).await.unwrap();
    let options = Options {
        url: Some(format!("nats://127.0.0.1:{port}")),
        ..Options::default()
    };
    let nats = Nats::connect(&options, "test").await.unwrap();
    nats.init(None, true).await.unwrap();
    (server, nats)
}

async fn manager() -> ContainerAsync<GenericImage> {
    GenericImage::new("air-manager", LATEST)
        .with_wait_for(WaitFor::message_on_stderr("manager started"))
        .with_cmd(["manager", "--poll", "1s", "--sync-interval", "0"])
        .with_env_var("NATS_URL", SERVER)
        .with_network(NETWORK)
        .start()
        .await
        .unwrap()
}

#[test]
fn the_images_are_small() {
    for (image, megabytes) in [("air-runner", 20), ("air-manager", 40), ("air-nats", 40)] {
        let format = "{{.Size}}";
        let size = ok(&mut docker(&["image", "inspect", "-f", format, image]));
        let size: u64 = size.trim().parse().unwrap();
        assert!(size < megabytes * 1_000_000, "{image} has {size} bytes");
    }
}

#[test]
fn the_programs_run_without_a_library_and_not_as_root() {
    let version = ok(&mut docker(&["run", "--rm", "air-manager", "--version"]));
    assert!(version.starts_with("airx "), "{version}");
    let id = ["run", "--rm", "--entrypoint", "id", "air-manager", "-u"];
    assert_eq!(ok(&mut docker(&id)).trim(), "65532");
    let lonely = docker(&["run", "--rm", "air-runner"]).output().unwrap();
    let said = String::from_utf8_lossy(&lonely.stderr);
    assert!(!lonely.status.success() && said.contains("AIR_"), "{said}");
}

#[tokio::test]
async fn a_manager_whose_container_is_killed_loses_nothing() {
    let (_server, nats) = server().await;
    let first = manager().await;
    let jobs: Vec<JobName> = (0..4).map(|n| format!("j{n}").parse().unwrap()).collect();
    let spec = serde_json::from_str(r#"{"lease_ttl":"3s","retry":{"backoff":"10ms"}}"#).unwrap();
    for job in &jobs {
        nats.write_spec(job, &spec, 0).await.unwrap();
        for number in 0..20 {
            let line = format!("sleep 0.1; echo {number} > $AIR_OUTPUT");
            let task = json!({ "id": format!("t{number}"), "run": line }).to_string();
            let published = nats.publish_task(job, None, task.into_bytes(), None);
            published.await.unwrap();
        }
    }
    let third = "t3".parse().unwrap();
    wait_for("first tasks", async || {
        let last = nats.last_record(&jobs[0], &third).await.unwrap();
        last.ok_or("none yet")
    })
    .await;
    ok(&mut docker(&["kill", "--signal", "KILL", first.id()]));
    let _second = manager().await;
    for job in &jobs {
        wait_for_within(Duration::from_secs(90), "end of the job", async || {
            let (records, _) = nats.records_after(job, 0, 256).await.unwrap();
            let succeeded = records
                .iter()
                .filter(|(_, record)| record.status == Status::Succeeded);
            match succeeded.count() {
                20 => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }
    let url = format!("NATS_URL={SERVER}");
    let verify = ["run", "--rm", "--network", NETWORK, "--env", &url];
    wait_for("verified history", async || {
        try_output(docker(&verify).args(["air-manager", "verify"]))
    })
    .await;
}
