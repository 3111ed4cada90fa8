//! The invariants, proved or refuted from a history that is too long to hold: one pass over it.
//!
//! [`invariants`](crate::invariants) judges a history as a whole. Here it comes message by message,
//! and of each task and run only some 100 bytes are kept: ids as 64-bit hashes, with sequences and
//! flags. Each invariant ends as proven, refuted, or not proven: refuted is only what no healthy
//! system can have written, and what is missing (an event, a record that retention purged) proves
//! nothing. What looks wrong, but may have changed while it was being read, is a [`Suspect`]: the
//! caller looks at it again from the leader, and confirms it or not.
//!
//! Read in this order: the key, records, schedules, queue, events, the key again; then suspects.
//! Start at [`JobCheck`]. Families and budgets reach over jobs: [`Families`], [`Accounts`].

mod accounts;
mod families;
mod order;
mod runs;
mod state;
mod tasks;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::time::Duration;

use crate::event::{Event, Kind};
use crate::invariants::Invariant;
use crate::job::{JobState, JobStatus};
use crate::names::{JobName, TaskId};
use crate::record::Record;
use crate::task::{Fanout, Task};

pub use accounts::{Accounts, Charges};
pub use families::{Doubtful, Families};
pub use tasks::{Fate, fate_of};

/// Findings of one invariant that are listed; the others are counted.
pub const LISTED_MAX: usize = 100;
/// Suspects of one job that are looked at again.
pub const SUSPECTS_MAX: usize = 1000;

/// What became of an invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It holds for all that was read.
    Proven,
    /// Nothing speaks against it, but something that would prove it is not there.
    NotProven,
    /// It is broken.
    Refuted,
}

impl Verdict {
    /// The word for people and programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::NotProven => "not-proven",
            Self::Refuted => "refuted",
        }
    }
}

/// Where something stands that speaks for a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A record of the task, at this sequence.
    Record(Option<TaskId>, u64),
    /// A message in the queue of a job.
    Queue(JobName, u64),
    /// A schedule of the task.
    Schedule(TaskId, u64),
    /// An event of the job, at this sequence of their stream.
    Event(Kind, u64),
    /// The key of the job, at this revision.
    Key(u64),
    /// The account of the job's budget, at this revision.
    Account(u64),
    /// A blob.
    Blob(String),
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is broken.
    pub invariant: Invariant,
    /// The job.
    pub job: JobName,
    /// The task, where it is about one.
    pub task: Option<TaskId>,
    /// What proves it.
    pub places: Vec<Place>,
    /// What is wrong, in words.
    pub text: String,
}

/// Why something is not proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// How often.
    pub times: u64,
    /// The first case.
    pub example: String,
}

/// What was found, of one job or of many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Violations, at most [`LISTED_MAX`] of each invariant.
    pub listed: Vec<Finding>,
    /// All violations.
    pub count: BTreeMap<Invariant, u64>,
    /// What is not proven, and why.
    pub doubts: BTreeMap<(Invariant, &'static str), Doubt>,
}

impl Findings {
    /// Adds a violation.
    pub fn add(&mut self, finding: Finding) {
        let count = self.count.entry(finding.invariant).or_default();
        *count += 1;
        if *count <= LISTED_MAX as u64 {
            self.listed.push(finding);
        }
    }

    /// Adds that something is not proven.
    pub fn doubt(&mut self, invariant: Invariant, why: &'static str, example: impl Into<String>) {
        self.doubt_often(invariant, why, 1, example);
    }

    fn doubt_often(
        &mut self,
        invariant: Invariant,
        why: &'static str,
        times: u64,
        example: impl Into<String>,
    ) {
        let doubt = self.doubts.entry((invariant, why));
        let doubt = doubt.or_insert_with(|| Doubt {
            times: 0,
            example: example.into(),
        });
        doubt.times += times;
    }

    /// Takes in what was found elsewhere.
    pub fn merge(&mut self, other: Self) {
        let Findings {
            listed,
            count: mut unlisted,
            doubts,
        } = other;
        for finding in listed {
            if let Some(count) = unlisted.get_mut(&finding.invariant) {
                *count -= 1;
            }
            self.add(finding);
        }
        // Last, so that they take no place in the list.
        for (invariant, count) in unlisted {
            *self.count.entry(invariant).or_default() += count;
        }
        for ((invariant, why), doubt) in doubts {
            self.doubt_often(invariant, why, doubt.times, doubt.example);
        }
    }

    /// What became of an invariant.
    pub fn verdict(&self, invariant: Invariant) -> Verdict {
        if self.count.contains_key(&invariant) {
            Verdict::Refuted
        } else if self.doubts.keys().any(|(one, _)| *one == invariant) {
            Verdict::NotProven
        } else {
            Verdict::Proven
        }
    }
}

/// A message in the queue or in a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Whether it is a schedule.
    pub scheduled: bool,
    /// Its stream sequence.
    pub seq: u64,
    /// The task.
    pub task: TaskId,
    /// The attempt.
    pub attempt: u32,
    /// `<job>/<task>` that queued it.
    pub parent: Option<String>,
    /// The rest of a fan-out, where it is one.
    pub fanout: Option<Fanout>,
    /// Whether the order of publishing binds it.
    pub binds: bool,
}

impl Message {
    fn place(&self, job: &JobName) -> Place {
        if self.scheduled {
            Place::Schedule(self.task.clone(), self.seq)
        } else {
            Place::Queue(job.clone(), self.seq)
        }
    }
}

/// Whether the order of publishing binds an attempt: tasks with needs and delays have no fixed turn.
pub fn binds(task: Option<&Task>, attempt: u32) -> bool {
    task.is_some_and(|task| attempt == 1 && task.needs.is_empty() && task.not_before.is_none())
}

/// What looks wrong, and may be so only because it changed while it was being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Suspect {
    /// The task's last record is open, but its next attempt was found nowhere.
    Unqueued(TaskId, u64),
    /// An attempt that no record of its task asks for.
    Orphan(Message),
    /// A live message in a job that is over.
    Live(Message),
    /// A message that was passed over, by the one of this sequence.
    Overtaken(Message, u64),
    /// A record of which an event, or else the key, tells is not there.
    Gone(Option<TaskId>, u64, Place),
    /// A fan-out that waits, whose pages must be there.
    Pages(Message, Fanout),
    /// A record whose output is said to be in this blob, which is not there.
    Output(TaskId, u64, String),
}

/// What is known at the end of reading a job.
#[derive(Debug, Clone)]
pub struct Now {
    /// What the key holds.
    pub state: Option<JobState>,
    /// Its revision.
    pub revision: u64,
    /// The time since it was written, by the server's clock.
    pub age: Duration,
    /// Whether it is at the same revision as before the history was read.
    pub unchanged: bool,
    /// Whether managers are alive.
    pub managed: bool,
}

/// The check of one job, as its history comes by.
#[derive(Debug)]
pub struct JobCheck {
    job: JobName,
    state: Option<JobState>,
    revision: u64,
    findings: Findings,
    suspects: Vec<Suspect>,
    tasks: tasks::Tasks,
    runs: runs::Runs,
    order: order::Order,
    fold: state::Fold,
    /// Sequences of the records, rising.
    records: Vec<u64>,
    /// Not every record could be read.
    blind: bool,
}

/// Short for a name of any length; two of a million names meet with a chance of 1 to 30 million.
pub fn short(value: impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl JobCheck {
    /// A check of a job whose key held this state, at this revision, before its history was read.
    pub fn new(job: JobName, state: Option<JobState>, revision: u64) -> Self {
        let fold = state::Fold::new(state.as_ref());
        Self {
            job,
            state,
            revision,
            findings: Findings::default(),
            suspects: Vec::new(),
            tasks: tasks::Tasks::default(),
            runs: runs::Runs::default(),
            order: order::Order::default(),
            fold,
            records: Vec::new(),
            blind: false,
        }
    }

    fn purged_to(&self) -> u64 {
        let state = self.state.as_ref();
        state.map_or(0, |state| state.ledger.purged_to)
    }

    fn finding(
        &mut self,
        invariant: Invariant,
        task: Option<&TaskId>,
        places: Vec<Place>,
        text: String,
    ) {
        self.findings.add(Finding {
            invariant,
            job: self.job.clone(),
            task: task.cloned(),
            places,
            text,
        });
    }

    fn suspect(&mut self, suspect: Suspect) {
        if self.suspects.len() < SUSPECTS_MAX {
            self.suspects.push(suspect);
        } else {
            let why = "too much looks wrong to look at each once more";
            self.findings
                .doubt(Invariant::NothingLost, why, self.job.as_str());
        }
    }

    /// Takes in the next record, which stands on the subject of `task`. Families are told of it too.
    pub fn record(&mut self, seq: u64, subject: &TaskId, record: &Record, families: &mut Families) {
        let first = self.tasks.is_new(subject);
        if record.task != *subject {
            let text = format!("the record says that it is of the task {}", record.task);
            let places = vec![Place::Record(Some(subject.clone()), seq)];
            self.finding(Invariant::OneCommit, Some(subject), places, text);
        }
        self.records.push(seq);
        self.check_chain(seq, subject, record);
        self.check_run(seq, subject, record);
        self.check_turn(seq, subject, record);
        self.fold.fold(seq, record);
        if record.is_fanout() {
            return;
        }
        if first && let Some(parent) = &record.parent {
            let place = Place::Record(Some(subject.clone()), seq);
            let message = record.seq.unwrap_or(0);
            families.child(parent, &self.job, subject, message, place);
        }
        families.parent(&self.job, subject, seq, record);
    }

    /// A record that cannot be read, which may be of a newer version: what follows from it is not judged.
    pub fn unreadable(&mut self, subject: &str, task: Option<&TaskId>, seq: u64) {
        self.records.push(seq);
        self.blind = true;
        if let Some(task) = task {
            self.tasks.lose_sight_of(task);
        }
        for invariant in Invariant::ALL {
            let why = "a record cannot be read by this version";
            let example = format!("{subject} at {seq}");
            self.findings.doubt(invariant, why, example);
        }
    }

    /// Takes in a message of the queue or a schedule, after all records. Families are told of it too.
    pub fn message(&mut self, message: &Message, families: &mut Families) {
        let first = self.tasks.is_new(&message.task);
        self.check_message(message);
        match (&message.fanout, &message.parent) {
            (Some(fanout), _) => {
                families.pending(&fanout.parent);
                self.suspect(Suspect::Pages(message.clone(), fanout.clone()));
            }
            (None, Some(parent)) if first => {
                let place = message.place(&self.job);
                families.child(parent, &self.job, &message.task, message.seq, place);
            }
            (None, _) => {}
        }
    }

    /// Takes in an event, after all records and messages.
    pub fn event(&mut self, seq: u64, event: &Event) {
        let Some(kind) = event.known_kind() else {
            return;
        };
        self.check_told_run(seq, kind, event);
        let data = &event.data;
        let Some(record) = data.record.filter(|_| kind == Kind::Committed) else {
            return;
        };
        // An event from before the first record may be of a removed job of the same name.
        let gone = self.records.binary_search(&record).err();
        if gone.is_some_and(|at| at > 0) && record > self.purged_to() {
            let place = Place::Event(kind, seq);
            self.suspect(Suspect::Gone(data.task.clone(), record, place));
        }
    }

    /// The last record that the key names, where the records read end before it: either it is gone, or
    /// the replica that was asked lags.
    pub fn ends_before(&self) -> Option<u64> {
        let state = self.state.as_ref()?;
        let named = state.last_record.max(state.ledger.accounted);
        let last = self.records.last().copied().unwrap_or(0);
        (named > last && named > state.ledger.purged_to).then_some(named)
    }

    /// The records that were read are older than the key: what the key says of them is not judged.
    pub fn lags(&mut self) {
        self.blind = true;
        let why = "the replica that was asked lags behind the job's key";
        for invariant in [Invariant::NothingLost, Invariant::TrueCounters] {
            self.findings.doubt(invariant, why, self.job.as_str());
        }
    }

    /// What the caller must look at again, from the leader; each once, after the history was read.
    pub fn suspects(&mut self) -> Vec<Suspect> {
        self.suspect_open_tasks();
        self.suspect_named_records();
        std::mem::take(&mut self.suspects)
    }

    /// The last record that the key names, and the last counted one, must be there.
    fn suspect_named_records(&mut self) {
        let Some(state) = &self.state else { return };
        let named = [state.last_record, state.ledger.accounted];
        let missing = |seq: &u64| {
            let there = self.records.binary_search(seq).is_ok();
            *seq > state.ledger.purged_to && !there
        };
        let mut gone: Vec<_> = named.into_iter().filter(missing).collect();
        gone.dedup();
        for seq in gone {
            self.suspect(Suspect::Gone(None, seq, Place::Key(self.revision)));
        }
    }

    /// Ends the check. A job that is being removed, or whose key cannot be read, is said to be so.
    pub fn end(mut self, now: &Now) -> Findings {
        let removing = |state: &Option<JobState>| {
            let status = state.as_ref().map(|state| &state.status);
            status == Some(&JobStatus::Removing)
        };
        if removing(&self.state) || removing(&now.state) {
            let mut findings = Findings::default();
            for invariant in Invariant::ALL {
                findings.doubt(invariant, "the job is being removed", self.job.as_str());
            }
            return findings;
        }
        if now.state.is_none() && !self.records.is_empty() {
            for invariant in [
                Invariant::OneRunner,
                Invariant::NoGhost,
                Invariant::TrueCounters,
            ] {
                let why = "the job has no key, or one that cannot be read";
                self.findings.doubt(invariant, why, self.job.as_str());
            }
        }
        self.end_runs(now);
        self.end_state(now);
        let why = "processes cannot be seen from NATS; only their hosts know them";
        self.findings
            .doubt(Invariant::NoSurvivors, why, self.job.as_str());
        self.findings
    }
}

#[cfg(test)]
mod tests;
