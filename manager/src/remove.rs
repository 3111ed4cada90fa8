//! Removing a job: its queue, schedules, logs, blobs, spec and records, and its key last.

use std::collections::BTreeSet;

use air_nats::jobs::Key;
use air_protocol::job::JobState;
use air_protocol::names::JobName;
use air_protocol::task::Task;
use air_protocol::time::Time;

use crate::advance::Failed;
use crate::decide::Rest;
use crate::empty::bound;
use crate::shared::{Shared, now};

/// Deletes all of a job in status `removing`, once no runner of it can still commit. Each step can be
/// repeated, and none touches what came after the key was last seen as `removing`: a new job of the same name.
pub(crate) async fn remove(shared: &Shared, job: &JobName, key: &Key) -> Result<Rest, Failed> {
    let Key::State(state, _) = key else {
        return Ok(Rest::Done);
    };
    if let Some(until) = zombie_until(shared, job, state).await? {
        return Ok(Rest::Held(until));
    }
    let nats = &shared.nats;
    let names = nats.names();
    let Some((_, revision, to)) = bound(shared, job, key).await? else {
        return Ok(Rest::Done);
    };
    let stream = names.stream();
    delete_blobs(shared, job, to.stream).await?;
    nats.purge(&stream, &names.job_schedules(job), Some(to.stream))
        .await?;
    nats.purge(&stream, &names.tasks(job), Some(to.stream))
        .await?;
    nats.purge(&names.logs_stream(), &names.job_logs(job), Some(to.logs))
        .await?;
    if to.spec > 0 {
        nats.delete_spec(job, to.spec).await?;
    }
    nats.purge(&stream, &names.job_results(job), Some(to.stream))
        .await?;
    nats.erase_account(job).await?;
    nats.erase_job(job, revision).await?;
    tracing::info!(%job, "removed");
    Ok(Rest::Done)
}

/// Until when a holder whose lease was taken may still try to commit; none when it cannot any more.
async fn zombie_until(
    shared: &Shared,
    job: &JobName,
    state: &JobState,
) -> Result<Option<Time>, Failed> {
    let now = now();
    let Some(until) = state.zombie_until.filter(|until| *until > now) else {
        return Ok(None);
    };
    let ttl = shared.spec(job).unwrap_or_default().lease_ttl();
    if until.since(now) <= ttl {
        return Ok(Some(until));
    }
    // Written by a clock that was far ahead. The lease was taken before the key was last written, which the
    // server's clock tells.
    let Some(written) = shared.nats.job_written(job).await? else {
        return Ok(None);
    };
    let age = shared.nats.server_time().await?.since(written);
    Ok((age < ttl).then(|| now.after(ttl - age)))
}

/// Deletes large outputs, and the pages of fan-outs that wait or were cancelled, as messages and records name
/// them: before these are deleted.
async fn delete_blobs(shared: &Shared, job: &JobName, up_to: u64) -> Result<(), Failed> {
    let nats = &shared.nats;
    let mut blobs = BTreeSet::new();
    let mut messages = nats.all_queued(job, up_to).await?;
    messages.extend(nats.scheduled(job).await?);
    for task in messages.iter().filter_map(|one| one.task.as_ref().ok()) {
        blobs.extend(task.blobs());
    }
    nats.each_record(job, 0, |seq, record| {
        if seq <= up_to {
            blobs.extend(record.spec.iter().flat_map(Task::blobs));
            blobs.extend(record.blobs());
            blobs.extend(record.sessions(job));
        }
    })
    .await?;
    for blob in blobs {
        nats.delete_blob(&blob).await?;
    }
    Ok(())
}
