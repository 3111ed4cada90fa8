//! I3 and I7: every task gets its fate, and its turn.

use std::collections::BTreeSet;

use super::{History, Invariant, JobHistory, StoredRecord, Violation};
use crate::job::JobStatus;
use crate::names::{JobName, TaskId};
use crate::record::{Status, is_live, next_attempt};

/// I3 nothing-lost. A task with an open record has its next attempt queued or scheduled, or is parked;
/// an acknowledged task has that, or a final record.
///
/// Without `acknowledged` it cannot miss what has neither message nor record. It decides nothing for
/// a job that a user cancelled or removed, and forgives an acknowledged task without a record once
/// retention has purged records.
pub fn nothing_lost(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, job) in &history.jobs {
        if stopped_by_user(job) {
            continue;
        }
        let of_records = job.records.iter().map(|stored| &stored.record.task);
        let tasks: BTreeSet<_> = of_records.chain(&job.acknowledged).collect();
        violations.extend(tasks.into_iter().filter_map(|task| lost(name, job, task)));
    }
    violations
}

/// A job whose tasks may have gone with it.
fn stopped_by_user(job: &JobHistory) -> bool {
    let stopping = match job.state.as_ref().map(|state| &state.status) {
        Some(JobStatus::Cancelling | JobStatus::Cancelled { .. } | JobStatus::Removing) => true,
        Some(
            JobStatus::Waiting
            | JobStatus::Working { .. }
            | JobStatus::Completed { .. }
            | JobStatus::Failed { .. },
        )
        | None => false,
    };
    stopping || job.removed
}

fn lost(name: &JobName, job: &JobHistory, task: &TaskId) -> Option<Violation> {
    let last = job.last(task);
    let waits = match last {
        Some(last) if last.status.is_final() || last.status == Status::Parked => return None,
        Some(_) => format!("attempt {}", next_attempt(last?.attempt)),
        None if job.purged_to() > 0 => return None,
        None => "the task".to_owned(),
    };
    let mut messages = job.queue.iter().chain(&job.schedules);
    if messages.any(|one| one.task == *task && is_live(one.attempt, last)) {
        return None;
    }
    let text = format!("{waits} is neither queued nor scheduled");
    let violation = Violation::new(Invariant::NothingLost, name, text).of(task);
    Some(violation.at(Vec::from_iter(last.map(|last| last.seq))))
}

/// I7 order. First attempts of tasks without needs and `not_before` are claimed in the order of their
/// messages: fences grow with sequences.
///
/// It sees only tasks that have a record with the task in it; tasks that a user cancelled or that were
/// no valid task are left out, since no turn was theirs.
pub fn order(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, job) in &history.jobs {
        let mut turns: Vec<_> = job.records.iter().filter_map(turn).collect();
        turns.sort_unstable();
        for pair in turns.windows(2) {
            let ((seq, fence, _), (later, later_fence, task)) = (pair[0], pair[1]);
            if later_fence < fence {
                let text = format!(
                    "the message {later} had its turn (fence {later_fence}) before {seq} (fence {fence})"
                );
                let violation = Violation::new(Invariant::Order, name, text);
                violations.push(violation.of(task).at([seq, later]));
            }
        }
    }
    violations
}

/// Sequence of the message, fence and task, where the order of publishing binds.
fn turn(stored: &StoredRecord) -> Option<(u64, u64, &TaskId)> {
    let record = &stored.record;
    let spec = record.spec.as_ref()?;
    let binds = record.attempt == 1 && spec.needs.is_empty() && spec.not_before.is_none();
    let turn = (record.seq?, record.fence?, &record.task);
    binds.then_some(turn)
}
