//! Recovering: takes over the lease of a holder that was judged dead, and settles its work.

use air_nats::commit::With;
use air_nats::jobs::{Key, Swap};
use air_protocol::agent::transcript_blob;
use air_protocol::event::{Data, Kind};
use air_protocol::fate::Outcome;
use air_protocol::job::Event;
use air_protocol::lease::{Lease, Phase, Running};
use air_protocol::names::JobName;
use air_protocol::record::{Record, Status};
use air_protocol::spec::Spec;
use air_protocol::time::Time;

use crate::advance::{Failed, hold};
use crate::backend::Exit;
use crate::backend::fleet::Killed;
use crate::budget;
use crate::decide::then;
use crate::leases::{Suspect, Why};
use crate::settle::{Base, Claim, commit, last_seq, release, store};
use crate::shared::{Shared, now};

/// Takes a lease over at the revision that was judged, and settles it. A holder that has renewed
/// since makes this fail, and nothing happens. Gives the key where it is not what was judged.
pub(crate) async fn recover(shared: &Shared, suspect: &Suspect) -> Result<Option<Key>, Failed> {
    let job = &suspect.job;
    let key = shared.nats.job(job).await?;
    let (state, lease) = match &key {
        Key::State(state, revision) if *revision == suspect.revision => match state.lease() {
            Some(lease) => (state, lease),
            None => return Ok(Some(key)),
        },
        _ => return Ok(Some(key)),
    };
    let event = Event::TakeOver {
        runner: lease.runner,
        by: shared.me.id.clone(),
    };
    let taken = then(state, &event, now())?;
    let Swap::Won(revision) = shared.nats.write_job(job, &taken, suspect.revision).await? else {
        return Ok(None);
    };
    air_nats::crash::point("recovering");
    let why = suspect.why.as_str();
    tracing::warn!(%job, runner = %lease.runner, why, "runner lost");
    let fence = fence(&lease.phase, suspect.revision);
    let data = data(lease, fence, why);
    shared.tell(Kind::Lost, job, data.clone()).await;
    // Wherever it ran: its id is its own, and who sees none of its processes finds nothing.
    let killed = shared.fleet.kill(&lease.backend, lease.runner).await;
    let suspect = &known_better(suspect, killed.found());
    let why = suspect.why.as_str();
    let claim = Claim {
        fence,
        released: state.last_record,
    };
    let record = settle(shared, job, lease, claim, why, killed).await?;
    air_nats::crash::point("recovered");
    let starting = matches!(of(&lease.phase), Phase::Starting { .. });
    let hold_until = starting.then(|| now().after(hold(state.failed_starts)));
    let event = Event::Recovered {
        runner: lease.runner,
        record,
        hold_until,
        counts: suspect.why.counts(),
        reason: why.to_owned(),
    };
    release(shared, job, &taken, revision, &event).await?;
    budget::settle_dead(shared, lease.budget.as_ref(), lease.runner).await?;
    shared.tell(Kind::Recovered, job, data).await;
    Ok(None)
}

/// Why a runner that has ended is lost.
pub(crate) fn why(exit: Exit) -> Why {
    match exit {
        Exit::OutOfMemory => Why::OutOfMemory,
        Exit::Evicted => Why::Evicted,
        Exit::NodeLost => Why::NodeLost,
        exit if exit.is_unavailable() => Why::Unavailable,
        Exit::Code(_) | Exit::Killed => Why::ProcessGone,
    }
}

/// A runner that was only missed may be found to have ended in a way that says more.
fn known_better(suspect: &Suspect, found: Option<Exit>) -> Suspect {
    let found = found.map(why).filter(|why| *why != Why::ProcessGone);
    Suspect {
        why: found.unwrap_or(suspect.why),
        ..suspect.clone()
    }
}

/// The phase that the dead holder was in.
pub fn of(phase: &Phase) -> &Phase {
    match phase {
        Phase::Recovering { from, .. } => from,
        phase => phase,
    }
}

/// The revision of the claim: a phase that is only ever claimed stands at it, until it is taken over.
pub fn fence(phase: &Phase, judged: u64) -> Option<u64> {
    match phase {
        Phase::Running(running) | Phase::Stopping { running, .. } => Some(running.fence),
        Phase::Starting { .. } | Phase::Settling { .. } => Some(judged),
        Phase::Recovering { from, .. } => match from.as_ref() {
            Phase::Running(running) | Phase::Stopping { running, .. } => Some(running.fence),
            Phase::Starting { .. } | Phase::Settling { .. } | Phase::Recovering { .. } => None,
        },
    }
}

/// Commits on behalf of the dead holder, once it was killed; gives the sequence of the last record, 0 for none.
async fn settle(
    shared: &Shared,
    job: &JobName,
    lease: &Lease,
    claim: Claim,
    why: &str,
    _: Killed,
) -> Result<u64, Failed> {
    match of(&lease.phase) {
        Phase::Starting { .. } | Phase::Recovering { .. } => Ok(0),
        Phase::Running(running) => {
            on_behalf(shared, job, lease, running, claim, Outcome::Lost, why).await
        }
        Phase::Stopping { running, .. } => {
            on_behalf(shared, job, lease, running, claim, Outcome::Cancelled, why).await
        }
        Phase::Settling { decisions } => {
            let mut last = 0;
            for decision in decisions {
                last = last.max(commit(shared, job, lease, decision, claim).await?);
            }
            Ok(last)
        }
    }
}

/// The attempt is over iff the task's last record is not the expected one, whoever wrote it.
async fn on_behalf(
    shared: &Shared,
    job: &JobName,
    lease: &Lease,
    running: &Running,
    claim: Claim,
    outcome: Outcome,
    why: &str,
) -> Result<u64, Failed> {
    let target = &running.target;
    let Some(base) = Base::read(shared, job, target).await? else {
        return last_seq(shared, job, &target.task).await;
    };
    let spec = shared.spec(job).unwrap_or_default();
    let lost = (lease, running, claim);
    let (record, with) = left_behind(&base, job, &spec, lost, outcome, why, now());
    let seq = store(shared, job, record, with).await?;
    if let Some(last) = shared.nats.record_at(seq).await?
        && last.lost
        && last.run == Some(lease.runner)
    {
        // What the run stored for a commit that can no longer come.
        shared.nats.delete_blobs_of(lease.runner).await?;
        let transcript = transcript_blob(lease.runner);
        shared.nats.delete_blob(&transcript).await?;
    }
    Ok(seq)
}

/// What is committed on behalf of a dead holder.
pub fn left_behind(
    base: &Base,
    job: &JobName,
    spec: &Spec,
    (lease, running, claim): (&Lease, &Running, Claim),
    outcome: Outcome,
    why: &str,
    now: Time,
) -> (Record, Vec<With>) {
    let mut record = base.record(lease, claim, now);
    let mut with = Vec::new();
    record.lost = outcome == Outcome::Lost;
    record.started = Some(running.started);
    record.host = Some(running.host.clone());
    record.error = Some(format!("runner lost: {why}"));
    base.fate(job, spec, outcome, &mut record, &mut with);
    if record.status == Status::Failed {
        record.error = Some(format!(
            "runner lost {} times, the last time because {why}",
            record.losses
        ));
    }
    (record, with)
}

fn data(lease: &Lease, fence: Option<u64>, why: &str) -> Data {
    let target = lease.phase.target();
    Data {
        task: target.map(|target| target.task.clone()),
        attempt: target.map(|target| target.attempt),
        run: Some(lease.runner),
        fence,
        reason: Some(why.to_owned()),
        ..Data::default()
    }
}

#[cfg(test)]
mod tests {
    use air_protocol::lease::Target;
    use air_protocol::time::Span;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_told_of_a_lost_runner_names_its_attempt() {
        let target = Target {
            task: "t".parse().unwrap(),
            seq: 5,
            attempt: 2,
            expected: 3,
        };
        let lease = Lease {
            runner: Uuid::from_u128(1),
            manager: "m".into(),
            backend: "process".into(),
            realm: None,
            budget: None,
            claimed: Time::default(),
            renewed: Time::default(),
            ttl: Span::default(),
            start_within: Span::default(),
            phase: Phase::Starting { target },
        };
        let data = data(&lease, Some(7), "it froze");
        assert_eq!(data.task.unwrap().as_str(), "t");
        assert_eq!((data.attempt, data.fence), (Some(2), Some(7)));
        assert_eq!(data.run, Some(lease.runner));
        assert_eq!(data.reason.as_deref(), Some("it froze"));
    }

    #[test]
    fn what_is_found_of_a_runner_that_was_missed_counts_if_it_says_more() {
        let suspect = Suspect {
            job: "j".parse().unwrap(),
            revision: 7,
            why: Why::Silent,
        };
        let why = |found| known_better(&suspect, found).why;
        assert_eq!(why(None), Why::Silent);
        assert_eq!(why(Some(Exit::Killed)), Why::Silent);
        assert_eq!(why(Some(Exit::Code(1))), Why::Silent);
        assert_eq!(why(Some(Exit::OutOfMemory)), Why::OutOfMemory);
        assert_eq!(why(Some(Exit::Code(75))), Why::Unavailable);
        let known = known_better(&suspect, Some(Exit::Evicted));
        assert_eq!((known.job, known.revision), (suspect.job, 7));
    }
}
