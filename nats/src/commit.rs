//! Committing: a record, alone or with the messages that must exist exactly if it does.

use std::time::Duration;

use air_protocol::budget::Leash;
use air_protocol::codec;
use air_protocol::names::{JobName, Names, TaskId, headers};
use air_protocol::record::{Record, next_attempt};
use air_protocol::spec::Wire;
use air_protocol::task::Task;
use air_protocol::time::Time;
use async_nats::HeaderMap;
use serde::Deserialize;
use uuid::Uuid;

use crate::publish::{Outgoing, Written, until_answered};
use crate::queue::payload;
use crate::request::{Backoff, parse};
use crate::{Error, Nats};

/// The last moment for which a schedule is made, 2200-01-01: the server counts nanoseconds in 64 bits, and
/// brings back at once what is due after 2262.
const SCHEDULE_LAST: Time = Time::from_millis(7_258_118_400_000);

/// The most by which two clocks differ that count as one.
const CLOCKS_DIFFER_MAX: Duration = Duration::from_secs(1);

/// A record and what goes with it.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The job.
    pub job: JobName,
    /// The record; its `after` is the sequence that must be the last of its subject.
    pub record: Record,
    /// Messages that exist exactly if the record does.
    pub with: Vec<With>,
    /// Codec in which all of it is written.
    pub wire: Wire,
}

/// A message that goes with a record.
#[derive(Debug, Clone)]
pub enum With {
    /// A task, queued at once.
    Task(NewTask),
    /// A task, brought back by NATS at a time.
    Schedule(NewTask, Time),
    /// A pending schedule of the record's own task is taken away.
    Unschedule,
}

/// A task to be published.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// The job whose queue it joins.
    pub job: JobName,
    /// The task, with its id.
    pub id: TaskId,
    /// The task.
    pub task: Task,
    /// The attempt.
    pub attempt: u32,
    /// `<job>/<task>` that queued it.
    pub parent: Option<String>,
    /// The account that pays for it, and how deep it stands.
    pub leash: Leash,
    /// Trace context.
    pub traceparent: Option<String>,
}

impl NewTask {
    /// The next attempt of a task, from its last record; none where that does not say what the task was.
    pub fn again(job: &JobName, last: &Record) -> Option<Self> {
        Some(Self {
            job: job.clone(),
            id: last.task.clone(),
            task: last.spec.clone()?,
            attempt: next_attempt(last.attempt),
            parent: last.parent.clone(),
            leash: Leash::of_record(last),
            traceparent: last.traceparent.clone(),
        })
    }
}

/// What a commit came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// The record is stored, at this sequence.
    At(u64),
    /// Another record has ended the attempt.
    Over,
    /// The server does not take it, and never will; this is its text.
    Refused(String),
}

#[derive(Debug, Deserialize)]
struct BatchAck {
    seq: u64,
    #[serde(default)]
    count: u64,
}

impl Nats {
    /// Commits, again and again until the server accepts or refuses. Nothing else ever writes a record.
    ///
    /// # Errors
    /// [`Error`] when the connection is closed, or the answer makes no sense.
    pub async fn commit(&self, commit: &Commit) -> Result<Committed, Error> {
        let wire = self.wire_of(commit);
        let record = record_message(&self.names, commit, wire);
        let others: Vec<_> = commit
            .with
            .iter()
            .filter_map(|with| self.with_message(wire, with))
            .collect();
        let written = if others.is_empty() {
            self.store_expecting(&record).await
        } else {
            until_answered(&record.subject, || self.try_batch(&record, &others)).await
        };
        match written {
            Ok(Written::At(seq)) => Ok(Committed::At(seq)),
            Ok(Written::Superseded { unsure: false }) => Ok(Committed::Over),
            Ok(Written::Superseded { unsure: true }) => self.whose(commit).await,
            Err(Error::Api { code, text }) => Ok(Committed::Refused(format!("{text} ({code})"))),
            Err(error @ Error::TooLarge) => Ok(Committed::Refused(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Publishes the next attempt of a task again, whose message is gone, unless the task has another last record
    /// than the one stored at `last`. Whether it is stored; it may be twice, where an answer was lost.
    ///
    /// # Errors
    /// [`Error`] when NATS does not take it, or the connection is closed.
    pub async fn publish_again(&self, with: &With, last: u64, wire: Wire) -> Result<bool, Error> {
        let (With::Task(new) | With::Schedule(new, _)) = with else {
            return Ok(false);
        };
        let record = self.names.results(&new.job, &new.id);
        let Some(message) = self.with_message(wire, with) else {
            return Ok(false);
        };
        let message = message.expecting_of(&record, last);
        let written = self.store_expecting(&message).await?;
        Ok(matches!(written, Written::At(_)))
    }

    /// Moves the time of the next attempt from the clock of whoever writes the record, which shows `now`, to
    /// the server's, by which schedules fire. Clocks that differ little are left as they are.
    ///
    /// # Errors
    /// [`Error`] when the server does not tell its time.
    pub async fn retry_by_server_clock(
        &self,
        record: &mut Record,
        with: &mut [With],
        now: Time,
    ) -> Result<(), Error> {
        let scheduled = with.iter_mut().find_map(|with| match with {
            With::Schedule(_, at) => Some(at),
            With::Task(_) | With::Unschedule => None,
        });
        let Some(at) = scheduled else { return Ok(()) };
        let server = self.server_time().await?;
        if now.since(server).max(server.since(now)) > CLOCKS_DIFFER_MAX {
            *at = server.after(at.since(now));
            record.retry_at = Some(*at);
        }
        Ok(())
    }

    /// Whether the last record is the one whose commit had no answer.
    async fn whose(&self, commit: &Commit) -> Result<Committed, Error> {
        let mut backoff = Backoff::new();
        loop {
            match self.last_record(&commit.job, &commit.record.task).await {
                Ok(Some((seq, last))) if last == commit.record => return Ok(Committed::At(seq)),
                Ok(_) => return Ok(Committed::Over),
                Err(error) if error.is_passing() => backoff.wait().await,
                Err(error) => return Err(error),
            }
        }
    }

    /// The codec that was asked for; the other one where a record would be too large, and is shorter in
    /// it: text of control characters takes six times as much in JSON.
    fn wire_of(&self, commit: &Commit) -> Wire {
        let size = |wire| codec::encode(wire, &commit.record).len();
        if size(commit.wire) <= self.max_payload() / 2 {
            return commit.wire;
        }
        let both = [commit.wire, Wire::Json, Wire::Msgpack];
        both.into_iter()
            .min_by_key(|wire| size(*wire))
            .unwrap_or(commit.wire)
    }

    fn with_message(&self, wire: Wire, with: &With) -> Option<Outgoing> {
        let (new, at) = match with {
            With::Task(new) => (new, None),
            With::Schedule(new, at) => (new, Some(at)),
            With::Unschedule => return None,
        };
        let mut map = HeaderMap::new();
        if wire == Wire::Msgpack {
            map.insert(headers::CONTENT_TYPE, codec::content_type(wire));
        }
        if new.attempt > 1 {
            map.insert(headers::ATTEMPT, new.attempt.to_string());
        }
        if let Some(parent) = &new.parent {
            map.insert(headers::PARENT, parent.as_str());
        }
        if let Some(account) = &new.leash.budget {
            map.insert(headers::BUDGET, account.as_str());
        }
        if new.leash.depth > 0 {
            map.insert(headers::DEPTH, new.leash.depth.to_string());
        }
        if let Some(trace) = &new.traceparent {
            map.insert(headers::TRACEPARENT, trace.as_str());
        }
        let target = self.names.tasks(&new.job);
        let subject = match at {
            None => target,
            Some(at) => {
                let at = (*at).min(SCHEDULE_LAST);
                map.insert("Nats-Schedule", format!("@at {at}"));
                map.insert("Nats-Schedule-Target", target);
                self.names.schedule(&new.job, &new.id)
            }
        };
        let mut task = new.task.clone();
        task.id = Some(new.id.clone());
        Some(Outgoing {
            subject,
            headers: map,
            payload: payload(wire, &task),
        })
    }

    /// One atomic batch. The server answers its first message (empty, or why it takes none) and its last.
    /// Gives the sequence of the first message.
    async fn try_batch(&self, first: &Outgoing, others: &[Outgoing]) -> Result<u64, Error> {
        let id = Uuid::now_v7().simple().to_string();
        let mark = |message: &Outgoing, number: usize| {
            let mut marked = message.clone();
            marked.headers.insert("Nats-Batch-Id", id.as_str());
            marked
                .headers
                .insert("Nats-Batch-Sequence", number.to_string());
            marked
        };
        let opening = mark(first, 1);
        let reply = self
            .client
            .request_with_headers(opening.subject, opening.headers, opening.payload)
            .await?;
        if !reply.payload.is_empty() {
            parse::<serde_json::Value>(&reply.payload)?;
        }
        let (last, middle) = others
            .split_last()
            .ok_or_else(|| Error::Answer("a batch of one".into()))?;
        for (index, message) in middle.iter().enumerate() {
            let message = mark(message, index + 2);
            self.client
                .publish_with_headers(message.subject, message.headers, message.payload)
                .await
                .map_err(Error::closed)?;
        }
        let mut closing = mark(last, others.len() + 1);
        closing.headers.insert("Nats-Batch-Commit", "1");
        let reply = self
            .client
            .request_with_headers(closing.subject, closing.headers, closing.payload)
            .await?;
        let ack: BatchAck = parse(&reply.payload)?;
        Ok(ack.seq + 1 - ack.count.max(1))
    }
}

/// The record, to be stored only in place of the one that it says it follows.
fn record_message(names: &Names, commit: &Commit, wire: Wire) -> Outgoing {
    let subject = names.results(&commit.job, &commit.record.task);
    let mut message = Outgoing::new(subject, wire, codec::encode(wire, &commit.record));
    if commit
        .with
        .iter()
        .any(|with| matches!(with, With::Unschedule))
    {
        let schedule = names.schedule(&commit.job, &commit.record.task);
        message.headers.insert("Nats-Scheduler", schedule);
        message.headers.insert("Nats-Schedule-Next", "purge");
    }
    message.expecting(commit.record.after)
}

#[cfg(test)]
mod tests {
    use air_protocol::record::Status;
    use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE as EXPECTED;

    use super::*;

    #[test]
    fn a_record_is_stored_only_in_place_of_the_one_that_it_follows() {
        for after in [0, 17] {
            let record = Record::new("t".parse().unwrap(), Status::Failed, 2, Time::default());
            let commit = Commit {
                job: "j".parse().unwrap(),
                record: record.follows(None, after),
                with: Vec::new(),
                wire: Wire::Json,
            };
            let message = record_message(&Names::default(), &commit, Wire::Json);
            let expected = message.headers.get(EXPECTED).map(|value| value.as_str());
            assert_eq!(expected, Some(after.to_string().as_str()));
            assert_eq!(message.subject, "air.results.j.t");
        }
    }
}
