//! Keeps the lease alive while the task runs, and ends the task when it must not go on.
//!
//! Never writes a record and never gives the lease back: it only pulls the brake.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;

use crate::brake::Why;
use crate::clock;
use crate::hold::{Hold, Mine};
use crate::patience::Patience;

/// Time for which a task costs nothing but its own start and commit.
const LAZY: Duration = Duration::from_millis(75);
/// Longest time between two looks at the boot clock, which goes on in suspension.
const TICK_MAX: Duration = Duration::from_secs(1);

/// Renews the lease every third of its length; looks at once when the job is signalled.
pub(crate) async fn guard(hold: &Hold) -> Infallible {
    tokio::select! {
        () = keep(hold) => {}
        () = expiry(hold) => {
            tracing::warn!("the lease could not be renewed in time");
        }
    }
    hold.brake.pull(Why::Lost);
    std::future::pending().await
}

/// Returns when the lease was not renewed in time.
pub(crate) async fn expiry(hold: &Hold) {
    loop {
        let remaining = hold.remaining();
        if remaining.is_zero() {
            return;
        }
        sleep(remaining.min(TICK_MAX)).await;
    }
}

/// Returns when the lease is not ours any more.
async fn keep(hold: &Hold) {
    sleep(LAZY.min(hold.times.every)).await;
    let mut signals = match hold.nats.signals(Some(&hold.job)).await {
        Ok(signals) => Some(signals),
        Err(error) => {
            tracing::warn!(%error, "no signals; a cancel is noticed with the next renewal");
            None
        }
    };
    // What was signalled before we listened.
    let mut look_now = true;
    loop {
        if look_now && look(hold).await == Mine::No {
            return;
        }
        let due = (hold.renewed().saturating_add(hold.times.every)).saturating_sub(clock::boot());
        if due.is_zero() && renew(hold).await == Mine::No {
            return;
        }
        look_now = tokio::select! {
            is_open = signalled(signals.as_mut()) => {
                if !is_open {
                    signals = None;
                }
                true
            }
            () = sleep(due.min(TICK_MAX)) => false,
        };
    }
}

/// Returns at the next signal, with whether more may come; never without a subscription.
async fn signalled(signals: Option<&mut air_nats::Signals>) -> bool {
    match signals {
        Some(signals) => signals.next().await.is_some(),
        None => std::future::pending().await,
    }
}

/// Reads the key and the task's last record, together.
async fn look(hold: &Hold) -> Mine {
    let (key, ()) = tokio::join!(hold.nats.job(&hold.job), look_at_record(hold));
    match key {
        Ok(key) => hold.heed(&key),
        Err(error) => {
            tracing::debug!(%error, "could not read the job's key");
            Mine::Unknown
        }
    }
}

/// Renews, and reads the task's last record: a user may have ended the task.
async fn renew(hold: &Hold) -> Mine {
    let (renewed, ()) = tokio::join!(hold.renew(), look_at_record(hold));
    match renewed {
        Ok(mine) => mine,
        Err(error) => {
            tracing::warn!(%error, "could not renew the lease");
            // Not at full speed: the due time has passed.
            Patience::new().wait().await;
            Mine::Unknown
        }
    }
}

async fn look_at_record(hold: &Hold) {
    match hold.nats.last_record(&hold.job, &hold.target.task).await {
        Ok(Some((seq, _))) if seq > hold.target.expected => hold.brake.pull(Why::Over),
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, "could not read the task's record"),
    }
}
