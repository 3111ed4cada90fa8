//! The key reaches the CLI, and nothing else.

use air_protocol::record::Status;
use air_tests::{Agents, KEY, Step, ok};
use serde_json::json;

use super::{agent, run};

#[tokio::test]
async fn nobody_but_the_service_sees_the_key() {
    let mut agents = Agents::start(0).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, format!("{KEY}\n")).unwrap();
    agents.more = vec![
        ("AIR_CLAUDE_KEY_FILE", path.display().to_string()),
        ("ANTHROPIC_API_KEY", String::new()),
    ];
    agents.add_manager(&[]);
    let look = "env; echo; ls -a $CLAUDE_CONFIG_DIR/..; cat $CLAUDE_CONFIG_DIR/../key; \
                tr '\\0' '\\n' < /proc/$PPID/environ; tr '\\0' ' ' < /proc/$PPID/cmdline; echo looked";
    // A model that knows the key all the same, and says it in every way it has.
    let spill =
        format!("echo {KEY}; echo {KEY} >&2; airx task add --id child -- echo child; exit 3");
    agents.standin.script(
        "look around",
        [
            Step::bash(look),
            Step::bash(&spill),
            Step::text(&format!("the key is {KEY}")),
        ],
    );
    let claude = json!({ "prompt": "look around", "allowed_tools": ["Bash"] });
    let record = run(&agents, "j", claude).await;
    assert_eq!(record.status, Status::Succeeded, "{:?}", record.error);
    assert_eq!(
        record.output,
        Some(json!({ "summary": "the key is [redacted]" }))
    );
    let asked = agents.standin.requests("look around");
    assert!(
        asked.iter().all(|one| one.key == KEY),
        "it reaches the service"
    );
    let seen = asked[1].text();
    assert!(
        seen.contains("looked") && seen.contains("AIR_JOB=j"),
        "{seen}"
    );
    assert!(
        !seen.contains(KEY),
        "the agent's tools do not see it: {seen}"
    );

    let log = agents.air.log("j", "t").await;
    let blob = agent(&record).transcript.clone().unwrap();
    let raw = agents.air.nats.get_blob(&blob).await.unwrap().unwrap();
    let shown = ok(&mut agents.air.airx(&["show", "j", "t", "-o", "json"]));
    let followed = ok(&mut agents.air.airx(&["logs", "j", "t"]));
    for (what, text) in [
        ("log", String::from_utf8(log).unwrap()),
        ("transcript", String::from_utf8(raw).unwrap()),
        ("show", shown),
        ("logs", followed),
    ] {
        assert!(
            text.contains("redacted") && !text.contains(KEY),
            "{what}: {text}"
        );
    }

    refusals_do_not_repeat_it(&agents).await;
    other_kinds_of_tasks_have_none(&agents).await;
}

async fn refusals_do_not_repeat_it(agents: &Agents) {
    agents.standin.script(
        "refuse",
        [Step::status(400, &format!("no such key: {KEY}"))],
    );
    let record = run(agents, "refused", json!("refuse")).await;
    let error = record.error.unwrap();
    assert!(
        error.contains("[redacted]") && !error.contains(KEY),
        "{error}"
    );
}

async fn other_kinds_of_tasks_have_none(agents: &Agents) {
    let task = json!({ "id": "t", "run": "env; tr '\\0' '\\n' < /proc/self/environ" });
    agents.air.publish("plain", &task.to_string()).await;
    super::ended(agents, "plain", "t").await;
    let log = String::from_utf8(agents.air.log("plain", "t").await).unwrap();
    assert!(
        log.contains("AIR_JOB=plain") && !log.contains(KEY) && !log.contains("ANTHROPIC"),
        "{log}"
    );
}
