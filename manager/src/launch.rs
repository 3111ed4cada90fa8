//! Launching: has the backend start the runner of a claim, and gives the claim back where that fails.
//!
//! It is no part of the look that claimed: an image may take minutes to come, and places are counted meanwhile.

use air_nats::jobs::Swap;
use air_protocol::event::{Data, Kind};
use air_protocol::job::{Event, JobState};
use air_protocol::names::JobName;
use air_protocol::record::error_text;
use uuid::Uuid;

use crate::advance::{Failed, hold};
use crate::backend::fleet::Place;
use crate::backend::{Order, SpawnError, Spawned};
use crate::budget;
use crate::decide::then;
use crate::shared::{Shared, now};

/// A claim that was won, and whose runner is to be started.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) order: Order,
    pub(crate) place: Place,
    /// The key's value at the claim.
    pub(crate) state: Box<JobState>,
    /// What is told of the claim.
    pub(crate) data: Data,
}

/// Starts the runner.
pub(crate) async fn launch(shared: &Shared, launch: Launch) -> Result<(), Failed> {
    let Launch {
        order,
        place,
        state,
        data,
    } = launch;
    let (job, runner, fence) = (order.job.clone(), order.runner, order.fence);
    let spawning = async {
        let spawned = shared.fleet.spawn(order, place).await;
        air_nats::crash::point("spawned");
        spawned
    };
    let telling = shared.tell(Kind::Claimed, &job, data);
    let (spawned, ()) = tokio::join!(spawning, telling);
    match spawned {
        Ok(Spawned::Done) => Ok(()),
        Ok(Spawned::AlreadyThere) => {
            tracing::debug!(%job, %runner, "it was started before");
            Ok(())
        }
        Err(error) => give_back(shared, &job, (&state, fence), runner, &error).await,
    }
}

async fn give_back(
    shared: &Shared,
    job: &JobName,
    (state, fence): (&JobState, u64),
    runner: Uuid,
    error: &SpawnError,
) -> Result<(), Failed> {
    tracing::warn!(%job, %error, "no runner");
    let reason = error.to_string();
    let event = Event::StartFailed {
        runner,
        hold_until: now().after(hold(state.failed_starts)),
        counts: matches!(error, SpawnError::Refused(_)),
        reason: error_text(&reason),
    };
    let next = then(state, &event, now())?;
    // Lost to whoever took the claim over meanwhile, or to a user: it is settled either way.
    if let Swap::Won(_) = shared.nats.write_job(job, &next, fence).await? {
        shared.tell_unstarted(job, runner, fence, reason).await;
    }
    let account = state.lease().and_then(|lease| lease.budget.as_ref());
    budget::give_back(shared, account, runner).await
}
