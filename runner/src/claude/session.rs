//! Saves the session while it grows, and when it ends; gives it to the next attempt, on whatever host.
//!
//! It is one blob for each task, whose name follows from the task's: so that a runner that is killed has left it, and no
//! record needs to name it.

use std::cell::Cell;
use std::time::Duration;

use air_protocol::agent::{Failure, session_blob};
use air_protocol::claude::{Claude, Session};
use air_protocol::fate::Outcome;
use air_protocol::record::Record;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::saved::Saved;
use super::stage::Stage;
use crate::hold::Hold;
use crate::judge::Report;
use crate::patience::for_a_while;

/// Least time between two saves of a session that grows.
const EVERY: Duration = Duration::from_secs(3);
/// Times that a save took, for which none follows: what grows long is saved less often.
const REST: u32 = 20;

fn name(hold: &Hold) -> String {
    session_blob(&hold.job, &hold.target.task)
}

/// The session that an earlier attempt has saved; none where the task wants none, or where it could not be gone on with.
pub(super) async fn load(hold: &Hold, claude: &Claude, last: &Record) -> Option<Saved> {
    let failure = last.agent.as_ref().and_then(|agent| agent.failure);
    if claude.session == Session::Fresh || failure == Some(Failure::Session) {
        return None;
    }
    let name = name(hold);
    match for_a_while(async || hold.nats.get_blob(&name).await).await {
        Ok(blob) => blob.as_deref().and_then(Saved::decode),
        Err(error) => {
            tracing::warn!(%error, "the saved session cannot be read; the session begins anew");
            None
        }
    }
}

/// Saves while the session grows, but not too often; ends with `turns`.
pub(super) async fn save_as_it_grows(hold: &Hold, stage: &Stage, turns: watch::Receiver<u64>) {
    let name = name(hold);
    let before = Cell::new(0);
    let save = async || {
        let saved = stage.saved();
        let Some(saved) = saved.filter(|saved| saved.lines.len() != before.get()) else {
            return false;
        };
        match hold.nats.put_blob(&name, &saved.encode()).await {
            Ok(()) => before.set(saved.lines.len()),
            Err(error) => tracing::debug!(%error, "the session is saved later"),
        }
        true
    };
    after_turns(turns, save).await;
}

/// Saves after each turn, and again after a rest as long as there was something new: the CLI tells a turn before it writes it
/// down, and the next one may be long in coming. Ends with `turns`.
async fn after_turns(mut turns: watch::Receiver<u64>, save: impl AsyncFn() -> bool) {
    while turns.changed().await.is_ok() {
        let mut is_first = true;
        loop {
            let begun = Instant::now();
            if !save().await && !is_first {
                break;
            }
            is_first = false;
            tokio::select! {
                () = sleep(EVERY.max(begun.elapsed() * REST)) => {}
                () = ended(&turns) => return,
            }
        }
    }
}

/// Waits for the end of the turns.
async fn ended(turns: &watch::Receiver<u64>) {
    let mut turns = turns.clone();
    while turns.changed().await.is_ok() {}
}

/// Saves what a further attempt goes on from, and gives the blob's name; none where there is nothing to save, or no
/// need. The outer none: the lease is lost.
pub(super) async fn save_at_end(
    hold: &Hold,
    stage: &Stage,
    report: &Report,
) -> Option<Option<String>> {
    if report.outcome == Outcome::Succeeded {
        return Some(None);
    }
    let saved = stage.saved();
    let Some(saved) = saved else {
        return Some(None);
    };
    let (name, bytes) = (name(hold), saved.encode());
    let stored = for_a_while(async || hold.nats.put_blob(&name, &bytes).await);
    match hold.unless_lost(stored).await? {
        Ok(()) => Some(Some(name)),
        Err(error) => {
            tracing::warn!(%error, "the session could not be saved");
            Some(None)
        }
    }
}

/// Deletes the session of a task that is done, and what it saved of its working tree.
pub(crate) async fn forget(hold: &Hold, has_tree: bool) {
    if has_tree {
        super::space::forget(hold).await;
    }
    if let Err(error) = hold.nats.delete_blob(&name(hold)).await {
        tracing::debug!(%error, "the session stays until its record goes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The CLI tells of a call of a tool, and writes it down a little later, while the tool works for long.
    #[tokio::test(start_paused = true)]
    async fn what_is_written_after_it_was_told_is_saved_while_the_next_turn_is_awaited() {
        let (turn, turns) = watch::channel(0_u64);
        let written = Cell::new(0);
        let saved = Cell::new(0);
        let save = async || saved.replace(written.get()) != written.get();
        let cli = async {
            turn.send_modify(|turns| *turns += 1);
            sleep(EVERY / 2).await;
            written.set(1);
            sleep(2 * EVERY).await;
            assert_eq!(saved.get(), 1);
            drop(turn);
        };
        tokio::join!(after_turns(turns, save), cli);
    }

    #[tokio::test(start_paused = true)]
    async fn turns_in_a_row_are_saved_at_most_every_so_often() {
        let (turn, turns) = watch::channel(0_u64);
        let times = Cell::new(0);
        let save = async || {
            times.set(times.get() + 1);
            true
        };
        let cli = async {
            for _ in 0..100 {
                turn.send_modify(|turns| *turns += 1);
                sleep(EVERY / 10).await;
            }
            drop(turn);
        };
        tokio::join!(after_turns(turns, save), cli);
        assert!((9..=11).contains(&times.get()), "{}", times.get());
    }
}
