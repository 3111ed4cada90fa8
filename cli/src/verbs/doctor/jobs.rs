//! Keys and specs of jobs: what cannot be read, what is stuck, what has failed.

use std::time::Duration;

use air_nats::jobs::Key;
use air_nats::queue::Queues;
use air_nats::specs::spec_of;
use air_nats::{Entry, Nats};
use air_protocol::job::{JobState, JobStatus};
use air_protocol::lease::Phase;
use air_protocol::limits::POLL_MAX;
use air_protocol::names::JobName;
use air_protocol::time::Time;

use super::{Check, Level, check};
use crate::Failure;
use crate::app::{count, now, short};

/// Looks at all jobs.
pub(super) async fn look(nats: &Nats) -> Result<Vec<Check>, Failure> {
    let keys = nats.all_jobs().await?;
    let specs = nats.all_specs().await?;
    let Queues {
        jobs: queues, bad, ..
    } = nats.queues().await?;
    let server = nats.server_time().await?;
    let bucket = nats.names().jobs_bucket();
    let mut checks = Vec::new();
    for subject in bad {
        checks.push(check(
            Level::Warning,
            &subject,
            "it names no job",
            "managers delete its messages; publish to a job named by A-Z a-z 0-9 _ -",
        ));
    }
    let mut jobs = 0;
    for entry in keys.iter().filter(|entry| entry.value.is_some()) {
        jobs += 1;
        checks.extend(of_key(entry, &bucket, server));
    }
    for entry in specs.iter().filter(|entry| entry.value.is_some()) {
        checks.extend(of_spec(entry));
    }
    let queued: u64 = queues.values().sum();
    checks.push(check(
        Level::Ok,
        "jobs",
        format!(
            "{}, {} queued",
            count(jobs, "job"),
            count(queued, "message")
        ),
        "",
    ));
    Ok(checks)
}

fn of_key(entry: &Entry, bucket: &str, server: Time) -> Vec<Check> {
    let about = format!("job {}", entry.key);
    if entry.key.parse::<JobName>().is_err() {
        return vec![check(
            Level::Wrong,
            &about,
            "its name is none",
            format!("nats kv del {bucket} '{}'", entry.key),
        )];
    }
    match Key::of_entry(Some(entry)) {
        Key::State(state, _) => of_state(&about, &entry.key, &state, server.since(entry.time)),
        Key::Garbage(_, reason) => vec![check(
            Level::Wrong,
            &about,
            format!("its key cannot be read: {reason}"),
            "a manager rebuilds it from the records within its next poll",
        )],
        Key::Newer(_, reason) => vec![check(
            Level::Wrong,
            &about,
            format!("its key is of a newer version: {reason}"),
            "managers and `airx` of this version leave the job alone: update them",
        )],
        Key::Absent | Key::Deleted(_) => Vec::new(),
    }
}

/// `age` is the time since the key was written, by the server's clock.
fn of_state(about: &str, job: &str, state: &JobState, age: Duration) -> Vec<Check> {
    let mut checks = Vec::new();
    if let JobStatus::Failed { task } = &state.status {
        let at = task
            .as_ref()
            .map(|task| format!(" at the task {task}"))
            .unwrap_or_default();
        checks.push(check(
            Level::Warning,
            about,
            format!("it failed{at}, and its tasks wait"),
            format!("`airx retry {job}`, or `airx resume {job}`"),
        ));
    }
    if let Some(lease) = state.lease() {
        let most = match lease.phase {
            Phase::Starting { .. } => lease.start_within.0,
            _ => lease.ttl.0,
        };
        if age > most + POLL_MAX {
            checks.push(check(
                Level::Wrong,
                about,
                format!(
                    "its lease was renewed {} ago, and nobody has taken it over",
                    short(age)
                ),
                "start a manager, and look at the logs of those that run",
            ));
        }
    }
    if let Some(error) = &state.start_error {
        checks.push(check(
            Level::Warning,
            about,
            format!("its runner does not start: {error}"),
            "mend what it says; the managers go on trying",
        ));
    }
    let held = state.hold_until.is_some_and(|until| until > now());
    if held && state.start_error.is_none() {
        checks.push(check(
            Level::Note,
            about,
            "it is held for a moment after a recovery",
            "",
        ));
    }
    checks
}

fn of_spec(entry: &Entry) -> Option<Check> {
    let about = format!("spec {}", entry.key);
    let mend = format!("`airx spec {} edit`", entry.key);
    match spec_of(Some(entry)) {
        Ok(spec) if spec.paused => Some(check(
            Level::Note,
            &about,
            "the job is paused",
            format!("`airx resume {}`", entry.key),
        )),
        Ok(_) => None,
        Err(reason) => Some(check(
            Level::Wrong,
            &about,
            format!("it is invalid, and blocks the job: {reason}"),
            mend,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &str) -> Entry {
        Entry {
            key: key.into(),
            value: Some(value.as_bytes().to_vec().into()),
            revision: 1,
            time: Time::from_millis(0),
        }
    }

    #[test]
    fn an_old_lease_is_overdue() {
        let lease = |phase: &str| {
            format!(
                r#"{{"v":1,"status":"working","lease":{{"runner":"0190b2c4-0000-7000-8000-000000000000","manager":"m","backend":"process","claimed":"2026-01-01T00:00:00Z","renewed":"2026-01-01T00:00:00Z","ttl":"30s","start_within":"10m",{phase}}},"last_record":0,"updated":"2026-01-01T00:00:00Z"}}"#
            )
        };
        let target = r#""target":{"task":"t","seq":1,"attempt":1,"expected":0}"#;
        let starting = entry("j", &lease(&format!(r#""phase":"starting",{target}"#)));
        let at = |seconds: u64| Time::from_millis(seconds * 1000);
        assert_eq!(of_key(&starting, "air-jobs", at(600)), []);
        let found = of_key(&starting, "air-jobs", at(700));
        assert!(found[0].found.contains("taken it over"), "{found:?}");
    }

    #[test]
    fn what_cannot_be_read_is_wrong() {
        assert_eq!(
            of_key(&entry("j", "{"), "air-jobs", Time::from_millis(0))[0].check,
            Level::Wrong
        );
        assert!(
            of_key(&entry("a.b", "{}"), "air-jobs", Time::from_millis(0))[0]
                .mend
                .contains("kv del")
        );
        let spec = of_spec(&entry("j", r#"{"pause":1}"#)).unwrap();
        assert!(spec.found.contains("did you mean `paused`"), "{spec:?}");
        assert_eq!(of_spec(&entry("j", "{}")), None);
    }
}
