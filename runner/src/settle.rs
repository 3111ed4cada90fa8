//! Commits what became of an attempt, if the lease is still surely ours.

use air_nats::Error;
use air_nats::commit::{Commit, Committed};
use air_protocol::agent::transcript_blob;
use air_protocol::budget::Taken;
use air_protocol::codec;
use air_protocol::event::{Data, Kind};
use air_protocol::fate::Outcome;
use air_protocol::record::{Record, Status};
use air_protocol::spec::Wire;
use air_protocol::task::Work;

use crate::clock;
use crate::exit::Exit;
use crate::hold::Hold;
use crate::judge::Report;
use crate::look::last_record;
use crate::patience::{Patience, for_a_while};
use crate::record::Attempt;
use crate::spend;

/// Tries to commit after an answer that makes no sense.
const COMMIT_TRIES: u32 = 10;

/// How the runner leaves its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    /// It gives the lease back, naming this record.
    Release {
        /// Stream sequence of the task's last record, 0 for none.
        record: u64,
        /// Status of our own record, if there is one.
        status: Option<Status>,
        /// The exit.
        exit: Exit,
    },
    /// It touches nothing.
    Leave(Exit),
}

impl Finish {
    pub(crate) const LOST: Self = Self::Leave(Exit::LeaseLost);
}

/// Commits `report`.
pub(crate) async fn settle(attempt: &Attempt<'_>, report: Report) -> Result<Finish, Error> {
    let hold = attempt.hold;
    let Some(settled) = hold.unless_lost(settle_held(attempt, report)).await else {
        return Ok(Finish::LOST);
    };
    settled
}

/// For an attempt that somebody else has ended: gives the lease back, naming the record that did it.
pub(crate) async fn over(hold: &Hold) -> Result<Finish, Error> {
    let Some(last) = hold.unless_lost(last_record(hold)).await else {
        return Ok(Finish::LOST);
    };
    Ok(Finish::Release {
        record: last?.map_or(0, |(seq, _)| seq),
        status: None,
        exit: Exit::Over,
    })
}

async fn settle_held(attempt: &Attempt<'_>, report: Report) -> Result<Finish, Error> {
    let mut commit = commit_of(attempt, &report).await;
    let mut report = report;
    if let Err(text) = slim(attempt.hold, &mut commit).await {
        report = report.instead(Outcome::Failed, &text);
        forget_blobs(attempt.hold).await;
        commit = commit_of(attempt, &report).await;
    }
    let text = match try_commit(attempt.hold, &commit).await? {
        Tried::Finished(finish) => return Ok(finish),
        Tried::Refused(text) => text,
    };
    tracing::warn!(%text, "the server refuses the commit");
    let text = format!("the server refuses to store the result: {text}");
    // The rest of a fan-out must never be lost.
    let outcome = match &attempt.found.queued.task {
        Ok(task) if matches!(task.work, Work::Fanout(_)) => Outcome::Later(None),
        _ => Outcome::FailedForGood,
    };
    let mut commit = commit_of(attempt, &report.instead(outcome, &text)).await;
    if size(&commit) > attempt.hold.nats.max_payload() / 4 * 3 {
        commit.record.spec = None;
        commit.record.tail = None;
    }
    match try_commit(attempt.hold, &commit).await? {
        Tried::Finished(finish) => {
            if let Finish::Release {
                status: Some(_), ..
            } = finish
            {
                forget_blobs(attempt.hold).await;
            }
            Ok(finish)
        }
        Tried::Refused(text) => {
            tracing::error!(%text, "the server refuses a plain record too");
            Ok(Finish::Leave(Exit::Broken))
        }
    }
}

/// What is committed for `report`; a delayed attempt is due by the server's clock, which brings it back.
async fn commit_of(attempt: &Attempt<'_>, report: &Report) -> Commit {
    let now = clock::now();
    let mut commit = attempt.commit_of(report, now);
    let nats = &attempt.hold.nats;
    let due = nats.retry_by_server_clock(&mut commit.record, &mut commit.with, now);
    if let Err(error) = due.await {
        tracing::warn!(%error, "the next attempt is due by this machine's clock");
    }
    commit
}

fn size(commit: &Commit) -> usize {
    codec::encode(commit.wire, &commit.record).len()
}

/// Moves a large output into a blob, and chooses the shorter codec for a large task: a message over
/// the limit closes the connection.
async fn slim(hold: &Hold, commit: &mut Commit) -> Result<(), String> {
    let bytes_max = hold.nats.max_payload() / 2;
    if size(commit) <= bytes_max {
        return Ok(());
    }
    store_output(hold, commit).await?;
    let bytes = size(commit);
    if bytes > bytes_max {
        let usual = commit.wire;
        commit.wire = match usual {
            Wire::Json => Wire::Msgpack,
            Wire::Msgpack => Wire::Json,
        };
        if size(commit) >= bytes {
            commit.wire = usual;
        }
    }
    Ok(())
}

async fn store_output(hold: &Hold, commit: &mut Commit) -> Result<(), String> {
    let Some(output) = &commit.record.output else {
        return Ok(());
    };
    let name = hold.runner.to_string();
    let bytes = output.to_string().into_bytes();
    let stored = for_a_while(async || hold.nats.put_blob(&name, &bytes).await);
    stored
        .await
        .map_err(|error| format!("the output could not be stored: {error}"))?;
    commit.record.output = None;
    commit.record.output_blob = Some(name);
    Ok(())
}

enum Tried {
    Finished(Finish),
    Refused(String),
}

async fn try_commit(hold: &Hold, commit: &Commit) -> Result<Tried, Error> {
    let mut patience = Patience::new();
    for tried in 1.. {
        if hold.remaining().is_zero() {
            return Ok(Tried::Finished(Finish::LOST));
        }
        air_nats::crash::point("committing");
        match hold.nats.commit(commit).await {
            Ok(Committed::At(seq)) => return Ok(Tried::Finished(done(hold, commit, seq).await)),
            Ok(Committed::Refused(text)) => return Ok(Tried::Refused(text)),
            Ok(Committed::Over) => break,
            Err(error) if tried >= COMMIT_TRIES => return Err(error),
            Err(error) => tracing::warn!(%error, "committing again"),
        }
        patience.wait().await;
    }
    let last = last_record(hold).await?;
    let finish = match last {
        // An earlier try went through without our hearing of it.
        Some((seq, last)) if is_same(&last, &commit.record) => done(hold, commit, seq).await,
        last => {
            // A record of this run may be an earlier commit, whose blobs it names.
            let is_ours = |record: &Record| record.run == Some(hold.runner);
            if !last.as_ref().is_some_and(|(_, last)| is_ours(last)) {
                forget_blobs(hold).await;
                forget_transcript(hold).await;
            }
            Finish::Release {
                record: last.map_or(0, |(seq, _)| seq),
                status: None,
                exit: Exit::Over,
            }
        }
    };
    Ok(Tried::Finished(finish))
}

/// Deletes what was stored for a commit that can no longer come.
pub(crate) async fn forget_blobs(hold: &Hold) {
    if let Err(error) = hold.nats.delete_blobs_of(hold.runner).await {
        tracing::warn!(%error, "blobs that nobody names stay");
    }
}

/// Deletes the transcript of an attempt that has no record: one that is refused by the server has.
async fn forget_transcript(hold: &Hold) {
    let name = transcript_blob(hold.runner);
    if let Err(error) = hold.nats.delete_blob(&name).await {
        tracing::warn!(%error, "a transcript that nobody names stays");
    }
}

/// Whether `last` is the record that we tried to commit, whatever its numbers became on the way.
pub fn is_same(last: &Record, ours: &Record) -> bool {
    let key = |record: &Record| (record.run, record.attempt, record.ended, record.lost);
    key(last) == key(ours)
}

/// Tells of the commit.
async fn done(hold: &Hold, commit: &Commit, seq: u64) -> Finish {
    air_nats::crash::point("committed");
    let record = &commit.record;
    let data = Data {
        status: Some(record.status.as_str().to_owned()),
        record: Some(seq),
        reason: (record.error.clone()).or_else(|| Some(record.waits.as_ref()?.text().to_owned())),
        ..hold.event_data()
    };
    hold.nats.emit(Kind::Committed, data.clone()).await;
    match record.status {
        Status::Retrying => hold.nats.emit(Kind::Retrying, data).await,
        Status::Parked => hold.nats.emit(Kind::Parked, data).await,
        _ => {}
    }
    spend::end(hold, Taken::of_record(record)).await;
    Finish::Release {
        record: seq,
        status: Some(record.status),
        exit: Exit::Done,
    }
}

#[cfg(test)]
mod tests {
    use air_protocol::time::Time;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_record_is_our_own_by_run_attempt_and_end() {
        let mut ours = Record::new("t".parse().unwrap(), Status::Failed, 2, Time::default());
        ours.run = Some(Uuid::nil());
        let as_if = |change: fn(&mut Record)| {
            let mut last = ours.clone();
            change(&mut last);
            is_same(&last, &ours)
        };
        assert!(as_if(|_| {}));
        assert!(as_if(|last| last.subtasks = 7), "its numbers do not count");
        assert!(!as_if(|last| last.run = Some(Uuid::max())));
        assert!(!as_if(|last| last.attempt = 3));
        assert!(!as_if(|last| last.ended = Time::from_millis(1)));
        assert!(!as_if(|last| last.lost = true), "on behalf of us");
    }
}
