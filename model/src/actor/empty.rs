//! Empties the queue of a cancelled job: `manager/src/empty.rs`.

use std::collections::{BTreeMap, VecDeque};

use air_manager::decide::then;
use air_manager::empty::cancelled;
use air_nats::commit::{Commit, With};
use air_nats::queue::Queued;
use air_protocol::job::{Event, JobState, PurgeTo};
use air_protocol::names::{JobName, TaskId};

use super::{Committing, Env, Flow, Swapping};
use crate::store::Write;

/// The work, as far as it is.
#[derive(Debug, Clone)]
pub struct Empty {
    /// The job.
    pub job: JobName,
    /// The state that was acted on.
    pub state: JobState,
    /// Its revision.
    pub revision: u64,
    /// Tasks still to be cancelled.
    pub tasks: VecDeque<(TaskId, Option<Queued>)>,
    /// The next request.
    pub stage: Stage,
}

/// The next request.
#[derive(Debug, Clone)]
pub enum Stage {
    /// Reads the stream's end.
    End,
    /// Fixes how far is purged.
    Bound(Swapping),
    /// Lists what is open.
    List,
    /// Reads the last record of the first task.
    Read,
    /// Cancels it.
    Commit(Committing),
    /// Purges schedules.
    Schedules,
    /// Purges the queue.
    Queue,
    /// Folds.
    Fold,
    /// Writes `cancelled`.
    Release(Swapping),
}

impl Empty {
    /// Begins with the key as it was read.
    pub fn new(job: JobName, state: JobState, revision: u64) -> Self {
        Self {
            job,
            state,
            revision,
            tasks: VecDeque::new(),
            stage: Stage::End,
        }
    }

    /// Whether the next request is a write.
    pub fn writes(&self) -> bool {
        match self.stage {
            Stage::Bound(_)
            | Stage::Commit(_)
            | Stage::Schedules
            | Stage::Queue
            | Stage::Release(_) => true,
            Stage::End | Stage::List | Stage::Read | Stage::Fold => false,
        }
    }

    /// One request.
    pub fn step(&mut self, env: &mut Env<'_>) -> Flow {
        match &mut self.stage {
            Stage::End => match bound(env, &self.state, self.revision) {
                Some(swapping) => self.stage = Stage::Bound(swapping),
                None => self.stage = Stage::List,
            },
            Stage::Bound(swapping) => match swapping.step(env, &self.job) {
                None => {}
                Some(None) => return Flow::Ends,
                Some(Some(revision)) => {
                    self.state = swapping.state().clone();
                    self.revision = revision;
                    self.stage = Stage::List;
                }
            },
            Stage::List => {
                self.tasks = self.open(env);
                self.next_task();
            }
            Stage::Read => self.read(env),
            Stage::Commit(committing) => match committing.step(env) {
                None => {}
                Some(Some(_)) => {
                    self.tasks.pop_front();
                    self.next_task();
                }
                Some(None) => self.stage = Stage::Read,
            },
            Stage::Schedules => return self.purge(env, true),
            Stage::Queue => return self.purge(env, false),
            Stage::Fold => {
                let mut ledger = self.state.ledger.clone();
                for (seq, record) in
                    env.store
                        .records_after(&env.view(), &self.job, ledger.accounted)
                {
                    ledger.fold(seq, &record);
                }
                let folded = then(&self.state, &Event::Fold(ledger), env.now);
                let emptied = Event::Emptied {
                    at: up_to(&self.state),
                };
                let Ok(next) = folded.and_then(|state| then(&state, &emptied, env.now)) else {
                    return Flow::Ends;
                };
                self.stage = Stage::Release(Swapping::new(next, self.revision));
            }
            Stage::Release(swapping) => {
                return match swapping.step(env, &self.job) {
                    None => Flow::Goes,
                    Some(_) => Flow::Ends,
                };
            }
        }
        Flow::Goes
    }

    fn next_task(&mut self) {
        self.stage = if self.tasks.is_empty() {
            Stage::Schedules
        } else {
            Stage::Read
        };
    }

    fn purge(&mut self, env: &mut Env<'_>, schedules: bool) -> Flow {
        let names = env.store.names();
        let filter = if schedules {
            names.job_schedules(&self.job)
        } else {
            names.tasks(&self.job)
        };
        if env
            .write(&Write::Purge(filter, up_to(&self.state)))
            .is_none()
        {
            return Flow::Ends;
        }
        self.stage = if schedules { Stage::Queue } else { Stage::Fold };
        Flow::Goes
    }

    fn read(&mut self, env: &Env<'_>) {
        let Some((task, message)) = self.tasks.front() else {
            return self.next_task();
        };
        let last = env.store.last_record(&self.job, task);
        let Some(record) = cancelled(task, message.as_ref(), last, env.now) else {
            self.tasks.pop_front();
            return self.next_task();
        };
        self.stage = Stage::Commit(Committing::new(Commit {
            job: self.job.clone(),
            record,
            with: vec![With::Unschedule],
            wire: env.store.spec(&self.job).unwrap_or_default().wire,
        }));
    }

    /// Every task that has a message or schedule up to the end, or an open last record.
    fn open(&self, env: &Env<'_>) -> VecDeque<(TaskId, Option<Queued>)> {
        let view = env.view();
        let mut tasks = BTreeMap::new();
        let queued = env.store.queued(&view, &self.job, 1);
        for message in queued
            .into_iter()
            .chain(env.store.scheduled(&view, &self.job))
        {
            if message.seq <= up_to(&self.state) {
                tasks.insert(message.id.clone(), Some(message));
            }
        }
        let mut open = BTreeMap::new();
        for (_, record) in env.store.records_after(&view, &self.job, 0) {
            open.insert(record.task.clone(), !record.status.is_final());
        }
        for (task, _) in open.into_iter().filter(|(_, open)| *open) {
            tasks.entry(task).or_insert(None);
        }
        tasks.into_iter().collect()
    }
}

/// Up to where a job is purged, by its key.
pub(super) fn up_to(state: &JobState) -> u64 {
    state.purge_to.map_or(0, |to| to.stream)
}

/// The write that fixes how far a job is purged; none where its key says so already.
pub(super) fn bound(env: &Env<'_>, state: &JobState, revision: u64) -> Option<Swapping> {
    let to = PurgeTo {
        stream: env.store.leader().last_seq(),
        logs: 0,
        spec: 0,
    };
    let next = then(state, &Event::Bound(to), env.now).ok()?;
    state
        .purge_to
        .is_none()
        .then(|| Swapping::new(next, revision))
}
