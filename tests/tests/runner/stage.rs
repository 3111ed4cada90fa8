//! Plays the manager: publishes tasks, claims a job, starts the runner, looks at what it left.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use air_nats::Nats;
use air_nats::commit::{Commit, Committed, With};
use air_nats::jobs::{Key, Swap};
use air_nats::queue::Queued;
use air_protocol::job::{Change, Event, JobState};
use air_protocol::lease::{Lease, Phase, Target};
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::{Record, Status};
use air_protocol::spec::Wire;
use air_protocol::time::{Span, Time};
use air_tests::{Server, binary, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) fn now() -> Time {
    SystemTime::now().into()
}

pub(crate) fn id(text: &str) -> TaskId {
    text.parse().unwrap()
}

/// A server, a job on it, and a folder in which runners work.
pub(crate) struct Stage {
    pub(crate) server: Server,
    pub(crate) nats: Nats,
    pub(crate) job: JobName,
    pub(crate) folder: TempDir,
    pub(crate) ttl: Duration,
}

/// The runner's exit codes, which are part of its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    NotOurs,
    Stale,
    Over,
    LeaseLost,
    Other(i32),
}

impl Exit {
    fn of_code(code: i32) -> Self {
        match code {
            0 => Self::Done,
            3 => Self::NotOurs,
            4 => Self::Stale,
            5 => Self::Over,
            6 => Self::LeaseLost,
            code => Self::Other(code),
        }
    }
}

/// What a runner is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claimed {
    pub(crate) seq: u64,
    pub(crate) runner: Uuid,
    pub(crate) fence: u64,
}

/// A runner; killed when dropped.
pub(crate) struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Waits for its end.
    pub(crate) async fn exit(mut self) -> Exit {
        let code = wait_for("end of the runner", async || {
            match self.child.try_wait().unwrap() {
                Some(status) => Ok(status),
                None => Err("it runs"),
            }
        })
        .await;
        Exit::of_code(
            code.code()
                .unwrap_or_else(|| panic!("the runner ended by a signal: {code:?}")),
        )
    }

    pub(crate) fn terminate(&self) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
    }
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let server = Server::start();
        let nats = server.connect_init().await;
        Self {
            server,
            nats,
            job: "demo".parse().unwrap(),
            folder: tempfile::tempdir().unwrap(),
            ttl: Duration::from_secs(30),
        }
    }

    /// A file that tasks and tests see.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) async fn publish(&self, task: &serde_json::Value) -> u64 {
        let payload = task.to_string().into_bytes();
        self.nats
            .publish_task(&self.job, None, payload, None)
            .await
            .unwrap()
    }

    pub(crate) async fn last(&self, task: &str) -> Option<(u64, Record)> {
        self.nats.last_record(&self.job, &id(task)).await.unwrap()
    }

    pub(crate) async fn state(&self) -> (JobState, u64) {
        match self.nats.job(&self.job).await.unwrap() {
            Key::State(state, revision) => (*state, revision),
            Key::Absent => (JobState::new(now()), 0),
            other => panic!("{other:?}"),
        }
    }

    /// Writes the key as `event` changes it; gives the revision.
    pub(crate) async fn apply(&self, event: Event) -> u64 {
        let (state, revision) = self.state().await;
        let Change::To(next) = state.apply(&event, now()).unwrap() else {
            panic!("no change")
        };
        match self
            .nats
            .write_job(&self.job, &next, revision)
            .await
            .unwrap()
        {
            Swap::Won(revision) => revision,
            Swap::Lost => panic!("somebody else writes the key"),
        }
    }

    /// Claims the job for the message at `seq`.
    pub(crate) async fn claim(&self, seq: u64) -> Claimed {
        self.claim_paid(seq, None).await
    }

    /// The same, naming the account in which something is reserved for the runner.
    pub(crate) async fn claim_paid(&self, seq: u64, account: Option<&JobName>) -> Claimed {
        let queued = self
            .nats
            .queued_at(&self.job, seq)
            .await
            .unwrap()
            .expect("the message is queued");
        let last = self.nats.last_record(&self.job, &queued.id).await.unwrap();
        let runner = Uuid::now_v7();
        let target = Target {
            task: queued.id,
            seq,
            attempt: queued.attempt,
            expected: last.map_or(0, |(seq, _)| seq),
        };
        let lease = Lease {
            runner,
            manager: "test".into(),
            backend: "process".into(),
            realm: None,
            budget: account.cloned(),
            claimed: now(),
            renewed: now(),
            ttl: Span(self.ttl),
            start_within: Span(Duration::from_secs(10)),
            phase: Phase::Starting { target },
        };
        let fence = self.apply(Event::Claim(lease)).await;
        Claimed { seq, runner, fence }
    }

    /// Starts a runner under a claim.
    pub(crate) fn start(&self, claimed: Claimed) -> Running {
        let mut command = Command::new(binary("air-runner"));
        command.env_clear();
        command
            .env("PATH", "/usr/bin:/bin")
            .env("TMPDIR", self.tmp());
        command
            .env("SECRET", "s")
            .env("NATS_URL", self.server.url())
            .env("AIR_PREFIX", "air");
        command
            .env("AIR_JOB", self.job.as_str())
            .env("AIR_SEQ", claimed.seq.to_string());
        command.env("AIR_RUNNER", claimed.runner.to_string());
        command
            .env("AIR_FENCE", claimed.fence.to_string())
            .env("AIR_BACKEND", "process");
        Running {
            child: command.stdin(Stdio::null()).spawn().unwrap(),
        }
    }

    fn tmp(&self) -> PathBuf {
        let tmp = self.file("tmp");
        fs::create_dir_all(&tmp).unwrap();
        tmp
    }

    /// No folder of a task is left.
    pub(crate) fn assert_nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(self.tmp()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// Publishes, claims and starts.
    pub(crate) async fn started(&self, task: &serde_json::Value) -> (Running, Claimed) {
        let seq = self.publish(task).await;
        let claimed = self.claim(seq).await;
        (self.start(claimed), claimed)
    }

    /// Claims the message at `seq`, and runs it to its end.
    pub(crate) async fn run_at(&self, seq: u64) -> Exit {
        let claimed = self.claim(seq).await;
        let exit = self.start(claimed).exit().await;
        self.assert_nothing_left();
        exit
    }

    /// Publishes a task with an id and runs it to its end; gives its record.
    pub(crate) async fn run(&self, task: &serde_json::Value) -> (u64, Record) {
        let seq = self.publish(task).await;
        assert_eq!(self.run_at(seq).await, Exit::Done);
        let (at, record) = self
            .last(task["id"].as_str().unwrap())
            .await
            .expect("a record");
        let (state, _) = self.state().await;
        assert_eq!((state.name().as_str(), state.last_record), ("waiting", at));
        (at, record)
    }

    pub(crate) async fn queue(&self, job: &str) -> Vec<Queued> {
        let job = job.parse().unwrap();
        let (mut all, mut from) = (Vec::new(), 1);
        loop {
            let (queued, _) = self.nats.queued(&job, from, 1000).await.unwrap();
            let Some(last) = queued.last() else {
                return all;
            };
            from = last.seq + 1;
            all.extend(queued);
        }
    }

    /// Waits until a task has written this file, and gives its text.
    pub(crate) async fn written(&self, name: &str) -> String {
        let path = self.file(name);
        wait_for(name, async || match fs::read_to_string(&path) {
            Ok(text) if text.ends_with('\n') => Ok(text.trim().to_owned()),
            other => Err(other),
        })
        .await
    }

    /// The log of a task, as text.
    pub(crate) async fn log(&self, task: &str) -> String {
        let chunks = self
            .nats
            .logs(&self.job, Some(&id(task)), 1, 100)
            .await
            .unwrap();
        chunks
            .iter()
            .map(|chunk| String::from_utf8_lossy(&chunk.payload).into_owned())
            .collect()
    }

    /// The types of the job's events, in their order.
    pub(crate) async fn events(&self) -> Vec<String> {
        let events = self.nats.events(Some(&self.job), 1, 100).await.unwrap();
        let kind =
            |event: &air_nats::direct::Stored| event.subject.rsplit('.').next().unwrap().to_owned();
        events.iter().map(kind).collect()
    }

    /// A user cancels the task, whose last record is at `after`.
    pub(crate) async fn cancel_task(&self, task: &str, after: u64) -> u64 {
        let record = Record::new(id(task), Status::Cancelled, 1, now()).follows(None, after);
        let commit = Commit {
            job: self.job.clone(),
            record,
            with: vec![With::Unschedule],
            wire: Wire::Json,
        };
        match self.nats.commit(&commit).await.unwrap() {
            Committed::At(seq) => seq,
            other => panic!("{other:?}"),
        }
    }
}

/// Whether a process is there and no zombie.
pub(crate) fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim().chars().next());
    state.is_some_and(|state| state != 'Z')
}
