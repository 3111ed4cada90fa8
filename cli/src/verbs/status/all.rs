//! All jobs in a table.

use std::collections::{BTreeMap, HashMap};

use air_nats::jobs::Key;
use air_nats::queue::Queues;
use air_nats::specs::spec_of;
use air_nats::{Entry, Nats};
use air_protocol::job::{JobState, JobStatus};
use air_protocol::ledger::Counters;
use air_protocol::names::{JobName, TaskId};
use air_protocol::spec::Spec;
use air_protocol::time::Time;
use serde::Serialize;

use crate::Failure;
use crate::app::{App, now, short};
use crate::table::Table;

/// One job.
#[derive(Debug, PartialEq, Serialize)]
struct Row {
    job: JobName,
    status: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    paused: bool,
    /// Messages in the queue that no runner works on.
    queued: u64,
    counters: Counters,
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<Running>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated: Option<Time>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Running {
    task: TaskId,
    attempt: u32,
    claimed: Time,
}

/// All jobs, or only these, in the wanted format.
pub(super) async fn text(
    nats: &Nats,
    app: &App,
    only: Option<&[JobName]>,
) -> Result<String, Failure> {
    let keys = nats.all_jobs().await?;
    let specs = nats.all_specs().await?;
    let Queues {
        jobs: queues, bad, ..
    } = nats.queues().await?;
    let mut rows = rows(&keys, &specs, &queues);
    if let Some(only) = only {
        rows.retain(|row| only.contains(&row.job));
    }
    for subject in bad {
        app.console.warn(format_args!(
            "the subject {subject} names no job; a manager deletes its messages"
        ));
    }
    let text = app
        .console
        .text(&rows, || app.console.table_text(&table(&rows)));
    if rows.is_empty() && only.is_none() {
        app.console
            .note("there is no job yet; `airx submit JOB -- COMMAND` makes one");
    }
    Ok(text)
}

fn rows(keys: &[Entry], specs: &[Entry], queues: &HashMap<JobName, u64>) -> Vec<Row> {
    let mut jobs: BTreeMap<JobName, (Key, Result<Spec, String>)> = BTreeMap::new();
    let default = || (Key::Absent, Ok(Spec::default()));
    for entry in keys.iter().filter(|entry| entry.value.is_some()) {
        if let Ok(job) = entry.key.parse() {
            jobs.entry(job).or_insert_with(default).0 = Key::of_entry(Some(entry));
        }
    }
    for job in queues.keys() {
        jobs.entry(job.clone()).or_insert_with(default);
    }
    for entry in specs {
        if let Some(known) = entry.key.parse().ok().and_then(|job| jobs.get_mut(&job)) {
            known.1 = spec_of(Some(entry));
        }
    }
    let row = |(job, (key, spec))| {
        let queued = queues.get(&job).copied().unwrap_or(0);
        row(job, &key, &spec, queued)
    };
    jobs.into_iter().map(row).collect()
}

fn row(job: JobName, key: &Key, spec: &Result<Spec, String>, queued: u64) -> Row {
    let state = key.state();
    let lease = state.and_then(JobState::lease);
    let running = lease.and_then(|lease| {
        let target = lease.phase.target()?;
        Some(Running {
            task: target.task.clone(),
            attempt: target.attempt,
            claimed: lease.claimed,
        })
    });
    let problem = match (key, spec) {
        (Key::Garbage(_, reason) | Key::Newer(_, reason), _) => {
            Some(format!("the key cannot be read: {reason}"))
        }
        (_, Err(reason)) => Some(format!("the spec is invalid: {reason}")),
        _ => state.and_then(|state| {
            let lack = state.over_budget.as_ref();
            let lack = lack.map(|lack| format!("over budget: {}", lack.reason));
            lack.or_else(|| state.start_error.clone())
        }),
    };
    Row {
        job,
        status: match key {
            Key::State(state, _) => state.status.as_str().to_owned(),
            Key::Garbage(..) => "garbage".to_owned(),
            Key::Newer(..) => "newer".to_owned(),
            Key::Absent | Key::Deleted(_) => "waiting".to_owned(),
        },
        paused: spec.as_ref().is_ok_and(|spec| spec.paused),
        queued: waiting_tasks(state, queued, running.is_some()),
        counters: state.map(|state| state.ledger.counters).unwrap_or_default(),
        running,
        problem,
        updated: state.map(|state| state.updated),
    }
}

/// Tasks that wait, of the messages in the queue: not the one that runs, and none of a job that is over,
/// whose consumed messages stay until the server has synced their records.
fn waiting_tasks(state: Option<&JobState>, messages: u64, running: bool) -> u64 {
    let is_over = state.is_some_and(|state| {
        matches!(
            state.status,
            JobStatus::Completed { .. } | JobStatus::Cancelled { .. }
        )
    });
    if is_over {
        0
    } else {
        messages.saturating_sub(u64::from(running))
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "JOB", "STATUS", "QUEUED", "DONE", "FAILED", "RETRYING", "AGE", "RUNNING",
    ]);
    let now = now();
    for row in rows {
        let mut status = row.status.clone();
        if row.paused {
            status.push_str(" (paused)");
        }
        let running = match (&row.running, &row.problem) {
            (_, Some(problem)) => problem.clone(),
            (Some(running), None) => {
                let age = short(now.since(running.claimed));
                format!("{} (attempt {}, {age})", running.task, running.attempt)
            }
            (None, None) => String::new(),
        };
        let counters = &row.counters;
        table.row([
            row.job.to_string(),
            status,
            row.queued.to_string(),
            counters.succeeded.to_string(),
            counters.failed.to_string(),
            counters.retrying.to_string(),
            row.updated
                .map(|updated| short(now.since(updated)))
                .unwrap_or_default(),
            running,
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &[u8]) -> Entry {
        Entry {
            key: key.into(),
            value: Some(value.to_vec().into()),
            revision: 1,
            time: Time::default(),
        }
    }

    #[test]
    fn a_job_is_known_by_its_key_or_its_queue() {
        let state = serde_json::to_vec(&JobState::new(Time::default())).unwrap();
        let keys = [entry("b", &state), entry("c", b"{")];
        let specs = [
            entry("a", br#"{"paused":true}"#),
            entry("b", b"{"),
            entry("only-spec", b"{}"),
        ];
        let queues = [("a".parse().unwrap(), 3)].into();
        let rows = rows(&keys, &specs, &queues);
        let said: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    row.job.as_str(),
                    row.status.as_str(),
                    row.paused,
                    row.queued,
                    row.problem.is_some(),
                )
            })
            .collect();
        assert_eq!(
            said,
            [
                ("a", "waiting", true, 3, false),
                ("b", "waiting", false, 0, true),
                ("c", "garbage", false, 0, true)
            ]
        );
    }
}
