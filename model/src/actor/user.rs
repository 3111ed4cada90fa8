//! What users do: publish, cancel, retry, resume, pause, remove, delete keys: `cli/src/verbs/`.

use std::collections::{BTreeMap, VecDeque};

use air_nats::commit::{Commit, NewTask, With};
use air_nats::jobs::Key;
use air_nats::records::At;
use air_protocol::approval::{rejected, replied};
use air_protocol::budget::Leash;
use air_protocol::job::{Change, Event, JobState, JobStatus};
use air_protocol::lease::Ending;
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::{Record, Status};
use air_protocol::spec::Wire;
use air_protocol::task::Task;

use super::{Committing, Env, Flow, Swapping};
use crate::broker::Publish;
use crate::store::Value;

/// What a user does.
#[derive(Debug, Clone, PartialEq)]
pub enum Deed {
    /// Publishes a task, or what is none.
    Publish(Box<Result<Task, String>>),
    /// `airx cancel JOB`.
    Cancel,
    /// `airx cancel JOB TASK`.
    CancelTask(TaskId),
    /// `airx approve JOB TASK`.
    Approve(TaskId),
    /// `airx reject JOB TASK`.
    Reject(TaskId),
    /// `airx retry JOB`.
    Retry,
    /// `airx resume JOB`.
    Resume,
    /// `airx pause JOB`.
    Pause,
    /// `airx rm JOB`.
    Remove,
    /// `nats kv del`.
    DeleteKey,
    /// `nats kv put`, of what is no state.
    SpoilKey,
}

/// A user at work.
#[derive(Debug, Clone)]
pub struct User {
    /// The job.
    pub job: JobName,
    /// What is done.
    pub deed: Deed,
    /// The next request.
    pub stage: Stage,
}

/// The next request.
#[derive(Debug, Clone)]
pub enum Stage {
    /// Begins.
    Begin,
    /// Resets these.
    Reset(VecDeque<Committing>),
    /// Cancels a task, or replies to it.
    CancelTask(Committing),
    /// Reads the key for an event.
    Key(Event),
    /// Writes the key.
    Swap(Event, Swapping),
}

impl User {
    /// A user who begins.
    pub fn new(job: JobName, deed: Deed) -> Self {
        Self {
            job,
            deed,
            stage: Stage::Begin,
        }
    }

    /// One request.
    pub fn step(&mut self, env: &mut Env<'_>) -> Flow {
        match std::mem::replace(&mut self.stage, Stage::Begin) {
            Stage::Begin => self.begin(env),
            Stage::CancelTask(mut committing) => match committing.step(env) {
                None => self.at(Stage::CancelTask(committing)),
                // Somebody else committed: looked at again.
                Some(None) => self.at(Stage::Begin),
                Some(Some(_)) => Flow::Ends,
            },
            Stage::Reset(mut resets) => {
                let answer = resets.front_mut().map(|reset| reset.step(env));
                if answer != Some(None) {
                    resets.pop_front();
                }
                if resets.is_empty() {
                    return self.at(Stage::Key(Event::Retry));
                }
                self.at(Stage::Reset(resets))
            }
            Stage::Key(event) => self.read_key(env, event),
            Stage::Swap(event, mut swapping) => match swapping.step(env, &self.job) {
                None => self.at(Stage::Swap(event, swapping)),
                Some(None) => self.at(Stage::Key(event)),
                Some(Some(_)) => Flow::Ends,
            },
        }
    }

    fn at(&mut self, stage: Stage) -> Flow {
        self.stage = stage;
        Flow::Goes
    }

    fn begin(&mut self, env: &mut Env<'_>) -> Flow {
        match self.deed.clone() {
            Deed::Publish(task) => {
                env.store.publish(&self.job, *task, env.now);
                Flow::Ends
            }
            Deed::Cancel => self.at(Stage::Key(Event::Stop(Ending::Cancel))),
            Deed::Remove => self.at(Stage::Key(Event::Stop(Ending::Remove))),
            Deed::CancelTask(task) => self.cancel_task(env, &task),
            Deed::Approve(task) => self.reply(env, &task, true),
            Deed::Reject(task) => self.reply(env, &task, false),
            Deed::Retry => self.retry(env),
            Deed::Resume => {
                self.pause(env, false);
                self.at(Stage::Key(Event::Resume))
            }
            Deed::Pause => {
                self.pause(env, true);
                Flow::Ends
            }
            Deed::DeleteKey => self.put(env, Value::Deleted),
            Deed::SpoilKey => self.put(env, Value::Garbage),
        }
    }

    fn put(&self, env: &mut Env<'_>, value: Value) -> Flow {
        let message = Publish::new(self.job.as_str(), value);
        let _ = env.store.jobs.publish(message, env.now);
        Flow::Ends
    }

    fn pause(&self, env: &mut Env<'_>, paused: bool) {
        if let Ok(mut spec) = env.store.spec(&self.job) {
            spec.paused = paused;
            env.store.specs.insert(self.job.clone(), Ok(spec));
        }
    }

    fn read_key(&mut self, env: &Env<'_>, event: Event) -> Flow {
        let key = env.store.key(&self.job);
        let create = !matches!(event, Event::Resume);
        let state = match &key {
            Key::State(state, _) => state.as_ref().clone(),
            Key::Absent | Key::Deleted(_) if create => JobState::new(env.now),
            Key::Absent | Key::Deleted(_) | Key::Garbage(..) | Key::Newer(..) => {
                return Flow::Ends;
            }
        };
        match state.apply(&event, env.now) {
            Ok(Change::To(next)) => {
                let swapping = Swapping::new(*next, key.revision());
                self.at(Stage::Swap(event, swapping))
            }
            Ok(Change::NoOp) | Err(_) => Flow::Ends,
        }
    }

    fn cancel_task(&mut self, env: &Env<'_>, task: &TaskId) -> Flow {
        let last = env.store.last_record(&self.job, task);
        let queued = env.store.queued(&env.store.air, &self.job, 1);
        let scheduled = env.store.scheduled(&env.store.air, &self.job);
        let message = queued
            .into_iter()
            .chain(scheduled)
            .find(|message| message.id == *task);
        let is_over = last
            .as_ref()
            .is_some_and(|(_, record)| record.status.is_final());
        if is_over || (last.is_none() && message.is_none()) {
            return Flow::Ends;
        }
        let attempt = last.as_ref().map_or(1, |(_, record)| record.attempt + 1);
        let mut record = Record::new(task.clone(), Status::Cancelled, attempt, env.now);
        if let Some((seq, last)) = &last {
            record = record.follows(Some(last.status), *seq);
            (record.failures, record.losses) = (last.failures, last.losses);
            record.replies.clone_from(&last.replies);
            record.spec.clone_from(&last.spec);
        }
        let spec = message.and_then(|message| message.task.ok());
        record.spec = record.spec.or(spec).map(|spec| Task {
            id: Some(task.clone()),
            ..spec
        });
        self.at(Stage::CancelTask(Committing::new(Commit {
            job: self.job.clone(),
            record,
            with: vec![With::Unschedule],
            wire: Wire::Json,
        })))
    }

    fn reply(&mut self, env: &Env<'_>, task: &TaskId, approves: bool) -> Flow {
        let Some((seq, last)) = env.store.last_record(&self.job, task) else {
            return Flow::Ends;
        };
        let record = if approves {
            replied(&last, seq, false, "", env.now)
        } else {
            rejected(&last, seq, "", env.now)
        };
        let Ok(record) = record else {
            return Flow::Ends;
        };
        let next = approves.then(|| NewTask::again(&self.job, &last)).flatten();
        self.at(Stage::CancelTask(Committing::new(Commit {
            job: self.job.clone(),
            record,
            with: next.map(With::Task).into_iter().collect(),
            wire: Wire::Json,
        })))
    }

    fn retry(&mut self, env: &Env<'_>) -> Flow {
        let key = env.store.key(&self.job);
        let ending =
            |state: &JobState| matches!(state.status, JobStatus::Cancelling | JobStatus::Removing);
        if key.state().is_some_and(ending) {
            return Flow::Ends;
        }
        let mut lasts: BTreeMap<TaskId, At> = BTreeMap::new();
        for at in env.store.records_after(&env.store.air, &self.job, 0) {
            lasts.insert(at.1.task.clone(), at);
        }
        let over = |at: &&At| {
            matches!(
                at.1.status,
                Status::Failed | Status::Cancelled | Status::Skipped
            )
        };
        let resets: VecDeque<_> = lasts
            .values()
            .filter(over)
            .filter_map(|at| self.reset(at, env))
            .map(Committing::new)
            .collect();
        if resets.is_empty() {
            return Flow::Ends;
        }
        self.at(Stage::Reset(resets))
    }

    fn reset(&self, (seq, last): &At, env: &Env<'_>) -> Option<Commit> {
        let mut spec = last.spec.clone()?;
        spec.id = Some(last.task.clone());
        let mut record = Record::new(last.task.clone(), Status::Reset, last.attempt, env.now)
            .follows(Some(last.status), *seq);
        record.replies.clone_from(&last.replies);
        record.spec = Some(spec.clone());
        let next = NewTask {
            job: self.job.clone(),
            id: last.task.clone(),
            task: spec,
            attempt: last.attempt + 1,
            parent: None,
            leash: Leash::default(),
            traceparent: None,
        };
        Some(Commit {
            job: self.job.clone(),
            record,
            with: vec![With::Task(next)],
            wire: Wire::Json,
        })
    }
}

impl User {
    /// Whether the next request is a write of which the answer matters.
    pub fn writes(&self) -> bool {
        match self.stage {
            Stage::Reset(_) | Stage::CancelTask(_) | Stage::Swap(..) => true,
            Stage::Begin | Stage::Key(_) => false,
        }
    }
}
