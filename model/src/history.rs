//! What the invariants look at: the product's own `History`, read from the model's broker.

use std::collections::{BTreeMap, BTreeSet};

use air_protocol::invariants::{History, JobHistory, StoredRecord, TaskMessage};
use air_protocol::names::{JobName, TaskId};
use air_protocol::task::Work;
use air_protocol::time::{Span, Time};

use crate::broker::Stored;
use crate::store::{Content, Store};

/// What the callers know besides.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Tasks whose publish was acknowledged.
    pub acknowledged: &'a BTreeSet<(JobName, TaskId)>,
    /// Jobs that a user removed.
    pub removed: &'a BTreeSet<JobName>,
    /// Nothing is under way.
    pub quiet: bool,
    /// The moment, where the clocks can be trusted.
    pub now: Option<Time>,
}

/// The history of all jobs.
pub fn history(store: &Store, known: Known<'_>) -> History {
    let mut jobs: BTreeMap<JobName, JobHistory> = BTreeMap::new();
    for stored in store.air.all() {
        let mut tokens = stored.subject.split('.').skip(1);
        let (kind, job) = (tokens.next(), tokens.next());
        let Some(Ok(job)) = job.map(str::parse::<JobName>) else {
            continue;
        };
        let job = jobs.entry(job).or_default();
        match (&*stored.payload, kind) {
            (Content::Record(record, parent), _) => job.records.push(StoredRecord {
                seq: stored.seq,
                record: (**record).clone(),
                parent: parent.clone(),
            }),
            (Content::Task(_), Some("schedules")) => job.schedules.extend(message(stored)),
            (Content::Task(_), _) => job.queue.extend(message(stored)),
        }
    }
    for stored in store.jobs.all() {
        if let Ok(job) = stored.subject.parse::<JobName>() {
            let state = store.state(&job).cloned();
            jobs.entry(job).or_default().state = state;
        }
    }
    for (job, task) in known.acknowledged {
        let history = jobs.entry(job.clone()).or_default();
        history.acknowledged.push(task.clone());
    }
    for (name, job) in &mut jobs {
        job.removed = known.removed.contains(name);
        job.quiet = known.quiet;
        job.parents_known = true;
    }
    History {
        jobs,
        processes: None,
        now: known.now,
        poll: Span(air_protocol::limits::POLL_DEFAULT),
    }
}

fn message(stored: &Stored<Content>) -> Option<TaskMessage> {
    let Content::Task(message) = &*stored.payload else {
        return None;
    };
    let queued = crate::store::queued(stored)?;
    let fanout = match queued.task.as_ref().map(|task| &task.work) {
        Ok(Work::Fanout(fanout)) => Some(fanout.clone()),
        _ => None,
    };
    Some(TaskMessage {
        seq: stored.seq,
        task: queued.id,
        attempt: queued.attempt,
        parent: message.parent.clone(),
        fanout,
    })
}
