//! Waiting for submitted tasks and all that they queued.
//!
//! A task names in its record how many sub-tasks it queued and into which other jobs. Sub-tasks carry no
//! mark of their ancestors once they are done, so their jobs are waited for as a whole.

use std::collections::{BTreeMap, BTreeSet};

use air_nats::Nats;
use air_nats::jobs::Key;
use air_protocol::job::JobStatus;
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::{Record, Status};

use super::Submitted;
use crate::app::{App, count};
use crate::follow::Follow;
use crate::progress::Progress;
use crate::verbs::wait::{End, job_end};
use crate::{Exit, Failure};

/// Waits until the tasks and all that they queued are done.
pub(super) async fn wait(nats: &Nats, app: &App, submitted: &[Submitted]) -> Result<Exit, Failure> {
    let mut tasks: BTreeMap<&JobName, BTreeSet<TaskId>> = BTreeMap::new();
    for one in submitted {
        tasks.entry(&one.job).or_default().insert(one.task.clone());
    }
    let since = submitted.iter().map(|one| one.seq).min().unwrap_or(0);
    let mut good = true;
    let mut families = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for (job, tasks) in tasks {
        let ended = own(nats, app, job, tasks, since).await?;
        for record in &ended.records {
            good &= told(app, job, record);
            seen.insert((job.clone(), record.task.clone()));
            families.extend(record.jobs.iter().cloned());
            if record.subtasks > 0 {
                families.insert(job.clone());
            }
        }
        if let Some(why) = ended.stopped {
            app.console.note(why);
            good = false;
        }
    }
    good &= families_end(nats, app, families, since, &seen).await?;
    Ok(if good { Exit::Done } else { Exit::Failed })
}

/// Tells of a task that did not succeed; true if it did.
fn told(app: &App, job: &JobName, record: &Record) -> bool {
    if record.status == Status::Succeeded {
        return true;
    }
    let why = record.error.as_deref().unwrap_or("it says no more");
    app.console.note(format_args!(
        "{job}/{}: {}: {why}",
        record.task,
        record.status.as_str()
    ));
    false
}

/// How the submitted tasks of one job ended.
struct Ended {
    records: Vec<Record>,
    /// Why the others will not run.
    stopped: Option<String>,
}

/// Waits until the submitted tasks of one job are over, or will not run.
async fn own(
    nats: &Nats,
    app: &App,
    job: &JobName,
    mut open: BTreeSet<TaskId>,
    since: u64,
) -> Result<Ended, Failure> {
    let progress = Progress::new(&app.console, job.as_str());
    let total = open.len() as u64;
    // A task whose id was used before may be over already; the records after that are read as they come.
    let named = open.iter().filter(|task| task.sequence().is_none());
    let named: Vec<_> = named.map(|task| (job.clone(), task.clone())).collect();
    let before = nats.last_records(job, &named).await?.records;
    let mut records = Vec::new();
    take_over(
        before.into_values().map(|(_, record)| record),
        &mut open,
        &mut records,
    );
    let (mut after, mut seen) = (since, false);
    let mut follow = Follow::new(nats, job);
    loop {
        follow.changed().await;
        // The key before the records: when it says that the job has failed, all that ran before is seen.
        let key = nats.job(job).await?;
        loop {
            let (page, more) = nats.records_after(job, after, 500).await?;
            after = page.last().map_or(after, |(seq, _)| *seq);
            take_over(
                page.into_iter().map(|(_, record)| record),
                &mut open,
                &mut records,
            );
            if !more {
                break;
            }
        }
        if open.is_empty() {
            return Ok(Ended {
                records,
                stopped: None,
            });
        }
        if let Some(why) = stopped(&key, seen) {
            let left = count(open.len() as u64, "task");
            let stopped = Some(format!("{job}: {why}, so {left} of these will not run"));
            return Ok(Ended { records, stopped });
        }
        seen |= key.state().is_some();
        let running = key
            .state()
            .and_then(|state| state.lease()?.phase.target().cloned());
        let text = running.map_or_else(String::new, |target| format!("{} runs", target.task));
        progress.show(total - open.len() as u64, total, &text);
    }
}

/// Takes the records of tasks that are over and still waited for.
fn take_over(
    records: impl Iterator<Item = Record>,
    open: &mut BTreeSet<TaskId>,
    over: &mut Vec<Record>,
) {
    over.extend(records.filter(|record| record.status.is_final() && open.remove(&record.task)));
}

/// Why the tasks of a job will not run; `seen` when its key was there before.
fn stopped(key: &Key, seen: bool) -> Option<&'static str> {
    match key {
        Key::State(state, _) => match state.status {
            JobStatus::Failed { .. } => Some("the job has failed"),
            JobStatus::Removing => Some("the job is being removed"),
            JobStatus::Waiting
            | JobStatus::Working { .. }
            | JobStatus::Completed { .. }
            | JobStatus::Cancelling
            | JobStatus::Cancelled { .. } => None,
        },
        Key::Absent | Key::Deleted(_) => seen.then_some("the job was removed"),
        Key::Garbage(..) | Key::Newer(..) => None,
    }
}

/// Waits for whole jobs and those into which they queued; true when nothing failed in them after `since`.
async fn families_end(
    nats: &Nats,
    app: &App,
    families: BTreeSet<JobName>,
    since: u64,
    told_of: &BTreeSet<(JobName, TaskId)>,
) -> Result<bool, Failure> {
    let mut good = true;
    let mut seen = BTreeSet::new();
    let mut next: Vec<_> = families.into_iter().collect();
    while let Some(job) = next.pop() {
        if !seen.insert(job.clone()) {
            continue;
        }
        match job_end(nats, app, &job).await {
            Ok(End::Completed) => {}
            Ok(End::Bad(what)) => {
                app.console.note(format_args!("{job}: {what}"));
                good = false;
            }
            // What was queued there is over, and the job has been removed since.
            Err(Failure::NoJob(_)) => {}
            Err(failure) => return Err(failure),
        }
        let mut after = since;
        let mut lasts: BTreeMap<TaskId, Record> = BTreeMap::new();
        loop {
            let (records, more) = nats.records_after(&job, after, 500).await?;
            let Some((last, _)) = records.last() else {
                break;
            };
            after = *last;
            for (_, record) in records {
                next.extend(record.jobs.iter().cloned());
                lasts.insert(record.task.clone(), record);
            }
            if !more {
                break;
            }
        }
        lasts.retain(|task, _| !told_of.contains(&(job.clone(), task.clone())));
        for record in lasts.values() {
            good &= told(app, &job, record);
        }
    }
    Ok(good)
}
