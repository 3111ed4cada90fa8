//! I2 and I3, as records and messages come by: each task's records form a chain, and what is open waits somewhere.

use std::collections::HashMap;

use super::{JobCheck, Message, Place, Suspect, short};
use crate::invariants::Invariant;
use crate::invariants::records::{beginning_fault, step_faults};
use crate::job::JobStatus;
use crate::names::TaskId;
use crate::record::{Last, Record, is_live};

/// All that is kept of a task: its last record, and whether its next attempt was seen.
#[derive(Debug, Clone, Copy)]
struct Known {
    last: Option<Last>,
    waits: bool,
    /// Its last record could not be read.
    blind: bool,
}

/// The tasks of a job.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    known: HashMap<u64, Known>,
    /// Names of the tasks whose last record is open: few at any time.
    open: HashMap<u64, TaskId>,
}

impl Tasks {
    /// Whether nothing was seen of a task so far.
    pub(super) fn is_new(&self, task: &TaskId) -> bool {
        !self.known.contains_key(&short(task))
    }

    /// The last record of a task could not be read.
    pub(super) fn lose_sight_of(&mut self, task: &TaskId) {
        let name = short(task);
        self.open.remove(&name);
        let known = Known {
            last: None,
            waits: false,
            blind: true,
        };
        self.known.insert(name, known);
    }
}

/// What a message is to its task, by the task's last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The next attempt.
    Live,
    /// Consumed, or a duplicate: it is deleted in time.
    LeftOver,
    /// An attempt that no record asks for.
    Orphan,
}

/// What a message of this attempt is, by the last record of its task.
pub fn fate_of(attempt: u32, last: Option<Last>) -> Fate {
    if is_live(attempt, last) {
        Fate::Live
    } else if last.is_some_and(|last| attempt <= last.attempt) {
        Fate::LeftOver
    } else {
        Fate::Orphan
    }
}

impl JobCheck {
    pub(super) fn check_chain(&mut self, seq: u64, task: &TaskId, record: &Record) {
        let name = short(task);
        let known = self.tasks.known.get(&name).copied();
        let before = known.and_then(|known| known.last);
        let faults = match before {
            Some(before) => step_faults(before, record),
            None if known.is_some_and(|known| known.blind) => Vec::new(),
            None => Vec::from_iter(beginning_fault(record, self.purged_to())),
        };
        if !faults.is_empty() {
            let before = before.map(|before| Place::Record(Some(task.clone()), before.seq));
            let mut places = Vec::from_iter(before);
            places.push(Place::Record(Some(task.clone()), seq));
            let status = record.status.as_str();
            let text = format!(
                "{status}, attempt {}: {}",
                record.attempt,
                faults.join("; ")
            );
            self.finding(Invariant::OneCommit, Some(task), places, text);
        }
        let last = Some(record.last(seq));
        let known = Known {
            last,
            waits: false,
            blind: false,
        };
        self.tasks.known.insert(name, known);
        if record.status.has_next() {
            self.tasks.open.insert(name, task.clone());
        } else {
            self.tasks.open.remove(&name);
        }
    }

    pub(super) fn check_message(&mut self, message: &Message) {
        let known = self.tasks.known.entry(short(&message.task));
        let known = known.or_insert(Known {
            last: None,
            waits: false,
            blind: false,
        });
        if known.blind {
            return;
        }
        match fate_of(message.attempt, known.last) {
            Fate::LeftOver => {}
            Fate::Orphan => self.suspect(Suspect::Orphan(message.clone())),
            Fate::Live if known.waits => {}
            Fate::Live => {
                known.waits = true;
                let last = known.last;
                if last.is_none() {
                    self.suspect_overtaken(message);
                }
                let status = self.state.as_ref().map(|state| &state.status);
                let over = matches!(
                    status,
                    Some(JobStatus::Completed { .. } | JobStatus::Cancelled { .. })
                );
                if over {
                    self.suspect(Suspect::Live(message.clone()));
                }
            }
        }
    }

    /// Tasks whose next attempt was found nowhere, unless a user stopped the job.
    pub(super) fn suspect_open_tasks(&mut self) {
        let status = self.state.as_ref().map(|state| &state.status);
        if matches!(
            status,
            Some(JobStatus::Cancelling | JobStatus::Cancelled { .. } | JobStatus::Removing)
        ) {
            return;
        }
        let known = &self.tasks.known;
        let lost = self.tasks.open.iter().filter_map(|(name, task)| {
            let known = known.get(name)?;
            let last = known.last.filter(|_| !known.waits)?;
            Some(Suspect::Unqueued(task.clone(), last.seq))
        });
        let mut lost: Vec<_> = lost.collect();
        lost.sort_by_key(|suspect| match suspect {
            Suspect::Unqueued(_, seq) => *seq,
            _ => 0,
        });
        for suspect in lost {
            self.suspect(suspect);
        }
    }
}
