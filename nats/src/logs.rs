//! Output of tasks, in chunks on `air.logs.<job>.<task>`.

use std::collections::VecDeque;
use std::future::IntoFuture as _;
use std::time::{Duration, Instant};

use air_protocol::names::{JobName, TaskId, headers};
use async_nats::HeaderMap;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use bytes::Bytes;
use uuid::Uuid;

use crate::direct::Stored;
use crate::request::Backoff;
use crate::{Error, Nats};

/// Chunks that may be on their way at once.
const WINDOW: usize = 16;
/// Time for which chunks are sent again that nobody takes: a stream whose leader died has a new one within seconds.
const LEADER_WITHIN: Duration = Duration::from_secs(15);

/// Writes the output of one attempt.
pub struct LogWriter {
    nats: Nats,
    subject: String,
    headers: HeaderMap,
    waiting: VecDeque<(Bytes, PublishAckFuture)>,
    /// Since when nobody takes chunks.
    untaken: Option<Instant>,
}

impl LogWriter {
    /// Stores a chunk; waits while too many are on their way.
    ///
    /// # Errors
    /// [`Error`] when NATS does not store a chunk.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), Error> {
        while self.waiting.len() >= WINDOW {
            self.one().await?;
        }
        let sent = self.send(chunk.clone()).await?;
        self.waiting.push_back((chunk, sent));
        Ok(())
    }

    async fn send(&self, chunk: Bytes) -> Result<PublishAckFuture, Error> {
        let (subject, headers) = (self.subject.clone(), self.headers.clone());
        let sent = self
            .nats
            .context
            .publish_with_headers(subject, headers, chunk);
        sent.await.map_err(Error::closed)
    }

    /// Waits until every chunk is stored.
    ///
    /// # Errors
    /// [`Error`] when NATS does not store a chunk.
    pub async fn finish(&mut self) -> Result<(), Error> {
        while !self.waiting.is_empty() {
            self.one().await?;
        }
        Ok(())
    }

    async fn one(&mut self) -> Result<(), Error> {
        let Some((chunk, mut sent)) = self.waiting.pop_front() else {
            return Ok(());
        };
        let mut backoff = Backoff::new();
        loop {
            match sent.into_future().await {
                Ok(_) => {
                    self.untaken = None;
                    return Ok(());
                }
                // Nobody has it, so that it is not stored twice.
                Err(error) if error.kind() == PublishErrorKind::StreamNotFound => {
                    let since = *self.untaken.get_or_insert_with(Instant::now);
                    if since.elapsed() >= LEADER_WITHIN {
                        return Err(Error::closed(error));
                    }
                }
                Err(error) => return Err(Error::closed(error)),
            }
            backoff.wait().await;
            sent = self.send(chunk.clone()).await?;
        }
    }
}

impl Nats {
    /// A writer for the output of one attempt.
    pub fn log_writer(&self, job: &JobName, task: &TaskId, attempt: u32, run: Uuid) -> LogWriter {
        let mut map = HeaderMap::new();
        map.insert(headers::ATTEMPT, attempt.to_string());
        map.insert(headers::RUNNER, run.to_string());
        LogWriter {
            subject: self.names.logs(job, task),
            nats: self.clone(),
            headers: map,
            waiting: VecDeque::new(),
            untaken: None,
        }
    }

    /// Up to `count` chunks from the sequence `from` on, of one task or of all tasks of a job.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn logs(
        &self,
        job: &JobName,
        task: Option<&TaskId>,
        from: u64,
        count: usize,
    ) -> Result<Vec<Stored>, Error> {
        let subject = self.log_subject(job, task);
        Ok(self
            .get_next(&self.names.logs_stream(), &subject, from, count)
            .await?
            .messages)
    }

    /// Sequence of the last chunk of one task or of all tasks of a job, as the leader has it; 0 where there is none. Replicas may
    /// not have it yet.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn logs_end(&self, job: &JobName, task: Option<&TaskId>) -> Result<u64, Error> {
        let subject = self.log_subject(job, task);
        let last = self
            .get_last_leader(&self.names.logs_stream(), &subject)
            .await?;
        Ok(last.map_or(0, |stored| stored.seq))
    }

    pub(crate) fn log_subject(&self, job: &JobName, task: Option<&TaskId>) -> String {
        task.map_or_else(
            || self.names.job_logs(job),
            |task| self.names.logs(job, task),
        )
    }
}
