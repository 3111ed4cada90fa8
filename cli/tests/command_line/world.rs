//! A server with streams, and `airx` connected to it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use air_nats::Nats;
use air_nats::commit::{Commit, Committed};
use air_nats::jobs::{Key, Swap};
use air_protocol::job::{Change, Event, JobState};
use air_protocol::names::JobName;
use air_protocol::record::{Record, Status};
use air_protocol::spec::Wire;
use air_protocol::task::{Task, Work};
use air_tests::Server;

/// A server with streams, and a connection.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) nats: Nats,
}

/// What a run of `airx` came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The data on stdout, if the run was good.
    #[track_caller]
    pub(crate) fn good(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// The data on stdout as JSON, if the run was good.
    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.good()).unwrap()
    }

    /// What was said on stderr, if it ended with this code.
    #[track_caller]
    pub(crate) fn bad(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.err
    }
}

/// `airx` with nothing of the tester's own configuration.
pub(crate) fn airx(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_airx"));
    command.args(args).stdin(Stdio::null());
    for name in [
        "NATS_URL",
        "NATS_CONTEXT",
        "NATS_CREDS",
        "AIR_PREFIX",
        "AIR_TASKS",
        "NO_COLOR",
    ] {
        command.env_remove(name);
    }
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

pub(crate) fn run(command: &mut Command) -> Ran {
    Ran::of(command.output().unwrap())
}

impl World {
    pub(crate) async fn new() -> Self {
        let server = Server::start();
        let nats = server.connect_init().await;
        Self { server, nats }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = airx(args);
        command.env("NATS_URL", self.server.url());
        command
    }

    /// Runs `airx`, words separated by blanks.
    pub(crate) fn airx(&self, line: &str) -> Ran {
        self.args(&line.split(' ').collect::<Vec<_>>())
    }

    pub(crate) fn args(&self, args: &[&str]) -> Ran {
        run(&mut self.command(args))
    }

    /// Writes a file in the server's folder, and gives its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = Path::new(self.server.folder()).join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Applies events to a job's key, as managers do.
    pub(crate) async fn apply(&self, name: &str, events: &[Event]) {
        for event in events {
            let key = self.nats.job(&job(name)).await.unwrap();
            let state = key.state().cloned();
            let state = state.unwrap_or_else(|| JobState::new(airx::app::now()));
            let next = match state.apply(event, airx::app::now()).unwrap() {
                Change::To(next) => next,
                Change::NoOp => Box::new(state),
            };
            let written = self.nats.write_job(&job(name), &next, key.revision()).await;
            assert!(matches!(written, Ok(Swap::Won(_))));
        }
    }

    /// Commits a record, as runners do.
    pub(crate) async fn record(
        &self,
        name: &str,
        task: &str,
        status: Status,
        attempt: u32,
        needs: &[&str],
    ) {
        let mut spec = Task::new(Work::Run(format!("do {task}")));
        spec.needs = needs.iter().map(|need| need.parse().unwrap()).collect();
        let last = self
            .nats
            .last_record(&job(name), &task.parse().unwrap())
            .await
            .unwrap();
        let (previous, after) = last.map_or((None, 0), |(seq, last)| (Some(last.status), seq));
        let mut record = Record::new(task.parse().unwrap(), status, attempt, airx::app::now())
            .follows(previous, after);
        record.spec = Some(spec);
        let commit = Commit {
            job: job(name),
            record,
            with: Vec::new(),
            wire: Wire::Json,
        };
        assert!(matches!(
            self.nats.commit(&commit).await.unwrap(),
            Committed::At(_)
        ));
    }

    pub(crate) async fn status(&self, name: &str) -> String {
        match self.nats.job(&job(name)).await.unwrap() {
            Key::State(state, _) => state.name(),
            other => format!("{other:?}"),
        }
    }

    pub(crate) async fn last(&self, name: &str, task: &str) -> Record {
        let last = self
            .nats
            .last_record(&job(name), &task.parse().unwrap())
            .await
            .unwrap();
        last.unwrap().1
    }
}

pub(crate) fn job(name: &str) -> JobName {
    name.parse().unwrap()
}
