//! The container of an order: a pure function of the order and of what was configured.
//!
//! No credential is in a label: those that are files are mounted, the rest are in the environment, which the runner keeps
//! from its task.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{ContainerCreateBody, HostConfig};
use uuid::Uuid;

use crate::DockerOptions;
use crate::backend::Order;

/// The label with the runner's id.
pub(super) const LABEL_RUNNER: &str = "air.runner";
/// The label with the installation.
const LABEL_SYSTEM: &str = "air.system";
/// The folder, in a container, of what comes from outside of its image.
const FOLDER: &str = "/.air";
/// The folder of credentials that are files; not within the other, which may be a volume that is read-only.
const CREDENTIALS: &str = "/.air-nats";
/// Programs may be run from there: tasks have their working folders in it.
const TMP: &str = "rw,exec,nosuid,nodev,mode=1777";

/// The parts of all containers of a backend.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    system: String,
    env: Vec<String>,
    host: HostConfig,
    user: Option<String>,
}

impl Parts {
    pub(super) fn new(options: &DockerOptions, nats: &air_nats::Options, system: &str) -> Self {
        let mut binds = vec![runner(&options.runner)];
        binds.extend(options.mounts.iter().cloned());
        let mut env = vec![format!("AIR_SYSTEM={system}")];
        for (name, value) in nats.to_env() {
            match (name, &options.nats_url) {
                ("NATS_URL", Some(url)) => env.push(format!("NATS_URL={url}")),
                ("NATS_CREDS" | "NATS_NKEY" | "NATS_CERT" | "NATS_KEY" | "NATS_CA", _) => {
                    let target = format!("{CREDENTIALS}/{name}");
                    let source = std::path::absolute(&value);
                    let source = source.unwrap_or_else(|_| value.into());
                    binds.push(format!("{}:{target}:ro", source.display()));
                    env.push(format!("{name}={target}"));
                }
                _ => env.push(format!("{name}={value}")),
            }
        }
        let tmp = || [("/tmp".to_owned(), TMP.to_owned())].into();
        let host = HostConfig {
            binds: Some(binds),
            network_mode: options.network.clone(),
            readonly_rootfs: Some(options.read_only),
            tmpfs: options.read_only.then(tmp),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            cap_drop: Some(options.cap_drop.clone()),
            ..HostConfig::default()
        };
        Self {
            system: system.to_owned(),
            env,
            host,
            user: options.user.clone(),
        }
    }

    /// The installation.
    pub(super) fn system(&self) -> &str {
        &self.system
    }

    /// The label of all containers of the installation.
    pub(super) fn of_system(&self) -> String {
        format!("{LABEL_SYSTEM}={}", self.system)
    }

    /// The container of an order.
    pub(super) fn body(&self, order: &Order, image: &str) -> ContainerCreateBody {
        let labels = [
            (LABEL_SYSTEM, self.system.clone()),
            (LABEL_RUNNER, order.runner.to_string()),
            ("air.job", order.job.to_string()),
            ("air.fence", order.fence.to_string()),
        ];
        let own = order.env().into_iter();
        let own = own.map(|(name, value)| format!("{name}={value}"));
        let wanted = order.resources.clone().unwrap_or_default();
        let memory = wanted.memory_bytes().map(clamped);
        let nano_cpus = wanted
            .cpu_millis()
            .map(|millis| clamped(millis.saturating_mul(1_000_000)));
        ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: Some(vec![format!("{FOLDER}/air-runner")]),
            cmd: Some(Vec::new()),
            env: Some(self.env.iter().cloned().chain(own).collect()),
            user: self.user.clone(),
            labels: Some(labels.map(|(name, value)| (name.to_owned(), value)).into()),
            host_config: Some(HostConfig {
                memory,
                // No swap: a limit that is passed by it would be none.
                memory_swap: memory,
                nano_cpus,
                ..self.host.clone()
            }),
            ..ContainerCreateBody::default()
        }
    }
}

/// The runner of a container, by its labels.
pub(super) fn runner_of(labels: &HashMap<String, String>) -> Option<Uuid> {
    labels.get(LABEL_RUNNER)?.parse().ok()
}

/// The mount that brings the runner: the file, or a volume that has it.
fn runner(source: &str) -> String {
    if Path::new(source).is_absolute() {
        format!("{source}:{FOLDER}/air-runner:ro")
    } else {
        format!("{source}:{FOLDER}:ro")
    }
}

fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use air_protocol::task::Resources;

    use super::*;

    fn order() -> Order {
        Order {
            job: "j".parse().unwrap(),
            seq: 5,
            runner: Uuid::nil(),
            fence: 7,
            backend: "docker".into(),
            state: None,
            image: None,
            resources: Some(Resources {
                cpu: Some("500m".into()),
                memory: Some("64Mi".into()),
            }),
        }
    }

    fn body(options: &DockerOptions) -> ContainerCreateBody {
        let nats = air_nats::Options {
            url: Some("nats://localhost:4222".into()),
            password: Some("secret".into()),
            creds: Some("/etc/air.creds".into()),
            ..air_nats::Options::default()
        };
        Parts::new(options, &nats, "system").body(&order(), "debian")
    }

    fn options() -> DockerOptions {
        DockerOptions {
            runner: "/opt/air-runner".into(),
            nats_url: Some("nats://nats:4222".into()),
            ..DockerOptions::default()
        }
    }

    #[test]
    fn a_container_is_told_its_claim_and_where_nats_is() {
        let body = body(&options());
        let env = body.env.unwrap();
        for wanted in [
            "AIR_JOB=j",
            "AIR_FENCE=7",
            "AIR_BACKEND=docker",
            "AIR_SYSTEM=system",
            "NATS_URL=nats://nats:4222",
            "NATS_PASSWORD=secret",
            "NATS_CREDS=/.air-nats/NATS_CREDS",
        ] {
            assert!(env.contains(&wanted.to_owned()), "{wanted}: {env:?}");
        }
        assert_eq!(
            env.iter()
                .filter(|one| one.starts_with("NATS_URL="))
                .count(),
            1
        );
        let binds = body.host_config.unwrap().binds.unwrap();
        let wanted = [
            "/opt/air-runner:/.air/air-runner:ro",
            "/etc/air.creds:/.air-nats/NATS_CREDS:ro",
        ];
        assert_eq!(binds, wanted);
        assert_eq!(body.entrypoint.unwrap(), ["/.air/air-runner"]);
    }

    #[test]
    fn labels_name_the_runner_and_hold_no_credential() {
        let labels = body(&options()).labels.unwrap();
        assert_eq!(runner_of(&labels), Some(Uuid::nil()));
        assert_eq!(labels["air.system"], "system");
        assert!(
            labels.values().all(|value| !value.contains("secret")),
            "{labels:?}"
        );
    }

    #[test]
    fn limits_are_those_of_the_task_and_no_privilege_is_new() {
        let host = body(&options()).host_config.unwrap();
        let limits = (host.memory, host.memory_swap, host.nano_cpus);
        assert_eq!(limits, (Some(64 << 20), Some(64 << 20), Some(500_000_000)));
        assert_eq!(host.security_opt.unwrap(), ["no-new-privileges"]);
        assert_eq!((host.readonly_rootfs, host.tmpfs), (Some(false), None));
    }

    #[test]
    fn what_is_configured_is_in_every_container() {
        let body = body(&DockerOptions {
            runner: "runner-volume".into(),
            network: Some("air".into()),
            mounts: vec!["/srv:/srv:ro".into()],
            user: Some("1000:1000".into()),
            read_only: true,
            cap_drop: vec!["ALL".into()],
            ..options()
        });
        assert_eq!(body.user.unwrap(), "1000:1000");
        let host = body.host_config.unwrap();
        let binds = host.binds.unwrap();
        assert_eq!(binds[..2], ["runner-volume:/.air:ro", "/srv:/srv:ro"]);
        assert_eq!(host.network_mode.unwrap(), "air");
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        assert!(host.readonly_rootfs.unwrap() && host.tmpfs.unwrap().contains_key("/tmp"));
    }
}
