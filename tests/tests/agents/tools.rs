//! Agents that use the tools of Air-Executor: they queue tasks, and ask people.

use air_protocol::approval::Waits;
use air_protocol::record::Status;
use air_tests::{Agents, Step, check, ok};
use serde_json::json;

use super::{GUARD, agent, ended, run};

#[tokio::test]
async fn what_an_agent_queues_runs_after_it_and_only_if_it_succeeded() {
    let agents = Agents::start(1).await;
    let queue = |id: &str| {
        let task = json!({ "id": id, "run": "echo made" });
        Step::air("queue_task", task)
    };
    let many: Vec<_> = (0..1000)
        .map(|n| json!({ "run": "true", "job": "many", "id": format!("m{n}") }))
        .collect();
    agents.standin.script(
        "queue good work",
        [
            queue("child"),
            Step::air("queue_tasks", json!({ "tasks": many })),
            // What is wrong is told, and can be mended.
            Step::air("queue_task", json!({ "id": "child2", "rum": "true" })),
            queue("child2"),
            Step::text("queued"),
        ],
    );
    agents
        .standin
        .script("queue and fail", [queue("never"), Step::status(400, "no")]);
    let record = run(&agents, "j", json!("queue good work")).await;
    assert_eq!(record.status, Status::Succeeded, "{:?}", record.error);
    assert_eq!(record.subtasks, 1002);
    let asked = agents.standin.requests("queue good work");
    let told = asked.last().unwrap().text();
    assert!(told.contains("`rum`"), "{told}");
    for child in ["child", "child2"] {
        let child = ended(&agents, "j", child).await;
        assert_eq!(child.parent.as_deref(), Some("j/t"));
        assert!(child.started.unwrap() >= record.ended, "after its parent");
    }
    let failed = run(&agents, "k", json!("queue and fail")).await;
    assert_eq!((failed.status, failed.subtasks), (Status::Failed, 0));
    assert!(agents.air.record("k", "never").await.is_none());
    agents.air.wait_completed_within("many", GUARD).await;
    check(&agents.air).await;
}

#[tokio::test]
async fn a_question_parks_the_task_and_its_answer_goes_on_in_the_session() {
    let agents = Agents::start(1).await;
    agents.standin.script(
        "choose a colour",
        [
            Step::air("queue_task", json!({ "id": "early", "run": "true" })),
            Step::air("ask_human", json!({ "question": "Which colour?" })),
            Step::text("I have asked."),
            Step::text("It is green."),
        ],
    );
    let task = json!({ "id": "t", "claude": "choose a colour" });
    agents.air.publish("j", &task.to_string()).await;
    let parked = agents.air.wait_record("j", "t", Status::Parked).await;
    let question = "Which colour?".to_owned();
    assert_eq!(parked.waits, Some(Waits::Answer { question }));
    assert_eq!(parked.subtasks, 0, "an unfinished attempt has none");
    let status = ok(&mut agents.air.airx(&["status", "j"]));
    assert!(status.contains("airx answer j t"), "{status}");
    ok(&mut agents.air.airx(&["answer", "j", "t", "green, please"]));
    let record = ended(&agents, "j", "t").await;
    assert_eq!(record.status, Status::Succeeded, "{:?}", record.error);
    assert_eq!(record.output, Some(json!({ "summary": "It is green." })));
    assert_eq!(agent(&record).session, agent(&parked).session);
    assert_eq!(
        record.subtasks, 1,
        "what the session has queued goes on with it"
    );
    ended(&agents, "j", "early").await;
    let asked = agents.standin.requests("choose a colour");
    let told = asked.last().unwrap().text();
    assert!(
        told.contains("The answer to your question `Which colour?` is: green, please"),
        "{told}"
    );
    check(&agents.air).await;
}

#[tokio::test]
async fn an_agent_that_queues_itself_is_stopped_by_depth() {
    let agents = Agents::start(1).await;
    agents.standin.script_of_each_session(
        "again and again",
        [
            Step::air(
                "queue_task",
                json!({ "claude": { "prompt": "again and again" } }),
            ),
            Step::text("queued myself"),
        ],
    );
    let spec = json!({ "budget": { "depth": 2 } });
    agents.air.spec("j", &spec.to_string()).await;
    let task = json!({ "id": "t", "claude": "again and again" });
    agents.air.publish("j", &task.to_string()).await;
    let state = air_tests::wait_for_within(GUARD, "end of the chain", async || {
        let state = agents.air.state("j").await;
        match state {
            Some(state) if state.ledger.counters.failed == 1 => Ok(state),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(
        state.ledger.counters.succeeded, 3,
        "the task and two generations"
    );
    let records = agents.air.records("j").await;
    let (_, last) = records.last().unwrap();
    let why = last.error.as_deref().unwrap_or_default();
    assert!(why.contains("depth") || why.contains("generation"), "{why}");
}
