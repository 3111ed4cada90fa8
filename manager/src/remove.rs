//! Removing a job: its queue, schedules, logs, blobs, spec and records, and its key last.

use air_nats::jobs::Key;
use air_protocol::names::JobName;

use crate::advance::Failed;
use crate::decide::Rest;
use crate::shared::{Shared, now};

/// Records read at once.
const PAGE: usize = 256;

/// Deletes all of a job in status `removing`, once no runner of it can still commit. Each step can be repeated.
pub(crate) async fn remove(shared: &Shared, job: &JobName, key: &Key) -> Result<Rest, Failed> {
    let Key::State(state, _) = key else {
        return Ok(Rest::Done);
    };
    if let Some(until) = state.zombie_until.filter(|until| *until > now()) {
        return Ok(Rest::Held(until));
    }
    let nats = &shared.nats;
    let names = nats.names();
    nats.purge(&names.stream(), &names.job_schedules(job), None)
        .await?;
    nats.purge(&names.stream(), &names.tasks(job), None).await?;
    nats.purge(&names.logs_stream(), &names.job_logs(job), None)
        .await?;
    delete_blobs(shared, job).await?;
    nats.erase_spec(job).await?;
    nats.purge(&names.stream(), &names.job_results(job), None)
        .await?;
    nats.erase_job(job).await?;
    tracing::info!(%job, "removed");
    Ok(Rest::Done)
}

async fn delete_blobs(shared: &Shared, job: &JobName) -> Result<(), Failed> {
    let mut from = 0;
    loop {
        let (records, more) = shared.nats.records_after(job, from, PAGE).await?;
        for (seq, record) in records {
            from = seq;
            if let Some(blob) = &record.output_blob {
                shared.nats.delete_blob(blob).await?;
            }
        }
        if !more {
            return Ok(());
        }
    }
}
