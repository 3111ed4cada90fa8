//! A whole installation: a server with its streams, managers, and the questions that tests ask.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use air_nats::Nats;
use air_nats::jobs::Key;
use air_protocol::codec::decode_task;
use air_protocol::job::{JobState, JobStatus};
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::{Record, Status};
use air_protocol::spec::Spec;

use crate::process::{Program, binary};
use crate::server::{Server, ServerOptions};
use crate::wait::{HANGS, wait_for, wait_for_within};

/// A server, its managers, and a connection.
pub struct Installation {
    /// The server.
    pub server: Server,
    /// A connection to it.
    pub nats: Nats,
    /// The managers that run.
    pub managers: Vec<Program>,
    /// A clock of this installation is shifted, so that no time says anything about its leases.
    pub clocks_jump: bool,
    acknowledged: Mutex<BTreeMap<JobName, Vec<TaskId>>>,
}

impl Installation {
    /// A server with streams, and this many managers.
    pub async fn start(managers: usize) -> Self {
        Self::start_on(ServerOptions::default(), managers).await
    }

    /// The same, on a server with options.
    pub async fn start_on(options: ServerOptions, managers: usize) -> Self {
        let server = Server::start_with(options);
        let nats = server.connect_init().await;
        let mut installation = Self::over(server, nats);
        for _ in 0..managers {
            installation.add_manager(&[]);
        }
        installation
    }

    /// On a cluster that somebody else starts and ends: as many replicas of everything as it has servers, no manager.
    pub async fn on_cluster(server: Server, replicas: usize) -> Self {
        let nats = wait_for_within(HANGS, "cluster that takes streams", async || {
            let nats = Nats::connect(&server.options(), "test").await;
            let nats = nats.map_err(|error| error.to_string())?;
            let made = nats.init(Some(replicas), true).await;
            made.map(|_| nats).map_err(|error| error.to_string())
        })
        .await;
        Self::over(server, nats)
    }

    fn over(server: Server, nats: Nats) -> Self {
        let (clocks_jump, acknowledged) = (false, Mutex::default());
        Self {
            server,
            nats,
            managers: Vec::new(),
            clocks_jump,
            acknowledged,
        }
    }

    /// Starts one more manager, with further options of `airx manager`.
    pub fn add_manager(&mut self, options: &[&str]) -> &mut Program {
        let program = Program::start(&mut self.manager_command(options));
        self.managers.push(program);
        self.managers.last_mut().expect("one was added just now")
    }

    /// The command that starts a manager.
    pub fn manager_command(&self, options: &[&str]) -> Command {
        self.manager_command_with(&binary("air-runner"), options)
    }

    /// The same, with another program that starts as its runners.
    pub fn manager_command_with(&self, runner: &Path, options: &[&str]) -> Command {
        let mut command = self.airx(&["manager", "--poll", "1s", "--runner"]);
        command.arg(runner);
        if !options.contains(&"--sync-interval") {
            command.args(["--sync-interval", "0"]);
        }
        command.args(options).stdout(Stdio::null());
        if std::env::var_os("AIR_LOG").is_none() {
            command.env("AIR_LOG", "error");
        }
        command
    }

    /// The command line, connected to the server.
    pub fn airx(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("airx"));
        command
            .args(arguments)
            .env("NATS_URL", self.server.url())
            .stdin(Stdio::null());
        command
    }

    /// The `nats` command line, connected to the server: `AIR_NATS_CLI`, or the one on the PATH.
    pub fn nats_cli(&self, arguments: &[&str]) -> Command {
        let mut command =
            Command::new(std::env::var_os("AIR_NATS_CLI").unwrap_or_else(|| "nats".into()));
        command
            .args(arguments)
            .env("NATS_URL", self.server.url())
            .stdin(Stdio::null());
        command
    }

    /// Publishes a task as any client would.
    pub async fn publish(&self, job: &str, task: &str) -> u64 {
        self.publish_as(job, None, task.as_bytes()).await
    }

    /// Publishes bytes of any kind as a task.
    pub async fn publish_as(&self, job: &str, content_type: Option<&str>, bytes: &[u8]) -> u64 {
        let job: JobName = job.parse().unwrap();
        let seq = self
            .nats
            .publish_task(&job, content_type, bytes.to_vec(), None)
            .await
            .unwrap();
        let task = decode_task(content_type, bytes).ok();
        let chosen = task.and_then(|task| task.id.filter(|id| id.sequence().is_none()));
        let task = chosen.unwrap_or_else(|| TaskId::of_sequence(seq));
        self.note_acknowledged(job, task);
        seq
    }

    /// Remembers a task whose publish was acknowledged.
    pub fn note_acknowledged(&self, job: JobName, task: TaskId) {
        let mut all = self.acknowledged.lock().unwrap();
        all.entry(job).or_default().push(task);
    }

    /// Says anew which tasks I3 asks for, where some are known to be lost.
    pub fn set_acknowledged(&self, tasks: BTreeMap<JobName, Vec<TaskId>>) {
        *self.acknowledged.lock().unwrap() = tasks;
    }

    /// The tasks whose publish was acknowledged, by job.
    pub fn acknowledged(&self) -> BTreeMap<JobName, Vec<TaskId>> {
        self.acknowledged.lock().unwrap().clone()
    }

    /// Writes the spec of a job as any client would.
    pub async fn spec(&self, job: &str, spec: &str) {
        let job: JobName = job.parse().unwrap();
        let spec: Spec = serde_json::from_str(spec).unwrap();
        let (_, revision) = self.nats.spec(&job).await.unwrap();
        self.nats.write_spec(&job, &spec, revision).await.unwrap();
    }

    /// The state of a job.
    pub async fn state(&self, job: &str) -> Option<JobState> {
        let job: JobName = job.parse().unwrap();
        match self.nats.job(&job).await.unwrap() {
            Key::State(state, _) => Some(*state),
            _ => None,
        }
    }

    /// Waits until the state of a job is as wanted.
    pub async fn wait_state(&self, job: &str, wanted: impl Fn(&JobState) -> bool) -> JobState {
        wait_for(&format!("state of {job}"), async || {
            match self.state(job).await {
                Some(state) if wanted(&state) => Ok(state),
                other => Err(other),
            }
        })
        .await
    }

    /// Waits until a job is completed, with its queue empty up to its last message as it is now.
    pub async fn wait_completed(&self, job: &str) -> JobState {
        self.wait_completed_within(job, HANGS).await
    }

    /// The same, with a time of the caller's.
    pub async fn wait_completed_within(&self, job: &str, most: Duration) -> JobState {
        let name: JobName = job.parse().unwrap();
        let last = self.nats.last_queued(&name).await.unwrap().unwrap_or(0);
        wait_for_within(most, &format!("end of {job}"), async || {
            // The queue before the key, as `airx wait` does: a manager that died between the deletion of a
            // message that nobody needs and the key's next state has nothing to write any more.
            let (queued, _) = self.nats.queued(&name, 1, 1).await.unwrap();
            let settled = queued.first().is_none_or(|next| next.seq > last);
            match self.state(job).await {
                Some(state) if matches!(state.status, JobStatus::Completed { drained } if drained >= last || settled) => Ok(state),
                other => Err(other),
            }
        })
        .await
    }

    /// All records of a job, in stream order.
    pub async fn records(&self, job: &str) -> Vec<(u64, Record)> {
        let job = job.parse().unwrap();
        let mut all = Vec::new();
        loop {
            let from = all.last().map_or(0, |(seq, _)| *seq);
            let (records, more) = self.nats.records_after(&job, from, 256).await.unwrap();
            all.extend(records);
            if !more {
                return all;
            }
        }
    }

    /// The last record of a task.
    pub async fn record(&self, job: &str, task: &str) -> Option<Record> {
        let task: TaskId = task.parse().unwrap();
        let last = self
            .nats
            .last_record(&job.parse().unwrap(), &task)
            .await
            .unwrap();
        last.map(|(_, record)| record)
    }

    /// Waits until the last record of a task has this status.
    pub async fn wait_record(&self, job: &str, task: &str, status: Status) -> Record {
        wait_for(
            &format!("{} {job}/{task}", status.as_str()),
            async || match self.record(job, task).await {
                Some(record) if record.status == status => Ok(record),
                other => Err(other),
            },
        )
        .await
    }

    /// What a task printed.
    pub async fn log(&self, job: &str, task: &str) -> Vec<u8> {
        let (job, task) = (job.parse().unwrap(), task.parse().unwrap());
        let mut bytes = Vec::new();
        let mut from = 1;
        loop {
            let chunks = self.nats.logs(&job, Some(&task), from, 256).await.unwrap();
            let Some(last) = chunks.last() else {
                return bytes;
            };
            from = last.seq + 1;
            for chunk in chunks {
                bytes.extend_from_slice(&chunk.payload);
            }
        }
    }
}
