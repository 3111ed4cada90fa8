//! What KubernetesExecutor needs: a namespace, the policy of the provider, and a template of pods.
//!
//! The node is this machine and images cannot be pulled, so a pod is the image `air-shell` with the machine's own Python, libraries
//! and virtual environment mounted into it, not to be written.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::{dags, write};
use crate::command;
use crate::error::{Error, Result};
use crate::kubernetes::Cluster;
use crate::workspace;

/// Where the pods are; the tests know it too.
const NAMESPACE: &str = "air-airflow";
const POLICY: &str = "from air_executor_provider.policy import task_instance_mutation_hook\n\n\
    __all__ = [\"task_instance_mutation_hook\"]\n";

/// Makes the namespace and the policy; gives lines of the environment of an Airflow in `folder`.
pub(super) fn prepare(cluster: &Cluster, folder: &Path) -> Result<String> {
    // Pods of an Airflow that was killed would be taken by the next one for its own.
    cluster.kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found"])?;
    cluster.kubectl(&["create", "namespace", NAMESPACE])?;
    let config = folder.join("home/config");
    for folder in [&config, &logs(folder)] {
        std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
    }
    write(&config.join("airflow_local_settings.py"), POLICY)?;
    let set = |(name, value): (&str, &str)| {
        format!("export AIRFLOW__KUBERNETES_EXECUTOR__{name}='{value}'\n")
    };
    let settings = [
        ("IN_CLUSTER", "False"),
        ("CONFIG_FILE", &cluster.kubeconfig().display().to_string()),
        ("NAMESPACE", NAMESPACE),
        ("POD_TEMPLATE_FILE", &template(folder).display().to_string()),
        ("DELETE_WORKER_PODS_ON_FAILURE", "True"),
    ]
    .map(set)
    .concat();
    Ok(format!(
        "export AIRFLOW__CORE__EXECUTOR=KubernetesExecutor\n{settings}"
    ))
}

fn template(folder: &Path) -> PathBuf {
    folder.join("pod.yaml")
}

fn logs(folder: &Path) -> PathBuf {
    folder.join("home/logs")
}

/// Writes the template: a pod with the folders of this machine that a worker of the Airflow in `folder` reads, and those that it
/// writes. It is told neither the database nor a secret of Airflow.
pub(super) fn write_template(folder: &Path, venv: &Path) -> Result<()> {
    let read = |name: &str| {
        let file = folder.join(name);
        std::fs::read_to_string(&file).map_err(Error::file(&file))
    };
    let (host, port) = (read("api_host")?, read("api_port")?);
    let env = [
        ("AIRFLOW_HOME", folder.join("home").display().to_string()),
        ("AIRFLOW__CORE__DAGS_FOLDER", dags().display().to_string()),
        ("AIRFLOW__CORE__LOAD_EXAMPLES", "False".to_owned()),
        (
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
            format!("http://{}:{}/execution/", host.trim(), port.trim()),
        ),
        ("AIR_TEST_FOLDER", folder.display().to_string()),
        ("OTEL_SDK_DISABLED", "true".to_owned()),
        // The first answer takes the API server long on a busy machine.
        ("AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT", "120".to_owned()),
        // The image has no list of users, and Airflow wants a name.
        ("USER", "root".to_owned()),
        ("PATH", format!("{}/bin:/usr/bin:/bin", venv.display())),
    ]
    .map(|(name, value)| json!({ "name": name, "value": value }));
    let mounts = mounts(folder, venv)?;
    let volume = |(number, (path, _)): (usize, &Mount)| json!({ "name": format!("host-{number}"), "hostPath": { "path": path } });
    let mount = |(number, (path, only_read)): (usize, &Mount)| json!({ "name": format!("host-{number}"), "mountPath": path, "readOnly": only_read });
    let volumes: Vec<_> = mounts.iter().enumerate().map(volume).collect();
    let mounts: Vec<_> = mounts.iter().enumerate().map(mount).collect();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "worker" },
        "spec": {
            "restartPolicy": "Never", "dnsPolicy": "Default", "automountServiceAccountToken": false,
            "volumes": volumes,
            "containers": [{
                "name": "base", "image": "air-shell", "imagePullPolicy": "IfNotPresent",
                // Whatever the image starts by itself; Airflow's arguments are a whole command.
                "command": ["/usr/bin/env"], "env": env, "volumeMounts": mounts,
            }],
        },
    });
    write(&template(folder), &pod.to_string())
}

/// A folder of this machine, and whether it is not to be written.
type Mount = (PathBuf, bool);

fn mounts(folder: &Path, venv: &Path) -> Result<Vec<Mount>> {
    let base = ["-c", "import sys; print(sys.base_prefix)"];
    let python = command::capture(Command::new(venv.join("bin/python")).args(base))?;
    let python = PathBuf::from(python.trim());
    let mut read = vec![python, workspace::root(), workspace::target()?];
    read.extend(["/usr", "/bin", "/lib", "/lib64"].map(PathBuf::from));
    read.sort();
    read.dedup();
    let read = read.into_iter().filter(|path| path.exists());
    let written = [std::env::temp_dir(), logs(folder)];
    let all = read.map(|path| (path, true));
    Ok(all.chain(written.map(|path| (path, false))).collect())
}
