//! The pod of an order and its secret: pure functions of the order and of what was configured.
//!
//! The runner comes into any image by an init container, which copies it into an empty volume. Credentials are in a
//! secret that the pod owns, and nowhere else. What a template says stays, but for what makes a pod a runner's.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, KeyToPath,
    LocalObjectReference, Pod, PodSpec, ResourceRequirements, SeccompProfile, Secret,
    SecretKeySelector, SecretVolumeSource, SecurityContext, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use uuid::Uuid;

use crate::backend::{Order, fnv};
use crate::kubernetes_options::KubernetesOptions;
use crate::{PodTemplate, Pull};

/// The container whose first process is the runner.
pub(super) const TASK: &str = "task";
/// The container that brings the runner.
pub(super) const INIT: &str = "air-runner";
/// The label with the runner's id.
pub(super) const LABEL_RUNNER: &str = "air.runner";
/// The label with a hash of the installation.
const LABEL_SYSTEM: &str = "air.system";
/// Where the image of the runner has it.
const PROGRAM: &str = "/usr/local/bin/air-runner";
/// The volume, and the folder, of the runner.
const FOLDER: (&str, &str) = ("air-runner", "/.air");
/// The volume, and the folder, of credentials that are files.
const CREDENTIALS: (&str, &str) = ("air-nats", "/.air-nats");
/// The volume, and the folder, of what a task may write where its image is read-only.
const TMP: (&str, &str) = ("air-tmp", "/tmp");

/// The parts of all pods of a backend.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    system: String,
    options: KubernetesOptions,
    /// Variables that are no secret.
    plain: Vec<(&'static str, String)>,
    /// Variables that may be.
    secret: Vec<(&'static str, String)>,
    /// Variables that name files, and the files on the manager's machine.
    files: Vec<(&'static str, String)>,
}

impl Parts {
    pub(super) fn new(options: &KubernetesOptions, nats: &air_nats::Options, system: &str) -> Self {
        let (mut plain, mut secret, mut files) = (Vec::new(), Vec::new(), Vec::new());
        for (name, value) in nats.to_env() {
            match name {
                "NATS_CREDS" | "NATS_NKEY" | "NATS_CERT" | "NATS_KEY" | "NATS_CA" => {
                    files.push((name, value))
                }
                "NATS_URL" => secret.push((name, options.nats_url.clone().unwrap_or(value))),
                _ if name.starts_with("NATS_") => secret.push((name, value)),
                _ => plain.push((name, value)),
            }
        }
        plain.push(("AIR_SYSTEM", system.to_owned()));
        Self {
            system: system.to_owned(),
            options: options.clone(),
            plain,
            secret,
            files,
        }
    }

    /// The installation.
    pub(super) fn system(&self) -> &str {
        &self.system
    }

    /// The selector of all pods of the installation.
    pub(super) fn of_system(&self) -> String {
        format!("{LABEL_SYSTEM}={}", self.hash())
    }

    /// A label takes few characters, and the installation's name has others.
    fn hash(&self) -> String {
        format!("{:016x}", fnv(self.system.bytes()))
    }

    fn meta(&self, order: &Order) -> ObjectMeta {
        let labels = [
            (LABEL_SYSTEM, self.hash()),
            (LABEL_RUNNER, order.runner.to_string()),
            ("air.fence", order.fence.to_string()),
        ];
        let notes = [
            ("air.system", self.system.clone()),
            ("air.job", order.job.to_string()),
        ];
        let map = |pairs: &[(&str, String)]| {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect()
        };
        ObjectMeta {
            name: Some(order.name(&self.system)),
            labels: Some(map(&labels)),
            annotations: Some(map(&notes)),
            ..ObjectMeta::default()
        }
    }

    /// The secret of a pod that is there: it goes with it. Reads the files of credentials.
    pub(super) fn secret(&self, order: &Order, pod_uid: &str) -> std::io::Result<Secret> {
        let mut data = BTreeMap::new();
        for (name, file) in &self.files {
            data.insert((*name).to_owned(), ByteString(std::fs::read(file)?));
        }
        for (name, value) in &self.secret {
            data.insert((*name).to_owned(), ByteString(value.clone().into_bytes()));
        }
        let mut metadata = self.meta(order);
        metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: order.name(&self.system),
            uid: pod_uid.to_owned(),
            ..OwnerReference::default()
        }]);
        Ok(Secret {
            metadata,
            data: Some(data),
            immutable: Some(true),
            ..Secret::default()
        })
    }

    /// The pod of an order.
    pub(super) fn pod(&self, order: &Order, image: &str) -> Pod {
        let (meta, mut spec) = self
            .options
            .template
            .as_ref()
            .map(PodTemplate::parts)
            .unwrap_or_default();
        let mut metadata = self.meta(order);
        let under = |mine: &mut Option<BTreeMap<String, String>>,
                     theirs: Option<BTreeMap<String, String>>| {
            let mut all = theirs.unwrap_or_default();
            all.extend(mine.take().unwrap_or_default());
            *mine = Some(all);
        };
        under(&mut metadata.labels, meta.labels);
        under(&mut metadata.annotations, meta.annotations);
        self.add_placement(&mut spec);
        self.add_volumes(order, &mut spec);
        let (user, group) = self.options.user;
        let security = spec.security_context.get_or_insert_default();
        fill(&mut security.run_as_non_root, user != 0);
        fill(&mut security.run_as_user, user);
        fill(&mut security.run_as_group, group);
        fill(&mut security.seccomp_profile, default_seccomp());
        self.add_init(order, &mut spec);
        self.add_task(order, image, &mut spec);
        Pod {
            metadata,
            spec: Some(spec),
            status: None,
        }
    }

    fn add_placement(&self, spec: &mut PodSpec) {
        let options = &self.options;
        spec.restart_policy = Some("Never".to_owned());
        fill(&mut spec.enable_service_links, false);
        let account = options.service_account.clone();
        fill(&mut spec.automount_service_account_token, account.is_some());
        spec.service_account_name = account.or(spec.service_account_name.take());
        spec.node_selector
            .get_or_insert_default()
            .extend(options.node_selector.clone());
        let tolerations = options.tolerations.iter().map(|one| Toleration {
            key: Some(one.key.clone()),
            operator: Some(
                if one.value.is_some() {
                    "Equal"
                } else {
                    "Exists"
                }
                .to_owned(),
            ),
            value: one.value.clone(),
            effect: one.effect.clone(),
            ..Toleration::default()
        });
        spec.tolerations.get_or_insert_default().extend(tolerations);
        let secrets = options
            .image_pull_secrets
            .iter()
            .map(|name| LocalObjectReference { name: name.clone() });
        spec.image_pull_secrets
            .get_or_insert_default()
            .extend(secrets);
    }

    fn add_volumes(&self, order: &Order, spec: &mut PodSpec) {
        let empty = |(name, _): (&str, &str)| Volume {
            name: name.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        };
        let volumes = spec.volumes.get_or_insert_default();
        volumes.push(empty(FOLDER));
        if self.options.read_only {
            volumes.push(empty(TMP));
        }
        if !self.files.is_empty() {
            let item = |(name, _): &(&str, String)| KeyToPath {
                key: (*name).to_owned(),
                path: (*name).to_owned(),
                mode: None,
            };
            volumes.push(Volume {
                name: CREDENTIALS.0.to_owned(),
                secret: Some(SecretVolumeSource {
                    secret_name: Some(order.name(&self.system)),
                    items: Some(self.files.iter().map(item).collect()),
                    ..SecretVolumeSource::default()
                }),
                ..Volume::default()
            });
        }
    }

    fn add_init(&self, order: &Order, spec: &mut PodSpec) {
        let copy = ["cp", PROGRAM, &format!("{}/air-runner", FOLDER.1)];
        let init = Container {
            name: INIT.to_owned(),
            image: Some(self.options.runner_image.clone()),
            image_pull_policy: Some(self.pull_policy()),
            command: Some(copy.map(str::to_owned).into()),
            volume_mounts: Some(vec![mount(FOLDER, false)]),
            resources: resources(order),
            security_context: Some(closed(None, true)),
            ..Container::default()
        };
        spec.init_containers.get_or_insert_default().insert(0, init);
    }

    fn add_task(&self, order: &Order, image: &str, spec: &mut PodSpec) {
        let place = spec.containers.iter().position(|one| one.name == TASK);
        let mut task = place
            .map(|place| spec.containers.remove(place))
            .unwrap_or_default();
        TASK.clone_into(&mut task.name);
        task.image = Some(image.to_owned());
        task.image_pull_policy = Some(self.pull_policy());
        task.command = Some(vec![format!("{}/air-runner", FOLDER.1)]);
        task.args = None;
        task.env.get_or_insert_default().extend(self.env(order));
        let mounts = task.volume_mounts.get_or_insert_default();
        mounts.push(mount(FOLDER, true));
        if self.options.read_only {
            mounts.push(mount(TMP, false));
        }
        if !self.files.is_empty() {
            mounts.push(mount(CREDENTIALS, true));
        }
        if let Some(wanted) = resources(order) {
            let all = task.resources.get_or_insert_default();
            for (mine, wanted) in [
                (&mut all.limits, wanted.limits),
                (&mut all.requests, wanted.requests),
            ] {
                mine.get_or_insert_default()
                    .extend(wanted.unwrap_or_default());
            }
        }
        let security = closed(task.security_context.take(), self.options.read_only);
        task.security_context = Some(security);
        spec.containers.insert(0, task);
    }

    fn env(&self, order: &Order) -> Vec<EnvVar> {
        let plain = |(name, value): (&str, String)| EnvVar {
            name: name.to_owned(),
            value: Some(value),
            value_from: None,
        };
        let secret = |(name, _): &(&str, String)| EnvVar {
            name: (*name).to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                secret_key_ref: Some(SecretKeySelector {
                    name: order.name(&self.system),
                    key: (*name).to_owned(),
                    optional: None,
                }),
                ..EnvVarSource::default()
            }),
        };
        let file =
            |(name, _): &(&'static str, String)| (*name, format!("{}/{name}", CREDENTIALS.1));
        let all = self
            .plain
            .iter()
            .cloned()
            .chain(order.env())
            .chain(self.files.iter().map(file));
        // What Kubernetes would take for a reference to another variable stays as it is.
        let escaped = all.map(|(name, value)| plain((name, value.replace('$', "$$"))));
        escaped.chain(self.secret.iter().map(secret)).collect()
    }

    fn pull_policy(&self) -> String {
        match self.options.pull {
            Pull::Missing => "IfNotPresent",
            Pull::Always => "Always",
            Pull::Never => "Never",
        }
        .to_owned()
    }
}

/// The runner of a pod, by its labels.
pub(super) fn runner_of(pod: &Pod) -> Option<Uuid> {
    pod.metadata
        .labels
        .as_ref()?
        .get(LABEL_RUNNER)?
        .parse()
        .ok()
}

fn fill<T>(place: &mut Option<T>, value: T) {
    place.get_or_insert(value);
}

fn mount((name, path): (&str, &str), read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// What a task asks for is what it gets, and no more.
fn resources(order: &Order) -> Option<ResourceRequirements> {
    let wanted = order.resources.as_ref()?;
    let both = [("cpu", &wanted.cpu), ("memory", &wanted.memory)];
    let quantity =
        |(name, value): (&str, &Option<String>)| Some((name.to_owned(), Quantity(value.clone()?)));
    let quantities: BTreeMap<_, _> = both.into_iter().filter_map(quantity).collect();
    (!quantities.is_empty()).then(|| ResourceRequirements {
        limits: Some(quantities.clone()),
        requests: Some(quantities),
        claims: None,
    })
}

fn default_seccomp() -> SeccompProfile {
    SeccompProfile {
        type_: "RuntimeDefault".to_owned(),
        localhost_profile: None,
    }
}

/// What the level `restricted` asks of a container, but for what a template says.
fn closed(given: Option<SecurityContext>, read_only: bool) -> SecurityContext {
    let mut security = given.unwrap_or_default();
    fill(&mut security.allow_privilege_escalation, false);
    fill(
        &mut security.capabilities,
        Capabilities {
            add: None,
            drop: Some(vec!["ALL".to_owned()]),
        },
    );
    if read_only {
        fill(&mut security.read_only_root_filesystem, true);
    }
    security
}

#[cfg(test)]
mod tests;
