//! Whole histories of jobs, page by page, for `airx verify`: what is stored, readable or not.
//!
//! Pages come from any replica and may be old. What looks wrong in them is looked at again from the
//! leader. Nothing here decides.

use std::collections::BTreeSet;

use air_protocol::codec;
use air_protocol::names::JobName;
use air_protocol::record::Record;

use crate::bucket::{self, Entry};
use crate::direct::Stored;
use crate::queue::Queued;
use crate::{Error, Nats};

/// Messages that one reply brings.
const PAGE: usize = 256;
/// What the id of a cron schedule begins with; a task's cannot.
const CRON: &str = "_cron_";

/// One page of a history.
#[derive(Debug)]
pub struct Page<T> {
    /// What it holds, in stream order.
    pub items: Vec<T>,
    /// Where the next one begins; none after the last.
    pub next: Option<u64>,
}

/// A record as it is stored.
#[derive(Debug)]
pub struct Recorded {
    /// Its stream sequence.
    pub seq: u64,
    /// Its subject.
    pub subject: String,
    /// The record, or why it cannot be read.
    pub record: Result<Record, String>,
}

impl Nats {
    /// The entry of a job's key, from the leader; none when the bucket never had it.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn job_entry(&self, job: &JobName) -> Result<Option<Entry>, Error> {
        self.entry(&self.names.jobs_bucket(), job.as_str()).await
    }

    /// Records of a job from the sequence `from` on.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn record_page(&self, job: &JobName, from: u64) -> Result<Page<Recorded>, Error> {
        let recorded = |stored: Stored| {
            let record = codec::decode_record(stored.content_type(), &stored.payload);
            Some(Recorded {
                seq: stored.seq,
                record: record.map_err(|error| error.to_string()),
                subject: stored.subject,
            })
        };
        self.page(&self.names.job_results(job), from, recorded)
            .await
    }

    /// Messages in the queue of a job from the sequence `from` on.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn queue_page(&self, job: &JobName, from: u64) -> Result<Page<Queued>, Error> {
        let queued = |stored: Stored| Some(Queued::of_stored(&stored));
        self.page(&self.names.tasks(job), from, queued).await
    }

    /// Scheduled tasks of a job from the sequence `from` on, without those of cron.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn schedule_page(&self, job: &JobName, from: u64) -> Result<Page<Queued>, Error> {
        let queued = |stored: Stored| {
            let task = self.names.task_token(&stored.subject)?;
            (!task.starts_with(CRON)).then(|| Queued::of_stored(&stored))
        };
        self.page(&self.names.job_schedules(job), from, queued)
            .await
    }

    async fn page<T>(
        &self,
        subject: &str,
        from: u64,
        item: impl FnMut(Stored) -> Option<T>,
    ) -> Result<Page<T>, Error> {
        let batch = self
            .get_next(&self.names.stream(), subject, from, PAGE)
            .await?;
        let last = batch.messages.last().filter(|_| batch.pending > 0);
        let next = last.map(|last| last.seq + 1);
        let items = batch.messages.into_iter().filter_map(item).collect();
        Ok(Page { items, next })
    }

    /// Whether the stream of tasks and records still holds the message `seq`, by its leader.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn is_stored(&self, seq: u64) -> Result<bool, Error> {
        let stored = self.get_seq_leader(&self.names.stream(), seq).await?;
        Ok(stored.is_some())
    }

    /// The names of all jobs that have a key, a message, a schedule or a record.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn job_names(&self) -> Result<BTreeSet<JobName>, Error> {
        let mut jobs = BTreeSet::new();
        let bucket = self.names.jobs_bucket();
        let prefix = bucket::subject(&bucket, "");
        let keys = bucket::subject(&bucket, ">");
        self.each_subject(&bucket::stream(&bucket), &keys, |subject| {
            jobs.extend(
                subject
                    .strip_prefix(&prefix)
                    .and_then(|key| key.parse().ok()),
            );
        })
        .await?;
        for filter in [
            self.names.all_tasks(),
            self.names.all_schedules(),
            self.names.all_results(),
        ] {
            self.each_subject(&self.names.stream(), &filter, |subject| {
                let job = self.names.job_token(subject);
                jobs.extend(job.and_then(|job| job.parse::<JobName>().ok()));
            })
            .await?;
        }
        Ok(jobs)
    }

    /// Every subject of a stream that matches, page by page.
    async fn each_subject(
        &self,
        stream: &str,
        filter: &str,
        mut see: impl FnMut(&str),
    ) -> Result<(), Error> {
        let mut seen = 0;
        loop {
            let page = self.subjects_page(stream, filter, seen).await?;
            let subjects = page.state.subjects.unwrap_or_default();
            seen += subjects.len();
            for subject in subjects.keys() {
                see(subject);
            }
            if subjects.is_empty() || seen as u64 >= page.total {
                return Ok(());
            }
        }
    }
}
