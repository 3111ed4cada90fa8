//! The stand-in itself: the CLI, started by hand, takes it for its service.

use std::io::Write as _;
use std::process::{Command, Stdio};

use air_tests::{KEY, Standin, Step, agents_place, claude};
use serde_json::Value;
use tempfile::TempDir;

/// What the CLI says at its end.
async fn ask(standin: &Standin, prompt: &str) -> Value {
    let home = TempDir::new().unwrap();
    let mut command = Command::new(claude());
    command
        .args([
            "--bare",
            "-p",
            "--output-format",
            "json",
            "--allowedTools",
            "Bash",
        ])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", home.path())
        .env("ANTHROPIC_BASE_URL", standin.url())
        .env("ANTHROPIC_API_KEY", KEY)
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("CLAUDE_CODE_MAX_RETRIES", "0")
        .current_dir(home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let prompt = prompt.to_owned();
    let ended = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(prompt.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    });
    let output = ended.await.unwrap().stdout;
    drop(home);
    serde_json::from_slice(&output).unwrap()
}

#[tokio::test]
async fn the_cli_takes_the_stand_in_for_its_service() {
    let _place = agents_place().await;
    let standin = Standin::start().await;
    standin.script(
        "first",
        [Step::bash("echo made by a tool"), Step::text("well done")],
    );
    standin.script("second", [Step::cut(), Step::text("whole")]);
    standin.script("third", [Step::status(400, "no such thing")]);

    let done = ask(&standin, "the first prompt").await;
    assert_eq!(
        (&done["is_error"], &done["result"]),
        (&false.into(), &"well done".into())
    );
    let asked = standin.requests("first");
    assert_eq!((asked.len(), asked[0].key.as_str()), (2, KEY));
    assert!(
        asked[1].text().contains("made by a tool"),
        "{}",
        asked[1].text()
    );
    assert_eq!(done["session_id"], asked[0].session.as_str());

    assert_eq!(ask(&standin, "the second").await["result"], "whole");
    let failed = ask(&standin, "the third").await;
    assert_eq!(
        (&failed["is_error"], &failed["api_error_status"]),
        (&true.into(), &400.into())
    );
    let unknown = ask(&standin, "whatever").await;
    assert!(
        unknown["result"].as_str().unwrap().contains("no script"),
        "{unknown}"
    );
}
