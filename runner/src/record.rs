//! From a report to a commit: the record, and what exists exactly if the record does. Pure but for
//! the names and ids that come in.

use air_nats::commit::{Commit, NewTask, With};
use air_protocol::budget::Limits;
use air_protocol::fate::{Fate, Tally, fate};
use air_protocol::lease::Target;
use air_protocol::names::JobName;
use air_protocol::record::{Record, Status, next_attempt};
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
    /// What is reserved for it.
    pub(crate) limits: Limits,
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
            cost: report.cost,
            agent: report.agent.clone(),
            subtasks: report.family.count,
            jobs: report.family.jobs.clone(),
            waits: report.waits.clone(),
            replies: found.replies().to_vec(),
            host: Some(self.host.to_owned()),
            backend: Some(self.backend.to_owned()),
            parent: found.queued.parent.clone(),
            budget: found.queued.leash.budget.clone(),
            depth: found.queued.leash.depth,
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
            attempt: next_attempt(self.target.attempt),
            parent: queued.parent.clone(),
            leash: queued.leash.clone(),
            traceparent: queued.traceparent.clone(),
        };
        Some(if at <= now {
            With::Task(next)
        } else {
            With::Schedule(next, at)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use air_nats::queue::{Invalid, Queued};
    use air_protocol::agent::AgentRun;
    use air_protocol::approval::Waits;
    use air_protocol::budget::Leash;
    use air_protocol::cost::Cost;
    use air_protocol::fate::Outcome;
    use air_protocol::spec::Spec;
    use air_protocol::task::{Task, Work};

    use super::*;

    const NOW: Time = Time::from_millis(1_000_000);

    fn target() -> Target {
        Target {
            task: "t".parse().unwrap(),
            seq: 5,
            attempt: 2,
            expected: 3,
        }
    }

    fn before(status: Status) -> Record {
        let mut record = Record::new("t".parse().unwrap(), status, 1, NOW);
        (record.failures, record.losses) = (2, 1);
        record
    }

    fn found(last: Option<(u64, Record)>) -> Found {
        let queued = Queued {
            seq: 5,
            queued: Time::from_millis(800_000),
            id: "t".parse().unwrap(),
            attempt: 2,
            parent: Some("j/parent".into()),
            leash: Leash {
                budget: Some("root".parse().unwrap()),
                depth: 3,
            },
            traceparent: Some("trace".into()),
            task: Ok(Task::new(Work::Run("true".into()))),
        };
        Found {
            queued,
            last,
            spec: Spec::default(),
        }
    }

    fn commit(found: &Found, report: &Report) -> Commit {
        let claimed = Claimed {
            job: &"j".parse().unwrap(),
            runner: Uuid::from_u128(1 << 8),
            fence: 7,
            released: 4,
            host: "h",
            target: &target(),
            claimed: Time::from_millis(900_000),
            backend: "process",
        };
        claimed.commit_of(found, report, NOW)
    }

    #[test]
    fn a_record_follows_the_one_that_the_claim_expects() {
        // What was read may be newer than the claim by now: the claim decides.
        let found = found(Some((9, before(Status::Retrying))));
        let record = commit(&found, &Report::new(Outcome::Succeeded)).record;
        assert_eq!((record.after, record.previous), (3, Some(Status::Retrying)));
        assert_eq!((record.seq, record.attempt), (Some(5), 2));
        assert_eq!((record.fence, record.released), (Some(7), Some(4)));
        assert_eq!(record.run, Some(Uuid::from_u128(1 << 8)));
        assert_eq!(record.claimed, Some(Time::from_millis(900_000)));
        assert_eq!(record.queued, Some(Time::from_millis(800_000)));
        assert_eq!(Leash::of_record(&record), found.queued.leash);
        assert_eq!(record.spec.unwrap().id, Some(target().task));
        assert_eq!(record.parent.as_deref(), Some("j/parent"));
        assert_eq!(record.traceparent.as_deref(), Some("trace"));
        assert_eq!(record.host.as_deref(), Some("h"));
        assert_eq!(record.backend.as_deref(), Some("process"));
    }

    #[test]
    fn a_record_says_what_the_program_did() {
        let mut report = Report::new(Outcome::Succeeded);
        (report.exit, report.signal) = (Some(0), Some(9));
        report.error = Some("error".into());
        report.output = Some(serde_json::json!({ "a": 1 }));
        report.tail = Some("tail".into());
        report.started = Some(Time::from_millis(950_000));
        (report.cpu_ms, report.max_rss_kb) = (Some(11), Some(12));
        report.cost = Some(Cost {
            turns: 14,
            ..Cost::default()
        });
        report.waits = Some(Waits::Approval {
            reason: "a rule".into(),
        });
        report.agent = Some(AgentRun {
            session: Some("s".into()),
            ..AgentRun::default()
        });
        report.family.count = 13;
        report.family.jobs = vec!["k".parse().unwrap()];
        let record = commit(&found(None), &report).record;
        assert_eq!((record.exit, record.signal), (report.exit, report.signal));
        assert_eq!((&record.error, &record.tail), (&report.error, &report.tail));
        assert_eq!(record.output, report.output);
        assert_eq!(record.started, report.started);
        assert_eq!((record.cpu_ms, record.max_rss_kb), (Some(11), Some(12)));
        assert_eq!((record.subtasks, record.jobs), (13, report.family.jobs));
        assert_eq!((record.waits, record.agent), (report.waits, report.agent));
        assert_eq!(record.cost, report.cost);
    }

    #[test]
    fn a_failed_attempt_is_tried_again_later_by_one_timer() {
        let last = Some((3, before(Status::Retrying)));
        let commit = commit(&found(last), &Report::new(Outcome::Failed));
        let record = &commit.record;
        assert_eq!((record.status, record.failures), (Status::Retrying, 3));
        assert_eq!(record.losses, 1);
        let at = record.retry_at.unwrap();
        let [With::Schedule(again, due)] = &commit.with[..] else {
            panic!("{:?}", commit.with)
        };
        assert!(at > NOW.after(Duration::from_secs(1)) && *due == at);
        assert_eq!((again.attempt, again.id.as_str()), (3, "t"));
        assert_eq!(again.parent.as_deref(), Some("j/parent"));
        assert_eq!(again.traceparent.as_deref(), Some("trace"));
        assert_eq!(again.leash.depth, 3);
        assert_eq!(again.leash.budget, Some("root".parse().unwrap()));
    }

    #[test]
    fn what_people_said_stands_in_every_further_record() {
        let mut last = before(Status::Reset);
        last.replies = vec![air_protocol::approval::Reply {
            question: None,
            text: "fine".into(),
            at: NOW,
        }];
        let replies = last.replies.clone();
        let found = found(Some((3, last)));
        for outcome in [Outcome::Succeeded, Outcome::Failed, Outcome::Parked] {
            let record = commit(&found, &Report::new(outcome)).record;
            assert_eq!(record.replies, replies, "{outcome:?}");
        }
    }

    #[test]
    fn a_lost_attempt_is_queued_again_at_once() {
        let commit = commit(&found(None), &Report::new(Outcome::Lost));
        assert_eq!(commit.record.losses, 1);
        assert!(matches!(&commit.with[..], [With::Task(again)] if again.attempt == 3));
    }

    #[test]
    fn a_reset_begins_to_count_anew() {
        let last = Some((3, before(Status::Reset)));
        let record = commit(&found(last), &Report::new(Outcome::Failed)).record;
        assert_eq!((record.failures, record.losses), (1, 0));
    }

    #[test]
    fn what_is_no_task_has_no_next_attempt() {
        let mut found = found(None);
        found.queued.task = Err(Invalid {
            reason: "no JSON".into(),
            head: "{".into(),
        });
        let commit = commit(&found, &Report::new(Outcome::FailedForGood));
        assert_eq!(commit.record.status, Status::Failed);
        assert!(commit.record.spec.is_none() && commit.with.is_empty());
    }
}
