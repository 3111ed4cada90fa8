//! What `airx status -o json` says at a moment.

use serde_json::Value;

use crate::error::{Error, Result};

/// All jobs at a moment.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub(super) jobs: Vec<Job>,
}

/// One job at a moment.
#[derive(Debug, Default)]
pub(super) struct Job {
    pub(super) name: String,
    status: String,
    problem: Option<String>,
    /// Messages that wait.
    queued: u64,
    /// The task that a runner works on.
    running: Option<String>,
    /// Tasks that are over.
    finished: u64,
    /// Tasks that are over, and did not succeed.
    lost: u64,
    /// Tasks that wait for their next attempt.
    retrying: u64,
    attempts: u64,
    subtasks: u64,
}

impl Sample {
    /// Reads the answer.
    ///
    /// # Errors
    /// It is not what we know.
    pub(super) fn of(answer: &Value) -> Result<Self> {
        let jobs = answer.as_array().map(|rows| rows.iter().map(Job::of));
        let jobs = jobs.and_then(Iterator::collect::<Option<Vec<_>>>);
        let jobs = jobs.ok_or_else(|| Error::Answer {
            command: "airx status -o json".into(),
            what: answer.to_string().chars().take(200).collect(),
        })?;
        Ok(Self { jobs })
    }

    fn sum(&self, of: impl Fn(&Job) -> u64) -> u64 {
        self.jobs.iter().map(of).sum()
    }

    /// Tasks that are over.
    pub(super) fn finished(&self) -> u64 {
        self.sum(|job| job.finished)
    }

    /// Tasks that are known so far: the first one, and all that tasks have queued.
    pub(super) fn known(&self) -> u64 {
        1 + self.sum(|job| job.subtasks)
    }

    /// Messages that wait in queues.
    pub(super) fn queued(&self) -> u64 {
        self.sum(|job| job.queued)
    }

    /// Runners that are at work.
    pub(super) fn runners(&self) -> u64 {
        self.sum(|job| u64::from(job.running.is_some()))
    }

    /// Attempts after the first of a task.
    pub(super) fn retries(&self) -> u64 {
        self.sum(|job| job.attempts.saturating_sub(job.finished + job.retrying))
    }

    /// Tasks that wait for their next attempt.
    pub(super) fn retrying(&self) -> u64 {
        self.sum(|job| job.retrying)
    }

    /// Whether every task is over, and every job has noticed.
    pub(super) fn is_over(&self) -> bool {
        let completed = self.jobs.iter().all(|job| job.status == "completed");
        completed && self.finished() == self.known() && self.finished() > 1
    }

    /// What will not mend itself.
    pub(super) fn problem(&self) -> Option<String> {
        self.jobs.iter().find_map(|job| {
            let ended = ["failed", "cancelled", "garbage"].contains(&job.status.as_str());
            let why = job.problem.clone().unwrap_or_default();
            (ended || job.lost > 0).then(|| format!("the job {} is {} {why}", job.name, job.status))
        })
    }
}

impl Job {
    fn of(row: &Value) -> Option<Self> {
        let counters = &row["counters"];
        let count = |name: &str| counters[name].as_u64();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let lost = count("failed")? + count("cancelled")? + count("skipped")?;
        Some(Self {
            name: text(&row["job"])?,
            status: text(&row["status"])?,
            problem: text(&row["problem"]),
            queued: row["queued"].as_u64()?,
            running: text(&row["running"]["task"]),
            finished: count("succeeded")? + lost,
            lost,
            retrying: count("retrying")?,
            attempts: count("attempts")?,
            subtasks: count("subtasks")?,
        })
    }

    /// The job in one line.
    pub(super) fn line(&self) -> String {
        let running = self.running.as_deref().unwrap_or_default();
        format!(
            "{:<9} {:<10} {:>5} done {:>5} queued  {running}",
            self.name, self.status, self.finished, self.queued
        )
    }

    /// Whether it has begun and is not over.
    pub(super) fn is_open(&self) -> bool {
        self.status != "completed"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer of a real `airx status -o json`, with two jobs.
    fn answer(status: &str, succeeded: u64) -> Value {
        let counters = |succeeded: u64, subtasks: u64| {
            serde_json::json!({
                "succeeded": succeeded, "failed": 0, "cancelled": 0, "skipped": 0, "retrying": 1, "reset": 0,
                "parked": 0, "attempts": succeeded + 3, "losses": 0, "subtasks": subtasks, "cpu_ms": 7,
            })
        };
        serde_json::json!([
            { "job": "audit", "status": "completed", "queued": 0, "counters": counters(2, 4) },
            { "job": "audit-1", "status": status, "queued": 5, "counters": counters(succeeded, 0),
              "running": { "task": "files-a-0", "attempt": 1, "claimed": "2026-01-31T08:00:00.000Z" } },
        ])
    }

    #[test]
    fn an_audit_is_over_when_every_task_is() {
        let sample = Sample::of(&answer("completed", 3)).unwrap();
        assert!(sample.is_over());
        assert_eq!(
            (sample.finished(), sample.known(), sample.runners()),
            (5, 5, 1)
        );
        assert_eq!(
            (sample.retries(), sample.retrying(), sample.queued()),
            (4, 2, 5)
        );
        assert!(!Sample::of(&answer("working", 3)).unwrap().is_over());
        assert!(!Sample::of(&answer("completed", 2)).unwrap().is_over());
        assert!(!Sample::default().is_over());
    }

    #[test]
    fn what_will_not_mend_itself_is_told() {
        assert_eq!(Sample::of(&answer("working", 1)).unwrap().problem(), None);
        let problem = Sample::of(&answer("failed", 1)).unwrap().problem();
        assert!(problem.unwrap().contains("audit-1 is failed"));
        let error = Sample::of(&serde_json::json!({"a": 1})).unwrap_err();
        assert!(error.to_string().contains("airx status"));
    }
}
