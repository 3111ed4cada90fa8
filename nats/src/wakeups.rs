//! Wake-ups: the shared consumer `managers` tells each new task message to one of the managers.
//!
//! It is for speed alone. Nothing is acknowledged; what a manager loses, the poll finds.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, pull};
use futures_util::StreamExt as _;

use crate::{Error, Nats};

/// Name of the consumer.
pub const CONSUMER: &str = "managers";
/// Wake-ups that one pull may bring.
pub const PULL_MAX: usize = 64;
/// Time after which a pull expires.
const PULL_EXPIRES: Duration = Duration::from_secs(1);

/// The shared consumer.
pub struct Wakeups {
    consumer: Consumer<pull::Config>,
    nats: Nats,
}

impl Nats {
    /// The shared consumer, made when it is missing.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn wakeups(&self) -> Result<Wakeups, Error> {
        let config = pull::Config {
            durable_name: Some(CONSUMER.to_owned()),
            description: Some("wakes a manager for each new task".to_owned()),
            deliver_policy: DeliverPolicy::New,
            ack_policy: AckPolicy::None,
            filter_subject: self.names.all_tasks(),
            headers_only: true,
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        };
        let stream = self
            .context
            .get_stream(self.names.stream())
            .await
            .map_err(Error::closed)?;
        let consumer = stream
            .get_or_create_consumer(CONSUMER, config)
            .await
            .map_err(Error::closed)?;
        Ok(Wakeups {
            consumer,
            nats: self.clone(),
        })
    }
}

impl Nats {
    /// Deletes the shared consumer, so that it is made anew: its only copy was on a server that is gone.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn drop_wakeups(&self) -> Result<(), Error> {
        let operation = format!("CONSUMER.DELETE.{}.{CONSUMER}", self.names.stream());
        self.api::<serde_json::Value>(&operation, &serde_json::Value::Null)
            .await
            .map(drop)
    }
}

impl Wakeups {
    /// Pulls up to `max` wake-ups for a second.
    ///
    /// # Errors
    /// [`Error`] when the consumer is gone and has to be made anew.
    pub async fn pull(&self, max: usize) -> Result<Pull, Error> {
        let max = max.clamp(1, PULL_MAX);
        let batch = self
            .consumer
            .batch()
            .max_messages(max)
            .expires(PULL_EXPIRES)
            .messages();
        let messages = Box::pin(batch.await.map_err(Error::closed)?);
        Ok(Pull {
            messages,
            nats: self.nats.clone(),
        })
    }
}

/// Wake-ups of one pull.
pub struct Pull {
    messages: std::pin::Pin<Box<pull::Batch>>,
    nats: Nats,
}

impl Pull {
    /// The job's part of the next subject, which need not be a name; none when the pull is over.
    ///
    /// # Errors
    /// [`Error`] when the consumer is gone and has to be made anew.
    pub async fn next(&mut self) -> Result<Option<String>, Error> {
        while let Some(message) = self.messages.next().await {
            let message = message.map_err(Error::closed)?;
            if let Some(job) = self.nats.names.job_token(&message.subject) {
                return Ok(Some(job.to_owned()));
            }
        }
        Ok(None)
    }
}
