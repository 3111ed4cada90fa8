//! A pod as a person makes one, without Air-Executor.

use air_tests::conformance::{Alone, Ground, Started};
use air_tests::ok;
use serde_json::json;

use crate::{Pods, apply, kubectl};

impl Alone for Pods {
    fn name(&self) -> &'static str {
        "a bare pod"
    }

    async fn alone(&self, ground: &Ground, started: &Started) {
        let namespace = Self::namespace(ground);
        let spec = json!({
            "restartPolicy": "Never", "dnsPolicy": "Default", "automountServiceAccountToken": false,
            "volumes": [{ "name": "folder", "persistentVolumeClaim": { "claimName": "folder" } }],
            "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "alone", "image": "air-shell", "imagePullPolicy": "Never", "command": ["sh", "-c", started.line()],
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                "volumeMounts": [{ "name": "folder", "mountPath": ground.folder() }],
            }],
        });
        let about = json!({ "name": "alone", "namespace": namespace });
        apply(&[json!({ "apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec })]);
        let pod = ["pod/alone", "--namespace", &namespace];
        let ended = [
            "--for",
            "jsonpath={.status.phase}=Succeeded",
            "--timeout",
            "10m",
        ];
        ok(kubectl(&["wait"]).args(pod).args(ended));
        ok(kubectl(&["delete"]).args(pod));
    }
}
