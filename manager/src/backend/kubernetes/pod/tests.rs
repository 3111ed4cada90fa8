//! What the pod and the secret of an order are made of.

use air_protocol::task::Resources;
use serde_json::{Value, json};

use super::*;

fn order() -> Order {
    Order {
        job: "j".parse().unwrap(),
        seq: 5,
        runner: Uuid::nil(),
        fence: 7,
        backend: "pods".into(),
        state: Some("$(HOME)".into()),
        image: None,
        resources: Some(Resources {
            cpu: Some("500m".into()),
            memory: Some("64Mi".into()),
        }),
    }
}

fn parts(options: &KubernetesOptions) -> Parts {
    let nats = air_nats::Options {
        url: Some("nats://u:pass@localhost:4222".into()),
        password: Some("pa55word".into()),
        creds: Some("/dev/null".into()),
        ..air_nats::Options::default()
    };
    Parts::new(options, &nats, "AIR@now")
}

fn pod(options: &KubernetesOptions) -> Value {
    serde_json::to_value(parts(options).pod(&order(), "debian")).unwrap()
}

fn options() -> KubernetesOptions {
    KubernetesOptions {
        runner_image: "air-runner".into(),
        ..KubernetesOptions::default()
    }
}

#[test]
fn a_pod_is_told_its_claim_and_no_secret_is_in_it() {
    let pod = pod(&options());
    let task = &pod["spec"]["containers"][0];
    assert_eq!(
        (&task["name"], &task["image"]),
        (&json!("task"), &json!("debian"))
    );
    assert_eq!(task["command"], json!(["/.air/air-runner"]));
    let env = task["env"].as_array().unwrap();
    let value = |name: &str| env.iter().find(|one| one["name"] == name).unwrap();
    assert_eq!(value("AIR_FENCE")["value"], "7");
    assert_eq!(value("AIR_SYSTEM")["value"], "AIR@now");
    assert_eq!(value("AIR_STATE")["value"], "$$(HOME)");
    assert_eq!(value("NATS_CREDS")["value"], "/.air-nats/NATS_CREDS");
    for name in ["NATS_URL", "NATS_PASSWORD"] {
        let reference = &value(name)["valueFrom"]["secretKeyRef"];
        assert_eq!(
            (&reference["key"], &reference["name"]),
            (&json!(name), &pod["metadata"]["name"])
        );
    }
    let text = pod.to_string();
    assert!(
        !text.contains("pass@") && !text.contains("pa55word"),
        "{text}"
    );
}

#[test]
fn the_secret_goes_with_its_pod() {
    let options = KubernetesOptions {
        nats_url: Some("nats://nats:4222".into()),
        ..options()
    };
    let secret = parts(&options).secret(&order(), "uid").unwrap();
    let data = secret.data.unwrap();
    assert_eq!(data["NATS_URL"].0, b"nats://nats:4222");
    assert_eq!(data["NATS_PASSWORD"].0, b"pa55word");
    assert!(data.contains_key("NATS_CREDS"));
    let owners = secret.metadata.owner_references.unwrap();
    assert_eq!(
        (owners[0].uid.as_str(), owners[0].kind.as_str()),
        ("uid", "Pod")
    );
    let gone = air_nats::Options {
        creds: Some("/nowhere.creds".into()),
        ..air_nats::Options::default()
    };
    assert!(
        Parts::new(&options, &gone, "s")
            .secret(&order(), "uid")
            .is_err()
    );
}

#[test]
fn labels_are_what_a_label_may_be() {
    let parts = parts(&options());
    let made = parts.pod(&order(), "debian");
    assert_eq!(runner_of(&made), Some(Uuid::nil()));
    let labels = made.metadata.labels.unwrap();
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    assert!(
        labels
            .values()
            .all(|value| value.len() <= 63 && value.chars().all(legal)),
        "{labels:?}"
    );
    assert_eq!(
        parts.of_system(),
        format!("air.system={}", labels["air.system"])
    );
    assert_eq!(made.metadata.annotations.unwrap()["air.job"], "j");
}

#[test]
fn a_pod_is_as_closed_as_can_be_and_has_the_resources_of_the_task() {
    let pod = pod(&KubernetesOptions {
        read_only: true,
        ..options()
    });
    let spec = &pod["spec"];
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert_eq!(spec["securityContext"]["runAsUser"], 65532);
    assert_eq!(
        spec["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    assert_eq!(
        (
            &spec["automountServiceAccountToken"],
            &spec["restartPolicy"]
        ),
        (&json!(false), &json!("Never"))
    );
    for container in [&spec["containers"][0], &spec["initContainers"][0]] {
        let security = &container["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(security["readOnlyRootFilesystem"], true);
        for kind in ["limits", "requests"] {
            assert_eq!(
                container["resources"][kind],
                json!({ "cpu": "500m", "memory": "64Mi" })
            );
        }
    }
    assert!(
        spec["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["name"] == "air-tmp")
    );
}

#[test]
fn what_is_configured_is_in_every_pod() {
    let template = json!({
        "metadata": { "labels": { "team": "a", "air.runner": "mine" } },
        "spec": {
            "dnsPolicy": "Default",
            "securityContext": { "runAsUser": 7 },
            "containers": [
                { "name": "side", "image": "s" },
                { "name": "task", "env": [{ "name": "MINE", "value": "1" }], "volumeMounts": [{ "name": "w", "mountPath": "/w" }] },
            ],
            "volumes": [{ "name": "w", "emptyDir": {} }],
        },
    });
    let pod = pod(&KubernetesOptions {
        template: Some(PodTemplate::from_json(template).unwrap()),
        node_selector: [("disk".into(), "ssd".into())].into(),
        tolerations: vec!["gpu:NoSchedule".parse().unwrap(), "a=b".parse().unwrap()],
        service_account: Some("who".into()),
        image_pull_secrets: vec!["registry".into()],
        ..options()
    });
    let spec = &pod["spec"];
    assert_eq!(pod["metadata"]["labels"]["team"], "a");
    assert_eq!(
        pod["metadata"]["labels"]["air.runner"],
        Uuid::nil().to_string(),
        "ours go before"
    );
    assert_eq!(
        (&spec["dnsPolicy"], &spec["securityContext"]["runAsUser"]),
        (&json!("Default"), &json!(7))
    );
    let names: Vec<_> = spec["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].clone())
        .collect();
    assert_eq!(names, ["task", "side"]);
    let task = &spec["containers"][0];
    assert_eq!(
        (&task["env"][0]["name"], &task["volumeMounts"][0]["name"]),
        (&json!("MINE"), &json!("w"))
    );
    assert_eq!(spec["nodeSelector"], json!({ "disk": "ssd" }));
    assert_eq!(
        spec["tolerations"][0],
        json!({ "key": "gpu", "operator": "Exists", "effect": "NoSchedule" })
    );
    assert_eq!(
        spec["tolerations"][1],
        json!({ "key": "a", "operator": "Equal", "value": "b" })
    );
    assert_eq!(
        (
            &spec["serviceAccountName"],
            &spec["automountServiceAccountToken"]
        ),
        (&json!("who"), &json!(true))
    );
    assert_eq!(spec["imagePullSecrets"], json!([{ "name": "registry" }]));
}
