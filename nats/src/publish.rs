//! The one way to write: a message that says which sequence it expects to be the last of its subject.

use std::time::Duration;

use air_protocol::spec::Wire;
use air_protocol::{codec, names::headers};
use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE as EXPECTED;
use bytes::Bytes;
use serde::Deserialize;

use crate::request::{Backoff, WRONG_LAST_SEQUENCE, parse};
use crate::{Error, Nats};

/// Names the subject whose last sequence is expected, where it is not the message's own.
const EXPECTED_OF: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
/// Tries of a write after which people are told.
const TRIES_TOLD: u32 = 3;

/// A message to be stored.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

impl Outgoing {
    pub(crate) fn new(subject: String, wire: Wire, payload: Vec<u8>) -> Self {
        let mut map = HeaderMap::new();
        if wire == Wire::Msgpack {
            map.insert(headers::CONTENT_TYPE, codec::content_type(wire));
        }
        Self {
            subject,
            headers: map,
            payload: payload.into(),
        }
    }

    /// The same message, to be refused unless `sequence` is the last of its subject (0: none).
    pub(crate) fn expecting(mut self, sequence: u64) -> Self {
        self.headers.insert(EXPECTED, sequence.to_string());
        self
    }

    /// The same message, to be refused unless `sequence` is the last of another subject.
    pub(crate) fn expecting_of(self, subject: &str, sequence: u64) -> Self {
        let mut message = self.expecting(sequence);
        message.headers.insert(EXPECTED_OF, subject);
        message
    }

    /// The same message, to be forgotten by the server after a time.
    pub(crate) fn living(mut self, ttl: Duration) -> Self {
        self.headers
            .insert("Nats-TTL", format!("{}s", ttl.as_secs()));
        self
    }
}

/// What a write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// Stored at this sequence.
    At(u64),
    /// Not stored: another message is the last of the subject. `unsure` when an earlier try had no
    /// answer, so that the other message may be this one.
    Superseded { unsure: bool },
}

#[derive(Debug, Deserialize)]
struct Ack {
    seq: u64,
}

impl Nats {
    /// Stores one message and waits for the acknowledgement; no repetition.
    pub(crate) async fn store(&self, message: &Outgoing) -> Result<u64, Error> {
        let reply = self
            .client
            .request_with_headers(
                message.subject.clone(),
                message.headers.clone(),
                message.payload.clone(),
            )
            .await?;
        parse::<Ack>(&reply.payload).map(|ack| ack.seq)
    }

    /// Stores a message that says what it expects, again and again until NATS accepts or refuses it.
    pub(crate) async fn store_expecting(&self, message: &Outgoing) -> Result<Written, Error> {
        until_answered(&message.subject, || self.store(message)).await
    }
}

/// Repeats a write that says what it expects until NATS accepts or refuses it: the one way in which
/// the answer to a write is awaited. Gives the sequence that `write` gives.
pub(crate) async fn until_answered<F>(
    subject: &str,
    write: impl Fn() -> F,
) -> Result<Written, Error>
where
    F: Future<Output = Result<u64, Error>>,
{
    let mut backoff = Backoff::new();
    let mut unsure = false;
    let mut tries = 0;
    loop {
        match write().await {
            Ok(seq) => return Ok(Written::At(seq)),
            Err(error) if error.code() == Some(WRONG_LAST_SEQUENCE) => {
                return Ok(Written::Superseded { unsure });
            }
            Err(error) if error.is_passing() => {
                unsure |= matches!(error, Error::Timeout | Error::NoResponders);
                tries += 1;
                if tries == TRIES_TOLD && unsure {
                    tracing::warn!(%subject, %error, "no answer to a write; trying on. Is there a leader, and the right to publish to this subject?");
                }
                backoff.wait().await;
            }
            Err(error) => return Err(error),
        }
    }
}
