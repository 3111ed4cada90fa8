//! What this run may spend of its budget's account, and what it took of it in the end.
//!
//! A run whose lease names no account asks for nothing here.

use air_nats::Error;
use air_protocol::budget::{Limits, Taken};

use crate::hold::Hold;
use crate::patience::again;

/// Begins to spend what the claim has reserved; none where nothing is reserved, and then nothing may run.
pub(crate) async fn begin(hold: &Hold) -> Result<Option<Limits>, Error> {
    let Some(account) = &hold.account else {
        return Ok(Some(Limits::default()));
    };
    let begun = again(async || hold.nats.begin_spending(account, hold.runner).await).await;
    air_nats::crash::point("spending");
    begun
}

/// Gives back what was not taken. Where it cannot be said, a manager settles it by the record.
pub(crate) async fn end(hold: &Hold, taken: Taken) {
    let Some(account) = &hold.account else { return };
    let nats = &hold.nats;
    if let Err(error) = nats.settle_account(account, hold.runner, taken).await {
        tracing::warn!(%error, %account, "what is reserved is left to managers");
    }
}
