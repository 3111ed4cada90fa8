//! Removes the working trees that runners of this host left behind, once their tasks are over.
//!
//! A runner removes its own. What is found here was left by one that was killed, or belongs to a task that was ended
//! elsewhere: on another host, or by a person. Nothing of an open task is touched, and nothing that cannot be judged.

use std::time::Duration;

use air_nats::jobs::Key;
use air_nats::{Error, Nats};
use air_protocol::limits::{SWEEP_EVERY, WORKSPACE_ABANDONED_AGE, WORKSPACE_REPO_AGE};
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::Status;
use air_runner::workspace::Base;
use air_runner::workspace::sweep::{Leftover, forget_repositories, leftovers};

/// Time that a task without any record gets to have one: its first attempt may be about to begin.
const UNRECORDED_AGE: Duration = Duration::from_secs(10 * 60);

/// Looks now, and again and again.
pub(crate) async fn sweep(nats: Nats, system: String) {
    let base = Base::from_env(|name| std::env::var_os(name));
    loop {
        match look(&nats, &base, &system).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "removed working trees of tasks that are over"),
            Err(error) => tracing::warn!(%error, "could not look for working trees"),
        }
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}

/// Removes what is over; tells how many.
async fn look(nats: &Nats, base: &Base, system: &str) -> Result<usize, String> {
    let there = base.clone();
    let found = blocking(move || leftovers(&there).map_err(|error| error.to_string())).await?;
    let mut count = 0;
    for leftover in found {
        let over = match leftover.system == system {
            true => is_over(nats, &leftover).await,
            false => Ok(leftover.age > WORKSPACE_ABANDONED_AGE),
        };
        let path = leftover.path().to_owned();
        match over {
            Ok(false) => continue,
            Ok(true) => {}
            Err(error) => {
                tracing::debug!(%error, path = %path.display(), "cannot judge a working tree");
                continue;
            }
        }
        match blocking(move || leftover.remove().map_err(|error| error.to_string())).await {
            Ok(removed) => count += usize::from(removed),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "working tree not removed")
            }
        }
    }
    let there = base.clone();
    let forget = move || forget_repositories(&there, WORKSPACE_REPO_AGE);
    blocking(move || forget().map_err(|error| error.to_string())).await?;
    Ok(count)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| error.to_string())?
}

/// Whether nobody will go on in a working tree of this installation. The record is asked for first: the task that was
/// open then has not become a new one since.
async fn is_over(nats: &Nats, leftover: &Leftover) -> Result<bool, Error> {
    let names = (
        leftover.job.parse::<JobName>(),
        leftover.task.parse::<TaskId>(),
    );
    let (Ok(job), Ok(task)) = names else {
        return Ok(false);
    };
    let last = nats.last_record(&job, &task).await?;
    let status = last.map(|(_, record)| record.status);
    let key = nats.job(&job).await?;
    Ok(decide(status, &key, &task, leftover.age))
}

/// `status` is that of the task's last record.
fn decide(status: Option<Status>, key: &Key, task: &TaskId, age: Duration) -> bool {
    let works = |state: &air_protocol::job::JobState| {
        let target = state.lease().and_then(|lease| lease.phase.target());
        target.is_some_and(|target| target.task == *task)
    };
    match status {
        Some(status) => status.is_final(),
        None if age < UNRECORDED_AGE => false,
        // Its record was removed with its job, or is too old to be kept.
        None => match key {
            Key::Absent | Key::Deleted(_) => true,
            Key::State(state, _) => !works(state),
            Key::Garbage(..) | Key::Newer(..) => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use air_protocol::job::{JobState, JobStatus};
    use air_protocol::lease::{Lease, Phase, Target};
    use air_protocol::time::{Span, Time};
    use uuid::Uuid;

    use super::*;

    fn working_on(task: &str) -> Key {
        let target = Target {
            task: task.parse().unwrap(),
            seq: 1,
            attempt: 1,
            expected: 0,
        };
        let at = Time::default();
        let lease = Lease {
            runner: Uuid::nil(),
            manager: "m".into(),
            backend: "process".into(),
            realm: None,
            budget: None,
            claimed: at,
            renewed: at,
            ttl: Span(Duration::from_secs(30)),
            start_within: Span(Duration::from_secs(10)),
            phase: Phase::Starting { target },
        };
        let status = JobStatus::Working { lease };
        let state = JobState {
            status,
            ..JobState::new(at)
        };
        Key::State(Box::new(state), 1)
    }

    #[test]
    fn only_what_no_attempt_will_go_on_in_is_over() {
        let task = "t".parse().unwrap();
        let (young, old) = (Duration::ZERO, 2 * UNRECORDED_AGE);
        let waiting = Key::State(Box::new(JobState::new(Time::default())), 1);
        for status in Status::ALL {
            let over = decide(Some(status), &waiting, &task, young);
            assert_eq!(over, status.is_final(), "{status:?}");
        }
        for (key, over) in [
            (Key::Absent, true),
            (Key::Deleted(3), true),
            (waiting, true),
            (working_on("u"), true),
            (working_on("t"), false),
            (Key::Garbage(1, String::new()), false),
            (Key::Newer(1, String::new()), false),
        ] {
            assert_eq!(decide(None, &key, &task, old), over, "{key:?}");
            assert!(!decide(None, &key, &task, young), "{key:?}");
        }
    }
}
