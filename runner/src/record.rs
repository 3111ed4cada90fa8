//! From a report to a commit: the record, and what exists exactly if the record does. Pure but for
//! the names and ids that come in.

use air_nats::commit::{Commit, NewTask, With};
use air_protocol::fate::{Fate, Tally, fate};
use air_protocol::record::{Record, Status};
use air_protocol::time::Time;

use crate::hold::Hold;
use crate::judge::Report;
use crate::look::Found;

/// One attempt, as far as it is known before anything runs.
pub(crate) struct Attempt<'a> {
    pub(crate) hold: &'a Hold,
    pub(crate) found: &'a Found,
    /// Name of the backend that started the runner.
    pub(crate) backend: &'a str,
}

impl Attempt<'_> {
    /// What is committed for `report`.
    pub(crate) fn commit_of(&self, report: &Report, now: Time) -> Commit {
        let fate = self.fate(report, now);
        let mut with: Vec<_> = (report.family.tasks.iter().cloned())
            .map(With::Task)
            .collect();
        if let Some(next) = self.next_attempt(&fate, now) {
            with.push(next);
        }
        Commit {
            job: self.hold.job.clone(),
            record: self.record(report, &fate, now),
            with,
            wire: self.found.spec.wire,
        }
    }

    fn fate(&self, report: &Report, now: Time) -> Fate {
        let tally = match &self.found.last {
            Some((_, last)) if last.status != Status::Reset => Tally {
                failures: last.failures,
                losses: last.losses,
            },
            _ => Tally::default(),
        };
        let retry = match &self.found.queued.task {
            Ok(task) => self.found.spec.retry_of(task),
            Err(_) => self.found.spec.retry.clone().unwrap_or_default(),
        };
        let jitter = self.hold.runner.as_bytes()[15];
        fate(report.outcome, tally, &retry, now, jitter)
    }

    fn record(&self, report: &Report, fate: &Fate, now: Time) -> Record {
        let (hold, found) = (self.hold, self.found);
        let target = &hold.target;
        let spec = found.queued.task.as_ref().ok().cloned().map(|mut task| {
            task.id = Some(target.task.clone());
            task
        });
        Record {
            failures: fate.tally.failures,
            losses: fate.tally.losses,
            seq: Some(target.seq),
            run: Some(hold.runner),
            fence: Some(hold.fence),
            released: Some(hold.last_record()),
            exit: report.exit,
            signal: report.signal,
            error: report.error.clone(),
            output: report.output.clone(),
            tail: report.tail.clone(),
            queued: Some(found.queued.queued),
            claimed: Some(hold.claimed),
            started: report.started,
            retry_at: fate.retry_at,
            cpu_ms: report.cpu_ms,
            max_rss_kb: report.max_rss_kb,
            subtasks: report.family.count,
            jobs: report.family.jobs.clone(),
            host: Some(hold.host.clone()),
            backend: Some(self.backend.to_owned()),
            parent: found.queued.parent.clone(),
            traceparent: found.queued.traceparent.clone(),
            spec,
            ..Record::new(target.task.clone(), fate.status, target.attempt, now)
        }
        .follows(
            found.last.as_ref().map(|(_, last)| last.status),
            target.expected,
        )
    }

    fn next_attempt(&self, fate: &Fate, now: Time) -> Option<With> {
        let at = fate.retry_at?;
        let queued = &self.found.queued;
        let next = NewTask {
            job: self.hold.job.clone(),
            id: self.hold.target.task.clone(),
            task: queued.task.as_ref().ok()?.clone(),
            attempt: self.hold.target.attempt + 1,
            parent: queued.parent.clone(),
            traceparent: queued.traceparent.clone(),
        };
        Some(if at <= now {
            With::Task(next)
        } else {
            With::Schedule(next, at)
        })
    }
}
