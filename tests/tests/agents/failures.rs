//! Each way in which an agent fails, as its record tells it.

use std::path::Path;

use air_protocol::agent::Failure;
use air_protocol::record::Status;
use air_tests::{Agents, KEY, Step};
use serde_json::json;

use super::{agent, assert_failed, run};

#[tokio::test]
async fn what_the_service_refuses() {
    let agents = Agents::start(1).await;
    for (job, code, failure, remedy) in [
        ("bad", 400, Failure::Request, "see what the service says"),
        (
            "who",
            401,
            Failure::Login,
            "the key in the manager's environment",
        ),
        ("model", 404, Failure::Model, "name another `model`"),
        ("broken", 500, Failure::Overload, "the service has a fault"),
    ] {
        agents
            .standin
            .script(&format!("prompt {job}"), [Step::status(code, "as told")]);
        let record = run(&agents, job, json!(format!("prompt {job}"))).await;
        assert_failed(&record, failure, remedy);
        assert_eq!(record.exit, Some(1));
    }
    let asked = agents.standin.requests("prompt broken").len();
    assert_eq!(asked, 3, "the CLI gives up early");
}

#[tokio::test]
async fn a_service_that_is_silent_or_not_there() {
    let mut agents = Agents::start(0).await;
    agents.more = vec![("API_TIMEOUT_MS", "1500".into())];
    agents.add_manager(&[]);
    agents.standin.script("silent", [Step::hang()]);
    let record = run(&agents, "silent", json!("silent")).await;
    assert_failed(&record, Failure::Network, "ANTHROPIC_BASE_URL");
    agents
        .standin
        .script("cut", [Step::cut(), Step::cut(), Step::text("the whole")]);
    let record = run(&agents, "cut", json!("cut")).await;
    assert_eq!(record.status, Status::Succeeded, "{:?}", record.error);

    agents.air.managers.clear();
    agents.more = vec![("ANTHROPIC_BASE_URL", "http://127.0.0.1:9".into())];
    agents.add_manager(&[]);
    let record = run(&agents, "away", json!("away")).await;
    assert_failed(&record, Failure::Network, "ANTHROPIC_BASE_URL");
}

#[tokio::test]
async fn what_the_agent_does_not_reach() {
    let agents = Agents::start(1).await;
    let steps = [
        Step::bash("true"),
        Step::bash("true"),
        Step::bash("true"),
        Step::text("late"),
    ];
    agents.standin.script("turns", steps);
    let claude = json!({ "prompt": "turns", "max_turns": 2, "allowed_tools": ["Bash"] });
    let record = run(&agents, "turns", claude).await;
    assert_failed(&record, Failure::Turns, "`max_turns`");
    assert!(record.cost.unwrap().turns >= 2);
    assert_eq!(agent(&record).saved.as_deref(), Some("turns.t.session"));

    let costly = || Step::bash("true").tokens(100_000, 10_000);
    agents
        .standin
        .script("money", [costly(), costly(), costly(), Step::text("late")]);
    let claude = json!({ "prompt": "money", "max_budget_usd": 0.01, "allowed_tools": ["Bash"] });
    let record = run(&agents, "money", claude).await;
    assert_failed(&record, Failure::Budget, "`max_budget_usd`");
    assert_eq!(
        agents.standin.requests("money").len(),
        1,
        "at most the last turn more"
    );

    agents.standin.script("shape", [Step::text("no shape")]);
    let claude = json!({ "prompt": "shape", "schema": { "type": "object" } });
    let record = run(&agents, "shape", claude).await;
    assert_failed(&record, Failure::Schema, "schema");

    agents.standin.script(
        "denied",
        [Step::bash("echo x > file"), Step::text("I could not")],
    );
    let record = run(&agents, "denied", json!("denied")).await;
    assert_failed(&record, Failure::Permission, "`allowed_tools`");
    assert_eq!(agent(&record).denied, ["Bash"]);
    let steps = [Step::bash("echo x > file"), Step::text("I could not")];
    agents.standin.script("denied", steps);
    let claude = json!({ "prompt": "denied", "accept_denials": true });
    let record = run(&agents, "accepted", claude).await;
    assert_eq!(record.status, Status::Succeeded, "{:?}", record.error);
    assert_eq!(agent(&record).denied, ["Bash"]);
}

#[tokio::test]
async fn what_the_task_or_its_host_lacks() {
    let mut agents = Agents::start(1).await;
    agents.standin.script("any", [Step::text("fine")]);
    let claude = json!({ "prompt": "any", "permission_mode": "bypassPermissions" });
    let record = run(&agents, "bypass", claude.clone()).await;
    assert_failed(&record, Failure::Permission, "bypass_permissions: true");
    let spec = r#"{"claude":{"bypass_permissions":true}}"#;
    agents.air.spec("allowed", spec).await;
    let record = run(&agents, "allowed", claude).await;
    assert_eq!(record.status, Status::Succeeded, "{:?}", record.error);

    let claude = json!({ "prompt": "any", "mcp": { "docs": { "command": "/no/such/server" } } });
    let record = run(&agents, "mcp", claude).await;
    assert_failed(&record, Failure::Mcp, "`docs` (failed)");

    let record = run(&agents, "file", json!({ "prompt": { "file": "none.md" } })).await;
    assert_failed(&record, Failure::Request, "`none.md`");

    for (more, failure, remedy) in [
        (("AIR_CLAUDE", "/none/there"), Failure::Cli, "npm install"),
        (
            ("ANTHROPIC_API_KEY", ""),
            Failure::Login,
            "AIR_CLAUDE_KEY_FILE",
        ),
        (("AIR_CLAUDE", "/bin/false"), Failure::Cli, "exit code 1"),
    ] {
        agents.air.managers.clear();
        agents.more = vec![(more.0, more.1.to_owned())];
        agents.add_manager(&[]);
        let record = run(
            &agents,
            &format!("lacks-{}", remedy.replace(' ', "-")),
            json!("any"),
        )
        .await;
        assert_failed(&record, failure, remedy);
        let error = record.error.unwrap();
        assert!(
            !error.contains(KEY) && error.lines().count() == 1,
            "{error}"
        );
    }
    assert!(!Path::new("/none/there").exists());
}
