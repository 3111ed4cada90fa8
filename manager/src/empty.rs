//! Emptying the queue of a cancelled job: every task that is queued, scheduled or open gets its
//! `cancelled` record, and what was queued by then is purged. Each step can be repeated.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use air_nats::commit::{Commit, Committed, With};
use air_nats::jobs::{Key, Swap};
use air_nats::queue::Queued;
use air_nats::records::At;
use air_protocol::budget::Leash;
use air_protocol::event::{Data, Kind};
use air_protocol::job::{Event, JobState, PurgeTo};
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::{Record, Status, next_attempt};
use air_protocol::task::Task;
use air_protocol::time::Time;

use tokio::task::JoinSet;

use crate::advance::Failed;
use crate::decide::then;
use crate::settle::release;
use crate::shared::{Shared, now};

/// Tasks that are cancelled at once.
const AT_ONCE: usize = 64;
/// Tries of one task whose record changes at the same time.
const TRIES_MAX: u32 = 20;

/// Empties the queue of a job in status `cancelling`, and moves it to `cancelled`.
pub(crate) async fn empty(shared: &Arc<Shared>, job: &JobName, key: &Key) -> Result<(), Failed> {
    let Some((state, revision, to)) = bound(shared, job, key).await? else {
        return Ok(());
    };
    let nats = &shared.nats;
    let names = nats.names();
    let up_to = to.stream;
    cancel_all(shared, job, open_tasks(shared, job, up_to).await?).await?;
    nats.purge(&names.stream(), &names.job_schedules(job), Some(up_to))
        .await?;
    nats.purge(&names.stream(), &names.tasks(job), Some(up_to))
        .await?;
    air_nats::crash::point("emptied");
    let folded = fold(shared, job, &state).await?;
    release(
        shared,
        job,
        &folded,
        revision,
        &Event::Emptied { at: up_to },
    )
    .await?;
    tracing::info!(%job, "cancelled");
    shared.tell(Kind::Cancelled, job, Data::default()).await;
    Ok(())
}

/// Fixes in the key up to where a job that is cancelled or removed may be purged, once: the compare-and-swap
/// proves that it still was when the ends were read, which no read can, since a deposed leader may answer it.
/// Gives state, revision and bound; none when somebody else went on.
pub(crate) async fn bound(
    shared: &Shared,
    job: &JobName,
    key: &Key,
) -> Result<Option<(JobState, u64, PurgeTo)>, Failed> {
    let Key::State(state, revision) = key else {
        return Ok(None);
    };
    if let Some(to) = state.purge_to {
        return Ok(Some((state.as_ref().clone(), *revision, to)));
    }
    let nats = &shared.nats;
    let names = nats.names();
    let spec = nats.spec_entry(job).await?;
    let to = PurgeTo {
        stream: nats.stream_end(&names.stream()).await?,
        logs: nats.stream_end(&names.logs_stream()).await?,
        spec: spec
            .filter(|spec| spec.value.is_some())
            .map_or(0, |spec| spec.revision),
    };
    let next = then(state, &Event::Bound(to), now())?;
    Ok(match nats.write_job(job, &next, *revision).await? {
        Swap::Won(revision) => Some((next, revision, to)),
        Swap::Lost => None,
    })
}

/// Every task that has a message or schedule up to `up_to`, or an open last record.
async fn open_tasks(
    shared: &Shared,
    job: &JobName,
    up_to: u64,
) -> Result<HashMap<TaskId, Option<Queued>>, Failed> {
    let nats = &shared.nats;
    let mut tasks = HashMap::new();
    let mut messages = nats.all_queued(job, up_to).await?;
    messages.extend(nats.scheduled(job).await?);
    for message in messages.into_iter().filter(|one| one.seq <= up_to) {
        tasks.insert(message.id.clone(), Some(message));
    }
    let mut open = HashSet::new();
    nats.each_record(job, 0, |_, record| {
        if record.status.is_final() {
            open.remove(&record.task);
        } else {
            open.insert(record.task);
        }
    })
    .await?;
    for task in open {
        tasks.entry(task).or_insert(None);
    }
    Ok(tasks)
}

/// Cancels tasks, many at once.
async fn cancel_all(
    shared: &Arc<Shared>,
    job: &JobName,
    tasks: HashMap<TaskId, Option<Queued>>,
) -> Result<(), Failed> {
    let mut under_way = JoinSet::new();
    for (task, message) in tasks {
        if under_way.len() >= AT_ONCE {
            ended(under_way.join_next().await)?;
        }
        let (shared, job) = (shared.clone(), job.clone());
        under_way.spawn(async move { cancel(&shared, &job, &task, message).await });
    }
    while let Some(one) = under_way.join_next().await {
        ended(Some(one))?;
        air_nats::crash::point("cancelling");
    }
    Ok(())
}

fn ended(one: Option<Result<Result<(), Failed>, tokio::task::JoinError>>) -> Result<(), Failed> {
    match one {
        Some(Ok(outcome)) => outcome,
        Some(Err(_)) => Err(Failed::Endless),
        None => Ok(()),
    }
}

/// Commits a `cancelled` record, whatever the task's last record is, unless it is final.
async fn cancel(
    shared: &Shared,
    job: &JobName,
    task: &TaskId,
    message: Option<Queued>,
) -> Result<(), Failed> {
    for tries in 0..TRIES_MAX {
        let last = shared.nats.last_record(job, task).await?;
        let Some(record) = cancelled(task, message.as_ref(), last, now()) else {
            return Ok(());
        };
        let wire = shared.spec(job).unwrap_or_default().wire;
        let commit = Commit {
            job: job.clone(),
            record,
            with: vec![With::Unschedule],
            wire,
        };
        match shared.nats.commit(&commit).await? {
            Committed::At(_) => return Ok(()),
            Committed::Over => tokio::time::sleep(Duration::from_millis(5) * tries).await,
            Committed::Refused(text) => return Err(Failed::Nats(air_nats::Error::Answer(text))),
        }
    }
    Err(Failed::Endless)
}

/// The record that cancels a task of a cancelled job; none where it is over.
pub fn cancelled(
    task: &TaskId,
    message: Option<&Queued>,
    last: Option<At>,
    now: Time,
) -> Option<Record> {
    let mut record = Record::new(task.clone(), Status::Cancelled, 1, now);
    if let Some(message) = message {
        record.parent.clone_from(&message.parent);
        record.set_leash(message.leash.clone());
        record.traceparent.clone_from(&message.traceparent);
        record.spec = message.task.clone().ok().map(|spec| Task {
            id: Some(task.clone()),
            ..spec
        });
    }
    record.error = Some("the job was cancelled".into());
    let Some((seq, last)) = last else {
        return Some(record);
    };
    if last.status.is_final() {
        return None;
    }
    record.attempt = next_attempt(last.attempt);
    record.failures = last.failures;
    record.losses = last.losses;
    record.replies.clone_from(&last.replies);
    if message.is_none() {
        record.set_leash(Leash::of_record(&last));
    }
    record.parent = record.parent.or(last.parent);
    record.traceparent = record.traceparent.or(last.traceparent);
    record.spec = record.spec.or(last.spec);
    Some(record.follows(Some(last.status), seq))
}

async fn fold(shared: &Shared, job: &JobName, state: &JobState) -> Result<JobState, Failed> {
    let mut ledger = state.ledger.clone();
    let after = ledger.accounted;
    shared
        .nats
        .each_record(job, after, |seq, record| ledger.fold(seq, &record))
        .await?;
    Ok(then(state, &Event::Fold(ledger), now())?)
}
