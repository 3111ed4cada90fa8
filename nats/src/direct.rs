//! Reading stored messages: from any replica (direct get), or from the leader.
//!
//! A replica may lag, and even a leader may be one that was deposed: what is read here chooses what
//! to try, and never decides.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use air_protocol::names::headers;
use air_protocol::time::Time;
use async_nats::{HeaderMap, HeaderName, HeaderValue, Message};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::request::{self, Backoff, NO_MESSAGE};
use crate::{Error, Nats};

/// Time for which a reply to a batch get is awaited.
const REPLY_WITHIN: Duration = Duration::from_secs(5);
/// Messages that one reply brings.
const PAGE: usize = 256;
/// Repetitions of a read whose reply is older than what the leader has: some ten seconds.
const LAGS_MAX: usize = 16;
/// Losses of the connection in a row, each in a read of a subject, after which it is read one message at a time.
const CUTS_MAX: u32 = 2;
/// Time after which such a subject is read as others are again: the message is gone, or the losses had another cause.
const SINGLY_FOR: Duration = Duration::from_secs(600);
/// Subjects that one `multi_last` may name.
pub(crate) const SUBJECTS_MAX: usize = 512;

/// A message as the stream holds it.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its subject.
    pub subject: String,
    /// Its stream sequence.
    pub seq: u64,
    /// When it was stored.
    pub time: Time,
    /// Its payload.
    pub payload: Bytes,
    headers: HeaderMap,
}

impl Stored {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// The codec of the payload.
    pub fn content_type(&self) -> Option<&str> {
        self.header(headers::CONTENT_TYPE)
    }

    /// The attempt that a task message is for.
    pub fn attempt(&self) -> u32 {
        self.header(headers::ATTEMPT)
            .and_then(|text| text.parse().ok())
            .unwrap_or(1)
    }
}

/// The reply to a batch get.
#[derive(Debug, Default)]
pub struct Batch {
    /// The messages, in stream order.
    pub messages: Vec<Stored>,
    /// The last sequence that the reply has seen (`multi_last` only; none when nothing was found).
    pub up_to: Option<u64>,
    /// Messages that match and are not in the reply.
    pub pending: u64,
}

/// Subjects, how often in a row the connection was lost while they were read, and when it last was.
///
/// A message may have a header that the server stores, and that the client's library takes for a broken stream: it closes
/// the connection of whoever reads it. Only what the leader answers in JSON can be read then.
#[derive(Debug, Default)]
pub(crate) struct Cut(Mutex<HashMap<String, (u32, Instant)>>);

impl Cut {
    fn subjects(&self) -> MutexGuard<'_, HashMap<String, (u32, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a subject is to be read one message at a time.
    fn is_broken(&self, subject: &str, now: Instant) -> bool {
        let broken = |(cuts, last): &(u32, Instant)| *cuts >= CUTS_MAX && now - *last < SINGLY_FOR;
        self.subjects().get(subject).is_some_and(broken)
    }

    fn lost(&self, subject: &str, now: Instant) {
        let mut subjects = self.subjects();
        let (cuts, last) = subjects.entry(subject.to_owned()).or_insert((0, now));
        (*cuts, *last) = (*cuts + 1, now);
    }

    fn read(&self, subject: &str) {
        self.subjects().remove(subject);
    }
}

#[derive(Debug, Deserialize)]
struct LeaderGet {
    message: LeaderMessage,
}

#[derive(Debug, Deserialize)]
struct LeaderMessage {
    subject: String,
    seq: u64,
    #[serde(default)]
    data: String,
    #[serde(default)]
    hdrs: String,
    time: String,
}

impl Nats {
    /// What `read` gives; none when the connection was lost meanwhile.
    async fn unless_cut<T>(
        &self,
        read: impl Future<Output = Result<T, Error>>,
    ) -> Result<Option<T>, Error> {
        let mut link = self.link.clone();
        let before = link.borrow().losses;
        tokio::select! {
            biased;
            done = read => done.map(Some),
            Ok(_) = link.wait_for(|link| link.losses > before) => Ok(None),
        }
    }

    /// The message at `seq`, from any replica; from the leader where the connection was lost by it.
    pub(crate) async fn get_seq(&self, stream: &str, seq: u64) -> Result<Option<Stored>, Error> {
        let body = Bytes::from(json!({ "seq": seq }).to_string());
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let request = request::read(|| async {
            let request = self.client.request(subject.clone(), body.clone());
            Ok(request.await?)
        });
        let Some(reply) = self.unless_cut(request).await? else {
            return self.get_seq_leader(stream, seq).await;
        };
        match reply.status.map(|status| status.as_u16()) {
            Some(404) => Ok(None),
            Some(code) => Err(Error::Answer(format!("direct get answers {code}"))),
            None => stored(reply).map(Some),
        }
    }

    /// The message at `seq`, from the leader.
    pub(crate) async fn get_seq_leader(
        &self,
        stream: &str,
        seq: u64,
    ) -> Result<Option<Stored>, Error> {
        self.get_leader(stream, &json!({ "seq": seq })).await
    }

    /// The last message of `subject`, from the leader.
    pub(crate) async fn get_last_leader(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<Stored>, Error> {
        self.get_leader(stream, &json!({ "last_by_subj": subject }))
            .await
    }

    /// The next message of a subject from the sequence `from` on, as the leader has it.
    pub(crate) async fn next_of_leader(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
    ) -> Result<Option<Stored>, Error> {
        let next = json!({ "seq": from.max(1), "next_by_subj": subject });
        self.get_leader(stream, &next).await
    }

    async fn get_leader(&self, stream: &str, body: &Value) -> Result<Option<Stored>, Error> {
        let operation = format!("STREAM.MSG.GET.{stream}");
        match request::read(|| self.api::<LeaderGet>(&operation, body)).await {
            Ok(reply) => from_leader(reply).map(Some),
            Err(error) if error.code() == Some(NO_MESSAGE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Up to `count` messages that match `subject`, from the sequence `from` on.
    pub(crate) async fn get_next(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
        count: usize,
    ) -> Result<Batch, Error> {
        request::read(|| self.get_next_once(stream, subject, from, count)).await
    }

    async fn get_next_once(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
        count: usize,
    ) -> Result<Batch, Error> {
        if self.cut.is_broken(subject, Instant::now()) {
            let found = self.next_of_leader(stream, subject, from).await?;
            // Whether more follow is known by asking for them.
            return Ok(Batch {
                pending: u64::from(found.is_some()),
                messages: found.into_iter().collect(),
                up_to: None,
            });
        }
        let batch = json!({ "seq": from.max(1), "next_by_subj": subject, "batch": count });
        match self.unless_cut(self.get_batch(stream, &batch)).await? {
            Some(batch) => {
                self.cut.read(subject);
                Ok(batch)
            }
            None => {
                self.cut.lost(subject, Instant::now());
                Err(Error::Timeout)
            }
        }
    }

    /// All messages that match `subject`, from the sequence `from` on: read from any replica, until one has
    /// shown what was the leader's last at the beginning. Some that came later may be among them.
    pub(crate) async fn each(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
        mut each: impl FnMut(&Stored) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut next = from.max(1);
        let mut end = u64::MAX;
        let mut backoff = Backoff::new();
        for lags in 0..LAGS_MAX {
            // What was the last may have been deleted since.
            let last = self.get_last_leader(stream, subject).await?;
            end = end.min(last.map_or(0, |last| last.seq));
            if lags > 0 {
                backoff.wait().await;
            }
            while next <= end {
                let batch = self.get_next(stream, subject, next, PAGE).await?;
                let Some(last) = batch.messages.last() else {
                    break;
                };
                next = last.seq + 1;
                batch.messages.iter().try_for_each(&mut each)?;
            }
            if next > end {
                return Ok(());
            }
        }
        Err(Error::Timeout)
    }

    /// The last message of each of `subjects`, which are at most [`SUBJECTS_MAX`].
    pub(crate) async fn get_last(&self, stream: &str, subjects: &[String]) -> Result<Batch, Error> {
        debug_assert!(subjects.len() <= SUBJECTS_MAX);
        let body = json!({ "multi_last": subjects });
        request::read(|| self.get_batch(stream, &body)).await
    }

    async fn get_batch(&self, stream: &str, body: &Value) -> Result<Batch, Error> {
        let inbox = self.client.new_inbox();
        let mut replies = self
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(Error::closed)?;
        self.client
            .publish_with_reply(
                format!("$JS.API.DIRECT.GET.{stream}"),
                inbox,
                body.to_string().into(),
            )
            .await
            .map_err(Error::closed)?;
        let mut batch = Batch::default();
        loop {
            let next = tokio::time::timeout(REPLY_WITHIN, replies.next());
            let message = next
                .await
                .map_err(|_| Error::Timeout)?
                .ok_or(Error::Timeout)?;
            match message.status.map(|status| status.as_u16()) {
                None => batch.messages.push(stored(message)?),
                Some(204) => {
                    batch.up_to = number(&message, "Nats-UpTo-Sequence");
                    batch.pending = number(&message, "Nats-Num-Pending").unwrap_or(0);
                    return Ok(batch);
                }
                Some(404) => return Ok(batch),
                Some(503) => return Err(Error::NoResponders),
                Some(code) => return Err(Error::Answer(format!("direct get answers {code}"))),
            }
        }
    }
}

fn number(message: &Message, header: &str) -> Option<u64> {
    message.headers.as_ref()?.get(header)?.as_str().parse().ok()
}

/// A reply to a direct get carries the stored message's own headers, and `Nats-*` about it.
fn stored(message: Message) -> Result<Stored, Error> {
    let headers = message.headers.unwrap_or_default();
    let text = |name: &str| {
        let value = headers
            .get(name)
            .ok_or_else(|| Error::Answer(format!("direct get has no {name}")))?;
        Ok::<_, Error>(value.as_str().to_owned())
    };
    Ok(Stored {
        subject: text("Nats-Subject")?,
        seq: text("Nats-Sequence")?.parse().map_err(Error::answer)?,
        time: text("Nats-Time-Stamp")?.parse().map_err(Error::answer)?,
        payload: message.payload,
        headers,
    })
}

/// The message in a leader's answer.
///
/// # Errors
/// [`Error`] when it is none.
pub fn of_leader(payload: &[u8]) -> Result<Stored, Error> {
    from_leader(request::parse(payload)?)
}

fn from_leader(LeaderGet { message }: LeaderGet) -> Result<Stored, Error> {
    let decode = |text: &str| BASE64.decode(text).map_err(Error::answer);
    let mut headers = HeaderMap::new();
    let raw = decode(&message.hdrs)?;
    for line in String::from_utf8_lossy(&raw).lines().skip(1) {
        // A header that the client's library could not send, it refuses by a panic; none of ours is one.
        if let Some((name, value)) = line.split_once(':')
            && let Ok(name) = name.trim().parse::<HeaderName>()
            && let Ok(value) = value.trim().parse::<HeaderValue>()
        {
            headers.append(name, value);
        }
    }
    Ok(Stored {
        subject: message.subject,
        seq: message.seq,
        time: message.time.parse().map_err(Error::answer)?,
        payload: decode(&message.data)?.into(),
        headers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_read_singly_after_losses_in_a_row_and_for_a_while() {
        let (cut, start) = (Cut::default(), Instant::now());
        cut.lost("a", start);
        assert!(!cut.is_broken("a", start));
        cut.read("a");
        cut.lost("a", start);
        cut.lost("b", start);
        assert!(!cut.is_broken("a", start), "they were not in a row");
        cut.lost("a", start);
        assert!(cut.is_broken("a", start) && !cut.is_broken("b", start));
        let later = start + SINGLY_FOR;
        assert!(!cut.is_broken("a", later));
        cut.lost("a", later);
        assert!(cut.is_broken("a", later));
    }

    #[test]
    fn headers_that_no_client_sends_are_left_out() {
        let headers = "NATS/1.0\r\nbad name: 1\r\nA: b\rc\r\nAir-Attempt: 2\r\n\r\n";
        let message = json!({ "subject": "s", "seq": 1, "time": "2026-01-31T08:00:00Z", "hdrs": BASE64.encode(headers) });
        let answer = json!({ "message": message }).to_string();
        let stored = of_leader(answer.as_bytes()).unwrap();
        assert_eq!(stored.attempt(), 2);
        assert_eq!(stored.headers.len(), 1);
    }
}
