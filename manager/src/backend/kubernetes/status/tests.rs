//! Statuses as a real API server had them, shortened.

use serde_json::{Value, json};

use super::*;

fn pod(status: Value) -> Pod {
    let spec = json!({ "containers": [{ "name": "task", "image": "debian:12" }] });
    serde_json::from_value(json!({ "metadata": {}, "spec": spec, "status": status })).unwrap()
}

fn container(name: &str, state: Value) -> Value {
    json!([{ "name": name, "image": format!("{name}:1"), "imageID": "", "ready": false, "restartCount": 0, "state": state }])
}

fn task(state: Value) -> Pod {
    pod(json!({ "phase": "Pending", "containerStatuses": container("task", state) }))
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({ "waiting": { "reason": reason, "message": message } })
}

fn exit(pod: &Pod) -> Exit {
    match seen(pod) {
        Seen::Ended {
            exit, ran: true, ..
        } => exit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_runner_comes_runs_and_ends() {
    let unmet = json!([{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available" }]);
    let pending = pod(json!({ "phase": "Pending", "conditions": unmet }));
    assert_eq!(
        seen(&pending),
        Seen::Coming(Some("Unschedulable: 0/1 nodes are available".into()))
    );
    assert_eq!(
        seen(&task(waiting("PodInitializing", ""))),
        Seen::Coming(Some("PodInitializing".into()))
    );
    assert_eq!(seen(&task(json!({ "running": {} }))), Seen::Runs);
    let ended = |code: i32| task(json!({ "terminated": { "exitCode": code, "reason": "Error" } }));
    assert_eq!(exit(&ended(0)), Exit::Code(0));
    assert_eq!(exit(&ended(69)), Exit::Code(69));
    assert_eq!(exit(&ended(137)), Exit::Killed);
    assert_eq!(seen(&pod(json!({}))), Seen::Coming(None));
}

#[test]
fn ends_that_are_not_the_runners_own_are_told_apart() {
    let oom = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
    assert_eq!(exit(&task(oom)), Exit::OutOfMemory);
    let killed = json!({ "terminated": { "exitCode": 137, "reason": "Error" } });
    for (reason, wanted) in [
        ("TerminationByKubelet", Exit::Evicted),
        ("EvictionByEvictionAPI", Exit::Evicted),
        ("PreemptionByScheduler", Exit::Evicted),
        ("DeletionByTaintManager", Exit::Evicted),
        ("DeletionByPodGC", Exit::NodeLost),
        ("SomethingNew", Exit::Killed),
    ] {
        let disrupted = json!([{ "type": "DisruptionTarget", "status": "True", "reason": reason, "message": "why" }]);
        let status = json!({ "phase": "Failed", "conditions": disrupted, "containerStatuses": container("task", killed.clone()) });
        assert_eq!(exit(&pod(status)), wanted, "{reason}");
        // One that ended well before it was taken away has ended well.
        let well = json!({ "terminated": { "exitCode": 0 } });
        let status = json!({ "phase": "Succeeded", "conditions": disrupted, "containerStatuses": container("task", well) });
        assert_eq!(exit(&pod(status)), Exit::Code(0));
    }
    let evicted = pod(
        json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory" }),
    );
    let told = "Evicted: The node was low on resource: memory".to_owned();
    assert_eq!(
        seen(&evicted),
        Seen::Ended {
            exit: Exit::Evicted,
            ran: false,
            text: told
        }
    );
}

#[test]
fn an_image_that_cannot_be_had_is_the_tasks_fault_and_that_of_the_runner_is_not() {
    for reason in NO_IMAGE.iter().chain(&NO_CONTAINER) {
        let Seen::Stuck(SpawnError::Refused(text)) = seen(&task(waiting(reason, "so it says")))
        else {
            panic!("{reason}")
        };
        assert!(
            text.contains("`task:1`") && text.ends_with(": so it says"),
            "{text}"
        );
        let init = pod(
            json!({ "phase": "Pending", "initContainerStatuses": container("air-runner", waiting(reason, "x")) }),
        );
        assert!(
            matches!(seen(&init), Seen::Stuck(SpawnError::Unavailable(_))),
            "{reason}"
        );
    }
    let late = task(waiting(
        "CreateContainerConfigError",
        "secret \"air-j\" not found",
    ));
    assert!(
        matches!(seen(&late), Seen::Coming(Some(_))),
        "the secret comes after its pod"
    );
    let failed = json!({ "terminated": { "exitCode": 1, "reason": "Error" } });
    let failed =
        pod(json!({ "phase": "Failed", "initContainerStatuses": container("air-runner", failed) }));
    assert!(
        matches!(seen(&failed), Seen::Stuck(SpawnError::Unavailable(text)) if text.contains("exit code 1"))
    );
    let unstarted = json!({ "terminated": { "exitCode": 128, "reason": "StartError", "message": "no such file" } });
    assert!(
        matches!(seen(&task(unstarted)), Seen::Stuck(SpawnError::Refused(text)) if text.contains("`debian:12`"))
    );
}

#[test]
fn a_pod_that_is_deleted_has_ended_as_it_was_last_seen_or_is_just_gone() {
    let ended = task(json!({ "terminated": { "exitCode": 0 } }));
    assert_eq!(of_deleted(&ended), seen(&ended));
    let Seen::Ended {
        exit: Exit::Killed,
        ran,
        ..
    } = of_deleted(&task(json!({ "running": {} })))
    else {
        panic!()
    };
    assert!(ran);
    assert!(matches!(
        of_deleted(&pod(json!({}))),
        Seen::Ended {
            exit: Exit::Killed,
            ran: false,
            ..
        }
    ));
}
