//! A namespace of a real cluster, in which the Kubernetes backend is tried: what its tests have in common.
//!
//! `cargo xtask test --all` starts the cluster and names it in the environment. The folder in which tasks and the test meet is a
//! claimed volume, so that the namespace can be at the level `restricted`. NATS listens where pods have a route to.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

mod alone;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use air_tests::conformance::{Ground, Stand, is_process_left};
use air_tests::{ok, ok_with, try_output};
use serde_json::{Value, json};
use uuid::Uuid;

/// Where pods find the server of a test.
static ADDRESS: LazyLock<String> = LazyLock::new(|| variable("AIR_KUBERNETES_ADDRESS"));

fn variable(name: &str) -> String {
    let value = std::env::var(name);
    value.unwrap_or_else(|_| panic!("{name} is missing: run by `cargo xtask test --all`"))
}

/// A `kubectl` of the cluster's administrator.
pub fn kubectl(args: &[&str]) -> Command {
    let mut command = Command::new(variable("AIR_KUBERNETES"));
    command
        .args(["kubectl", "--kubeconfig", &variable("AIR_KUBECONFIG")])
        .args(args);
    command
}

/// Makes objects, or changes them.
pub fn apply(objects: &[Value]) {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    ok_with(
        &mut kubectl(&["apply", "--filename", "-"]),
        &list.to_string(),
    );
}

/// An object of the cluster; none where it is not there.
pub fn get(namespace: &str, kind: &str, selector: &str) -> Vec<Value> {
    let args = [
        "get",
        kind,
        "--namespace",
        namespace,
        "--selector",
        selector,
        "--output",
        "json",
    ];
    let list: Value = serde_json::from_str(&ok(&mut kubectl(&args))).unwrap();
    list["items"].as_array().unwrap().clone()
}

/// The pods of a namespace that a runner has.
pub fn pods_of(namespace: &str, runner: Uuid) -> Vec<Value> {
    get(namespace, "pods", &format!("air.runner={runner}"))
}

/// The name of a pod.
pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// Pods in a namespace of the level `restricted`.
pub struct Pods;

impl Pods {
    /// The namespace of a test.
    pub fn namespace(ground: &Ground) -> String {
        let folder = ground.folder().file_name().unwrap().to_string_lossy();
        let bytes = folder.bytes().map(|byte| format!("{byte:02x}"));
        format!("air-{}", bytes.collect::<String>())
    }

    /// The namespace, with the folder of the test as a volume.
    pub fn make_namespace(ground: &Ground) -> String {
        let name = Self::namespace(ground);
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(ground.folder(), open).unwrap();
        let volume = json!({
            "capacity": { "storage": "1Mi" }, "accessModes": ["ReadWriteMany"], "storageClassName": "",
            "hostPath": { "path": ground.folder() }, "claimRef": { "namespace": name, "name": "folder" },
        });
        let claim = json!({
            "accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": name,
            "resources": { "requests": { "storage": "1Mi" } },
        });
        let level = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
        apply(&[
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": level } }),
            json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name }, "spec": volume }),
            json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "folder", "namespace": name }, "spec": claim }),
        ]);
        name
    }

    /// What pods are made from: the folder of the test is in each, and the runner is another one where the test has put one.
    fn template(ground: &Ground) -> PathBuf {
        let folder = ground.folder();
        let mut mounts = vec![json!({ "name": "folder", "mountPath": folder })];
        if ground.file("runner").exists() {
            mounts.push(
                json!({ "name": "folder", "mountPath": "/.air/air-runner", "subPath": "runner" }),
            );
        }
        let template = json!({
            "spec": {
                "dnsPolicy": "Default",
                "volumes": [{ "name": "folder", "persistentVolumeClaim": { "claimName": "folder" } }],
                "containers": [{ "name": "task", "volumeMounts": mounts }],
            },
        });
        let file = ground.file("template.yaml");
        std::fs::write(&file, template.to_string()).unwrap();
        file
    }
}

impl Stand for Pods {
    fn backend(&self, ground: &Ground) -> String {
        format!(
            r#"
            [[backend]]
            name = "tested"
            kind = "kubernetes"
            kubeconfig = "{}"
            namespace = "{}"
            runner_image = "air-runner"
            image = "air-shell"
            read_only = true
            template = "{}"
            "#,
            ground.door().display(),
            Self::make_namespace(ground),
            Self::template(ground).display(),
        )
    }

    fn runner(&self) -> PathBuf {
        PathBuf::from(variable("AIR_IMAGES")).join("air-runner")
    }

    fn door(&self) -> PathBuf {
        variable("AIR_KUBECONFIG").into()
    }

    fn address(&self) -> &'static str {
        &ADDRESS
    }

    /// The node is this machine: the processes of its pods are killed and seen from here.
    fn is_left(&self, runner: Uuid) -> bool {
        let selector = format!("air.runner={runner}");
        let args = [
            "get",
            "pods",
            "--all-namespaces",
            "--selector",
            &selector,
            "--output",
            "name",
        ];
        try_output(&mut kubectl(&args)).is_ok_and(|names| !names.is_empty())
            || is_process_left(runner)
    }

    fn is_elsewhere(&self) -> bool {
        true
    }
}
