//! From a report to a commit: the record, and what exists exactly if the record does. Pure but for
//! the names and ids that come in.

use air_nats::commit::{Commit, NewTask, With};
use air_protocol::fate::{Fate, Tally, fate};
use air_protocol::lease::Target;
use air_protocol::names::JobName;
use air_protocol::record::{Record, Status};
use air_protocol::time::Time;
use uuid::Uuid;

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

/// Whose attempt it is, and under which claim.
#[derive(Debug, Clone, Copy)]
pub struct Claimed<'a> {
    /// The job.
    pub job: &'a JobName,
    /// The runner.
    pub runner: Uuid,
    /// Revision of the claim.
    pub fence: u64,
    /// The last record that a release had named by then.
    pub released: u64,
    /// Host of the runner.
    pub host: &'a str,
    /// The attempt.
    pub target: &'a Target,
    /// When the manager claimed.
    pub claimed: Time,
    /// Name of the backend that started the runner.
    pub backend: &'a str,
}

impl Attempt<'_> {
    /// What is committed for `report`.
    pub(crate) fn commit_of(&self, report: &Report, now: Time) -> Commit {
        let hold = self.hold;
        let claimed = Claimed {
            job: &hold.job,
            runner: hold.runner,
            fence: hold.fence,
            released: hold.last_record(),
            host: &hold.host,
            target: &hold.target,
            claimed: hold.claimed,
            backend: self.backend,
        };
        claimed.commit_of(self.found, report, now)
    }
}

impl Claimed<'_> {
    /// What is committed for `report` on what was found.
    pub fn commit_of(&self, found: &Found, report: &Report, now: Time) -> Commit {
        let fate = self.fate(found, report, now);
        let mut with: Vec<_> = (report.family.tasks.iter().cloned())
            .map(With::Task)
            .collect();
        if let Some(next) = self.next_attempt(found, &fate, now) {
            with.push(next);
        }
        Commit {
            job: self.job.clone(),
            record: self.record(found, report, &fate, now),
            with,
            wire: found.spec.wire,
        }
    }

    fn fate(&self, found: &Found, report: &Report, now: Time) -> Fate {
        let tally = match &found.last {
            Some((_, last)) if last.status != Status::Reset => Tally {
                failures: last.failures,
                losses: last.losses,
            },
            _ => Tally::default(),
        };
        let retry = match &found.queued.task {
            Ok(task) => found.spec.retry_of(task),
            Err(_) => found.spec.retry.clone().unwrap_or_default(),
        };
        let jitter = self.runner.as_bytes()[15];
        fate(report.outcome, tally, &retry, now, jitter)
    }

    fn record(&self, found: &Found, report: &Report, fate: &Fate, now: Time) -> Record {
        let target = self.target;
        let spec = found.queued.task.as_ref().ok().cloned().map(|mut task| {
            task.id = Some(target.task.clone());
            task
        });
        Record {
            failures: fate.tally.failures,
            losses: fate.tally.losses,
            seq: Some(target.seq),
            run: Some(self.runner),
            fence: Some(self.fence),
            released: Some(self.released),
            exit: report.exit,
            signal: report.signal,
            error: report.error.clone(),
            output: report.output.clone(),
            tail: report.tail.clone(),
            queued: Some(found.queued.queued),
            claimed: Some(self.claimed),
            started: report.started,
            retry_at: fate.retry_at,
            cpu_ms: report.cpu_ms,
            max_rss_kb: report.max_rss_kb,
            subtasks: report.family.count,
            jobs: report.family.jobs.clone(),
            host: Some(self.host.to_owned()),
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

    fn next_attempt(&self, found: &Found, fate: &Fate, now: Time) -> Option<With> {
        let at = fate.retry_at?;
        let queued = &found.queued;
        let next = NewTask {
            job: self.job.clone(),
            id: self.target.task.clone(),
            task: queued.task.as_ref().ok()?.clone(),
            attempt: self.target.attempt + 1,
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
