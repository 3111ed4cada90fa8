//! What a manager does next for one job: a pure function of what it has seen.
//!
//! [`decide`] asks for more to look at, or names one write. Each write is a compare-and-swap at the
//! revision that was read before everything else, so that a decision from stale sight loses.

use air_nats::jobs::Key;
use air_protocol::job::{Change, Event, Invalid, JobState, JobStatus, OverBudget};
use air_protocol::lease::{Decision, Lease, Phase, Target, Verdict};
use air_protocol::ledger::Ledger;
use air_protocol::limits::{FAILED_STARTS_MAX, KEEP_DEFAULT};
use air_protocol::names::{JobName, TaskId};
use air_protocol::spec::{OnFailure, Spec};
use air_protocol::time::{Span, Time};
use uuid::Uuid;

use crate::advance::HOLD_MAX;
use crate::backlog::{Pick, Ready};
use crate::offers::{Choice, Offer, choose};

/// What a manager is, as far as claims say it.
#[derive(Debug, Clone)]
pub struct Me {
    /// Its id.
    pub id: String,
}

/// What is known of a job. What is `None` was not looked at.
#[derive(Debug, Clone)]
pub struct View<'a> {
    /// The moment.
    pub now: Time,
    /// The job's key: read before everything else.
    pub key: &'a Key,
    /// The spec, or what is wrong with it.
    pub spec: &'a Result<Spec, String>,
    /// The ledger, folded up to now, and a task that failed.
    pub folded: Option<&'a Folded>,
    /// What the queue holds.
    pub pick: Option<&'a Pick>,
    /// What is counted when the queue seems empty.
    pub pending: Option<Pending>,
    /// Why nothing could be reserved for a task.
    pub refused: Option<&'a Refused>,
    /// Until when no agent's task is claimed: the key that this manager's runners use is limited.
    pub limited: Option<Time>,
    /// Whether lost messages were searched for, in this look or a short while ago.
    pub searched: bool,
    /// A fresh id, for the runner of a claim.
    pub runner: Uuid,
    /// What the manager's backends offer, in their order.
    pub offers: &'a [Offer],
}

/// Nothing could be reserved for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its attempt.
    pub target: Target,
    /// Why.
    pub why: Lack,
}

/// What an account lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// Those that run hold what is left; some of it may come back.
    Busy(JobName),
    /// Not enough is left.
    Short(OverBudget),
}

/// The records, folded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Folded {
    /// The ledger.
    pub ledger: Ledger,
    /// The last task that failed for good.
    pub failed: Option<TaskId>,
}

/// What is left of a job, counted in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Schedules.
    pub schedules: u64,
    /// The last message in the queue.
    pub last_queued: u64,
    /// The last sequence of the stream when the queue was counted.
    pub last_seq: u64,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Read the records that are not folded yet.
    ReadRecords,
    /// Read the queue until something can be done.
    ReadQueue,
    /// Count schedules, then messages.
    Count,
    /// Search for tasks to be tried again whose message is gone, and publish these anew.
    Requeue,
    /// Write this state; nothing follows from it but what the next look says.
    Write(Box<JobState>),
    /// Write this state; then have the backend of its lease start the runner.
    Claim(Box<JobState>, Box<Ready>),
    /// Write this state; then commit the decisions in its lease.
    Settle(Box<JobState>),
    /// Empty the queue of a cancelled job.
    Empty,
    /// Delete everything of a removed job.
    Remove,
    /// Delete the key of a job that ended long ago, and has no records any more.
    Forget,
    /// Nothing, for now.
    Rest(Rest),
}

/// Why nothing is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    /// Somebody works on the job.
    Working,
    /// There is nothing to do.
    Done,
    /// A task failed.
    Failed,
    /// A user paused the job.
    Paused,
    /// The spec cannot be read.
    BadSpec,
    /// No claim before this moment.
    Held(Time),
    /// Tasks wait for others, for their time, or for a person.
    Blocked,
    /// The next task is for a backend that this manager does not have.
    OtherBackend,
    /// The account of this name has not enough left for the next task.
    OverBudget(JobName),
    /// The backends that can run the next task have no place for it.
    Full(Vec<String>),
    /// The backend that can run the next task is away until then.
    Away(Time),
    /// The key, or a record, is of a newer version: this manager leaves the job to those that know it.
    Newer,
}

/// Says what to do next for a job.
///
/// # Errors
/// [`Invalid`] when the state machine refuses what this function wants: a bug.
pub fn decide(view: &View<'_>, me: &Me) -> Result<Step, Invalid> {
    let state = match view.key {
        Key::State(state, _) => state.as_ref().clone(),
        Key::Absent => JobState::new(view.now),
        Key::Deleted(_) | Key::Garbage(..) => return Ok(rebuild(view)),
        Key::Newer(..) => return Ok(Step::Rest(Rest::Newer)),
    };
    match &state.status {
        JobStatus::Working { .. } => Ok(Step::Rest(Rest::Working)),
        JobStatus::Cancelling => Ok(Step::Empty),
        JobStatus::Removing => Ok(Step::Remove),
        JobStatus::Waiting
        | JobStatus::Completed { .. }
        | JobStatus::Failed { .. }
        | JobStatus::Cancelled { .. } => quiet(view, me, &state),
    }
}

/// A key that was there, and is gone or unreadable: built anew, and held until no runner that
/// it may have named can live.
fn rebuild(view: &View<'_>) -> Step {
    let Some(folded) = view.folded else {
        return Step::ReadRecords;
    };
    let ttl = view
        .spec
        .as_ref()
        .map_or(air_protocol::limits::LEASE_TTL_DEFAULT, Spec::lease_ttl);
    let mut state = JobState::rebuilt(view.now, ttl);
    state.ledger = folded.ledger.clone();
    Step::Write(Box::new(state))
}

fn quiet(view: &View<'_>, me: &Me, state: &JobState) -> Result<Step, Invalid> {
    let Some(folded) = view.folded else {
        return Ok(Step::ReadRecords);
    };
    let now = view.now;
    let folded_state = then(state, &Event::Fold(folded.ledger.clone()), now)?;
    let behind = folded_state.ledger != state.ledger;
    let rest = |rest| match (view.key, view.pick) {
        // A new job that cannot go on shows itself all the same.
        (Key::Absent, None) => Step::ReadQueue,
        (Key::Absent, Some(pick)) if pick.has_live() => Step::Write(Box::new(folded_state.clone())),
        (Key::State(..), _) if behind => Step::Write(Box::new(folded_state.clone())),
        _ => Step::Rest(rest),
    };
    if let JobStatus::Failed { .. } = state.status {
        if folded.ledger.failing == 0 {
            return Ok(Step::Write(Box::new(then(
                &folded_state,
                &Event::Retry,
                now,
            )?)));
        }
        return Ok(rest(Rest::Failed));
    }
    let Ok(spec) = view.spec else {
        return Ok(rest(Rest::BadSpec));
    };
    let waiting = matches!(state.status, JobStatus::Waiting);
    if waiting && spec.on_failure == OnFailure::Stop && folded.ledger.failing > 0 {
        let event = Event::Fail {
            task: folded.failed.clone(),
        };
        return Ok(Step::Write(Box::new(then(&folded_state, &event, now)?)));
    }
    if spec.paused {
        return Ok(rest(Rest::Paused));
    }
    // A hold longer than any that is ever asked for was written by a clock that was far ahead.
    let longest = HOLD_MAX.max(spec.lease_ttl());
    let held = |until: &Time| state.is_held(now) && until.since(now) <= longest;
    if let Some(until) = state.hold_until.filter(held) {
        return Ok(rest(Rest::Held(until)));
    }
    match view.pick {
        None => Ok(Step::ReadQueue),
        Some(pick) => act(view, me, spec, &folded_state, pick, rest),
    }
}

/// Does the first thing that the queue allows.
fn act(
    view: &View<'_>,
    me: &Me,
    spec: &Spec,
    state: &JobState,
    pick: &Pick,
    rest: impl Fn(Rest) -> Step,
) -> Result<Step, Invalid> {
    let now = view.now;
    if pick.decisions.is_empty() && pick.ready.is_none() {
        return nothing_live(view, state, pick, rest);
    }
    let open = then(state, &Event::Work, now)?;
    if !pick.decisions.is_empty() {
        return settle(view, me, &open, pick.decisions.clone(), spec);
    }
    match &pick.ready {
        Some(ready) if state.failed_starts >= FAILED_STARTS_MAX => {
            let reason = state.start_error.clone().unwrap_or_default();
            let reason = format!(
                "its runner could not be started {} times: {reason}",
                state.failed_starts
            );
            let decision = Decision {
                target: ready.target.clone(),
                verdict: Verdict::Unstartable { reason },
            };
            settle(view, me, &open, vec![decision], spec)
        }
        Some(ready) => claim(view, me, spec, &open, ready, rest),
        None => Ok(rest(Rest::Blocked)),
    }
}

/// Claims the job for its next task, where a backend has a place for it and its account has enough left.
fn claim(
    view: &View<'_>,
    me: &Me,
    spec: &Spec,
    open: &JobState,
    ready: &Ready,
    rest: impl Fn(Rest) -> Step,
) -> Result<Step, Invalid> {
    let limited = |until: &Time| ready.agent && *until > view.now;
    if let Some(until) = view.limited.filter(limited) {
        return Ok(rest(Rest::Held(until)));
    }
    let offer = match choose(view.offers, ready.ask()) {
        Choice::Take(offer) => offer,
        // Not to be written for: it is looked at again with the next place.
        Choice::Full(all) if *view.key != Key::Absent => return Ok(Step::Rest(Rest::Full(all))),
        Choice::Full(all) => return Ok(rest(Rest::Full(all))),
        Choice::Away(until) => return Ok(rest(Rest::Away(until))),
        Choice::Nobody => return Ok(rest(Rest::OtherBackend)),
    };
    if let Some(refused) = view.refused.filter(|one| one.target == ready.target) {
        return over_budget(view, open, &refused.why, rest);
    }
    let phase = Phase::Starting {
        target: ready.target.clone(),
    };
    let mut lease = lease(view, me, spec, phase, &offer);
    lease.budget = ready.charge.as_ref().map(|charge| charge.account.clone());
    let state = then(open, &Event::Claim(lease), view.now)?;
    Ok(Step::Claim(Box::new(state), Box::new(ready.clone())))
}

/// Nothing could be reserved for the next task: the job says so while the account lacks it, and rests.
fn over_budget(
    view: &View<'_>,
    open: &JobState,
    lack: &Lack,
    rest: impl Fn(Rest) -> Step,
) -> Result<Step, Invalid> {
    let (account, said) = match lack {
        Lack::Busy(account) => (account, None),
        Lack::Short(lack) => (&lack.account, Some(lack.clone())),
    };
    let next = then(open, &Event::OverBudget(said), view.now)?;
    let is_said = view
        .key
        .state()
        .is_some_and(|state| state.over_budget == next.over_budget && state.status == next.status);
    Ok(if is_said {
        rest(Rest::OverBudget(account.clone()))
    } else {
        Step::Write(Box::new(next))
    })
}

/// No task can run, and none is to be decided: the job is done, or it waits.
fn nothing_live(
    view: &View<'_>,
    state: &JobState,
    pick: &Pick,
    rest: impl Fn(Rest) -> Step,
) -> Result<Step, Invalid> {
    if let Some(step) = search(view, state, pick) {
        return Ok(step);
    }
    let counters = &state.ledger.counters;
    let open = counters.open();
    if !pick.blocked.is_empty() {
        // Such a task is live too: a job that is over goes on with it, as far as people can see.
        let open = then(state, &Event::Work, view.now)?;
        return Ok(if open == *state {
            rest(Rest::Blocked)
        } else {
            Step::Write(Box::new(open))
        });
    }
    if open > 0 {
        return Ok(rest(Rest::Blocked));
    }
    let seen = match state.status {
        JobStatus::Completed { drained } => pick.scanned_to > drained,
        JobStatus::Waiting => !matches!(view.key, Key::Absent),
        _ => false,
    };
    if !seen {
        let ended = matches!(
            state.status,
            JobStatus::Completed { .. } | JobStatus::Cancelled { .. }
        );
        let keep = view.spec.as_ref().map_or(KEEP_DEFAULT, Spec::keep);
        let purged = state.ledger.accounted > 0 && state.ledger.purged_to >= state.ledger.accounted;
        let old = view
            .key
            .state()
            .is_some_and(|state| view.now.since(state.updated) >= keep);
        return Ok(match rest(Rest::Done) {
            Step::Rest(_) if ended && purged && old => Step::Forget,
            step => step,
        });
    }
    let Some(pending) = view.pending else {
        return Ok(Step::Count);
    };
    if pending.schedules > 0 || pending.last_queued > pick.scanned_to {
        return Ok(rest(Rest::Blocked));
    }
    if pending.last_seq < state.last_record {
        return Ok(Step::Count);
    }
    let done = then(
        state,
        &Event::Drained {
            at: pending.last_seq,
        },
        view.now,
    )?;
    Ok(if done == *state {
        rest(Rest::Done)
    } else {
        Step::Write(Box::new(done))
    })
}

/// What is to be looked at while more tasks are to be tried again than messages of them are known: each has
/// one in the queue, or a schedule that brings it.
fn search(view: &View<'_>, state: &JobState, pick: &Pick) -> Option<Step> {
    let counters = &state.ledger.counters;
    let unseen = (counters.retrying + counters.reset).saturating_sub(pick.again);
    if unseen == 0 || view.searched {
        return None;
    }
    let Some(pending) = view.pending else {
        return Some(Step::Count);
    };
    let all_seen = pending.last_queued <= pick.scanned_to;
    (all_seen && unseen > pending.schedules).then_some(Step::Requeue)
}

fn settle(
    view: &View<'_>,
    me: &Me,
    state: &JobState,
    decisions: Vec<Decision>,
    spec: &Spec,
) -> Result<Step, Invalid> {
    // No runner is started: the backend says where the manager is, and no more.
    let first = view.offers.first().cloned();
    let offer = first.unwrap_or_else(|| Offer::plain("none"));
    let lease = lease(view, me, spec, Phase::Settling { decisions }, &offer);
    Ok(Step::Settle(Box::new(then(
        state,
        &Event::Claim(lease),
        view.now,
    )?)))
}

fn lease(view: &View<'_>, me: &Me, spec: &Spec, phase: Phase, offer: &Offer) -> Lease {
    Lease {
        runner: view.runner,
        manager: me.id.clone(),
        backend: offer.backend.clone(),
        realm: offer.realm.clone(),
        budget: None,
        claimed: view.now,
        renewed: view.now,
        ttl: Span(spec.lease_ttl()),
        start_within: offer.start_within,
        phase,
    }
}

/// The state after an event; the same state when the event means nothing.
pub fn then(state: &JobState, event: &Event, now: Time) -> Result<JobState, Invalid> {
    Ok(match state.apply(event, now)? {
        Change::To(next) => *next,
        Change::NoOp => state.clone(),
    })
}

#[cfg(test)]
mod tests;
