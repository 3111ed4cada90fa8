//! Takes over the lease of a holder that was judged dead: `manager/src/recover.rs`.

use std::collections::VecDeque;

use air_manager::decide::then;
use air_manager::recover::{fence, of};
use air_nats::jobs::Key;
use air_protocol::fate::Outcome;
use air_protocol::job::Event;
use air_protocol::lease::{Lease, Phase};
use air_protocol::names::JobName;

use super::settle::{Deed, End, Settle, Stage as Settling};
use super::{Env, Flow, Swapping};
use crate::bug::Bug;
use crate::store::Value;

/// A take-over, as far as it is.
#[derive(Debug, Clone)]
pub struct Recover {
    /// The job.
    pub job: JobName,
    /// The revision that was judged.
    pub judged: u64,
    /// The manager.
    pub by: String,
    /// The next request.
    pub stage: Stage,
}

/// The next request.
#[derive(Debug, Clone)]
pub enum Stage {
    /// Reads the key.
    Read,
    /// Takes over.
    Take(Swapping, Box<Lease>, u32),
    /// Settles and gives the lease back.
    Settle(Box<Settle>),
}

impl Recover {
    /// Begins with a suspicion.
    pub fn new(job: JobName, judged: u64, by: String) -> Self {
        Self {
            job,
            judged,
            by,
            stage: Stage::Read,
        }
    }

    /// Whether the next request is a write.
    pub fn writes(&self) -> bool {
        match &self.stage {
            Stage::Read => false,
            Stage::Take(..) => true,
            Stage::Settle(settle) => settle.writes(),
        }
    }

    /// One request.
    pub fn step(&mut self, env: &mut Env<'_>) -> Flow {
        match &mut self.stage {
            Stage::Read => self.read(env),
            Stage::Take(swapping, lease, failed_starts) => match swapping.step(env, &self.job) {
                None => Flow::Goes,
                Some(None) => Flow::Ends,
                Some(Some(revision)) => {
                    let state = swapping.state().clone();
                    let (lease, failed) = (lease.clone(), *failed_starts);
                    self.took(env, state, revision, &lease, failed);
                    Flow::Goes
                }
            },
            Stage::Settle(settle) => settle.step(env),
        }
    }

    fn read(&mut self, env: &Env<'_>) -> Flow {
        let Key::State(state, revision) = env.store.key(&self.job) else {
            return Flow::Ends;
        };
        if env.bug == Some(Bug::TakeOverWithoutRevision) {
            self.judged = revision;
        }
        let (Some(lease), true) = (state.lease(), revision == self.judged) else {
            return Flow::Ends;
        };
        let event = Event::TakeOver {
            runner: lease.runner,
            by: self.by.clone(),
        };
        let Ok(taken) = then(&state, &event, env.now) else {
            return Flow::Ends;
        };
        let swapping = Swapping::new(taken, revision);
        self.stage = Stage::Take(swapping, Box::new(lease.clone()), state.failed_starts);
        Flow::Goes
    }

    fn took(
        &mut self,
        env: &Env<'_>,
        state: air_protocol::job::JobState,
        revision: u64,
        lease: &Lease,
        failed_starts: u32,
    ) {
        let phase = of(&lease.phase);
        let starting = matches!(phase, Phase::Starting { .. });
        let deeds: VecDeque<_> = match phase {
            Phase::Starting { .. } | Phase::Recovering { .. } => VecDeque::new(),
            Phase::Running(running) => [Deed::Behalf(running.clone(), Outcome::Lost)].into(),
            Phase::Stopping { running, .. } => {
                [Deed::Behalf(running.clone(), Outcome::Cancelled)].into()
            }
            Phase::Settling { decisions } => {
                decisions.iter().cloned().map(Deed::Decision).collect()
            }
        };
        let hold = starting.then(|| env.now.after(air_manager::hold(failed_starts)));
        let mut settle = Settle {
            job: self.job.clone(),
            state,
            revision,
            fence: fence(&lease.phase, self.judged),
            deeds,
            last: 0,
            end: End::Recovered(hold),
            stage: Settling::Read,
        };
        settle.release_if_done(env);
        self.stage = Stage::Settle(Box::new(settle));
    }
}

/// Whether a value holds a lease at all.
pub fn has_lease(value: &Value) -> bool {
    match value {
        Value::State(state) => state.lease().is_some(),
        Value::Garbage | Value::Deleted => false,
    }
}
