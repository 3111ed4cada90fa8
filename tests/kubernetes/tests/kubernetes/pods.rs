//! What a pod is made of.

use air_kubernetes::{Pods, get, name_of, pods_of};
use air_tests::conformance::{Ground, until};
use air_tests::wait_for;

/// What is asked of a pod arrives in it, credentials are in a secret that goes with it, and nowhere else.
#[tokio::test]
async fn resources_and_secret_are_those_of_the_pod() {
    let mut ground = Ground::new(&Pods).await;
    ground.manager(&Pods, "");
    let mut task = ground.noted("t", &until("go"));
    task["resources"] = serde_json::json!({ "cpu": "500m", "memory": "64Mi" });
    ground.publish(&task).await;
    let runner = ground.started("t", 1).await;
    let namespace = Pods::namespace(&ground);
    let pods = pods_of(&namespace, runner);
    let container = &pods[0]["spec"]["containers"][0];
    let wanted = serde_json::json!({ "cpu": "500m", "memory": "64Mi" });
    assert_eq!(container["resources"]["limits"], wanted);
    assert_eq!(container["resources"]["requests"], wanted);
    assert_eq!(pods[0]["metadata"]["annotations"]["air.job"], "j");
    assert!(
        !pods[0].to_string().contains(&ground.air.server.url()),
        "{}",
        pods[0]
    );
    let selector = format!("air.runner={runner}");
    let secrets = get(&namespace, "secrets", &selector);
    assert_eq!(name_of(&secrets[0]), name_of(&pods[0]));
    let owner = &secrets[0]["metadata"]["ownerReferences"][0];
    assert_eq!(owner["uid"], pods[0]["metadata"]["uid"]);
    ground.let_go("go");
    ground.ends_well().await;
    ground.is_gone(&Pods, runner).await;
    wait_for("end of the secret", async || {
        let left = get(&namespace, "secrets", &selector);
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

/// A pod that is kept for a while is there when its task is over: the next one's start was heard of after its end.
#[tokio::test]
async fn a_pod_is_kept_for_its_ttl() {
    let mut ground = Ground::new(&Pods).await;
    ground.manager_with(&Pods, "", "ttl = \"10m\"");
    ground.publish(&ground.noted("t", "true")).await;
    ground.ends_well().await;
    let record = ground.air.record("j", "t").await.unwrap();
    let (namespace, runner) = (Pods::namespace(&ground), record.run.unwrap());
    let ended = async || {
        let pods = pods_of(&namespace, runner);
        let phase = pods[0]["status"]["phase"].clone();
        if phase == "Succeeded" {
            Ok(())
        } else {
            Err(phase)
        }
    };
    wait_for("pod that has ended", ended).await;
    ground.publish(&ground.noted("next", &until("go"))).await;
    ground.started("next", 1).await;
    assert_eq!(pods_of(&namespace, runner).len(), 1);
    ground.let_go("go");
    ground.ends_well().await;
}
