//! I5: sub-tasks and their parents, across jobs.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{History, Invariant, Parent, StoredRecord, Violation};
use crate::names::{JobName, TaskId};
use crate::record::Status;
use crate::task::Work;

/// Sub-tasks, each once, with the lowest sequence that shows it.
type Children<'a> = BTreeMap<(&'a JobName, &'a TaskId), u64>;

/// I5 whole-families. Each sub-task has a parent with a `succeeded` record of the run that queued it;
/// and each such record has as many sub-tasks as it says, unless a pending fan-out holds the rest, or a user cancelled that.
///
/// It decides nothing about parents in jobs that were not read, or whose records retention purged.
/// Missing sub-tasks are told only where every job read says `parents_known`, and the record queued
/// into none that was not read.
pub fn whole_families(history: &History) -> Vec<Violation> {
    let families = families(history);
    let orphans = families
        .iter()
        .filter_map(|(parent, children)| orphans(history, parent, children));
    let mut violations: Vec<_> = orphans.collect();
    let pending = pending_fanouts(history);
    for (name, job) in &history.jobs {
        for stored in &job.records {
            violations.extend(size_fault(history, &families, &pending, name, stored));
        }
    }
    violations
}

fn families(history: &History) -> BTreeMap<&Parent, Children<'_>> {
    let mut families: BTreeMap<_, Children<'_>> = BTreeMap::new();
    for (name, job) in &history.jobs {
        // The system's own tasks are no sub-tasks.
        let records = job.records.iter().filter(|one| !one.record.is_fanout());
        let records = records.map(|one| (&one.parent, &one.record.task, one.seq));
        let messages = job.queue.iter().chain(&job.schedules);
        let messages = messages.filter(|message| message.fanout.is_none());
        let messages = messages.map(|one| (&one.parent, &one.task, one.seq));
        for (parent, task, seq) in records.chain(messages) {
            let Some(parent) = parent else { continue };
            let children = families.entry(parent).or_default();
            let first = children.entry((name, task)).or_insert(seq);
            *first = seq.min(*first);
        }
    }
    families
}

/// The runs whose sub-tasks are not all queued yet, or never will be, since a user cancelled the rest.
fn pending_fanouts(history: &History) -> BTreeSet<Uuid> {
    let jobs = history.jobs.values();
    let messages = jobs
        .clone()
        .flat_map(|job| job.queue.iter().chain(&job.schedules));
    let queued = messages.filter_map(|message| message.fanout.as_ref());
    let records = jobs.flat_map(|job| &job.records);
    let cancelled = records.filter(|stored| stored.record.status == Status::Cancelled);
    let cancelled = cancelled.filter_map(|stored| match &stored.record.spec.as_ref()?.work {
        Work::Fanout(fanout) => Some(fanout),
        Work::Run(_) | Work::Exec(_) | Work::Claude(_) => None,
    });
    queued.chain(cancelled).map(|fanout| fanout.run).collect()
}

/// Sub-tasks that nobody may have queued.
fn orphans(history: &History, parent: &Parent, children: &Children<'_>) -> Option<Violation> {
    let job = history.jobs.get(&parent.job)?;
    let mut records = job.records.iter().map(|stored| &stored.record);
    let known = records.clone().any(|record| record.task == parent.task);
    if job.removed || (!known && job.purged_to() > 0) {
        return None;
    }
    let queued_by = records.any(|record| {
        let same_run = parent.run.is_none() || record.run == parent.run;
        record.task == parent.task && record.status == Status::Succeeded && same_run
    });
    if queued_by {
        return None;
    }
    let run = parent
        .run
        .map_or_else(String::new, |run| format!(" in the run {run}"));
    let names: Vec<_> = children
        .keys()
        .map(|(job, task)| format!("{job}/{task}"))
        .collect();
    let text = format!(
        "it never succeeded{run}, but has the sub-tasks {}",
        names.join(", ")
    );
    let violation = Violation::new(Invariant::WholeFamilies, &parent.job, text);
    let sequences: Vec<_> = children.values().copied().collect();
    Some(violation.of(&parent.task).at(sequences))
}

/// A record that says another number of sub-tasks than there are.
fn size_fault(
    history: &History,
    families: &BTreeMap<&Parent, Children<'_>>,
    pending: &BTreeSet<Uuid>,
    name: &JobName,
    stored: &StoredRecord,
) -> Option<Violation> {
    let record = &stored.record;
    let run = record.run?;
    if record.status != Status::Succeeded || record.is_fanout() {
        return None;
    }
    let of_run = |parent: &&Parent| parent.job == *name && parent.task == record.task;
    let families = families.iter().filter(|(parent, _)| of_run(parent));
    let families = families.filter(|(parent, _)| parent.run.is_none_or(|other| other == run));
    let found: u64 = families.map(|(_, children)| children.len() as u64).sum();
    let read = |job: &JobName| history.jobs.contains_key(job);
    let whole = |job: &super::JobHistory| job.parents_known && job.purged_to() == 0 && !job.removed;
    let countable = record.jobs.iter().all(read) && history.jobs.values().all(whole);
    let missing = found < record.subtasks && countable && !pending.contains(&run);
    if found <= record.subtasks && !missing {
        return None;
    }
    let said = record.subtasks;
    let text = format!("it queued {said} sub-tasks, but {found} are there");
    let violation = Violation::new(Invariant::WholeFamilies, name, text);
    Some(violation.of(&record.task).at([stored.seq]))
}
