//! What lies in NATS, typed: the stream of tasks and records, the keys of jobs, specs, pages of fan-outs.
//!
//! The reads and writes are those of `air_nats`, with its types, over [`crate::broker`]. A read from a
//! replica takes the stream that the replica sees; a read from the leader takes this one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use air_nats::commit::{Commit, NewTask, With};
use air_nats::jobs::Key;
use air_nats::queue::{Invalid, Queued};
use air_nats::records::{At, Lasts};
use air_protocol::budget::Leash;
use air_protocol::invariants::Parent;
use air_protocol::job::JobState;
use air_protocol::names::{JobName, Names, TaskId};
use air_protocol::record::Record;
use air_protocol::spec::Spec;
use air_protocol::task::Task;
use air_protocol::time::Time;
use uuid::Uuid;

use crate::broker::{Publish, Refused, Schedule, Stored, Stream};

/// What a message of the stream says.
#[derive(Debug, Clone)]
pub enum Content {
    /// A task, queued or scheduled.
    Task(Box<Message>),
    /// A record, and who queued its task: of that the record says nothing, and I5 wants to know.
    Record(Box<Record>, Option<Parent>),
}

/// A task message.
#[derive(Debug, Clone)]
pub struct Message {
    /// The task, or what is wrong with it.
    pub task: Result<Task, String>,
    /// The attempt.
    pub attempt: u32,
    /// The run that queued it, where a commit did.
    pub parent: Option<Parent>,
}

/// What a key holds.
#[derive(Debug, Clone)]
pub enum Value {
    /// A state.
    State(Box<JobState>),
    /// Something that is none.
    Garbage,
    /// A marker: the key was deleted.
    Deleted,
}

/// A write of which the sender may not hear.
#[derive(Debug, Clone)]
pub enum Write {
    /// A key, by compare-and-swap; without an expectation only where a bug is shown.
    Key(JobName, Arc<Value>, Option<u64>),
    /// Every trace of a key up to a revision.
    Erase(JobName, u64),
    /// A record with what goes with it; `true` checks its expectation, as only a bug does not.
    Commit(Arc<Commit>, bool),
    /// The next attempt of a task again, while the record at this sequence is its last.
    Again(Arc<With>, u64),
    /// One message.
    Delete(u64),
    /// What matches, up to a sequence.
    Purge(String, u64),
}

/// What the broker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Done, at this sequence or revision, if it has one.
    At(u64),
    /// Another message is the last.
    Superseded,
}

/// The broker, with what this system keeps in it.
#[derive(Debug, Clone)]
pub struct Store {
    /// The stream `AIR`.
    pub air: Stream<Content>,
    /// The bucket `air-jobs`.
    pub jobs: Stream<Value>,
    /// The bucket `air-specs`.
    pub specs: BTreeMap<JobName, Result<Spec, String>>,
    /// Pages of fan-outs.
    pub pages: BTreeMap<(Uuid, u32), Arc<Vec<NewTask>>>,
    /// Writes on their way, which arrive at any later time.
    pub flight: Vec<Write>,
    /// What a deposed leader still answers, in a step that asks one.
    pub deposed: Option<Arc<Deposed>>,
    names: Arc<Names>,
}

/// Stream and bucket as a deposed leader knows them.
#[derive(Debug, Clone)]
pub struct Deposed {
    /// The stream.
    pub air: Stream<Content>,
    /// The bucket.
    pub jobs: Stream<Value>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            air: Stream::new(false),
            jobs: Stream::new(true),
            specs: BTreeMap::new(),
            pages: BTreeMap::new(),
            flight: Vec::new(),
            deposed: None,
            names: Arc::default(),
        }
    }
}

impl Store {
    /// The stream as who takes itself for the leader answers.
    pub fn leader(&self) -> &Stream<Content> {
        self.deposed.as_ref().map_or(&self.air, |old| &old.air)
    }

    fn keys(&self) -> &Stream<Value> {
        self.deposed.as_ref().map_or(&self.jobs, |old| &old.jobs)
    }

    /// The names.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Publishes a task as a user does; gives its sequence.
    pub fn publish(&mut self, job: &JobName, task: Result<Task, String>, now: Time) -> u64 {
        let message = Content::Task(Box::new(Message {
            task,
            attempt: 1,
            parent: None,
        }));
        let publish = Publish::new(self.names.tasks(job), message);
        self.air.publish(publish, now).unwrap_or_default()
    }

    /// Applies a write.
    pub fn apply(&mut self, write: &Write, now: Time) -> Answer {
        let done = match write {
            Write::Key(job, value, expected) => {
                let mut message = Publish::new(job.as_str(), value.clone());
                message.expect = *expected;
                self.jobs.publish(message, now)
            }
            Write::Erase(job, revision) => {
                self.jobs.purge(job.as_str(), Some(*revision));
                Ok(0)
            }
            Write::Commit(commit, checked) => self.commit(commit, *checked, now),
            Write::Again(with, last) => self.publish_again(with, *last, now),
            Write::Delete(seq) => {
                self.air.delete(*seq);
                Ok(*seq)
            }
            Write::Purge(filter, up_to) => {
                self.air.purge(filter, Some(*up_to));
                Ok(0)
            }
        };
        match done {
            Ok(seq) => Answer::At(seq),
            Err(Refused::WrongLast | Refused::RepeatedId) => Answer::Superseded,
        }
    }

    fn commit(&mut self, commit: &Commit, checked: bool, now: Time) -> Result<u64, Refused> {
        let record = &commit.record;
        let subject = self.names.results(&commit.job, &record.task);
        let content = Content::Record(Box::new(record.clone()), self.parent_of(commit));
        let mut first = Publish::new(subject, content);
        first.expect = checked.then_some(record.after);
        let mut batch = vec![first];
        for with in &commit.with {
            match with {
                With::Unschedule => {
                    let schedule = self.names.schedule(&commit.job, &record.task);
                    batch[0].unschedule = Some(schedule.into());
                }
                With::Task(new) => batch.push(self.message(commit, new, None)),
                With::Schedule(new, at) => batch.push(self.message(commit, new, Some(*at))),
            }
        }
        self.air.batch(batch, now)
    }

    /// Who queued the task of a record: its message says, or its record before.
    fn parent_of(&self, commit: &Commit) -> Option<Parent> {
        let record = &commit.record;
        let subject = self.names.results(&commit.job, &record.task);
        let consumed = record.seq.and_then(|seq| self.air.at(seq));
        let own = |stored: &&Stored<Content>| {
            let id = queued(stored).map(|queued| queued.id);
            id.as_ref() == Some(&record.task)
        };
        let tasks = self.names.tasks(&commit.job);
        let mut waiting = self.air.matching(&tasks, 0);
        let sources = [consumed, self.air.last_of(&subject), waiting.find(own)];
        let parents = sources.into_iter().flatten();
        parents
            .filter_map(|stored| match &*stored.payload {
                Content::Task(message) => message.parent.clone(),
                Content::Record(_, parent) => parent.clone(),
            })
            .next()
    }

    fn message(&self, commit: &Commit, new: &NewTask, at: Option<Time>) -> Publish<Content> {
        let own = new.id == commit.record.task && new.job == commit.job;
        let parent = if own {
            self.parent_of(commit)
        } else {
            new.parent.as_deref().and_then(|text| {
                let (job, task) = text.split_once('/')?;
                Some(Parent {
                    job: job.parse().ok()?,
                    task: task.parse().ok()?,
                    run: family_run(&commit.record).or(commit.record.run),
                })
            })
        };
        self.message_of(new, at, parent)
    }

    /// As `publish_again` in `nats/src/commit.rs`.
    fn publish_again(&mut self, with: &With, last: u64, now: Time) -> Result<u64, Refused> {
        let (new, at) = match with {
            With::Task(new) => (new, None),
            With::Schedule(new, at) => (new, Some(*at)),
            With::Unschedule => return Ok(0),
        };
        let subject = self.names.results(&new.job, &new.id);
        let parent = match self.air.last_of(&subject).map(|stored| &*stored.payload) {
            Some(Content::Record(_, parent)) => parent.clone(),
            Some(Content::Task(_)) | None => None,
        };
        let mut message = self.message_of(new, at, parent).expecting(last);
        message.expect_of = Some(subject.into());
        self.air.publish(message, now)
    }

    fn message_of(
        &self,
        new: &NewTask,
        at: Option<Time>,
        parent: Option<Parent>,
    ) -> Publish<Content> {
        let mut task = new.task.clone();
        task.id = Some(new.id.clone());
        let content = Content::Task(Box::new(Message {
            task: Ok(task),
            attempt: new.attempt,
            parent,
        }));
        let target = self.names.tasks(&new.job);
        match at {
            None => Publish::new(target, content),
            Some(at) => {
                let mut publish = Publish::new(self.names.schedule(&new.job, &new.id), content);
                let target = target.into();
                publish.schedule = Some(Schedule { at, target });
                publish
            }
        }
    }

    /// A key, from the leader.
    pub fn key(&self, job: &JobName) -> Key {
        match self.keys().last_of(job.as_str()) {
            None => Key::Absent,
            Some(stored) => match &*stored.payload {
                Value::State(state) => Key::State(state.clone(), stored.seq),
                Value::Garbage => Key::Garbage(stored.seq, "no state".to_owned()),
                Value::Deleted => Key::Deleted(stored.seq),
            },
        }
    }

    /// A state, without its revision.
    pub fn state(&self, job: &JobName) -> Option<&JobState> {
        match &*self.jobs.last_of(job.as_str())?.payload {
            Value::State(state) => Some(state),
            Value::Garbage | Value::Deleted => None,
        }
    }

    /// The spec of a job.
    pub fn spec(&self, job: &JobName) -> Result<Spec, String> {
        self.specs
            .get(job)
            .cloned()
            .unwrap_or_else(|| Ok(Spec::default()))
    }

    /// The records of a job after a sequence, as `from` sees them.
    pub fn records_after(&self, from: &Stream<Content>, job: &JobName, after: u64) -> Vec<At> {
        let subject = self.names.job_results(job);
        let stored = from.matching(&subject, after + 1);
        stored.filter_map(record_at).collect()
    }

    /// The messages of a queue, as `from` sees them.
    pub fn queued(&self, from: &Stream<Content>, job: &JobName, first: u64) -> Vec<Queued> {
        let subject = self.names.tasks(job);
        from.matching(&subject, first).filter_map(queued).collect()
    }

    /// The tasks that schedules will bring back.
    pub fn scheduled(&self, from: &Stream<Content>, job: &JobName) -> Vec<Queued> {
        let subject = self.names.job_schedules(job);
        from.matching(&subject, 0).filter_map(queued).collect()
    }

    /// The last records of tasks, as `from` sees them.
    pub fn last_records(
        &self,
        from: &Stream<Content>,
        job: &JobName,
        tasks: &[(JobName, TaskId)],
    ) -> Lasts {
        let mut records = HashMap::new();
        for (job, task) in tasks {
            let last = from.last_of(&self.names.results(job, task));
            if let Some(at) = last.and_then(record_at) {
                records.insert((job.clone(), task.clone()), at);
            }
        }
        // The reply says how far it has seen only if it found anything, the job's queue included.
        let found = !records.is_empty() || from.last_of(&self.names.tasks(job)).is_some();
        let up_to = if tasks.is_empty() {
            None
        } else {
            found.then(|| from.last_seq())
        };
        Lasts { records, up_to }
    }

    /// The last record of a task, from the leader.
    pub fn last_record(&self, job: &JobName, task: &TaskId) -> Option<At> {
        self.leader()
            .last_of(&self.names.results(job, task))
            .and_then(record_at)
    }

    /// The message at a sequence of a queue, from the leader.
    pub fn queued_at(&self, job: &JobName, seq: u64) -> Option<Queued> {
        let is_ours = |one: &&Stored<Content>| *one.subject == *self.names.tasks(job);
        self.leader().at(seq).filter(is_ours).and_then(queued)
    }

    /// How many messages match, from the leader.
    pub fn count(&self, filter: &str) -> u64 {
        self.leader().matching(filter, 0).count() as u64
    }

    /// The jobs that have a key, a message or a record.
    pub fn all_jobs(&self) -> Vec<JobName> {
        let keys = self
            .jobs
            .all()
            .iter()
            .map(|stored| stored.subject.to_string());
        let subjects = self.air.all().iter();
        let subjects =
            subjects.filter_map(|stored| Some(stored.subject.split('.').nth(2)?.to_owned()));
        let mut jobs: Vec<JobName> = keys
            .chain(subjects)
            .filter_map(|name| name.parse().ok())
            .collect();
        jobs.sort();
        jobs.dedup();
        jobs
    }
}

/// The run whose family a page of a fan-out belongs to.
fn family_run(record: &Record) -> Option<Uuid> {
    match &record.spec.as_ref()?.work {
        air_protocol::task::Work::Fanout(fanout) => Some(fanout.run),
        air_protocol::task::Work::Run(_)
        | air_protocol::task::Work::Exec(_)
        | air_protocol::task::Work::Claude(_) => None,
    }
}

/// The record in a stored message.
pub fn record_at(stored: &Stored<Content>) -> Option<At> {
    match &*stored.payload {
        Content::Record(record, _) => Some((stored.seq, (**record).clone())),
        Content::Task(_) => None,
    }
}

/// The task in a stored message.
pub fn queued(stored: &Stored<Content>) -> Option<Queued> {
    let Content::Task(message) = &*stored.payload else {
        return None;
    };
    let (id, attempt) = match &message.task {
        Ok(task) => (task.id_at(stored.seq), message.attempt),
        Err(_) => (TaskId::of_sequence(stored.seq), 1),
    };
    let text = |parent: &Parent| format!("{}/{}", parent.job, parent.task);
    Some(Queued {
        seq: stored.seq,
        queued: stored.time,
        id,
        attempt,
        parent: message.parent.as_ref().map(text),
        leash: Leash::default(),
        traceparent: None,
        task: message.task.clone().map_err(|reason| Invalid {
            reason,
            head: String::new(),
        }),
    })
}
