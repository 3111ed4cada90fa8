//! The invariants I1 to I8: what always holds, as pure functions over a [`History`].
//!
//! A history is what can be read from NATS at one moment, with what the caller knows besides. A
//! function reports only what its data proves; its documentation says what it cannot see. So no
//! violation does not mean that all is well, but a violation means that something is not.
//!
//! Read in this order, so that nothing slips between two readings: state, schedules, queue, records,
//! events. Processes come last. Start at [`check_all`].

mod families;
mod fates;
mod leases;
pub(crate) mod records;

use std::collections::BTreeMap;
use std::fmt;

use uuid::Uuid;

use crate::event::Event;
use crate::job::JobState;
use crate::names::{JobName, TaskId};
use crate::record::{Last, Record};
use crate::task::Fanout;
use crate::time::{Span, Time};

pub use families::whole_families;
pub use fates::{nothing_lost, order};
pub use leases::{no_ghost, no_survivors, one_runner};
pub use records::{one_commit, true_counters};

/// What was read of an installation at one moment.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The jobs that were read. A need of I5: both the job of a task and the job of its sub-tasks.
    pub jobs: BTreeMap<JobName, JobHistory>,
    /// All live processes of the hosts concerned, if the caller looked.
    pub processes: Option<Vec<Process>>,
    /// When the states were read, if the clocks of all hosts can be trusted; I4 needs it.
    pub now: Option<Time>,
    /// The managers' poll, which I4 adds to every time-out.
    pub poll: Span,
}

/// What was read of one job.
#[derive(Debug, Clone, Default)]
pub struct JobHistory {
    /// The value of its key; none where there is no key.
    pub state: Option<JobState>,
    /// Its records in stream order.
    pub records: Vec<StoredRecord>,
    /// Its queued messages in stream order.
    pub queue: Vec<TaskMessage>,
    /// Its pending schedules, without those of cron.
    pub schedules: Vec<TaskMessage>,
    /// Its events in stream order. Events are best effort: one that is missing proves nothing.
    pub events: Vec<Event>,
    /// Tasks whose publish was acknowledged, as far as the caller knows them.
    pub acknowledged: Vec<TaskId>,
    /// A user removed the job, so that anything of it may be gone.
    pub removed: bool,
    /// Nobody has written to the job for longer than a poll, and managers are alive: then the state
    /// must have caught up with the records.
    pub quiet: bool,
    /// The caller knows the parent of every record and message: then missing sub-tasks are told.
    pub parents_known: bool,
}

/// A record where it is stored.
#[derive(Debug, Clone)]
pub struct StoredRecord {
    /// Its stream sequence.
    pub seq: u64,
    /// The record.
    pub record: Record,
    /// The task that queued this one, if known.
    pub parent: Option<Parent>,
}

/// A task's message, in the queue or in a schedule.
#[derive(Debug, Clone)]
pub struct TaskMessage {
    /// Its stream sequence.
    pub seq: u64,
    /// The task.
    pub task: TaskId,
    /// The attempt (header `Air-Attempt`).
    pub attempt: u32,
    /// The task that queued this one (header `Air-Parent`).
    pub parent: Option<Parent>,
    /// The rest of a fan-out, where the task is one.
    pub fanout: Option<Fanout>,
}

/// Who queued a sub-task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Parent {
    /// The job of the task.
    pub job: JobName,
    /// The task.
    pub task: TaskId,
    /// The run of the task; none where the message does not say.
    pub run: Option<Uuid>,
}

/// A live process that carries `AIR_RUNNER`, or is a runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its host.
    pub host: String,
    /// Its id there.
    pub pid: u32,
    /// The run to which it belongs.
    pub run: Uuid,
    /// The job of the run.
    pub job: JobName,
    /// Whether it is the runner itself, not a process of the task.
    pub is_runner: bool,
}

/// An invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// I1: a job has at most one lease; executions overlap only where a runner was frozen or cut off.
    OneRunner,
    /// I2: one record for each attempt, numbers without gaps, one final record between resets.
    OneCommit,
    /// I3: every acknowledged task is queued, scheduled, parked, or has a final record.
    NothingLost,
    /// I4: a working job has a live runner, or is recovered in time.
    NoGhost,
    /// I5: a sub-task exists iff its parent succeeded in the run that queued it.
    WholeFamilies,
    /// I6: when a runner is gone, so are the processes of its task.
    NoSurvivors,
    /// I7: tasks without needs, delays or retries start in the order they were published.
    Order,
    /// I8: counters and status equal what the records say once the job is quiet.
    TrueCounters,
}

impl Invariant {
    /// Every invariant, in order.
    pub const ALL: [Self; 8] = [
        Self::OneRunner,
        Self::OneCommit,
        Self::NothingLost,
        Self::NoGhost,
        Self::WholeFamilies,
        Self::NoSurvivors,
        Self::Order,
        Self::TrueCounters,
    ];

    /// Number and name, such as `I2 one-commit`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneRunner => "I1 one-runner",
            Self::OneCommit => "I2 one-commit",
            Self::NothingLost => "I3 nothing-lost",
            Self::NoGhost => "I4 no-ghost",
            Self::WholeFamilies => "I5 whole-families",
            Self::NoSurvivors => "I6 no-survivors",
            Self::Order => "I7 order",
            Self::TrueCounters => "I8 true-counters",
        }
    }

    /// What a violation of it means to whoever relies on the system.
    pub fn broken_means(self) -> &'static str {
        match self {
            Self::OneRunner => {
                "two runners may have worked on the job at once, or somebody wrote what no runner did"
            }
            Self::OneCommit => {
                "an attempt was committed twice, or its history was changed: what follows from it may have happened twice"
            }
            Self::NothingLost => {
                "work is lost: it does not come by itself, submit it again or `airx retry` it"
            }
            Self::NoGhost => {
                "the job counts as working, but nobody works on it: look at the managers"
            }
            Self::WholeFamilies => {
                "sub-tasks exist without the success that queued them, or can no longer be queued"
            }
            Self::NoSurvivors => "processes of a dead runner still work",
            Self::Order => "a task had its turn before one that was published earlier",
            Self::TrueCounters => "what `airx status` shows is not what happened",
        }
    }

    /// The violations of this invariant in a history.
    pub fn check(self, history: &History) -> Vec<Violation> {
        match self {
            Self::OneRunner => one_runner(history),
            Self::OneCommit => one_commit(history),
            Self::NothingLost => nothing_lost(history),
            Self::NoGhost => no_ghost(history),
            Self::WholeFamilies => whole_families(history),
            Self::NoSurvivors => no_survivors(history),
            Self::Order => order(history),
            Self::TrueCounters => true_counters(history),
        }
    }
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What is broken.
    pub invariant: Invariant,
    /// The job.
    pub job: JobName,
    /// The task, where it is about one.
    pub task: Option<TaskId>,
    /// Stream sequences of the messages and records that prove it.
    pub sequences: Vec<u64>,
    /// What is wrong, in words.
    pub text: String,
}

impl Violation {
    fn new(invariant: Invariant, job: &JobName, text: String) -> Self {
        Self {
            invariant,
            job: job.clone(),
            task: None,
            sequences: Vec::new(),
            text,
        }
    }

    fn of(mut self, task: &TaskId) -> Self {
        self.task = Some(task.clone());
        self
    }

    fn at(mut self, sequences: impl Into<Vec<u64>>) -> Self {
        self.sequences = sequences.into();
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant.as_str(), self.job)?;
        if let Some(task) = &self.task {
            write!(f, "/{task}")?;
        }
        write!(f, ": {}", self.text)?;
        match self.sequences.as_slice() {
            [] => Ok(()),
            seqs => write!(f, " (at {seqs:?})"),
        }
    }
}

/// Every violation of every invariant, in the order of the invariants.
pub fn check_all(history: &History) -> Vec<Violation> {
    let all = Invariant::ALL.into_iter();
    all.flat_map(|invariant| invariant.check(history)).collect()
}

impl JobHistory {
    /// The records of each task, in stream order.
    fn by_task(&self) -> BTreeMap<&TaskId, Vec<&StoredRecord>> {
        let mut tasks: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for stored in &self.records {
            tasks.entry(&stored.record.task).or_default().push(stored);
        }
        tasks
    }

    /// The last record of a task.
    fn last(&self, task: &TaskId) -> Option<Last> {
        let mut records = self.records.iter().rev();
        let stored = records.find(|stored| stored.record.task == *task)?;
        Some(stored.record.last(stored.seq))
    }

    /// Records up to this sequence may be gone, since their time is over.
    fn purged_to(&self) -> u64 {
        self.state
            .as_ref()
            .map_or(0, |state| state.ledger.purged_to)
    }
}

#[cfg(test)]
mod tests;
