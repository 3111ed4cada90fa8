//! Records of tasks, on `air.results.<job>.<task>`.

use std::collections::HashMap;

use air_protocol::codec;
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::Record;
use uuid::Uuid;

use crate::direct::{SUBJECTS_MAX, Stored};
use crate::{Error, Nats};

/// A record and its stream sequence.
pub type At = (u64, Record);

/// The last records of some tasks.
#[derive(Debug, Default)]
pub struct Lasts {
    /// The records that were found.
    pub records: HashMap<(JobName, TaskId), At>,
    /// The last sequence that every part of the reply has seen; none when it cannot be told.
    pub up_to: Option<u64>,
}

/// A record, or none where it is garbage; one of a newer version is refused.
pub(crate) fn read(stored: &Stored) -> Result<Option<At>, Error> {
    match codec::decode_record(stored.content_type(), &stored.payload) {
        Ok(record) => Ok(Some((stored.seq, record))),
        Err(error) if error.is_newer() => Err(Error::Newer {
            what: format!("the record {} on {}", stored.seq, stored.subject),
            reason: error.to_string(),
        }),
        Err(error) => {
            tracing::error!(subject = %stored.subject, seq = stored.seq, %error, "a record cannot be read");
            Ok(None)
        }
    }
}

/// A last record is never skipped: a task that seems to have none would run, and run again.
fn read_last(stored: &Stored) -> Result<At, Error> {
    let subject = &stored.subject;
    read(stored)?
        .ok_or_else(|| Error::Answer(format!("the record on {subject} is none that is known")))
}

/// Records of which a page that begins with unreadable ones is looked through at once.
const LOOKED_THROUGH: usize = 256;

impl Nats {
    /// Up to `count` records of a job after the sequence `after`, and whether more follow. What cannot be
    /// read is passed over: where more follow there is a record to go on from.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should, or a record is of a newer version.
    pub async fn records_after(
        &self,
        job: &JobName,
        after: u64,
        count: usize,
    ) -> Result<(Vec<At>, bool), Error> {
        let (stream, subject) = (self.names.stream(), self.names.job_results(job));
        let (mut from, mut most) = (after + 1, count);
        loop {
            let batch = self.get_next(&stream, &subject, from, most).await?;
            let mut records = Vec::new();
            for stored in &batch.messages {
                records.extend(read(stored)?);
            }
            let more = batch.pending > 0 || records.len() > count;
            match batch.messages.last() {
                Some(last) if records.is_empty() && batch.pending > 0 => from = last.seq + 1,
                _ => {
                    records.truncate(count);
                    return Ok((records, more));
                }
            }
            most = count.max(LOOKED_THROUGH);
        }
    }

    /// All records of a job after the sequence `after`, up to the last that the leader has.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should, or a record is of a newer version.
    pub async fn each_record(
        &self,
        job: &JobName,
        after: u64,
        mut each: impl FnMut(u64, Record),
    ) -> Result<(), Error> {
        let (stream, subject) = (self.names.stream(), self.names.job_results(job));
        self.each(&stream, &subject, after + 1, |stored| {
            if let Some((seq, record)) = read(stored)? {
                each(seq, record);
            }
            Ok(())
        })
        .await
    }

    /// The last records of tasks, from any replica. `job` is one whose queue is looked at as well, so
    /// that the reply tells how much of the stream it has seen.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn last_records(
        &self,
        job: &JobName,
        tasks: &[(JobName, TaskId)],
    ) -> Result<Lasts, Error> {
        let mut lasts = Lasts {
            records: HashMap::new(),
            up_to: Some(u64::MAX),
        };
        for part in tasks.chunks(SUBJECTS_MAX - 1) {
            let mut subjects: Vec<_> = part
                .iter()
                .map(|(job, task)| self.names.results(job, task))
                .collect();
            subjects.push(self.names.tasks(job));
            subjects.sort_unstable();
            subjects.dedup();
            let batch = self.get_last(&self.names.stream(), &subjects).await?;
            lasts.up_to = lasts.up_to.min(batch.up_to);
            for stored in &batch.messages {
                let job = self
                    .names
                    .job_token(&stored.subject)
                    .and_then(|text| text.parse().ok());
                let task = self
                    .names
                    .task_token(&stored.subject)
                    .and_then(|text| text.parse().ok());
                let Some(key) = job.zip(task) else { continue };
                lasts.records.insert(key, read_last(stored)?);
            }
        }
        Ok(lasts)
    }

    /// The sequence of the last record of a job, from the leader; 0 for none.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn records_end(&self, job: &JobName) -> Result<u64, Error> {
        let subject = self.names.job_results(job);
        let last = self.get_last_leader(&self.names.stream(), &subject).await?;
        Ok(last.map_or(0, |stored| stored.seq))
    }

    /// The last record of a task, from the leader.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn last_record(&self, job: &JobName, task: &TaskId) -> Result<Option<At>, Error> {
        let subject = self.names.results(job, task);
        let stored = self.get_last_leader(&self.names.stream(), &subject).await?;
        stored.as_ref().map(read_last).transpose()
    }

    /// The record that a run left of a task. It is the last one, of which the leader is asked, but for a task that went on since.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn record_of_run(
        &self,
        job: &JobName,
        task: &TaskId,
        run: Uuid,
    ) -> Result<Option<Record>, Error> {
        let is_its = |record: &Record| record.run == Some(run);
        if let Some((_, last)) = self.last_record(job, task).await?
            && is_its(&last)
        {
            return Ok(Some(last));
        }
        let records = self.task_records(job, task).await?.into_iter();
        Ok(records.map(|(_, record)| record).find(is_its))
    }

    /// The record at `seq`, from the leader.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn record_at(&self, seq: u64) -> Result<Option<Record>, Error> {
        let stored = self.get_seq_leader(&self.names.stream(), seq).await?;
        let read = stored.as_ref().map(read).transpose()?;
        Ok(read.flatten().map(|(_, record)| record))
    }
}
