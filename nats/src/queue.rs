//! The queue: task messages on `air.tasks.<job>`, and the schedules that bring them back later.

use std::collections::HashMap;

use air_protocol::budget::Leash;
use air_protocol::codec::{self, DecodeError};
use air_protocol::limits::TAIL_BYTES;
use air_protocol::names::{JobName, TaskId, headers};
use air_protocol::record::error_text;
use air_protocol::task::Task;
use air_protocol::time::Time;
use async_nats::HeaderMap;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use crate::direct::Stored;
use crate::publish::Outgoing;
use crate::request::{self, NO_MESSAGE};
use crate::{Error, Nats};

/// A message in the queue of a job.
#[derive(Debug, Clone)]
pub struct Queued {
    /// Stream sequence.
    pub seq: u64,
    /// When it was stored.
    pub queued: Time,
    /// The task's id; `_<sequence>` where the message names none, or is no valid task.
    pub id: TaskId,
    /// The attempt that the message is for.
    pub attempt: u32,
    /// `<job>/<task>` that queued it.
    pub parent: Option<String>,
    /// The account that pays for it, and how deep it stands.
    pub leash: Leash,
    /// The trace context that its publisher gave.
    pub traceparent: Option<String>,
    /// The task, or what is wrong with it.
    pub task: Result<Task, Invalid>,
}

/// A message that is no valid task.
#[derive(Debug, Clone)]
pub struct Invalid {
    /// What is wrong, and how to mend it.
    pub reason: String,
    /// The first bytes of the message.
    pub head: String,
}

impl Queued {
    /// Reads a stored message as a task.
    pub fn of_stored(stored: &Stored) -> Self {
        let attempt = stored.attempt();
        let task = codec::decode_task(stored.content_type(), &stored.payload)
            .map_err(|error: DecodeError| error_text(&error.to_string()))
            .and_then(|task| check_id(task, stored.seq, attempt));
        let task = task.map_err(|reason| {
            let head = &stored.payload[..stored.payload.len().min(TAIL_BYTES)];
            Invalid {
                reason,
                head: String::from_utf8_lossy(head).into_owned(),
            }
        });
        let (id, attempt) = match &task {
            Ok(task) => (task.id_at(stored.seq), attempt),
            Err(_) => (TaskId::of_sequence(stored.seq), 1),
        };
        Self {
            seq: stored.seq,
            queued: stored.time,
            id,
            attempt,
            parent: stored.header(headers::PARENT).map(str::to_owned),
            leash: Leash::of_headers(
                stored.header(headers::BUDGET),
                stored.header(headers::DEPTH),
            ),
            traceparent: stored.header(headers::TRACEPARENT).map(str::to_owned),
            task,
        }
    }
}

/// An id of the form `_<n>` is the system's: the message's own sequence, or one that it gave before.
fn check_id(task: Task, seq: u64, attempt: u32) -> Result<Task, String> {
    match task.id.as_ref().and_then(TaskId::sequence) {
        Some(given) if given != seq && attempt == 1 => Err(format!(
            "`id` is `_{given}`, a form that only the system gives; choose one without the leading _"
        )),
        _ => Ok(task),
    }
}

/// What the queue of a job looks like.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Depth {
    /// Messages by subject.
    pub messages: HashMap<String, u64>,
    /// The last sequence of the stream that the reply has seen.
    pub last_seq: u64,
}

/// The queues of all jobs.
#[derive(Debug, Clone, Default)]
pub struct Queues {
    /// Messages in the queue of each job that has any.
    pub jobs: HashMap<JobName, u64>,
    /// Subjects under which there are messages, and whose names no job can have.
    pub bad: Vec<String>,
    /// The last sequence of the stream that the reply has seen.
    pub last_seq: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct StreamInfo {
    pub(crate) config: serde_json::Value,
    /// When it was made, as the server writes it.
    #[serde(default)]
    pub(crate) created: String,
    pub(crate) state: StreamState,
    /// How many subjects match.
    #[serde(default)]
    pub(crate) total: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct StreamState {
    #[serde(default)]
    pub(crate) messages: u64,
    pub(crate) last_seq: u64,
    #[serde(default)]
    pub(crate) subjects: Option<HashMap<String, u64>>,
}

impl Nats {
    /// Publishes a task as it comes from a user, with an id under which NATS drops repetitions.
    /// Gives the stream sequence.
    ///
    /// # Errors
    /// [`Error`] when NATS does not store it, or does not say so.
    pub async fn publish_task(
        &self,
        job: &JobName,
        content_type: Option<&str>,
        payload: Vec<u8>,
        message_id: Option<&str>,
    ) -> Result<u64, Error> {
        let mut map = HeaderMap::new();
        if let Some(content_type) = content_type {
            map.insert(headers::CONTENT_TYPE, content_type);
        }
        if let Some(id) = message_id {
            map.insert("Nats-Msg-Id", id);
        }
        let message = Outgoing {
            subject: self.names.tasks(job),
            headers: map,
            payload: payload.into(),
        };
        self.store(&message).await
    }

    /// Up to `count` messages of a job's queue, from the sequence `from` on, and how many follow.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn queued(
        &self,
        job: &JobName,
        from: u64,
        count: usize,
    ) -> Result<(Vec<Queued>, u64), Error> {
        let batch = self
            .get_next(&self.names.stream(), &self.names.tasks(job), from, count)
            .await?;
        Ok((
            batch.messages.iter().map(Queued::of_stored).collect(),
            batch.pending,
        ))
    }

    /// The last sequence of a stream.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn stream_end(&self, stream: &str) -> Result<u64, Error> {
        Ok(self.stream_info(stream, None).await?.state.last_seq)
    }

    /// How many messages a stream holds.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn stream_messages(&self, stream: &str) -> Result<u64, Error> {
        Ok(self.stream_info(stream, None).await?.state.messages)
    }

    /// The message at `seq` of a job's queue, from any replica or else from the leader; none when it is gone.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn queued_at(&self, job: &JobName, seq: u64) -> Result<Option<Queued>, Error> {
        let stream = self.names.stream();
        let stored = match self.get_seq(&stream, seq).await? {
            Some(stored) => Some(stored),
            None => self.get_seq_leader(&stream, seq).await?,
        };
        // In a stream that was restored from an older state, a sequence may be another message's.
        let stored = stored.filter(|stored| stored.subject == self.names.tasks(job));
        Ok(stored.as_ref().map(Queued::of_stored))
    }

    /// All messages of a job's queue up to the sequence `up_to`, as the leader has it.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn all_queued(&self, job: &JobName, up_to: u64) -> Result<Vec<Queued>, Error> {
        let mut all = self.all_on(&self.names.tasks(job)).await?;
        all.retain(|message| message.seq <= up_to);
        Ok(all)
    }

    /// The tasks that schedules will bring back, as the leader has them.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn scheduled(&self, job: &JobName) -> Result<Vec<Queued>, Error> {
        self.all_on(&self.names.job_schedules(job)).await
    }

    /// Everything that brings a task of a job to a runner, as the leader has it: schedules first, then messages, so
    /// that a schedule that fires meanwhile is seen as a message.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn each_pending(
        &self,
        job: &JobName,
        mut each: impl FnMut(Queued),
    ) -> Result<(), Error> {
        let schedules = self.names.job_schedules(job);
        self.each_on(&schedules, &mut each).await?;
        self.each_on(&self.names.tasks(job), &mut each).await
    }

    async fn each_on(&self, subject: &str, mut each: impl FnMut(Queued)) -> Result<(), Error> {
        self.each(&self.names.stream(), subject, 1, |stored| {
            each(Queued::of_stored(stored));
            Ok(())
        })
        .await
    }

    async fn all_on(&self, subject: &str) -> Result<Vec<Queued>, Error> {
        let mut all = Vec::new();
        self.each_on(subject, |message| all.push(message)).await?;
        Ok(all)
    }

    /// Deletes one message by its sequence; one that is gone already is no error.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn delete(&self, seq: u64) -> Result<(), Error> {
        let body = json!({ "seq": seq, "no_erase": true });
        let operation = format!("STREAM.MSG.DELETE.{}", self.names.stream());
        match self.api::<serde_json::Value>(&operation, &body).await {
            Err(error) if !matches!(error.code(), Some(NO_MESSAGE | 10043 | 10057)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Deletes the messages of exactly this subject, one by one: it may come from a message, and a purge
    /// would take `*` or `>` in it for every queue.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn delete_subject(&self, subject: &str) -> Result<(), Error> {
        let mut from = 1;
        loop {
            let batch = self
                .get_next(&self.names.stream(), subject, from, 256)
                .await?;
            let Some(last) = batch.messages.last() else {
                return Ok(());
            };
            from = last.seq + 1;
            for stored in batch.messages.iter().filter(|one| one.subject == subject) {
                self.delete(stored.seq).await?;
            }
        }
    }

    /// Purges what matches `subject` up to the sequence `up_to`.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn purge(
        &self,
        stream: &str,
        subject: &str,
        up_to: Option<u64>,
    ) -> Result<(), Error> {
        let body = match up_to {
            Some(up_to) => json!({ "filter": subject, "seq": up_to + 1 }),
            None => json!({ "filter": subject }),
        };
        self.api::<serde_json::Value>(&format!("STREAM.PURGE.{stream}"), &body)
            .await?;
        Ok(())
    }

    /// Messages of each subject that matches, and the last sequence that the reply has seen.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn depth(&self, subject: &str) -> Result<Depth, Error> {
        let info = self
            .stream_info(&self.names.stream(), Some(subject))
            .await?;
        Ok(Depth {
            messages: info.state.subjects.unwrap_or_default(),
            last_seq: info.state.last_seq,
        })
    }

    /// A stream's configuration and state, with counts of the subjects that match.
    pub(crate) async fn stream_info(
        &self,
        stream: &str,
        subjects: Option<&str>,
    ) -> Result<StreamInfo, Error> {
        let Some(filter) = subjects else {
            return self.info(stream, &serde_json::Value::Null).await;
        };
        let mut info = self.subjects_page(stream, filter, 0).await?;
        let mut seen = info.state.subjects.as_ref().map_or(0, HashMap::len);
        while (seen as u64) < info.total {
            let page = self.subjects_page(stream, filter, seen).await?;
            let more = page.state.subjects.unwrap_or_default();
            if more.is_empty() {
                break;
            }
            seen += more.len();
            info.state.subjects.get_or_insert_default().extend(more);
        }
        Ok(info)
    }

    /// The same, with counts of the subjects from the `offset` on; one reply of the server holds 100,000.
    pub(crate) async fn subjects_page(
        &self,
        stream: &str,
        filter: &str,
        offset: usize,
    ) -> Result<StreamInfo, Error> {
        let body = json!({ "subjects_filter": filter, "offset": offset });
        self.info(stream, &body).await
    }

    async fn info(&self, stream: &str, body: &serde_json::Value) -> Result<StreamInfo, Error> {
        let operation = format!("STREAM.INFO.{stream}");
        request::read(|| self.api(&operation, body)).await
    }

    /// The queues of all jobs.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn queues(&self) -> Result<Queues, Error> {
        let depth = self.depth(&self.names.all_tasks()).await?;
        let mut queues = Queues {
            last_seq: depth.last_seq,
            ..Queues::default()
        };
        for (subject, count) in depth.messages {
            match self.names.job_token(&subject).map(str::parse) {
                Some(Ok(job)) => drop(queues.jobs.insert(job, count)),
                _ => queues.bad.push(subject),
            }
        }
        Ok(queues)
    }
}

/// The payload of a task message.
pub(crate) fn payload(wire: air_protocol::spec::Wire, task: &Task) -> Bytes {
    codec::encode(wire, task).into()
}
