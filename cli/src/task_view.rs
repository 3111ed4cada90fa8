//! What each task of a job is doing, put together from queue, schedules, records and lease.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use air_nats::Nats;
use air_nats::queue::Queued;
use air_nats::records::At;
use air_protocol::approval::Waits;
use air_protocol::job::JobState;
use air_protocol::lease::Target;
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::{Status, is_live};
use air_protocol::task::{Need, Task};
use air_protocol::time::Time;
use serde::Serialize;

use crate::Failure;

/// What one task is doing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskView {
    /// The task.
    pub task: TaskId,
    /// queued, scheduled, blocked, running, invalid, or the status of its last record.
    pub status: &'static str,
    /// The attempt that runs or comes next; of a task that is over, the last one.
    pub attempt: u32,
    /// When its next message was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued: Option<Time>,
    /// When it comes back, if it is scheduled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<Time>,
    /// Tasks that it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<Need>,
    /// Those of them that nothing can meet, as things are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Need>,
    /// The person's word that it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person: Option<Waits>,
    /// When it ended, if it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The work, in a few words.
    pub work: String,
    /// Its labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What is known of the tasks of a job.
#[derive(Debug, Default)]
pub struct Known {
    /// Messages of the queue, in order.
    pub queued: Vec<Queued>,
    /// Schedules.
    pub scheduled: Vec<Queued>,
    /// Last records of the tasks in question.
    pub lasts: HashMap<TaskId, At>,
    /// Whether the queue is longer than what was read of it.
    pub more: u64,
    /// Last records of tasks of other jobs that are needed.
    foreign: HashMap<(JobName, TaskId), At>,
    /// Tasks of other jobs that are queued or scheduled there.
    foreign_queued: BTreeSet<(JobName, TaskId)>,
}

/// Messages that one reply brings.
const PAGE: usize = 500;

impl Known {
    /// All there is to know of a job's tasks.
    ///
    /// # Errors
    /// NATS does not answer as it should.
    pub async fn all(nats: &Nats, job: &JobName) -> Result<Self, Failure> {
        let mut known = Self {
            scheduled: nats.scheduled(job).await?,
            queued: queue(nats, job, usize::MAX).await?.0,
            ..Self::default()
        };
        let mut after = 0;
        loop {
            let (records, more) = nats.records_after(job, after, PAGE).await?;
            let Some((last, _)) = records.last() else {
                break;
            };
            after = *last;
            known
                .lasts
                .extend(records.into_iter().map(|at| (at.1.task.clone(), at)));
            if !more {
                break;
            }
        }
        known.load_foreign(nats, job).await?;
        Ok(known)
    }

    /// What is waiting in a job: at most the first `most` messages of its queue, and what is scheduled.
    ///
    /// # Errors
    /// NATS does not answer as it should.
    pub async fn waiting(nats: &Nats, job: &JobName, most: usize) -> Result<Self, Failure> {
        let scheduled = nats.scheduled(job).await?;
        let (queued, more) = queue(nats, job, most).await?;
        let mut known = Self {
            queued,
            scheduled,
            more,
            ..Self::default()
        };
        let mut wanted = BTreeSet::new();
        for queued in known.queued.iter().chain(&known.scheduled) {
            wanted.insert(queued.id.clone());
            let own = needs(queued).iter().filter(|need| is_own(need, job));
            wanted.extend(own.map(|need| need.task.clone()));
        }
        let wanted: Vec<_> = wanted.into_iter().map(|task| (job.clone(), task)).collect();
        let lasts = nats.last_records(job, &wanted).await?.records;
        known.lasts = lasts
            .into_iter()
            .map(|((_, task), at)| (task, at))
            .collect();
        known.load_foreign(nats, job).await?;
        Ok(known)
    }

    async fn load_foreign(&mut self, nats: &Nats, job: &JobName) -> Result<(), Failure> {
        let mut wanted = BTreeSet::new();
        for queued in &self.queued {
            let foreign = needs(queued).iter().filter(|need| !is_own(need, job));
            wanted.extend(foreign.filter_map(|need| Some((need.job.clone()?, need.task.clone()))));
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let list: Vec<_> = wanted.iter().cloned().collect();
        self.foreign = nats.last_records(job, &list).await?.records;
        let open = wanted.iter().filter(|one| !self.foreign.contains_key(one));
        let jobs: BTreeSet<_> = open.map(|(job, _)| job.clone()).collect();
        for job in jobs {
            let (queued, _) = queue(nats, &job, usize::MAX).await?;
            let scheduled = nats.scheduled(&job).await?;
            let all = queued.into_iter().chain(scheduled);
            self.foreign_queued
                .extend(all.map(|queued| (job.clone(), queued.id)));
        }
        Ok(())
    }

    /// The view of each task, those that are over first, then in the order of the queue.
    pub fn views(&self, job: &JobName, state: Option<&JobState>) -> Vec<TaskView> {
        let running = state
            .and_then(JobState::lease)
            .and_then(|lease| lease.phase.target());
        let mut views = Vec::new();
        let mut seen = BTreeSet::new();
        let ids: BTreeSet<_> = self
            .queued
            .iter()
            .chain(&self.scheduled)
            .map(|queued| &queued.id)
            .collect();
        for queued in &self.queued {
            let last = self.lasts.get(&queued.id);
            let live = is_live(queued.attempt, last.map(|(seq, record)| record.last(*seq)));
            if live && seen.insert(queued.id.clone()) {
                views.push(self.queued_view(job, queued, running, &ids));
            }
        }
        for queued in &self.scheduled {
            if seen.insert(queued.id.clone()) {
                views.push(self.scheduled_view(queued));
            }
        }
        let mut over: Vec<_> = self
            .lasts
            .values()
            .filter(|(_, record)| !seen.contains(&record.task))
            .collect();
        over.sort_by_key(|(seq, _)| *seq);
        let mut all: Vec<_> = over.into_iter().map(over_view).collect();
        all.extend(views);
        all
    }

    fn queued_view(
        &self,
        job: &JobName,
        queued: &Queued,
        running: Option<&Target>,
        ids: &BTreeSet<&TaskId>,
    ) -> TaskView {
        let mut view = blank(queued);
        let is_running = running
            .is_some_and(|target| target.task == queued.id && target.attempt == queued.attempt);
        let (mut waits, mut unknown) = (Vec::new(), Vec::new());
        for need in needs(queued) {
            let own = is_own(need, job);
            let key = || {
                (
                    need.job.clone().unwrap_or_else(|| job.clone()),
                    need.task.clone(),
                )
            };
            let last = if own {
                self.lasts.get(&need.task)
            } else {
                self.foreign.get(&key())
            };
            if last
                .and_then(|(_, record)| record.status.meets(need.when))
                .is_some()
            {
                continue;
            }
            waits.push(need.clone());
            let coming = if own {
                ids.contains(&need.task)
            } else {
                self.foreign_queued.contains(&key())
            };
            if last.is_none() && !coming && (!own || self.more == 0) {
                unknown.push(need.clone());
            }
        }
        view.status = match (&queued.task, is_running, waits.is_empty()) {
            (_, true, _) => "running",
            (Err(_), ..) => "invalid",
            (_, _, false) => "blocked",
            (_, _, true) => "queued",
        };
        if view.status == "blocked" {
            (view.waits_for, view.unknown) = (waits, unknown);
        }
        view
    }

    fn scheduled_view(&self, queued: &Queued) -> TaskView {
        let mut view = blank(queued);
        let last = self.lasts.get(&queued.id).map(|(_, record)| record);
        view.status = "scheduled";
        view.due = last
            .and_then(|record| record.retry_at)
            .or_else(|| queued.task.as_ref().ok()?.not_before);
        view.error = last.and_then(|record| record.error.clone());
        view
    }
}

fn over_view((_, record): &At) -> TaskView {
    TaskView {
        task: record.task.clone(),
        status: record.status.as_str(),
        attempt: record.attempt,
        queued: record.queued,
        due: record.retry_at,
        waits_for: Vec::new(),
        unknown: Vec::new(),
        person: record.waits.clone(),
        ended: Some(record.ended).filter(|_| record.status.is_final()),
        error: record.error.clone(),
        work: record
            .spec
            .as_ref()
            .map(|task| task.work.summary())
            .unwrap_or_default(),
        labels: record
            .spec
            .as_ref()
            .map(|task| task.labels.clone())
            .unwrap_or_default(),
    }
}

fn blank(queued: &Queued) -> TaskView {
    let task = queued.task.as_ref();
    TaskView {
        task: queued.id.clone(),
        status: "queued",
        attempt: queued.attempt,
        queued: Some(queued.queued),
        due: None,
        waits_for: Vec::new(),
        unknown: Vec::new(),
        person: None,
        ended: None,
        error: task.err().map(|invalid| invalid.reason.clone()),
        work: task.map_or_else(|invalid| invalid.head.clone(), |task| task.work.summary()),
        labels: task.map(|task| task.labels.clone()).unwrap_or_default(),
    }
}

fn needs(queued: &Queued) -> &[Need] {
    queued.task.as_ref().map_or(&[], |task: &Task| &task.needs)
}

fn is_own(need: &Need, job: &JobName) -> bool {
    need.job.as_ref().is_none_or(|other| other == job)
}

/// Up to `most` messages of a queue, and how many follow.
///
/// # Errors
/// NATS does not answer as it should.
pub async fn queue(nats: &Nats, job: &JobName, most: usize) -> Result<(Vec<Queued>, u64), Failure> {
    let (mut all, mut from) = (Vec::new(), 1);
    loop {
        let count = PAGE.min(most - all.len());
        let (page, more) = nats.queued(job, from, count).await?;
        let Some(last) = page.last() else {
            return Ok((all, 0));
        };
        from = last.seq + 1;
        all.extend(page);
        if more == 0 || all.len() >= most {
            return Ok((all, more));
        }
    }
}

/// Words that `--status` knows.
pub fn statuses() -> Vec<&'static str> {
    let mut words = vec!["queued", "scheduled", "blocked", "running", "invalid"];
    words.extend(Status::ALL.map(Status::as_str));
    words
}

#[cfg(test)]
mod tests;
