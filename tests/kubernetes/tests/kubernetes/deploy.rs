//! Managers as pods, by the manifests and by the Helm chart in `deploy`, with the rights that these give them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use air_kubernetes::{Pods, kubectl, name_of, pods_of};
use air_protocol::job::JobState;
use air_protocol::lease::Phase;
use air_tests::conformance::Stand as _;
use air_tests::{Installation, ServerOptions, check, ok, ok_with};
use serde_json::{Value, json};

/// The namespace of the manifests.
const NAMESPACE: &str = "air-executor";

fn deploy(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join("deploy").join(path).display().to_string()
}

/// What a line of `helm` says.
fn helm(line: &str) -> String {
    let variable = |name| std::env::var(name).unwrap();
    let mut helm = Command::new(variable("AIR_HELM"));
    helm.args(line.split(' '))
        .env("KUBECONFIG", variable("AIR_KUBECONFIG"));
    ok(&mut helm)
}

/// What a line of `kubectl` says.
fn ask(line: &str) -> String {
    ok(kubectl(&[]).args(line.split(' ')))
}

async fn installation() -> Installation {
    let options = ServerOptions {
        host: Some(Pods.address()),
        ..ServerOptions::default()
    };
    Installation::start_on(options, 0).await
}

/// The secret with which managers, and by them runners, reach NATS.
fn hand_over(air: &Installation, namespace: &str) {
    let url = air.server.url();
    ask(&format!(
        "create secret generic air-nats --namespace {namespace} --from-literal=NATS_URL={url}"
    ));
}

fn delete(namespace: &str) {
    ask(&format!("delete namespace {namespace} --ignore-not-found"));
}

/// Three managers are up, and a job is done although all of them are deleted in the middle of its task.
async fn work_goes_on_without_these_managers(air: &Installation, namespace: &str) {
    let of = |line: &str| ask(&format!("--namespace {namespace} {line}"));
    of("rollout status deployment/air-manager --timeout=5m");
    let until_told = "while [ ! -e /tmp/go ]; do sleep 0.1; done";
    let task = json!({ "id": "t", "run": until_told });
    air.publish("j", &task.to_string()).await;
    let runs = |state: &JobState| {
        let phase = state.lease().map(|lease| &lease.phase);
        matches!(phase, Some(Phase::Running(_)))
    };
    let runner = air.wait_state("j", runs).await.lease().unwrap().runner;
    let pods = pods_of(namespace, runner);
    of("delete pods --selector app=air-manager");
    let pod = name_of(&pods[0]);
    of(&format!("exec {pod} --container task -- touch /tmp/go"));
    air.wait_completed("j").await;
    let record = air.record("j", "t").await.unwrap();
    assert_eq!((record.attempt, record.run), (1, Some(runner)));
    check(air).await;
}

#[tokio::test]
async fn managers_by_the_manifests() {
    delete(NAMESPACE);
    let air = installation().await;
    let manifests = deploy("kubernetes/managers.yaml");
    ask(&format!("apply --filename {manifests}"));
    hand_over(&air, NAMESPACE);
    work_goes_on_without_these_managers(&air, NAMESPACE).await;
    delete(NAMESPACE);
}

#[tokio::test]
async fn managers_by_the_chart() {
    let namespace = "air-by-chart";
    delete(namespace);
    let air = installation().await;
    ask(&format!("create namespace {namespace}"));
    ask(&format!(
        "label namespace {namespace} pod-security.kubernetes.io/enforce=restricted"
    ));
    hand_over(&air, namespace);
    let chart = deploy("helm/air-executor");
    helm(&format!(
        "install air {chart} --namespace {namespace} --wait --timeout 5m"
    ));
    work_goes_on_without_these_managers(&air, namespace).await;
    helm(&format!("uninstall air --namespace {namespace}"));
    delete(namespace);
}

/// Who does not like charts has the same without.
#[test]
fn the_chart_makes_what_the_manifests_say() {
    let manifests = objects(&std::fs::read_to_string(deploy("kubernetes/managers.yaml")).unwrap());
    let chart = deploy("helm/air-executor");
    let chart = objects(&helm(&format!(
        "template air {chart} --namespace {NAMESPACE}"
    )));
    assert_eq!(chart, manifests);
}

/// Objects in YAML by their kinds, without what a chart leaves to its release.
fn objects(yaml: &str) -> BTreeMap<String, Value> {
    let convert = "create --dry-run=client --output=json --filename=-";
    let json = ok_with(kubectl(&[]).args(convert.split(' ')), yaml);
    let all = serde_json::Deserializer::from_str(&json).into_iter::<Value>();
    let all = all.flat_map(|object| match object.unwrap() {
        Value::Object(list) if list["kind"] == "List" => list["items"].as_array().unwrap().clone(),
        one => vec![one],
    });
    let by_kind = all.map(|object| (object["kind"].to_string(), plain(object)));
    by_kind
        .filter(|(kind, _)| !kind.contains("Namespace"))
        .collect()
}

fn plain(mut object: Value) -> Value {
    for metadata in ["/metadata", "/spec/template/metadata"] {
        if let Some(Value::Object(metadata)) = object.pointer_mut(metadata) {
            metadata.remove("namespace");
            metadata.remove("annotations");
        }
    }
    if let Some(config) = object.pointer_mut("/data/manager.toml") {
        let lines = config.as_str().unwrap().lines();
        let lines = lines.map(|line| line.split('#').next().unwrap().trim().to_owned());
        *config = lines.filter(|line| !line.is_empty()).collect();
    }
    object
}
