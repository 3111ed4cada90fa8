//! Views for people: whole buckets, histories and ends of streams, read from any replica.
//!
//! The command line shows them. Nothing that decides uses them.

use std::collections::BTreeMap;

use air_protocol::names::{JobName, TaskId};
use air_protocol::time::Time;
use async_nats::Subscriber;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::Value;

use crate::bucket::{self, Entry, Watch};
use crate::direct::Stored;
use crate::records::At;
use crate::{Error, Nats};

/// Messages that one reply brings.
const PAGE: usize = 512;

/// Tells that something was published, without what: whoever waits then reads it from the stream.
pub struct Hints(Subscriber);

impl Hints {
    /// Waits for the next publication; false when the connection is closed.
    pub async fn next(&mut self) -> bool {
        self.0.next().await.is_some()
    }
}

#[derive(Debug, Deserialize)]
struct Clock {
    ts: String,
}

impl Nats {
    /// The keys of all jobs, in the order in which they were written.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn all_jobs(&self) -> Result<Vec<Entry>, Error> {
        self.entries(&self.names.jobs_bucket()).await
    }

    /// The specs of all jobs, in the order in which they were written.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn all_specs(&self) -> Result<Vec<Entry>, Error> {
        self.entries(&self.names.specs_bucket()).await
    }

    /// The entry of a job's spec, from the leader; none when the bucket never had it.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn spec_entry(&self, job: &JobName) -> Result<Option<Entry>, Error> {
        self.entry(&self.names.specs_bucket(), job.as_str()).await
    }

    /// The key of one job as it is, and from then on as it changes.
    ///
    /// # Errors
    /// [`Error`] when the watch cannot be made.
    pub async fn watch_job(&self, job: &JobName) -> Result<Watch, Error> {
        self.watch_keys(&self.names.jobs_bucket(), job.as_str())
            .await
    }

    /// The sequence of the last message in a job's queue, from the leader; none when it is empty.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn last_queued(&self, job: &JobName) -> Result<Option<u64>, Error> {
        let last = self
            .get_last_leader(&self.names.stream(), &self.names.tasks(job))
            .await?;
        Ok(last.map(|stored| stored.seq))
    }

    /// All records of one task, in order.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn task_records(&self, job: &JobName, task: &TaskId) -> Result<Vec<At>, Error> {
        let subject = self.names.results(job, task);
        let stored = self.all_of(&self.names.stream(), &subject).await?;
        let read = stored
            .iter()
            .filter_map(|stored| crate::records::read(stored).transpose());
        read.collect()
    }

    /// The tasks of a job that have printed something, and in how many chunks.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn logged(&self, job: &JobName) -> Result<BTreeMap<TaskId, u64>, Error> {
        let subject = self.names.job_logs(job);
        let info = self
            .stream_info(&self.names.logs_stream(), Some(&subject))
            .await?;
        let subjects = info.state.subjects.unwrap_or_default();
        let task = |subject: &str| self.names.task_token(subject)?.parse().ok();
        Ok(subjects
            .iter()
            .filter_map(|(subject, count)| Some((task(subject)?, *count)))
            .collect())
    }

    /// Hints that output was stored, of one task or of all tasks of a job.
    ///
    /// # Errors
    /// [`Error`] when the connection is closed.
    pub async fn log_hints(&self, job: &JobName, task: Option<&TaskId>) -> Result<Hints, Error> {
        self.hints(self.log_subject(job, task)).await
    }

    /// Hints that events were stored, of one job or of all.
    ///
    /// # Errors
    /// [`Error`] when the connection is closed.
    pub async fn event_hints(&self, job: Option<&JobName>) -> Result<Hints, Error> {
        self.hints(job.map_or_else(|| self.names.all_events(), |job| self.names.job_events(job)))
            .await
    }

    /// The last sequence of the stream of events.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn events_end(&self) -> Result<u64, Error> {
        let info = self.stream_info(&self.names.events_stream(), None).await?;
        Ok(info.state.last_seq)
    }

    /// The time by the clock of the server that leads the stream of tasks.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn server_time(&self) -> Result<Time, Error> {
        let operation = format!("STREAM.INFO.{}", self.names.stream());
        let clock: Clock = self.api(&operation, &Value::Null).await?;
        clock.ts.parse().map_err(Error::answer)
    }

    async fn hints(&self, subject: String) -> Result<Hints, Error> {
        self.client
            .subscribe(subject)
            .await
            .map(Hints)
            .map_err(Error::closed)
    }

    async fn entries(&self, bucket: &str) -> Result<Vec<Entry>, Error> {
        let subject = bucket::subject(bucket, ">");
        let stored = self.all_of(&bucket::stream(bucket), &subject).await?;
        let entry = |stored| Entry::from_stored(bucket, stored);
        Ok(stored.into_iter().map(entry).collect())
    }

    /// Every message that matches, from any replica.
    pub(crate) async fn all_of(&self, stream: &str, subject: &str) -> Result<Vec<Stored>, Error> {
        let (mut all, mut from) = (Vec::new(), 1);
        loop {
            let batch = self.get_next(stream, subject, from, PAGE).await?;
            let Some(last) = batch.messages.last() else {
                return Ok(all);
            };
            from = last.seq + 1;
            all.extend(batch.messages);
            if batch.pending == 0 {
                return Ok(all);
            }
        }
    }
}
