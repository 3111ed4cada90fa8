//! The ledger: counters of a job, folded from all its records in stream order.
//!
//! A task counts by its last record. Each record is folded once, whoever wrote it: `accounted` is
//! the sequence of the last one folded, and only moves to a sequence that was seen.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::cost::Cost;
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
    /// What agents took in all attempts.
    #[serde(skip_serializing_if = "Cost::is_nothing")]
    pub cost: Cost,
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
        self.finished().saturating_add(self.open())
    }

    /// Tasks that are not over, although they have a record.
    pub fn open(&self) -> u64 {
        let open = [self.retrying, self.reset, self.parked];
        open.into_iter().fold(0, u64::saturating_add)
    }

    /// Tasks that are over.
    pub fn finished(&self) -> u64 {
        let over = [self.succeeded, self.failed, self.cancelled, self.skipped];
        over.into_iter().fold(0, u64::saturating_add)
    }

    fn add(&mut self, record: &Record) {
        if let Some(previous) = record.previous {
            let count = self.of(previous);
            *count = count.saturating_sub(1);
        }
        let count = self.of(record.status);
        *count = count.saturating_add(1);
        let add = |sum: &mut u64, more| *sum = sum.saturating_add(more);
        add(&mut self.attempts, u64::from(record.started.is_some()));
        add(&mut self.losses, u64::from(record.lost));
        add(&mut self.subtasks, record.subtasks);
        add(&mut self.cpu_ms, record.cpu_ms.unwrap_or(0));
        self.cost = self.cost.plus(record.cost.unwrap_or_default());
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
            self.failing = self.failing.saturating_add(1);
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

    /// Notes that the records up to `seq` are purged, and what they counted.
    pub fn purge(&mut self, seq: u64, records: Counters) {
        self.purged_to = seq;
        self.purged = Some(records);
    }

    /// The ledger as it was when only those records were folded in that are purged by now.
    pub fn of_purged(&self) -> Self {
        Self {
            counters: self.purged.unwrap_or_default(),
            accounted: self.purged_to,
            ..Self::default()
        }
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
    fn what_is_left_is_folded_into_what_is_purged() {
        let first = record("a", Status::Retrying, 1, None, 0);
        let second = record("a", Status::Succeeded, 2, Some(Status::Retrying), 3);
        let mut whole = Ledger::default();
        whole.fold(3, &first);
        let purged = whole.counters;
        whole.fold(5, &second);
        whole.purge(3, purged);
        let mut left = whole.of_purged();
        assert_eq!((left.counters, left.accounted), (purged, 3));
        left.fold(3, &first);
        left.fold(5, &second);
        assert_eq!(left.counters, whole.counters);
        assert_eq!(Ledger::default().of_purged(), Ledger::default());
    }

    #[test]
    fn the_greatest_counts_stay() {
        let mut ledger = Ledger::default();
        ledger.counters.failed = u64::MAX;
        ledger.failing = u64::MAX;
        ledger.counters.cpu_ms = u64::MAX;
        let mut last = record("a", Status::Failed, 1, None, 0);
        last.cpu_ms = Some(u64::MAX);
        ledger.fold(1, &last);
        assert_eq!(
            (ledger.counters.failed, ledger.failing),
            (u64::MAX, u64::MAX)
        );
        assert_eq!(
            (ledger.counters.cpu_ms, ledger.counters.tasks()),
            (u64::MAX, u64::MAX)
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

    fn record_of(status: Status) -> Record {
        record("a", status, 1, None, 0)
    }

    #[test]
    fn every_task_counts_once_and_every_attempt_adds() {
        let mut ledger = Ledger::default();
        for (seq, status) in (1..).zip(Status::ALL) {
            ledger.fold(seq, &record_of(status));
        }
        let counters = ledger.counters;
        assert_eq!((counters.finished(), counters.tasks()), (4, 7));
        let each = [
            (counters.succeeded, counters.failed),
            (counters.cancelled, counters.skipped),
            (counters.retrying, counters.reset),
            (counters.parked, 1),
        ];
        assert!(each.iter().all(|counts| *counts == (1, 1)), "{counters:?}");
        assert_eq!((counters.attempts, counters.losses), (0, 0));
        let mut ran = record_of(Status::Succeeded);
        (ran.started, ran.lost) = (Some(ran.ended), true);
        (ran.subtasks, ran.cpu_ms) = (5, Some(6));
        ran.cost = Some(Cost {
            turns: 7,
            ..Cost::default()
        });
        ledger.fold(8, &ran);
        ledger.fold(9, &ran);
        let counters = ledger.counters;
        assert_eq!((counters.attempts, counters.losses), (2, 2));
        assert_eq!((counters.subtasks, counters.cpu_ms), (10, 12));
        assert_eq!(counters.cost.turns, 14);
        assert_eq!((counters.succeeded, counters.finished()), (3, 6));
        let unlike = Counters {
            succeeded: 2,
            failed: 3,
            cancelled: 5,
            skipped: 7,
            retrying: 11,
            reset: 13,
            parked: 17,
            ..Counters::default()
        };
        assert_eq!((unlike.finished(), unlike.tasks()), (17, 58));
    }

    #[test]
    fn a_failure_that_was_forgiven_is_taken_back_by_nobody() {
        let mut ledger = Ledger::default();
        ledger.fold(5, &record("a", Status::Failed, 1, None, 0));
        ledger.forgive();
        assert_eq!((ledger.forgiven, ledger.failing), (5, 0));
        ledger.fold(6, &record("b", Status::Failed, 1, None, 0));
        ledger.fold(7, &record("c", Status::Failed, 1, None, 0));
        assert_eq!(ledger.failing, 2);
        ledger.fold(8, &record("a", Status::Reset, 1, Some(Status::Failed), 5));
        assert_eq!(ledger.failing, 2, "the record at 5 was forgiven");
        ledger.fold(
            9,
            &record("d", Status::Succeeded, 1, Some(Status::Retrying), 6),
        );
        assert_eq!(ledger.failing, 2, "it had not failed");
        ledger.forgiven = 12;
        ledger.fold(12, &record("e", Status::Failed, 1, None, 0));
        assert_eq!(ledger.failing, 2, "up to 12 all is forgiven");
    }

    #[test]
    fn what_is_purged_is_written_and_children_are_bounded() {
        let mut ledger = Ledger::default();
        let text = |ledger: &Ledger| serde_json::to_string(ledger).unwrap();
        assert!(!text(&ledger).contains("purged_to") && !text(&ledger).contains("forgiven"));
        ledger.purge(7, Counters::default());
        assert_eq!(
            (ledger.purged_to, ledger.purged),
            (7, Some(Counters::default()))
        );
        assert!(text(&ledger).contains(r#""purged_to":7"#));
        let mut many = record_of(Status::Succeeded);
        let names = 0..=CHILDREN_MAX;
        many.jobs = names.map(|n| format!("j{n}").parse().unwrap()).collect();
        ledger.fold(1, &many);
        assert_eq!(ledger.children.len(), CHILDREN_MAX);
    }
}
