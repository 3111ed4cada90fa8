//! The states of jobs, in the bucket `air-jobs`: one key for each job, written by compare-and-swap only.

use air_protocol::codec;
use air_protocol::job::JobState;
use air_protocol::names::JobName;
use air_protocol::spec::Wire;
use air_protocol::time::Time;

use crate::bucket::{End, Entry, Watch};
use crate::{Error, Nats};

pub use crate::bucket::Swap;

/// What the key of a job holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Key {
    /// The bucket never had the key: a new job.
    Absent,
    /// The key was deleted, at this revision.
    Deleted(u64),
    /// A state, and its revision.
    State(Box<JobState>, u64),
    /// Something that is no state, its revision, and why.
    Garbage(u64, String),
    /// A state of a newer version, its revision, and which version is needed: nobody who cannot read it
    /// writes in its place.
    Newer(u64, String),
}

impl Key {
    /// What an entry of the bucket says.
    pub fn of_entry(entry: Option<&Entry>) -> Self {
        let Some(entry) = entry else {
            return Self::Absent;
        };
        match entry.value.as_ref().map(|value| codec::decode_state(value)) {
            None => Self::Deleted(entry.revision),
            Some(Ok(state)) => Self::State(Box::new(state), entry.revision),
            Some(Err(error)) if error.is_newer() => Self::Newer(entry.revision, error.to_string()),
            Some(Err(error)) => Self::Garbage(entry.revision, error.to_string()),
        }
    }

    /// The revision that the next write expects.
    pub fn revision(&self) -> u64 {
        match self {
            Self::Absent => 0,
            Self::Deleted(revision)
            | Self::State(_, revision)
            | Self::Garbage(revision, _)
            | Self::Newer(revision, _) => *revision,
        }
    }

    /// The state, if there is one.
    pub fn state(&self) -> Option<&JobState> {
        match self {
            Self::State(state, _) => Some(state),
            Self::Absent | Self::Deleted(_) | Self::Garbage(..) | Self::Newer(..) => None,
        }
    }
}

impl Nats {
    /// The key of a job, from the leader.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn job(&self, job: &JobName) -> Result<Key, Error> {
        let entry = self.entry(&self.names.jobs_bucket(), job.as_str()).await?;
        Ok(Key::of_entry(entry.as_ref()))
    }

    /// When the key of a job was last written, by the server's clock; none when there is no key.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn job_written(&self, job: &JobName) -> Result<Option<Time>, Error> {
        let entry = self.entry(&self.names.jobs_bucket(), job.as_str()).await?;
        Ok(entry.map(|entry| entry.time))
    }

    /// Writes the state of a job if its key is at the revision `expected`; waits for NATS as long as it takes.
    ///
    /// # Errors
    /// [`Error`] when NATS refuses the write for good.
    pub async fn write_job(
        &self,
        job: &JobName,
        state: &JobState,
        expected: u64,
    ) -> Result<Swap, Error> {
        let value = codec::encode(Wire::Json, state);
        self.swap(&self.names.jobs_bucket(), job.as_str(), value, expected)
            .await
    }

    /// Removes every trace of a job's key up to a revision: the last step of removing a job.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn erase_job(&self, job: &JobName, revision: u64) -> Result<(), Error> {
        self.erase(&self.names.jobs_bucket(), job.as_str(), revision)
            .await
    }

    /// How far the bucket has come, with which a watch can be checked.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn jobs_end(&self) -> Result<End, Error> {
        self.bucket_end(&self.names.jobs_bucket()).await
    }

    /// All jobs as they are, and from then on as they change.
    ///
    /// # Errors
    /// [`Error`] when the watch cannot be made.
    pub async fn watch_jobs(&self) -> Result<Watch, Error> {
        self.watch_bucket(&self.names.jobs_bucket()).await
    }
}
