//! The only place in Air-Executor that knows NATS.
//!
//! [`Nats`] is a connection with the names of one installation. Each part of the protocol has a
//! file of its own: [`topology`] makes streams and buckets, [`queue`] holds tasks, [`records`] what
//! became of them, [`commit`] writes records with sub-tasks, [`jobs`] keeps leases. Nothing here
//! decides: reads bring what may be stale, and writes say which revision they expect.

pub mod blobs;
mod bucket;
pub mod budgets;
pub mod commit;
pub mod connect;
pub mod crash;
pub mod direct;
pub mod events;
pub mod history;
pub mod jobs;
pub mod logs;
pub mod managers;
mod publish;
pub mod queue;
pub mod records;
mod request;
pub mod specs;
pub mod topology;
pub mod views;
pub mod wakeups;

use std::sync::Arc;

use air_protocol::names::Names;

pub use bucket::{End, Entry, Watch};
pub use connect::{ConnectError, Link, Options};
pub use request::Error;

/// A connection to NATS, with the names of one installation. Cheap to clone.
#[derive(Clone)]
pub struct Nats {
    client: async_nats::Client,
    context: async_nats::jetstream::Context,
    names: Arc<Names>,
    link: tokio::sync::watch::Receiver<Link>,
    /// Subjects whose messages were read when the connection was lost.
    cut: Arc<direct::Cut>,
}

impl std::fmt::Debug for Nats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nats")
            .field("prefix", &self.names.prefix())
            .finish_non_exhaustive()
    }
}

impl Nats {
    /// The names of this installation.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Whether the connection is up, and how often it was lost.
    pub fn link(&self) -> tokio::sync::watch::Receiver<Link> {
        self.link.clone()
    }

    /// Version of the server, such as `2.15.1`.
    pub fn server_version(&self) -> String {
        self.client.server_info().version
    }

    /// Bytes that one message may have, as the server says. A larger one closes the connection.
    pub fn max_payload(&self) -> usize {
        self.client.server_info().max_payload
    }

    /// Sends everything that was published without waiting for an answer.
    pub async fn flush(&self) {
        if let Err(error) = self.client.flush().await {
            tracing::debug!(%error, "could not flush");
        }
    }

    /// Makes the runner of a job, or another manager, look at the job at once.
    pub async fn signal(&self, job: &air_protocol::names::JobName) {
        let subject = self.names.signals(job);
        if let Err(error) = self.client.publish(subject, bytes::Bytes::new()).await {
            tracing::debug!(%error, "could not signal");
        }
    }

    /// The signals to one job, or to all jobs: each item is a job's name.
    ///
    /// # Errors
    /// [`Error`] when the connection is closed.
    pub async fn signals(
        &self,
        job: Option<&air_protocol::names::JobName>,
    ) -> Result<Signals, Error> {
        let subject = job.map_or_else(|| self.names.all_signals(), |job| self.names.signals(job));
        let subscriber = self
            .client
            .subscribe(subject)
            .await
            .map_err(Error::closed)?;
        Ok(Signals {
            subscriber,
            names: self.names.clone(),
        })
    }
}

/// Signals to jobs, see [`Nats::signals`].
pub struct Signals {
    subscriber: async_nats::Subscriber,
    names: Arc<Names>,
}

impl Signals {
    /// The next job that was signalled; none when the connection is closed.
    pub async fn next(&mut self) -> Option<air_protocol::names::JobName> {
        use futures_util::StreamExt as _;
        loop {
            let message = self.subscriber.next().await?;
            if let Some(Ok(job)) = self.names.job_token(&message.subject).map(str::parse) {
                return Some(job);
            }
        }
    }
}
