//! How pods are started: what the configuration of a Kubernetes backend says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::Pull;

/// User and group of tasks, unless told otherwise: nobody's.
pub(crate) const USER_DEFAULT: (i64, i64) = (65532, 65532);

/// How pods are started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesOptions {
    /// File that says where the API server is; `KUBECONFIG`, else that of the home folder, else the pod's own account, when none.
    pub kubeconfig: Option<PathBuf>,
    /// Context in that file; its current one when none.
    pub context: Option<String>,
    /// Namespace of the pods; that of the context, or of the manager's own pod, when none.
    pub namespace: Option<String>,
    /// Image that has `cp` and `/usr/local/bin/air-runner`.
    pub runner_image: String,
    /// Image of tasks that ask for none; such tasks are left to others when none.
    pub image: Option<String>,
    /// When images are fetched.
    pub pull: Pull,
    /// Addresses of NATS as pods see them; those of the manager when none.
    pub nats_url: Option<String>,
    /// User and group, as numbers.
    pub user: (i64, i64),
    /// Whether the file system of the image is read-only, with a `/tmp` of its own.
    pub read_only: bool,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that are no hindrance.
    pub tolerations: Vec<Taint>,
    /// Service account of the pods, with its token; that of the namespace, without one, when none.
    pub service_account: Option<String>,
    /// Secrets with which images are fetched.
    pub image_pull_secrets: Vec<String>,
    /// Time for which a pod that has ended is kept.
    pub ttl: Duration,
    /// What pods are made from.
    pub template: Option<PodTemplate>,
}

impl Default for KubernetesOptions {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            context: None,
            namespace: None,
            runner_image: String::new(),
            image: None,
            pull: Pull::default(),
            nats_url: None,
            user: USER_DEFAULT,
            read_only: false,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            service_account: None,
            image_pull_secrets: Vec::new(),
            ttl: Duration::ZERO,
            template: None,
        }
    }
}

/// A taint of nodes: `key`, `key=value`, `key:effect` or `key=value:effect`, as `kubectl taint` writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value; any when none.
    pub value: Option<String>,
    /// What it does; anything when none.
    pub effect: Option<String>,
}

impl std::str::FromStr for Taint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        let (rest, effect) = match text.split_once(':') {
            Some((rest, effect)) if EFFECTS.contains(&effect) => (rest, Some(effect.to_owned())),
            Some((_, effect)) => {
                return Err(format!(
                    "`{effect}` is no effect of a taint; write one of {}",
                    EFFECTS.join(", ")
                ));
            }
            None => (text, None),
        };
        let (key, value) = match rest.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (rest, None),
        };
        if key.is_empty() {
            return Err(format!(
                "`{text}` names no taint; write key, key=value, key:effect or key=value:effect"
            ));
        }
        let key = key.to_owned();
        Ok(Self { key, value, effect })
    }
}

/// What pods are made from: `metadata` with labels and annotations, and `spec`, as in a Deployment or a Pod.
#[derive(Debug, Clone, PartialEq)]
pub struct PodTemplate(Box<PodTemplateSpec>);

// There is no number with a fraction in it.
impl Eq for PodTemplate {}

impl PodTemplate {
    /// The template that a document says.
    ///
    /// # Errors
    /// It says something else, in words.
    pub fn from_json(mut value: serde_json::Value) -> Result<Self, String> {
        let Some(map) = value.as_object_mut() else {
            return Err(
                "it is no pod; write `spec`, and `metadata` with labels and annotations".to_owned(),
            );
        };
        for name in ["apiVersion", "kind"] {
            map.remove(name);
        }
        if let Some(other) = map
            .keys()
            .find(|name| !["metadata", "spec"].contains(&name.as_str()))
        {
            return Err(format!(
                "`{other}` is no key of a pod template; write `metadata` and `spec`"
            ));
        }
        if let Some(spec) = map
            .get_mut("spec")
            .and_then(serde_json::Value::as_object_mut)
        {
            // Its only container may be ours, which needs no mention.
            spec.entry("containers")
                .or_insert_with(|| serde_json::json!([]));
        }
        match serde_json::from_value(value) {
            Ok(template) => Ok(Self(Box::new(template))),
            Err(error) => Err(format!("it is no pod template: {error}")),
        }
    }

    pub(crate) fn parts(&self) -> (ObjectMeta, PodSpec) {
        let template = self.0.as_ref().clone();
        (
            template.metadata.unwrap_or_default(),
            template.spec.unwrap_or_default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_written_as_on_the_command_line() {
        let taint = |key: &str, value: Option<&str>, effect: Option<&str>| Taint {
            key: key.into(),
            value: value.map(str::to_owned),
            effect: effect.map(str::to_owned),
        };
        for (text, wanted) in [
            ("gpu", taint("gpu", None, None)),
            ("gpu=a100", taint("gpu", Some("a100"), None)),
            ("gpu:NoSchedule", taint("gpu", None, Some("NoSchedule"))),
            (
                "a/b=c:NoExecute",
                taint("a/b", Some("c"), Some("NoExecute")),
            ),
        ] {
            assert_eq!(text.parse(), Ok(wanted));
        }
        assert!(
            "gpu:Never"
                .parse::<Taint>()
                .unwrap_err()
                .starts_with("`Never` is no effect")
        );
        assert!(
            "=x".parse::<Taint>()
                .unwrap_err()
                .contains("names no taint")
        );
    }

    #[test]
    fn a_template_is_a_pod_or_part_of_one() {
        let pod = serde_json::json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "labels": { "a": "b" } }, "spec": { "dnsPolicy": "Default" } });
        let (meta, spec) = PodTemplate::from_json(pod).unwrap().parts();
        assert_eq!(meta.labels.unwrap()["a"], "b");
        assert_eq!(
            (spec.dns_policy.as_deref(), spec.containers.len()),
            (Some("Default"), 0)
        );
        let wrong = |value| PodTemplate::from_json(value).unwrap_err();
        assert!(
            wrong(serde_json::json!({ "spec": { "volumes": 1 } }))
                .starts_with("it is no pod template: ")
        );
        assert!(wrong(serde_json::json!({ "specs": {} })).starts_with("`specs` is no key"));
        assert!(wrong(serde_json::json!([])).starts_with("it is no pod;"));
    }
}
