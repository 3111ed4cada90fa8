//! The ledger: counters of a job, folded from all its records in stream order.
//!
//! A task counts by its last record. Each record is folded once, whoever wrote it: `accounted` is
//! the sequence of the last one folded, and only moves to a sequence that was seen.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::limits::CHILDREN_MAX;
use crate::names::JobName;
use crate::record::{Record, Status};

/// Tasks by the status of their last record, and sums over all records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Counters {
    /// Tasks that succeeded.
    pub succeeded: u64,
    /// Tasks that failed for good.
    pub failed: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
    /// Tasks that were skipped.
    pub skipped: u64,
    /// Tasks whose next attempt is queued or scheduled.
    pub retrying: u64,
    /// Tasks that a user asked to try again.
    pub reset: u64,
    /// Tasks that wait for a person.
    pub parked: u64,
    /// Attempts that a runner made.
    pub attempts: u64,
    /// Runners that were lost.
    pub losses: u64,
    /// Sub-tasks that were queued.
    pub subtasks: u64,
    /// CPU time of all attempts, in milliseconds.
    pub cpu_ms: u64,
}

impl Counters {
    fn of(&mut self, status: Status) -> &mut u64 {
        match status {
            Status::Succeeded => &mut self.succeeded,
            Status::Failed => &mut self.failed,
            Status::Cancelled => &mut self.cancelled,
            Status::Skipped => &mut self.skipped,
            Status::Retrying => &mut self.retrying,
            Status::Reset => &mut self.reset,
            Status::Parked => &mut self.parked,
        }
    }

    /// Tasks that have a record.
    pub fn tasks(&self) -> u64 {
        self.finished() + self.retrying + self.reset + self.parked
    }

    /// Tasks that are over.
    pub fn finished(&self) -> u64 {
        self.succeeded + self.failed + self.cancelled + self.skipped
    }

    fn add(&mut self, record: &Record) {
        if let Some(previous) = record.previous {
            let count = self.of(previous);
            *count = count.saturating_sub(1);
        }
        *self.of(record.status) += 1;
        self.attempts += u64::from(record.started.is_some());
        self.losses += u64::from(record.lost);
        self.subtasks += record.subtasks;
        self.cpu_ms += record.cpu_ms.unwrap_or(0);
    }
}

/// What the records of a job say, up to one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Ledger {
    /// Counters over all records up to `accounted`, with those that retention purged.
    pub counters: Counters,
    /// Stream sequence of the last record folded in.
    pub accounted: u64,
    /// Tasks that failed for good after `forgiven`: policy `stop` heeds these.
    pub failing: u64,
    /// Failures recorded up to this stream sequence are forgiven (`airx resume`).
    #[serde(skip_serializing_if = "is_zero")]
    pub forgiven: u64,
    /// Other jobs into which this one queued tasks.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub children: BTreeSet<JobName>,
    /// Records up to this stream sequence were purged after their time (`keep`).
    #[serde(skip_serializing_if = "is_zero")]
    pub purged_to: u64,
    /// What the purged records counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purged: Option<Counters>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Ledger {
    /// Folds in the record stored at `seq`; one that is folded already changes nothing.
    pub fn fold(&mut self, seq: u64, record: &Record) {
        if seq <= self.accounted {
            return;
        }
        self.accounted = seq;
        if record.previous == Some(Status::Failed) && record.after > self.forgiven {
            self.failing = self.failing.saturating_sub(1);
        }
        if record.status == Status::Failed && seq > self.forgiven {
            self.failing += 1;
        }
        self.counters.add(record);
        for job in &record.jobs {
            if self.children.len() < CHILDREN_MAX {
                self.children.insert(job.clone());
            }
        }
    }

    /// Forgives all failures so far.
    pub fn forgive(&mut self) {
        self.forgiven = self.accounted;
        self.failing = 0;
    }

    /// Notes that the records up to `seq` are purged, all of tasks that were over by then.
    pub fn purge(&mut self, seq: u64, records: Counters) {
        self.purged_to = seq;
        self.purged = Some(records);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn a_task_counts_by_its_last_record() {
        let mut ledger = Ledger::default();
        ledger.fold(3, &record("a", Status::Retrying, 1, None, 0));
        ledger.fold(
            5,
            &record("a", Status::Failed, 2, Some(Status::Retrying), 3),
        );
        ledger.fold(
            5,
            &record("a", Status::Failed, 2, Some(Status::Retrying), 3),
        );
        ledger.fold(7, &record("b", Status::Succeeded, 1, None, 0));
        assert_eq!(
            (
                ledger.counters.failed,
                ledger.counters.retrying,
                ledger.counters.succeeded
            ),
            (1, 0, 1)
        );
        assert_eq!((ledger.failing, ledger.accounted), (1, 7));
        ledger.fold(9, &record("a", Status::Reset, 2, Some(Status::Failed), 5));
        assert_eq!(
            (
                ledger.failing,
                ledger.counters.failed,
                ledger.counters.reset
            ),
            (0, 0, 1)
        );
    }

    #[test]
    fn forgiven_failures_do_not_come_back() {
        let mut ledger = Ledger::default();
        ledger.fold(1, &record("a", Status::Failed, 1, None, 0));
        ledger.forgive();
        ledger.fold(2, &record("b", Status::Failed, 1, None, 0));
        assert_eq!(ledger.failing, 1);
        ledger.fold(3, &record("a", Status::Reset, 1, Some(Status::Failed), 1));
        assert_eq!(ledger.failing, 1, "b is still failed");
        ledger.fold(4, &record("b", Status::Reset, 1, Some(Status::Failed), 2));
        assert_eq!(ledger.failing, 0);
    }
}
