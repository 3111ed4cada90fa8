//! Keeps the raw lines of the transcript in a blob. A transcript that cannot be kept fails no task.

use air_protocol::agent::transcript_blob;

use super::stage::Stage;
use super::transcript::Told;
use crate::hold::Hold;
use crate::patience::for_a_while;

/// Stores the transcript, and gives the blob's name. The outer none: the lease is lost.
pub(super) async fn transcript(hold: &Hold, stage: &Stage, told: &Told) -> Option<Option<String>> {
    if !told.is_kept {
        return Some(None);
    }
    let name = transcript_blob(hold.runner);
    let path = &stage.places.transcript;
    let stored = for_a_while(async || hold.nats.put_blob_file(&name, path).await);
    match hold.unless_lost(stored).await? {
        Ok(()) => Some(Some(name)),
        Err(error) => {
            tracing::warn!(%error, "the transcript could not be stored");
            Some(None)
        }
    }
}
