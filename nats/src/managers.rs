//! Heartbeats of managers, in the bucket `air-managers`: keys that vanish by themselves.

use std::time::Duration;

use air_protocol::limits::HEARTBEAT_TTL;
use air_protocol::time::Time;
use serde::{Deserialize, Serialize};

use crate::bucket::{self, Entry, Watch};
use crate::publish::Outgoing;
use crate::request::NO_STREAM;
use crate::{Error, Nats};

/// Time for which the marker of a manager that ended stays.
const MARKER_TTL: Duration = Duration::from_secs(60);

/// What a manager says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Version of the message.
    pub v: u8,
    /// The manager.
    pub manager: String,
    /// Its host.
    pub host: String,
    /// Its backends.
    pub backends: Vec<String>,
    /// Runners that it started and that live.
    pub runners: usize,
    /// Runners that it may have at once.
    pub runners_max: usize,
    /// When it started.
    pub since: Time,
    /// Version of the program.
    pub version: String,
}

impl Nats {
    /// Says that a manager lives; forgotten after [`HEARTBEAT_TTL`]. Makes the bucket anew where it is gone.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn beat(&self, heartbeat: &Heartbeat) -> Result<u64, Error> {
        let value = serde_json::to_vec(heartbeat).map_err(Error::answer)?;
        let subject = bucket::subject(&self.names.managers_bucket(), &heartbeat.manager);
        let message = Outgoing::new(subject, air_protocol::spec::Wire::Json, value);
        let message = message.living(HEARTBEAT_TTL);
        match self.store(&message).await {
            Err(Error::NoResponders) => {
                self.make_managers_bucket().await?;
                self.store(&message).await
            }
            stored => stored,
        }
    }

    /// Says that a manager is gone.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn forget_manager(&self, manager: &str) -> Result<(), Error> {
        let marker = bucket::marker(&self.names.managers_bucket(), manager, MARKER_TTL);
        self.store(&marker).await.map(drop)
    }

    /// All managers as they are, and from then on as they come and go.
    ///
    /// # Errors
    /// [`Error`] when the watch cannot be made.
    pub async fn watch_managers(&self) -> Result<Watch, Error> {
        self.watch_bucket(&self.names.managers_bucket()).await
    }

    /// The managers that live; none where only their bucket is missing, which a living one makes anew.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn managers(&self) -> Result<Vec<Heartbeat>, Error> {
        let bucket = self.names.managers_bucket();
        let stream = bucket::stream(&bucket);
        let all = match self.all_of(&stream, &bucket::subject(&bucket, ">")).await {
            Err(Error::NoResponders) if self.is_missing(&stream).await? => Vec::new(),
            all => all?,
        };
        Ok(all
            .iter()
            .filter_map(|stored| decode(&stored.payload))
            .collect())
    }

    /// Whether this stream is missing, and the stream of tasks is not.
    async fn is_missing(&self, stream: &str) -> Result<bool, Error> {
        match self.stream_info(stream, None).await {
            Err(error) if error.code() == Some(NO_STREAM) => Ok(self.replicas().await?.is_some()),
            other => other.map(|_| false),
        }
    }
}

/// The heartbeat in an entry; none when the manager is gone.
pub fn heartbeat_of(entry: &Entry) -> Option<Heartbeat> {
    decode(entry.value.as_ref()?)
}

fn decode(bytes: &[u8]) -> Option<Heartbeat> {
    serde_json::from_slice(bytes).ok()
}
