//! The key with which agents of this machine are known to their service: which one it is, without saying it.
//!
//! When a key's limit is reached, all tasks that use it wait. Managers and runners tell keys apart by a short hash.

use std::env;
use std::fmt::Write as _;

use air_nats::{Error, Nats};
use air_protocol::fate::Outcome;
use air_protocol::time::Time;
use sha2::{Digest as _, Sha256};

use crate::judge::Report;

/// Variable that names a file with the key.
const FILE: &str = "AIR_CLAUDE_KEY_FILE";
/// Variable that holds the key, where no file is named.
const KEY: &str = "ANTHROPIC_API_KEY";
/// Bytes of the hash that make an id: too few to tell anything of the key.
const BYTES: usize = 6;

/// The id of a key: 12 hexadecimal digits.
pub fn id_of(key: &str) -> String {
    let hash = Sha256::digest(key.trim().as_bytes());
    let mut id = String::new();
    for byte in hash.iter().take(BYTES) {
        let _ = write!(id, "{byte:02x}");
    }
    id
}

/// The id of the key that this process's environment gives, which a manager hands to the runners that it starts.
pub fn id_in_environment() -> Option<String> {
    let set = |name| env::var(name).ok().filter(|text| !text.trim().is_empty());
    let key = match set(FILE) {
        Some(path) => std::fs::read_to_string(path).ok()?,
        None => set(KEY)?,
    };
    Some(id_of(&key))
}

/// Until when a key is limited, if it is at `now`: nothing is to be started with it before.
///
/// # Errors
/// [`Error`] when NATS does not answer as it should.
pub async fn limited_until(nats: &Nats, id: &str, now: Time) -> Result<Option<Time>, Error> {
    let limit = nats.key_limit(id).await?;
    Ok(limit.map(|limit| limit.until).filter(|until| *until > now))
}

/// What an agent's task ends as that is not to be started: its key is limited.
pub(crate) async fn held_back(nats: &Nats, now: Time) -> Option<Report> {
    let id = id_in_environment()?;
    let until = match limited_until(nats, &id, now).await {
        Ok(until) => until?,
        Err(error) => {
            tracing::warn!(%error, "whether the key is limited is not known; trying");
            return None;
        }
    };
    let later = Outcome::Later(Some(until));
    let text = format!("the key {id} of the service is limited until {until}");
    Some(Report::new(later).instead(later, &text))
}

/// Says that a key is limited, so that nobody else tries it in turn.
pub(crate) async fn tell(nats: &Nats, id: &str, until: Time, now: Time) {
    if let Err(error) = nats.limit_key(id, until, now).await {
        tracing::warn!(%error, "others may try the limited key");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_keys_apart_and_not_what_they_are() {
        let id = id_of("sk-ant-secret");
        assert_eq!(id.len(), 2 * BYTES);
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(id, id_of(" sk-ant-secret\n"), "as a file holds it");
        assert_ne!(id, id_of("sk-ant-other"));
    }
}
