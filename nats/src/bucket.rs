//! Key-value buckets, as the streams that they are: leader reads, compare-and-swap, watches.

use std::time::Duration;

use crate::Nats;
use crate::direct::Stored;
use crate::publish::{Outgoing, Written};
use crate::request::Error;
use air_protocol::time::Time;
use async_nats::jetstream::kv::Operation;
use bytes::Bytes;
use futures_util::StreamExt as _;

/// What a key holds at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value; none when the key was deleted.
    pub value: Option<Bytes>,
    /// The revision: the sequence in the bucket's stream.
    pub revision: u64,
    /// When it was written.
    pub time: Time,
}

/// How far a bucket has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct End {
    /// The last revision that was ever written.
    pub written: u64,
    /// The last revision that is still there: one that was erased is told to no watch.
    pub newest: u64,
}

/// What a compare-and-swap came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// Written, as this revision.
    Won(u64),
    /// The key is at another revision than expected.
    Lost,
}

pub(crate) fn stream(bucket: &str) -> String {
    format!("KV_{bucket}")
}

pub(crate) fn subject(bucket: &str, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}

/// A value for a key, to be stored only if the key is at the revision `expected`.
fn put(bucket: &str, key: &str, value: Vec<u8>, expected: u64) -> Outgoing {
    let message = Outgoing::new(subject(bucket, key), air_protocol::spec::Wire::Json, value);
    message.expecting(expected)
}

/// What says that a key was deleted, and goes by itself when no watch can need it any more.
pub(crate) fn marker(bucket: &str, key: &str, ttl: Duration) -> Outgoing {
    let mut marker = Outgoing::new(
        subject(bucket, key),
        air_protocol::spec::Wire::Json,
        Vec::new(),
    );
    marker.headers.insert("KV-Operation", "DEL");
    marker.living(ttl)
}

impl Entry {
    pub(crate) fn from_stored(bucket: &str, stored: Stored) -> Self {
        let deleted = matches!(stored.header("KV-Operation"), Some("DEL" | "PURGE"))
            || stored.header("Nats-Marker-Reason").is_some();
        let prefix = subject(bucket, "");
        Self {
            key: stored
                .subject
                .strip_prefix(&prefix)
                .unwrap_or_default()
                .to_owned(),
            value: (!deleted).then_some(stored.payload),
            revision: stored.seq,
            time: stored.time,
        }
    }
}

impl Nats {
    /// A key's entry, from the leader; none when the bucket never had the key.
    pub(crate) async fn entry(&self, bucket: &str, key: &str) -> Result<Option<Entry>, Error> {
        let stored = self
            .get_last_leader(&stream(bucket), &subject(bucket, key))
            .await?;
        Ok(stored.map(|stored| Entry::from_stored(bucket, stored)))
    }

    /// Writes a key if it is at the revision `expected` (0: never written). A lost answer is settled by
    /// reading whose value the key holds.
    pub(crate) async fn swap(
        &self,
        bucket: &str,
        key: &str,
        value: Vec<u8>,
        expected: u64,
    ) -> Result<Swap, Error> {
        let message = put(bucket, key, value, expected);
        match self.store_expecting(&message).await? {
            Written::At(revision) => Ok(Swap::Won(revision)),
            Written::Superseded { unsure: false } => Ok(Swap::Lost),
            Written::Superseded { unsure: true } => {
                let entry = self.entry_surely(bucket, key).await?;
                match entry {
                    Some(Entry {
                        value: Some(value),
                        revision,
                        ..
                    }) if value == message.payload => Ok(Swap::Won(revision)),
                    _ => Ok(Swap::Lost),
                }
            }
        }
    }

    async fn entry_surely(&self, bucket: &str, key: &str) -> Result<Option<Entry>, Error> {
        let mut backoff = crate::request::Backoff::new();
        loop {
            match self.entry(bucket, key).await {
                Err(error) if error.is_passing() => backoff.wait().await,
                other => return other,
            }
        }
    }

    /// Removes every trace of a key up to a revision, so that it was never there.
    pub(crate) async fn erase(&self, bucket: &str, key: &str, revision: u64) -> Result<(), Error> {
        self.purge(&stream(bucket), &subject(bucket, key), Some(revision))
            .await
    }

    /// How far a bucket has come, from its leader.
    pub(crate) async fn bucket_end(&self, bucket: &str) -> Result<End, Error> {
        let info = self.stream_info(&stream(bucket), None).await?;
        let newest = self
            .get_last_leader(&stream(bucket), &subject(bucket, ">"))
            .await?;
        Ok(End {
            written: info.state.last_seq,
            newest: newest.map_or(0, |stored| stored.seq),
        })
    }

    /// Every key as it is, and from then on as it changes.
    pub(crate) async fn watch_bucket(&self, bucket: &str) -> Result<Watch, Error> {
        self.watch_keys(bucket, ">").await
    }

    /// The keys that match as they are, and from then on as they change.
    pub(crate) async fn watch_keys(&self, bucket: &str, keys: &str) -> Result<Watch, Error> {
        let is_empty = self.stream_messages(&stream(bucket)).await? == 0;
        let store = self
            .context
            .get_key_value(bucket)
            .await
            .map_err(Error::closed)?;
        let inner = store
            .watch_with_history(keys)
            .await
            .map_err(Error::closed)?;
        Ok(Watch {
            inner,
            is_current: is_empty,
        })
    }
}

/// The changes of a bucket. It may hang after a restart of the server: whoever watches also polls.
pub struct Watch {
    inner: async_nats::jetstream::kv::Watch,
    is_current: bool,
}

impl Watch {
    /// Whether it has told all that was there when it began.
    pub fn is_current(&self) -> bool {
        self.is_current
    }

    /// The next change.
    ///
    /// # Errors
    /// [`Error`] when the watch is broken, and has to be made anew.
    pub async fn next(&mut self) -> Result<Entry, Error> {
        let entry = self
            .inner
            .next()
            .await
            .ok_or_else(|| Error::closed("the watch ended"))?;
        let entry = entry.map_err(Error::closed)?;
        self.is_current |= entry.seen_current;
        let millis = u64::try_from(entry.created.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        Ok(Entry {
            value: (entry.operation == Operation::Put).then_some(entry.value),
            key: entry.key,
            revision: entry.revision,
            time: Time::from_millis(millis),
        })
    }
}

#[cfg(test)]
mod tests {
    use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE as EXPECTED;

    use super::*;

    #[test]
    fn a_value_is_stored_only_at_the_revision_that_was_read() {
        for revision in [0, 9] {
            let message = put("air-jobs", "j", b"{}".to_vec(), revision);
            let expected = message.headers.get(EXPECTED).map(|value| value.as_str());
            assert_eq!(expected, Some(revision.to_string().as_str()));
            assert_eq!(message.subject, "$KV.air-jobs.j");
        }
    }
}
