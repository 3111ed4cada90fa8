//! Commits under a lease one after another, then gives it back: `manager/src/settle.rs`, and the second
//! half of `manager/src/recover.rs`.

use std::collections::VecDeque;

use air_manager::decide::then;
use air_manager::recover::left_behind;
use air_manager::settle::{Base, Claim, settled};
use air_nats::commit::Commit;
use air_protocol::fate::Outcome;
use air_protocol::job::{Event, JobState};
use air_protocol::lease::{Decision, Lease, Running, Target};
use air_protocol::names::JobName;
use air_protocol::time::Time;

use super::{Committing, Env, Flow, Swapping};

/// One thing to commit.
#[derive(Debug, Clone)]
pub enum Deed {
    /// The fate of a task that does not run.
    Decision(Decision),
    /// What a dead runner left.
    Behalf(Running, Outcome),
}

impl Deed {
    /// The attempt that it ends.
    pub fn target(&self) -> &Target {
        match self {
            Self::Decision(decision) => &decision.target,
            Self::Behalf(running, _) => &running.target,
        }
    }
}

/// How the lease is given back.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// By its holder.
    Release,
    /// By who took it over.
    Recovered(Option<Time>),
}

/// The work, as far as it is.
#[derive(Debug, Clone)]
pub struct Settle {
    /// The job.
    pub job: JobName,
    /// The state with the lease.
    pub state: JobState,
    /// Its revision.
    pub revision: u64,
    /// The fence that the records name.
    pub fence: Option<u64>,
    /// What is still to be committed.
    pub deeds: VecDeque<Deed>,
    /// The last record seen.
    pub last: u64,
    /// How it ends.
    pub end: End,
    /// The write under way.
    pub stage: Stage,
}

/// The next request.
#[derive(Debug, Clone)]
pub enum Stage {
    /// Reads message and last record of the first deed; or there is none left.
    Read,
    /// Commits.
    Commit(Committing),
    /// Gives the lease back.
    Release(Swapping),
}

impl Settle {
    fn lease(&self) -> Option<&Lease> {
        self.state.lease()
    }

    /// Whether the next request is a write.
    pub fn writes(&self) -> bool {
        !matches!(self.stage, Stage::Read)
    }

    /// One request.
    pub fn step(&mut self, env: &mut Env<'_>) -> Flow {
        match &mut self.stage {
            Stage::Read => {
                self.read(env);
                Flow::Goes
            }
            Stage::Commit(committing) => {
                let task = committing.commit.record.task.clone();
                let Some(stored) = committing.step(env) else {
                    return Flow::Goes;
                };
                let last = env.store.last_record(&self.job, &task);
                let seq = stored.or(last.map(|(seq, _)| seq)).unwrap_or_default();
                self.last = self.last.max(seq);
                self.deeds.pop_front();
                self.stage = Stage::Read;
                self.release_if_done(env);
                Flow::Goes
            }
            Stage::Release(swapping) => match swapping.step(env, &self.job) {
                None => Flow::Goes,
                Some(_) => Flow::Ends,
            },
        }
    }

    fn read(&mut self, env: &Env<'_>) {
        let (Some(deed), Some(lease)) = (self.deeds.front(), self.lease()) else {
            self.release_if_done(env);
            return;
        };
        let target = deed.target();
        let message = env.store.queued_at(&self.job, target.seq);
        if message.is_none() && env.store.leader().last_seq() < target.seq {
            // Not seen yet, and not gone: read again.
            return;
        }
        let last = env.store.last_record(&self.job, &target.task);
        let seq = last.as_ref().map_or(0, |(seq, _)| *seq);
        let Some(base) = Base::of(target, message, last) else {
            self.last = self.last.max(seq);
            self.deeds.pop_front();
            self.release_if_done(env);
            return;
        };
        let spec = env.store.spec(&self.job).unwrap_or_default();
        let claim = Claim {
            fence: self.fence,
            released: self.state.last_record,
        };
        let (record, with) = match deed {
            Deed::Decision(decision) => {
                let verdict = &decision.verdict;
                settled(&base, &self.job, &spec, lease, verdict, claim, env.now)
            }
            Deed::Behalf(running, outcome) => {
                let whose = (lease, running, claim);
                left_behind(
                    &base,
                    &self.job,
                    &spec,
                    whose,
                    *outcome,
                    "it is dead",
                    env.now,
                )
            }
        };
        self.stage = Stage::Commit(Committing::new(Commit {
            job: self.job.clone(),
            record,
            with,
            wire: spec.wire,
        }));
    }

    /// Goes on to the release once nothing is left to commit.
    pub fn release_if_done(&mut self, env: &Env<'_>) {
        if !self.deeds.is_empty() {
            return;
        }
        let Some(lease) = self.lease() else { return };
        let (runner, record) = (lease.runner, self.last);
        let event = match self.end {
            End::Release => Event::Release { runner, record },
            End::Recovered(hold_until) => Event::Recovered {
                runner,
                record,
                hold_until,
                counts: true,
                reason: "it is dead".into(),
            },
        };
        if let Ok(next) = then(&self.state, &event, env.now) {
            self.stage = Stage::Release(Swapping::new(next, self.revision));
        }
    }
}
