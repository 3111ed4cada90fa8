//! The invariants, asked of a real installation: reads a history, and panics with what must not be.
//!
//! Everything is read again until nothing is wrong, since a sweep or a fold may be under way; what is
//! broken for good stays broken, and is told when the time is over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, SystemTime};

use air_nats::direct::Stored;
use air_nats::queue::Queued;
use air_protocol::event::Event;
use air_protocol::invariants::{
    History, JobHistory, Parent, Process, StoredRecord, TaskMessage, check_all,
};
use air_protocol::names::{JobName, TaskId};
use air_protocol::task::Work;
use air_protocol::time::Span;
use uuid::Uuid;

use crate::installation::Installation;
use crate::process::pids;
use crate::wait::wait_for_within;

/// Time that sweeps and folds get.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// What I4 adds to a time-out: the poll of the test's managers, and a busy machine.
const POLL: Duration = Duration::from_secs(6);

/// Panics unless every invariant holds for all jobs of the installation, as `airx verify` sees it as well:
/// it must say so at once, whatever is still under way.
pub async fn check(air: &Installation) {
    let output = air.airx(&["verify"]).output().unwrap();
    let (out, err) = (&output.stdout, &output.stderr);
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", said(out), said(err));
    wait_for_within(SETTLE_MAX, "history without a violation", async || {
        let violations = check_all(&history(air).await);
        let texts: Vec<_> = violations.iter().map(ToString::to_string).collect();
        if texts.is_empty() { Ok(()) } else { Err(texts) }
    })
    .await;
}

/// Panics unless no process of any run of the installation is left; a zombie counts as gone.
pub async fn check_no_process(air: &Installation) {
    wait_for_within(SETTLE_MAX, "end of all processes", async || {
        let left = processes(&runs(air).await);
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

/// What there is to read, in the order that the invariants ask for.
async fn history(air: &Installation) -> History {
    let mut jobs = BTreeMap::new();
    for name in names(air).await {
        let job = job_history(air, &name).await;
        jobs.insert(name, job);
    }
    History {
        processes: Some(processes(&runs(air).await)),
        now: (!air.clocks_jump).then(|| SystemTime::now().into()),
        poll: Span(POLL),
        jobs,
    }
}

/// The jobs that have a key, and those whose tasks were acknowledged.
async fn names(air: &Installation) -> BTreeSet<JobName> {
    let keys = air.nats.all_jobs().await.unwrap();
    let mut names: BTreeSet<JobName> = keys.iter().map(|key| key.key.parse().unwrap()).collect();
    names.extend(air.acknowledged().into_keys());
    names
}

async fn job_history(air: &Installation, name: &JobName) -> JobHistory {
    let state = air.state(name.as_str()).await;
    let schedules = air.nats.scheduled(name).await.unwrap();
    let queue = air.queue(name.as_str()).await;
    let records = air.records(name.as_str()).await.into_iter();
    let quiet = state.as_ref().is_some_and(|state| state.status.is_over());
    JobHistory {
        state,
        records: records
            .map(|(seq, mut record)| {
                if air.clocks_jump {
                    // No host, no one clock by which runs could be compared.
                    record.host = None;
                }
                StoredRecord {
                    seq,
                    record,
                    parent: None,
                }
            })
            .collect(),
        queue: queue.iter().map(message).collect(),
        schedules: schedules.iter().map(message).collect(),
        events: air.events(Some(name.as_str())).await,
        acknowledged: air.acknowledged().remove(name).unwrap_or_default(),
        removed: false,
        quiet,
        parents_known: false,
    }
}

fn message(queued: &Queued) -> TaskMessage {
    let parent = |text: &String| {
        let (job, task) = text.split_once('/')?;
        Some(Parent {
            job: job.parse().ok()?,
            task: task.parse().ok()?,
            run: None,
        })
    };
    let fanout = match queued.task.as_ref().map(|task| &task.work) {
        Ok(Work::Fanout(fanout)) => Some(fanout.clone()),
        _ => None,
    };
    TaskMessage {
        seq: queued.seq,
        task: queued.id.clone(),
        attempt: queued.attempt,
        parent: queued.parent.as_ref().and_then(parent),
        fanout,
    }
}

/// The runs that any event tells of, and their jobs.
async fn runs(air: &Installation) -> BTreeMap<Uuid, JobName> {
    let events = air.events(None).await.into_iter();
    events
        .filter_map(|event| Some((event.data.run?, event.data.job?)))
        .collect()
}

/// The live processes of these runs on this host.
fn processes(runs: &BTreeMap<Uuid, JobName>) -> Vec<Process> {
    let process = |pid: u32| {
        let (run, is_runner) = run_of(pid)?;
        Some(Process {
            host: "here".into(),
            pid,
            run,
            job: runs.get(&run)?.clone(),
            is_runner,
        })
    };
    pids().filter_map(process).collect()
}

/// The run that a live process belongs to, and whether it is its runner.
fn run_of(pid: u32) -> Option<(Uuid, bool)> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variable = |name: &[u8]| {
        let mut all = environment.split(|byte| *byte == 0);
        all.find_map(|variable| variable.strip_prefix(name))
    };
    let run = Uuid::try_parse_ascii(variable(b"AIR_RUNNER=")?).ok()?;
    Some((run, variable(b"AIR_SEQ=").is_some()))
}

/// The live runners that this process can see: process id and run.
pub fn runners() -> Vec<(u32, Uuid)> {
    let runner = |pid| match run_of(pid)? {
        (run, true) => Some((pid, run)),
        (_, false) => None,
    };
    pids().filter_map(runner).collect()
}

impl Installation {
    /// The events of a job, or of all, in stream order.
    pub async fn events(&self, job: Option<&str>) -> Vec<Event> {
        let job = job.map(|job| job.parse().unwrap());
        let read = |stored: &Stored| serde_json::from_slice(&stored.payload).unwrap();
        let (mut all, mut from) = (Vec::new(), 1);
        loop {
            let some = self.nats.events(job.as_ref(), from, 256).await.unwrap();
            let Some(last) = some.last() else { return all };
            from = last.seq + 1;
            all.extend(some.iter().map(read));
        }
    }

    /// The messages in the queue of a job.
    pub async fn queue(&self, job: &str) -> Vec<Queued> {
        let job = job.parse().unwrap();
        let (mut all, mut from) = (Vec::new(), 1);
        loop {
            let (some, _) = self.nats.queued(&job, from, 256).await.unwrap();
            let Some(last) = some.last() else { return all };
            from = last.seq + 1;
            all.extend(some);
        }
    }

    /// The final records of a task: one, unless something is very wrong.
    pub async fn finals(&self, job: &str, task: &TaskId) -> usize {
        let records = self.records(job).await;
        let finals = records.iter().filter(|(_, record)| record.task == *task);
        finals
            .filter(|(_, record)| record.status.is_final())
            .count()
    }
}
