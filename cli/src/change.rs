//! Changing a job's key and spec by compare-and-swap, again and again until it is done or means nothing.

use air_nats::Nats;
use air_nats::jobs::{Key, Swap};
use air_protocol::job::{Change, Event, JobState};
use air_protocol::limits::LEASE_TTL_DEFAULT;
use air_protocol::names::JobName;
use air_protocol::spec::Spec;

use crate::Failure;
use crate::app::now;

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It was written.
    Yes,
    /// It was so already.
    No,
}

/// Applies an event to a job's key. A job without a key gets one if `create`, else it is not found.
///
/// # Errors
/// The event cannot happen now, or the key holds what is no state.
pub async fn job(
    nats: &Nats,
    job: &JobName,
    event: &Event,
    create: bool,
) -> Result<Changed, Failure> {
    loop {
        let key = nats.job(job).await?;
        let at = now();
        let state = match &key {
            Key::State(state, _) => (**state).clone(),
            Key::Absent if create => JobState::new(at),
            Key::Deleted(_) if create => {
                let (spec, _) = nats.spec(job).await?;
                let ttl = spec.as_ref().map_or(LEASE_TTL_DEFAULT, Spec::lease_ttl);
                JobState::rebuilt(at, ttl)
            }
            Key::Absent | Key::Deleted(_) => return Err(Failure::NoJob(job.clone())),
            Key::Garbage(_, reason) => return Err(garbage(job, reason)),
            Key::Newer(_, reason) => return Err(newer(job, reason)),
        };
        let next = match state.apply(event, at) {
            Ok(Change::To(next)) => next,
            Ok(Change::NoOp) => return Ok(Changed::No),
            Err(invalid) => return Err(Failure::Refused(format!("{job}: {invalid}"))),
        };
        if let Swap::Won(_) = nats.write_job(job, &next, key.revision()).await? {
            nats.signal(job).await;
            nats.flush().await;
            return Ok(Changed::Yes);
        }
    }
}

/// A failure for a key that is no state.
pub fn garbage(job: &JobName, reason: &str) -> Failure {
    Failure::Refused(format!(
        "the key of the job `{job}` cannot be read: {reason}; a manager rebuilds it from the records within its next poll"
    ))
}

/// A failure for a key of a newer version.
pub fn newer(job: &JobName, reason: &str) -> Failure {
    Failure::Refused(format!(
        "the key of the job `{job}` is of a newer version: {reason}"
    ))
}

/// Changes a job's spec.
///
/// # Errors
/// The spec is none, or `change` refuses.
pub async fn spec(
    nats: &Nats,
    job: &JobName,
    change: impl Fn(&Spec) -> Result<Spec, Failure>,
) -> Result<Changed, Failure> {
    loop {
        let (spec, revision) = nats.spec(job).await?;
        let spec = spec.map_err(|reason| invalid_spec(job, &reason))?;
        let next = change(&spec)?;
        if next == spec {
            return Ok(Changed::No);
        }
        if let Swap::Won(_) = nats.write_spec(job, &next, revision).await? {
            nats.signal(job).await;
            nats.flush().await;
            return Ok(Changed::Yes);
        }
    }
}

/// A failure for a spec that is none.
pub fn invalid_spec(job: &JobName, reason: &str) -> Failure {
    Failure::Refused(format!(
        "the spec of the job `{job}` is invalid: {reason}; mend it with `airx spec {job} edit`"
    ))
}
