//! A runner whose claim names an account: it begins with what is reserved, or runs nothing.

use air_protocol::budget::{Account, Budget, Wants};
use air_protocol::names::JobName;
use air_protocol::record::Status;
use serde_json::json;

use crate::stage::{Exit, Stage, id, now};

async fn account(stage: &Stage, root: &JobName) -> Option<Account> {
    stage.nats.account(root).await.unwrap().0
}

#[tokio::test]
async fn nothing_runs_for_which_nothing_is_reserved() {
    let stage = Stage::new().await;
    let root: JobName = "root".parse().unwrap();
    let ran = stage.file("ran");
    let task = json!({ "id": "t", "run": format!("touch {}", ran.display()) });
    let seq = stage.publish(&task).await;
    let claimed = stage.claim_paid(seq, Some(&root)).await;
    assert_eq!(stage.start(claimed).exit().await, Exit::Stale);
    assert!(stage.last("t").await.is_none() && !ran.exists());
    let (state, _) = stage.state().await;
    assert_eq!(state.name(), "waiting", "the lease is given back");
    stage.assert_nothing_left();

    let claimed = stage.claim_paid(seq, Some(&root)).await;
    let wants = Wants {
        job: stage.job.clone(),
        task: id("t"),
        attempt: 1,
        depth: 0,
        agent: None,
    };
    let mut limited = Account::new(Budget {
        tasks: Some(1),
        ..Budget::default()
    });
    limited.reserve(claimed.runner, &wants, now()).unwrap();
    stage.nats.write_account(&root, &limited, 0).await.unwrap();
    assert_eq!(stage.start(claimed).exit().await, Exit::Done);
    let (_, record) = stage.last("t").await.unwrap();
    assert_eq!(
        (record.status, record.budget),
        (Status::Succeeded, Some(root.clone()))
    );
    let account = account(&stage, &root).await.unwrap();
    assert!(
        account.reserved.is_empty(),
        "settled before it was released"
    );
    assert_eq!(account.spent.tasks, 1);
}
