//! I2 and I8: what the records of a job say of one another, and what the state says of them.

use super::{History, Invariant, JobHistory, StoredRecord, Violation};
use crate::job::JobStatus;
use crate::ledger::Ledger;
use crate::names::{JobName, TaskId};
use crate::record::{Last, Record, Status, is_live, next_attempt};

/// I2 one-commit. Each task's records form one chain: the first is attempt 1 after nothing, each
/// names the one before it (`after`, `previous`) and takes the next number; only `reset` repeats the
/// number that it resets, and only `reset` follows a final record.
///
/// It cannot judge the beginning of a chain that retention cut off (`purged_to`).
pub fn one_commit(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, job) in &history.jobs {
        for (task, records) in job.by_task() {
            let faults = chain_faults(&records, job.purged_to());
            violations.extend(faults.into_iter().map(|(sequences, text)| {
                let violation = Violation::new(Invariant::OneCommit, name, text);
                violation.of(task).at(sequences)
            }));
        }
    }
    violations
}

type Fault = (Vec<u64>, String);

fn chain_faults(records: &[&StoredRecord], purged_to: u64) -> Vec<Fault> {
    let Some(first) = records.first() else {
        return Vec::new();
    };
    let beginning = beginning_fault(&first.record, purged_to);
    let mut faults: Vec<_> = beginning
        .map(|text| (vec![first.seq], text))
        .into_iter()
        .collect();
    for pair in records.windows(2) {
        let (before, stored) = (pair[0], pair[1]);
        let texts = step_faults(before.record.last(before.seq), &stored.record);
        faults.extend(
            texts
                .into_iter()
                .map(|text| (vec![before.seq, stored.seq], text)),
        );
    }
    faults
}

/// What is wrong with a record that stands behind another one of its task.
pub(crate) fn step_faults(old: Last, new: &Record) -> Vec<String> {
    let mut faults = Vec::new();
    if new.after != old.seq {
        faults.push(format!("it follows {}, not {}", new.after, old.seq));
    }
    if new.previous != Some(old.status) {
        let (said, is) = (new.previous, old.status.as_str());
        let said = said.map_or("none", Status::as_str);
        faults.push(format!("its `previous` is {said}, not {is}"));
    }
    let reset = new.status == Status::Reset;
    let attempt = if reset {
        old.attempt
    } else {
        next_attempt(old.attempt)
    };
    if new.attempt != attempt {
        let (status, is) = (new.status.as_str(), new.attempt);
        faults.push(format!("the {status} attempt {is} should be {attempt}"));
    }
    if old.status.is_final() && !reset {
        let (old, new) = (old.status.as_str(), new.status.as_str());
        faults.push(format!("{new} follows the final record {old}"));
    }
    faults
}

/// What is wrong with the first record that is left of a task.
pub(crate) fn beginning_fault(record: &Record, purged_to: u64) -> Option<String> {
    let cut = record.after > 0 && record.after <= purged_to;
    let fine = record.after == 0 && record.attempt == 1 && record.previous.is_none();
    if cut || (fine && record.status != Status::Reset) {
        return None;
    }
    let (status, attempt, after) = (record.status.as_str(), record.attempt, record.after);
    Some(format!(
        "the first record is {status}, attempt {attempt}, after {after}"
    ))
}

/// I8 true-counters. The counters equal a fresh fold over the same records, with those that retention
/// purged; and once the job is quiet the fold reaches the last record, and the status fits: nothing
/// open or live in a completed job, nothing live in a cancelled one, a failure in a failed one.
///
/// It judges no job that is being removed: its records go before its key. While the job is not quiet it judges only the records up to `accounted`, and none after a purge,
/// since the purge and the state are two writes. Sub-jobs are not compared once the list is full.
pub fn true_counters(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, job) in &history.jobs {
        let Some(state) = &job.state else {
            continue;
        };
        if state.status == JobStatus::Removing {
            continue;
        }
        if job.quiet || state.ledger.purged.is_none() {
            violations.extend(counter_faults(name, job, &state.ledger));
        }
        if job.quiet {
            violations.extend(status_fault(name, job, &state.status, &state.ledger));
        }
    }
    violations
}

fn counter_faults(name: &JobName, job: &JobHistory, kept: &Ledger) -> Vec<Violation> {
    let mut fresh = unfolded(kept);
    let seen = |stored: &&StoredRecord| job.quiet || stored.seq <= kept.accounted;
    for stored in job.records.iter().filter(seen) {
        fresh.fold(stored.seq, &stored.record);
    }
    let violation = |text| {
        let violation = Violation::new(Invariant::TrueCounters, name, text);
        violation.at([kept.accounted, fresh.accounted])
    };
    let faults = ledger_faults(kept, &fresh);
    faults.into_iter().map(violation).collect()
}

/// The ledger that becomes `kept` when the records which retention left are folded in.
pub(crate) fn unfolded(kept: &Ledger) -> Ledger {
    Ledger {
        counters: kept.purged.unwrap_or_default(),
        forgiven: kept.forgiven,
        ..Ledger::default()
    }
}

/// How a kept ledger differs from a fresh fold over the same records.
pub(crate) fn ledger_faults(kept: &Ledger, fresh: &Ledger) -> Vec<String> {
    let mut faults = Vec::new();
    let (is, last) = (kept.accounted, fresh.accounted);
    let last_purged = kept.purged.is_some() && is <= kept.purged_to;
    if last > is || (last < is && !last_purged) {
        faults.push(format!(
            "records are counted up to {is}, but the last is {last}"
        ));
    }
    if kept.counters != fresh.counters {
        let (is, should) = (kept.counters, fresh.counters);
        faults.push(format!(
            "the counters are {is:?}, the records say {should:?}"
        ));
    }
    if kept.failing != fresh.failing {
        let (is, should) = (kept.failing, fresh.failing);
        faults.push(format!("`failing` is {is}, the records say {should}"));
    }
    if !fresh.children.is_subset(&kept.children)
        && kept.children.len() < crate::limits::CHILDREN_MAX
    {
        let missing: Vec<_> = fresh.children.difference(&kept.children).collect();
        faults.push(format!("`children` lacks {missing:?}"));
    }
    faults
}

/// Why a quiet job should have another status.
fn status_fault(
    name: &JobName,
    job: &JobHistory,
    status: &JobStatus,
    ledger: &Ledger,
) -> Option<Violation> {
    let tell = |text: String| Violation::new(Invariant::TrueCounters, name, text);
    let word = status.as_str();
    let live = || {
        let is_live = |task: &TaskId, attempt| is_live(attempt, job.last(task));
        let queued = job.queue.iter().find(|one| is_live(&one.task, one.attempt));
        queued.map(|one| {
            let text = format!("the job is {word}, but a live task is queued");
            tell(text).of(&one.task).at([one.seq])
        })
    };
    let scheduled = || {
        let one = job.schedules.first()?;
        let text = format!("the job is {word}, but a task is scheduled");
        Some(tell(text).of(&one.task).at([one.seq]))
    };
    let open = ledger.counters.open();
    match status {
        JobStatus::Completed { .. } => live().or_else(scheduled).or_else(|| {
            let text = format!("the job is completed, but {open} tasks are open");
            (open > 0).then(|| tell(text))
        }),
        JobStatus::Cancelled { .. } => live(),
        JobStatus::Failed { .. } => {
            let text = "the job is failed, but no task is".to_owned();
            (ledger.failing == 0).then(|| tell(text))
        }
        JobStatus::Waiting
        | JobStatus::Working { .. }
        | JobStatus::Cancelling
        | JobStatus::Removing => None,
    }
}
