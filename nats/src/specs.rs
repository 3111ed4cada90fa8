//! The specs of jobs, in the bucket `air-specs`: what users want.

use std::time::Duration;

use air_protocol::codec;
use air_protocol::names::JobName;
use air_protocol::spec::{Spec, Wire};

use crate::bucket::{self, End, Entry, Swap, Watch};
use crate::{Error, Nats};

/// Time for which the marker of a deleted spec stays: longer than any watch hangs.
const MARKER_TTL: Duration = Duration::from_secs(3600);

/// What an entry says: a spec (the default where there is none), or why it is none.
///
/// # Errors
/// What is wrong with the spec.
pub fn spec_of(entry: Option<&Entry>) -> Result<Spec, String> {
    match entry.and_then(|entry| entry.value.as_ref()) {
        None => Ok(Spec::default()),
        Some(value) => codec::decode_spec(value).map_err(|error| error.to_string()),
    }
}

impl Nats {
    /// The spec of a job and its revision (0: none).
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should; the inner error says what is wrong with the spec.
    pub async fn spec(&self, job: &JobName) -> Result<(Result<Spec, String>, u64), Error> {
        let entry = self.entry(&self.names.specs_bucket(), job.as_str()).await?;
        Ok((
            spec_of(entry.as_ref()),
            entry.map_or(0, |entry| entry.revision),
        ))
    }

    /// Writes the spec of a job if it is at the revision `expected`.
    ///
    /// # Errors
    /// [`Error`] when NATS refuses the write for good.
    pub async fn write_spec(
        &self,
        job: &JobName,
        spec: &Spec,
        expected: u64,
    ) -> Result<Swap, Error> {
        self.swap(
            &self.names.specs_bucket(),
            job.as_str(),
            codec::encode(Wire::Json, spec),
            expected,
        )
        .await
    }

    /// Deletes a job's spec if it is at a revision. The marker, which tells every watch, goes by itself.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn delete_spec(&self, job: &JobName, revision: u64) -> Result<(), Error> {
        let marker = bucket::marker(&self.names.specs_bucket(), job.as_str(), MARKER_TTL);
        self.store_expecting(&marker.expecting(revision)).await?;
        Ok(())
    }

    /// How far the bucket has come, with which a watch can be checked.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn specs_end(&self) -> Result<End, Error> {
        self.bucket_end(&self.names.specs_bucket()).await
    }

    /// All specs as they are, and from then on as they change.
    ///
    /// # Errors
    /// [`Error`] when the watch cannot be made.
    pub async fn watch_specs(&self) -> Result<Watch, Error> {
        self.watch_bucket(&self.names.specs_bucket()).await
    }
}
