//! Requests to the JetStream API, and the errors of everything in this crate.

use std::time::Duration;

use air_protocol::quote::quote;
use async_nats::client::RequestErrorKind;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Nats;

/// Wrong last sequence: somebody else wrote.
pub(crate) const WRONG_LAST_SEQUENCE: u64 = 10071;
/// Another write to the same subject is in flight; proves nothing.
pub(crate) const IN_FLIGHT: u64 = 10164;
/// An atomic batch was not complete, as when its first message was refused.
pub(crate) const BATCH_INCOMPLETE: u64 = 10176;
/// Too many open batches. (10199, a batch with too many messages, does not pass.)
pub(crate) const BATCHES_FULL: u64 = 10210;
/// No such stream.
pub(crate) const NO_STREAM: u64 = 10059;
/// No such message.
pub(crate) const NO_MESSAGE: u64 = 10037;

/// A request did not do what it should. The text fits behind "failed to read a task: ".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer in time; a write may or may not have happened.
    #[error("NATS does not answer in time")]
    Timeout,
    /// Nobody serves the request: JetStream has no leader, or the stream does not exist.
    #[error("no stream answers; make it with `airx init`, or wait until JetStream has a leader")]
    NoResponders,
    /// JetStream says no.
    #[error("JetStream refuses it: {} ({code})", quote(.text))]
    Api {
        /// JetStream's code.
        code: u64,
        /// JetStream's text.
        text: String,
    },
    /// The message is larger than the server takes.
    #[error("the message is larger than the server's max_payload")]
    TooLarge,
    /// The connection is closed.
    #[error("the connection to NATS is closed: {0}")]
    Closed(String),
    /// A message of a newer version: refused, since a guess at it could undo what it says.
    #[error("{what} is of a newer version: {reason}")]
    Newer {
        /// The message.
        what: String,
        /// Which version is needed.
        reason: String,
    },
    /// The answer is not what the protocol says.
    #[error("the answer cannot be read: {}", quote(.0))]
    Answer(String),
}

impl Error {
    pub(crate) fn closed(error: impl std::fmt::Display) -> Self {
        Self::Closed(error.to_string())
    }

    pub(crate) fn answer(error: impl std::fmt::Display) -> Self {
        Self::Answer(error.to_string())
    }

    /// JetStream's code, if it answered with one.
    pub fn code(&self) -> Option<u64> {
        match self {
            Self::Api { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the same request may work a moment later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Timeout | Self::NoResponders => true,
            Self::Api { code, .. } => {
                *code == IN_FLIGHT
                    || *code == BATCHES_FULL
                    || *code == BATCH_INCOMPLETE
                    || is_unavailable(*code)
            }
            Self::TooLarge | Self::Closed(_) | Self::Newer { .. } | Self::Answer(_) => false,
        }
    }
}

/// Codes of JetStream that mean "not now": no leader, temporarily unavailable, and no room in the account,
/// in memory, or on the disk, as long as nobody makes some.
fn is_unavailable(code: u64) -> bool {
    matches!(code, 10002 | 10008 | 10009 | 10023 | 10028 | 10047 | 10077)
}

impl From<async_nats::RequestError> for Error {
    fn from(error: async_nats::RequestError) -> Self {
        match error.kind() {
            RequestErrorKind::TimedOut => Self::Timeout,
            RequestErrorKind::NoResponders => Self::NoResponders,
            RequestErrorKind::MaxPayloadExceeded => Self::TooLarge,
            RequestErrorKind::InvalidSubject | RequestErrorKind::Other => Self::closed(error),
        }
    }
}

/// Waits between tries of a request: doubles from 5 ms to 1 s.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(Duration::from_millis(5))
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(Duration::from_secs(1));
    }
}

/// Times that a read is asked before [`Error::Timeout`]: the server that was to answer may have died, and another one
/// stands in for it within seconds.
const READS_MAX: u32 = 3;

/// Asks once more, a few times, what was not answered in time. For reads only: they do nothing twice.
pub(crate) async fn read<T, F>(mut ask: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    for _ in 1..READS_MAX {
        match ask().await {
            Err(Error::Timeout) => tracing::debug!("no answer, asking again"),
            answered => return answered,
        }
    }
    ask().await
}

/// Reads JetStream's answer: its error, or the type that is wanted.
pub(crate) fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Error> {
    let value: Value = serde_json::from_slice(payload).map_err(Error::answer)?;
    if let Some(error) = value.get("error") {
        let code = error
            .get("err_code")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        let text = error
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default();
        return Err(Error::Api {
            code,
            text: text.to_owned(),
        });
    }
    serde_json::from_value(value).map_err(Error::answer)
}

impl Nats {
    /// One request to the JetStream API: `operation` such as `STREAM.INFO.AIR`.
    pub(crate) async fn api<T: DeserializeOwned>(
        &self,
        operation: &str,
        body: &Value,
    ) -> Result<T, Error> {
        let payload = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        let reply = self
            .client
            .request(format!("$JS.API.{operation}"), payload)
            .await?;
        parse(&reply.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a read is asked whose first `lost` answers do not come, and what it gives.
    async fn asked(lost: u32) -> (u32, Result<(), Error>) {
        let mut asked = 0;
        let given = read(|| {
            asked += 1;
            std::future::ready(if asked > lost {
                Ok(())
            } else {
                Err(Error::Timeout)
            })
        })
        .await;
        (asked, given)
    }

    #[tokio::test]
    async fn a_read_that_is_not_answered_is_asked_again_and_not_for_ever() {
        assert!(matches!(asked(0).await, (1, Ok(()))));
        assert!(matches!(asked(2).await, (3, Ok(()))));
        assert!(matches!(asked(3).await, (3, Err(Error::Timeout))));
    }

    #[test]
    fn a_full_server_may_take_it_later_and_a_wrong_request_is_never_taken() {
        let passing = |code| {
            let text = String::new();
            Error::Api { code, text }.is_passing()
        };
        assert!([10002, 10023, 10028, 10047, 10077].into_iter().all(passing));
        assert!(![10003, 10025, 10071, 10199, 10201].into_iter().any(passing));
    }
}
