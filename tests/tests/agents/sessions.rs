//! Sessions that go on: after a runner that was killed, on another manager, after a failure.

use air_protocol::record::Status;
use air_tests::{Agents, Step, ok, runners, wait_for_within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::{GUARD, agent, ended};

#[tokio::test]
async fn a_killed_runner_leaves_its_session_to_another_manager() {
    let mut agents = Agents::start(1).await;
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let wait = format!(
        "echo second; while [ ! -e {} ]; do sleep 0.05; done",
        gate.display()
    );
    agents.standin.script(
        "a long way",
        [
            Step::bash("echo first"),
            Step::bash(&wait),
            Step::text("arrived"),
        ],
    );
    let task = json!({
        "id": "t", "claude": { "prompt": "a long way", "allowed_tools": ["Bash"] },
    });
    agents.air.spec("j", r#"{"lease_ttl":"5s"}"#).await;
    agents.air.publish("j", &task.to_string()).await;
    wait_for_within(GUARD, "saved session", async || {
        let there = agents.air.nats.get_blob("j.t.session").await.unwrap();
        let text = String::from_utf8(there.unwrap_or_default()).unwrap();
        if text.contains("echo second") {
            Ok(())
        } else {
            Err(text.len())
        }
    })
    .await;
    let found = runners();
    let ours = found.iter().find(|(pid, _)| {
        let environ = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.contains(agents.standin.url())
    });
    // Its manager first, so that another one finds the loss.
    agents.air.managers.clear();
    kill(
        Pid::from_raw(i32::try_from(ours.unwrap().0).unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    std::fs::write(&gate, "").unwrap();
    agents.add_manager(&[]);
    let record = ended(&agents, "j", "t").await;
    assert_eq!(
        (record.status, record.attempt, record.losses),
        (Status::Succeeded, 2, 1)
    );
    let asked = agents.standin.requests("a long way");
    let last = asked.last().unwrap();
    assert_eq!(agent(&record).session.as_ref(), Some(&last.session));
    assert!(
        asked.iter().all(|one| one.session == last.session),
        "one session"
    );
    let text = last.text();
    assert!(
        text.contains("echo first") && text.contains("Continue where you stopped"),
        "{text}"
    );
}

#[tokio::test]
async fn a_retry_goes_on_or_begins_anew_as_the_task_says() {
    let agents = Agents::start(1).await;
    for (job, session, same) in [("on", "resume", true), ("anew", "fresh", false)] {
        let prompt = format!("go {job}");
        agents.standin.script(
            &prompt,
            [Step::bash("true"), Step::bash("true"), Step::text("there")],
        );
        let claude = json!({
            "prompt": prompt, "max_turns": 1, "allowed_tools": ["Bash"], "session": session,
        });
        let failed = super::run(&agents, job, claude).await;
        assert_eq!(failed.status, Status::Failed);
        let asked = agents.standin.requests(&prompt).len();
        agents.standin.script(&prompt, [Step::text("there")]);
        ok(&mut agents.air.airx(&["retry", job]));
        let record = agents.air.wait_record(job, "t", Status::Succeeded).await;
        let all = agents.standin.requests(&prompt);
        let (before, last) = (&all[asked - 1], all.last().unwrap());
        assert_eq!(before.session == last.session, same, "{job}");
        assert_eq!(agent(&record).session.as_ref(), Some(&last.session));
        let blob = format!("{job}.t.session");
        air_tests::wait_for("end of the session", async || {
            let there = agents.air.nats.has_blob(&blob).await.unwrap();
            if there { Err(there) } else { Ok(()) }
        })
        .await;
    }
}
