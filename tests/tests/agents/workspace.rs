//! Working trees of agents: branches, further attempts, and what is left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use air_protocol::agent::Failure;
use air_protocol::record::Status;
use air_tests::{Agents, Step, ok, runners, wait_for_within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{GUARD, agent, assert_failed, ended};

/// A repository, agents, and the folder with their working trees.
pub(crate) struct Stage {
    pub(crate) agents: Agents,
    folder: TempDir,
}

impl Stage {
    /// With this many managers.
    pub(crate) async fn start(managers: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repo = folder.path().join("repo");
        fs::create_dir(&repo).unwrap();
        git(&repo, &["init", "-q", "-b", "main"]);
        fs::write(repo.join("greeting"), "hello\n").unwrap();
        commit(&repo, "first");
        let mut agents = Agents::start(0).await;
        let trees = folder.path().join("trees").display().to_string();
        agents.more.push(("AIR_WORKSPACES", trees));
        let mut stage = Self { agents, folder };
        for _ in 0..managers {
            stage.agents.add_manager(&[]);
        }
        stage
    }

    pub(crate) fn repo(&self) -> PathBuf {
        self.folder.path().join("repo")
    }

    fn trees(&self) -> PathBuf {
        self.folder.path().join("trees")
    }

    /// Queues a task for an agent, with further fields of its own and of its workspace.
    async fn queue(&self, job: &str, id: &str, prompt: &str, more: Value, workspace: Value) {
        let mut workspace = workspace;
        workspace["repo"] = json!(self.repo());
        let claude = json!({ "prompt": prompt, "allowed_tools": ["Bash"], "workspace": workspace });
        let mut task = json!({ "id": id, "claude": claude });
        task.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.agents.air.publish(job, &task.to_string()).await;
    }

    /// A file on a branch.
    fn read(&self, branch: &str, file: &str) -> String {
        git(&self.repo(), &["show", &format!("{branch}:{file}")])
    }

    /// Waits until nothing of any task is below the folder of the working trees, but what was fetched.
    pub(crate) async fn wait_clean(&self) {
        wait_for_within(GUARD, "removed working trees", async || {
            let left = self.left();
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }

    /// What is there of tasks.
    fn left(&self) -> Vec<PathBuf> {
        let names = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
        let trees = names(self.trees()).chain(names(self.trees().join(".tasks")));
        let trees = trees.map(|entry| entry.path());
        trees
            .filter(|path| !path.ends_with(".repos") && !path.ends_with(".tasks"))
            .collect()
    }

    /// Waits until the stand-in was asked this often under a marker.
    async fn wait_asked(&self, marker: &str, times: usize) {
        wait_for_within(
            GUARD,
            &format!("{times} requests of {marker}"),
            async || match self.agents.standin.requests(marker).len() {
                asked if asked >= times => Ok(()),
                asked => Err(asked),
            },
        )
        .await;
    }

    /// Waits until the session holds a text.
    async fn wait_saved(&self, blob: &str, text: &str) {
        wait_for_within(GUARD, "saved session", async || {
            let there = self
                .agents
                .air
                .nats
                .get_blob(blob)
                .await
                .unwrap()
                .unwrap_or_default();
            let there = String::from_utf8_lossy(&there).into_owned();
            if there.contains(text) {
                Ok(())
            } else {
                Err(there.len())
            }
        })
        .await;
    }

    /// Kills the runner of these agents.
    fn kill_runner(&self) {
        let ours = |(pid, _): &&(u32, _)| {
            let environ = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.contains(self.agents.standin.url())
        };
        let found = runners();
        let (pid, _) = found.iter().find(ours).unwrap();
        let pid = Pid::from_raw(i32::try_from(*pid).unwrap());
        kill(pid, Signal::SIGKILL).unwrap();
    }
}

/// What git prints.
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@localhost"]);
    ok(command.args(arguments).current_dir(folder))
        .trim()
        .to_owned()
}

/// Commits all that is there.
pub(crate) fn commit(repo: &Path, message: &str) {
    git(repo, &["add", "."]);
    git(repo, &["commit", "-q", "-m", message]);
}

#[tokio::test]
async fn two_tasks_work_on_two_branches_and_a_third_goes_on_from_one() {
    let stage = Stage::start(1).await;
    let standin = &stage.agents.standin;
    for (marker, line) in [
        (
            "say hi",
            "echo hi >greeting && git commit -q -a -m shorter && echo new >file",
        ),
        ("say bye", "echo bye >greeting"),
        ("shout", "tr a-z A-Z <greeting >loud && mv loud greeting"),
    ] {
        standin.script(
            marker,
            [Step::bash(line), Step::text(&format!("did {marker}"))],
        );
    }
    stage.queue("j", "a", "say hi", json!({}), json!({})).await;
    stage
        .queue("k", "b", "say bye", json!({}), json!({ "ref": "main" }))
        .await;
    let more = json!({ "needs": ["a"] });
    stage
        .queue("j", "c", "shout", more, json!({ "from": "a" }))
        .await;
    for (job, task, said, text, files) in [
        ("j", "a", "did say hi", "hi", 2),
        ("k", "b", "did say bye", "bye", 1),
        ("j", "c", "did shout", "HI", 1),
    ] {
        let record = ended(&stage.agents, job, task).await;
        assert_eq!(record.status, Status::Succeeded, "{record:?}");
        let output = record.output.as_ref().unwrap();
        let branch = format!("air/{job}/{task}");
        assert_eq!(output["result"], said);
        assert_eq!(
            (&output["branch"], &output["files_changed"]),
            (&json!(branch), &json!(files))
        );
        assert_eq!(agent(&record).branch.as_ref(), Some(&branch));
        assert_eq!(agent(&record).commit.as_deref(), output["commit"].as_str());
        assert_eq!(stage.read(&branch, "greeting"), text);
        let log = git(&stage.repo(), &["log", "-1", "--format=%s%n%b", &branch]);
        assert!(
            log.contains(&format!("Work of {branch}")) && log.contains(said),
            "{log}"
        );
    }
    assert_eq!(stage.read("main", "greeting"), "hello");
    assert_eq!(stage.read("air/j/a", "file"), "new");
    stage.wait_clean().await;
}

#[tokio::test]
async fn after_a_kill_the_session_goes_on_in_the_same_tree() {
    let mut stage = Stage::start(1).await;
    let first = [Step::bash("echo half >half; echo second"), Step::hang()];
    stage.agents.standin.script("in two steps", first);
    stage
        .queue("j", "t", "in two steps", json!({}), json!({}))
        .await;
    stage.wait_saved("j.t.session", "echo second").await;
    stage.wait_asked("in two steps", 2).await;
    let rest = [
        Step::bash("cat half >whole; echo done >>whole"),
        Step::text("whole"),
    ];
    stage.agents.standin.script("in two steps", rest);
    stage.kill_runner();
    let record = ended(&stage.agents, "j", "t").await;
    assert_eq!(
        (record.status, record.losses),
        (Status::Succeeded, 1),
        "{record:?}"
    );
    assert_eq!(stage.read("air/j/t", "whole"), "half\ndone");
    let asked = stage.agents.standin.requests("in two steps");
    assert!(
        asked.iter().all(|one| one.session == asked[0].session),
        "one session"
    );
    stage.wait_clean().await;
    assert!(!stage.agents.air.nats.has_blob("j.t.session").await.unwrap());

    // Ended while nobody was there to remove anything: the next manager does.
    stage
        .agents
        .standin
        .script("never ends", [Step::bash("echo x >x"), Step::hang()]);
    stage
        .queue("k", "t", "never ends", json!({}), json!({}))
        .await;
    stage.wait_asked("never ends", 2).await;
    stage.agents.air.managers.clear();
    stage.kill_runner();
    ok(&mut stage.agents.air.airx(&["cancel", "k", "t"]));
    assert!(!stage.left().is_empty());
    stage.agents.add_manager(&[]);
    stage.wait_clean().await;
    assert_eq!(
        ended(&stage.agents, "k", "t").await.status,
        Status::Cancelled
    );
    // What is left of the agent is ended before its lease is given back.
    let air = &stage.agents.air;
    air.wait_state("k", |state| state.lease().is_none()).await;
    air_tests::check_no_process(air).await;
}

#[tokio::test]
async fn what_a_limit_interrupts_goes_on_elsewhere_with_its_uncommitted_files() {
    let stage = Stage::start(1).await;
    let first = [Step::bash("echo kept >kept"), Step::rate_limited(Some(100))];
    stage.agents.standin.script("until the limit", first);
    let retry = json!({ "retry": { "max": 0 } });
    stage
        .queue("j", "t", "until the limit", retry, json!({}))
        .await;
    let waiting = stage
        .agents
        .air
        .wait_record("j", "t", Status::Retrying)
        .await;
    assert!(waiting.retry_at.is_some(), "{waiting:?}");
    // As on a host that has never seen the task; the person does not wait for the time.
    fs::remove_dir_all(stage.trees()).unwrap();
    stage
        .agents
        .standin
        .script("until the limit", [Step::text("arrived")]);
    ok(&mut stage.agents.air.airx(&["cancel", "j", "t"]));
    ok(&mut stage.agents.air.airx(&["retry", "j", "t"]));
    let record = stage
        .agents
        .air
        .wait_record("j", "t", Status::Succeeded)
        .await;
    assert_eq!(stage.read("air/j/t", "kept"), "kept");
    let asked = stage.agents.standin.requests("until the limit");
    let last = asked.last().unwrap();
    assert_eq!(agent(&record).session.as_ref(), Some(&last.session));
    assert!(
        last.text().contains("on another host now"),
        "{}",
        last.text()
    );
    stage.wait_clean().await;
    assert!(
        !stage
            .agents
            .air
            .nats
            .has_blob("j.t.workspace")
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_workspace_is_told_and_work_that_failed_can_be_looked_at() {
    let stage = Stage::start(1).await;
    let standin = &stage.agents.standin;
    standin.script("go", [Step::text("gone")]);
    let retry = || json!({ "retry": { "max": 0 } });
    for (job, workspace, part) in [
        (
            "ref",
            json!({ "ref": "nowhere" }),
            "no branch, tag or commit `nowhere`",
        ),
        ("from", json!({ "from": "other" }), "none of its `needs`"),
    ] {
        stage.queue(job, "t", "go", retry(), workspace).await;
        assert_failed(
            &ended(&stage.agents, job, "t").await,
            Failure::Workspace,
            part,
        );
    }
    let cwd = json!({ "retry": { "max": 0 }, "cwd": "../.." });
    stage.queue("cwd", "t", "go", cwd, json!({})).await;
    assert_failed(
        &ended(&stage.agents, "cwd", "t").await,
        Failure::Workspace,
        "folder of the repository",
    );
    assert_eq!(standin.requests("go").len(), 0, "nothing was asked");

    let markers = "printf '<<<<<<< a\\nx\\n=======\\ny\\n>>>>>>> b\\n' >greeting";
    let conflict = "git switch -q -c o HEAD && echo o >greeting && git commit -qam o && git switch -q air/conflict/t && \
                    echo p >greeting && git commit -qam p && ! git merge -q o";
    standin.script(
        "collide",
        [
            Step::bash(conflict),
            Step::bash(markers),
            Step::text("merged"),
        ],
    );
    stage
        .queue("conflict", "t", "collide", retry(), json!({}))
        .await;
    assert_failed(
        &ended(&stage.agents, "conflict", "t").await,
        Failure::Workspace,
        "greeting",
    );

    standin.script(
        "give up",
        [Step::bash("echo half >half"), Step::status(400, "no")],
    );
    stage
        .queue("half", "t", "give up", retry(), json!({}))
        .await;
    let failed = ended(&stage.agents, "half", "t").await;
    assert_failed(&failed, Failure::Request, "");
    assert_eq!(agent(&failed).branch.as_deref(), Some("air/half/t"));
    assert_eq!(
        stage.read(agent(&failed).commit.as_ref().unwrap(), "half"),
        "half"
    );
    stage.wait_clean().await;
}
