//! Requeueing: publishes tasks again that are to be tried again, and whose next message is gone.
//!
//! No part of this system loses a message. But a stream may lack one all the same: a backup that was made while
//! managers work does, and somebody may have deleted it. It needs no lease: a message is live by its attempt, and
//! the broker takes it only while the record is the last that says it is to come.

use std::collections::HashMap;

use air_nats::commit::{NewTask, With};
use air_nats::queue::Queued;
use air_nats::records::At;
use air_protocol::event::{Data, Kind};
use air_protocol::ledger::Ledger;
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::{Last, Record, is_live, next_attempt};
use air_protocol::time::Time;

use crate::advance::Failed;
use crate::shared::Shared;

/// What a search came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// So many tasks had no message, and have one again.
    Lost(u64),
    /// The ledger is not what the records come to.
    Miscounted,
}

/// Tasks that are to be tried again, by their last records, and of which no message was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unseen(HashMap<TaskId, Last>);

impl Unseen {
    /// Takes in the next record of a job, stored at `seq`.
    pub fn record(&mut self, seq: u64, record: &Record) {
        if record.status.has_next() {
            self.0.insert(record.task.clone(), record.last(seq));
        } else {
            self.0.remove(&record.task);
        }
    }

    /// Takes in a message of the queue, or of a schedule.
    pub fn message(&mut self, message: &Queued) {
        let last = self.0.get(&message.id).copied();
        if last.is_some() && is_live(message.attempt, last) {
            self.0.remove(&message.id);
        }
    }

    /// The tasks that are left, and where their last records are, oldest first.
    pub fn tasks(self) -> Vec<(TaskId, u64)> {
        let tasks = self.0.into_iter().map(|(task, last)| (task, last.seq));
        let mut tasks: Vec<_> = tasks.collect();
        tasks.sort_by_key(|(_, seq)| *seq);
        tasks
    }
}

/// The message of a task's next attempt, from its last record: a schedule where its time is to come. None where
/// the record does not say what the task was.
pub fn again(job: &JobName, last: &Record, now: Time) -> Option<With> {
    let task = NewTask::again(job, last)?;
    Some(match last.retry_at.filter(|at| *at > now) {
        Some(at) => With::Schedule(task, at),
        None => With::Task(task),
    })
}

/// Searches a job for tasks whose message is gone, and publishes them again. Records first: who was open then and is
/// still must have been seen by one of the reads after it.
pub(crate) async fn requeue(
    shared: &Shared,
    job: &JobName,
    ledger: &Ledger,
) -> Result<Found, Failed> {
    let nats = &shared.nats;
    let mut counted = ledger.of_purged();
    let mut unseen = Unseen::default();
    nats.each_record(job, 0, |seq, record| {
        unseen.record(seq, &record);
        if seq <= ledger.accounted {
            counted.fold(seq, &record);
        }
    })
    .await?;
    let open = |ledger: &Ledger| (ledger.counters.retrying, ledger.counters.reset);
    if open(&counted) != open(ledger) {
        tracing::error!(%job, ?ledger, ?counted, "the key counts what its records do not say; rebuilding it");
        return Ok(Found::Miscounted);
    }
    nats.each_pending(job, |message| unseen.message(&message))
        .await?;
    let mut lost = 0;
    for (task, seq) in unseen.tasks() {
        match nats.last_record(job, &task).await? {
            Some(last) if last.0 == seq => lost += u64::from(publish(shared, job, &last).await?),
            _ => {}
        }
    }
    Ok(Found::Lost(lost))
}

/// Publishes a task again; whether it is stored.
async fn publish(shared: &Shared, job: &JobName, (seq, last): &At) -> Result<bool, Failed> {
    let nats = &shared.nats;
    let task = &last.task;
    let Some(with) = again(job, last, nats.server_time().await?) else {
        tracing::error!(%job, %task, "its message is gone, and its record has no task; cancel it");
        return Ok(false);
    };
    let wire = shared.spec(job).unwrap_or_default().wire;
    let stored = nats.publish_again(&with, *seq, wire).await?;
    if stored {
        tracing::warn!(%job, %task, attempt = next_attempt(last.attempt), "its message was gone; published it again");
        let data = Data {
            task: Some(task.clone()),
            attempt: Some(last.attempt),
            status: Some(last.status.as_str().to_owned()),
            record: Some(*seq),
            reason: Some("its message was gone".to_owned()),
            ..Data::default()
        };
        shared.tell(Kind::Retrying, job, data).await;
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use air_protocol::budget::Leash;
    use air_protocol::record::Status;
    use air_protocol::task::{Task, Work};

    use super::*;

    const NOW: Time = Time::from_millis(1_000_000);

    fn record(task: &str, status: Status, attempt: u32) -> Record {
        let mut record = Record::new(task.parse().unwrap(), status, attempt, NOW);
        record.spec = Some(Task::new(Work::Run("true".into())));
        record
    }

    fn message(task: &str, attempt: u32) -> Queued {
        Queued {
            seq: 9,
            queued: NOW,
            id: task.parse().unwrap(),
            attempt,
            parent: None,
            leash: Leash::default(),
            traceparent: None,
            task: Ok(Task::new(Work::Run("true".into()))),
        }
    }

    #[test]
    fn only_the_next_attempt_of_an_open_task_counts_as_its_message() {
        let mut unseen = Unseen::default();
        for (seq, task, status, attempt) in [
            (1, "over", Status::Retrying, 1),
            (2, "leftover", Status::Retrying, 2),
            (3, "seen", Status::Retrying, 1),
            (4, "over", Status::Succeeded, 2),
            (5, "parked", Status::Parked, 1),
            (6, "gone", Status::Retrying, 1),
            (7, "gone", Status::Failed, 2),
            (8, "gone", Status::Reset, 2),
        ] {
            unseen.record(seq, &record(task, status, attempt));
        }
        for (task, attempt) in [("seen", 2), ("leftover", 2), ("gone", 2), ("over", 2)] {
            unseen.message(&message(task, attempt));
        }
        let left = unseen.tasks();
        let left: Vec<_> = left.iter().map(|(id, seq)| (id.as_str(), *seq)).collect();
        assert_eq!(left, [("leftover", 2), ("gone", 8)]);
    }

    #[test]
    fn what_comes_again_is_what_the_record_says() {
        let job = "j".parse().unwrap();
        let mut last = record("t", Status::Retrying, 3);
        last.parent = Some("k/p".into());
        last.traceparent = Some("trace".into());
        last.retry_at = Some(NOW);
        let Some(With::Task(new)) = again(&job, &last, NOW) else {
            panic!("it is due")
        };
        assert_eq!((new.id.as_str(), new.attempt), ("t", 4));
        assert_eq!(Some(&new.task), last.spec.as_ref());
        assert_eq!(
            (new.parent, new.traceparent),
            (last.parent.clone(), last.traceparent.clone())
        );
        let later = NOW.after(Duration::from_secs(1));
        last.retry_at = Some(later);
        let Some(With::Schedule(_, at)) = again(&job, &last, NOW) else {
            panic!("its time is to come")
        };
        assert_eq!(at, later);
        last.spec = None;
        assert!(
            again(&job, &last, NOW).is_none(),
            "nobody knows what it was"
        );
    }
}
