//! Settling: commits the fate of tasks that is decided without running them, under a lease of the manager.
//!
//! What is committed is made by pure functions: [`Base`] and [`settled`].

use air_nats::commit::{Commit, Committed, NewTask, With};
use air_nats::jobs::{Key, Swap};
use air_nats::queue::Queued;
use air_nats::records::At;
use air_protocol::approval::Waits;
use air_protocol::budget::Leash;
use air_protocol::event::{Data, Kind};
use air_protocol::fate::{Outcome, Tally, fate};
use air_protocol::job::{Event, JobState};
use air_protocol::lease::{Decision, Lease, Phase, Target, Verdict};
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::{Record, Status, error_text, next_attempt};
use air_protocol::spec::Spec;
use air_protocol::task::Work;
use air_protocol::time::Time;

use crate::advance::Failed;
use crate::decide::then;
use crate::shared::{Shared, now};

/// Why a task cannot be tried again of which no replica has the message.
const GONE: &str = "the message of the task is gone, so that it cannot be tried again";

/// What a record says of the claim under which it is committed.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// Revision of the claim.
    pub fence: Option<u64>,
    /// The last record that a release had named by then.
    pub released: u64,
}

/// Commits the decisions in a settling lease, and gives the lease back.
pub(crate) async fn settle(shared: &Shared, job: &JobName, key: &Key) -> Result<(), Failed> {
    let Key::State(state, revision) = key else {
        return Ok(());
    };
    let Some(lease) = state.lease() else {
        return Ok(());
    };
    let Phase::Settling { decisions } = &lease.phase else {
        return Ok(());
    };
    air_nats::crash::point("settling");
    let claim = Claim {
        fence: Some(*revision),
        released: state.last_record,
    };
    let mut data = Data {
        run: Some(lease.runner),
        fence: claim.fence,
        ..Data::default()
    };
    shared.tell(Kind::Claimed, job, data.clone()).await;
    let mut last = 0;
    for decision in decisions {
        last = last.max(commit(shared, job, lease, decision, claim).await?);
    }
    air_nats::crash::point("settled");
    let released = release(
        shared,
        job,
        state,
        *revision,
        &Event::Release {
            runner: lease.runner,
            record: last,
        },
    )
    .await?;
    if released {
        data.record = Some(last);
        shared.tell(Kind::Released, job, data).await;
    }
    Ok(())
}

/// Applies an event that gives the lease back; somebody who took the job over finishes it instead (false).
pub(crate) async fn release(
    shared: &Shared,
    job: &JobName,
    state: &JobState,
    revision: u64,
    event: &Event,
) -> Result<bool, Failed> {
    let next = then(state, event, now())?;
    if let Swap::Lost = shared.nats.write_job(job, &next, revision).await? {
        tracing::debug!(%job, "another manager went on");
        return Ok(false);
    }
    Ok(true)
}

/// Commits one decision; gives the sequence of the task's last record.
pub(crate) async fn commit(
    shared: &Shared,
    job: &JobName,
    lease: &Lease,
    decision: &Decision,
    claim: Claim,
) -> Result<u64, Failed> {
    let Decision { target, verdict } = decision;
    let Some(base) = Base::read(shared, job, target).await? else {
        return last_seq(shared, job, &target.task).await;
    };
    let spec = shared.spec(job).unwrap_or_default();
    let now = now();
    let (mut record, mut with) = settled(&base, job, &spec, lease, verdict, claim, now);
    if let Verdict::Unstartable { .. } = verdict {
        let nats = &shared.nats;
        nats.retry_by_server_clock(&mut record, &mut with, now)
            .await?;
    }
    store(shared, job, record, with).await
}

/// What is committed for a task whose fate is decided without running it.
pub fn settled(
    base: &Base,
    job: &JobName,
    spec: &Spec,
    lease: &Lease,
    verdict: &Verdict,
    claim: Claim,
    now: Time,
) -> (Record, Vec<With>) {
    let mut record = base.record(lease, claim, now);
    let mut with = Vec::new();
    match verdict {
        Verdict::Skip { reason } => {
            record.status = Status::Skipped;
            record.error = Some(reason.clone());
        }
        Verdict::Fail { reason } => {
            record.status = Status::Failed;
            record.failures = record.failures.saturating_add(1);
            record.error = Some(reason.clone());
        }
        Verdict::Unstartable { reason } => {
            record.error = Some(reason.clone());
            base.fate(job, spec, Outcome::Failed, &mut record, &mut with);
        }
        Verdict::Park { reason } => {
            record.status = Status::Parked;
            let reason = reason.clone();
            record.waits = Some(Waits::Approval { reason });
        }
        Verdict::Move { until } => match base.again(job, record.budget.as_ref()) {
            Some(task) => {
                record.status = Status::Retrying;
                record.retry_at = Some(*until);
                with.push(With::Schedule(task, *until));
            }
            None => record.error = Some(GONE.into()),
        },
    }
    (record, with)
}

/// What a record is built on: the message, and the record that the attempt expects to be the last.
#[derive(Debug, Clone)]
pub struct Base {
    target: Target,
    message: Option<Queued>,
    before: Option<Record>,
}

impl Base {
    /// Reads it; none when the attempt is over.
    pub(crate) async fn read(
        shared: &Shared,
        job: &JobName,
        target: &Target,
    ) -> Result<Option<Self>, Failed> {
        let nats = &shared.nats;
        let (mut message, last) = tokio::try_join!(
            nats.queued_at(job, target.seq),
            nats.last_record(job, &target.task)
        )?;
        if message.is_none() {
            // Gone, or not seen yet: by a replica that lags, or a leader that was deposed.
            if nats.stream_end(&nats.names().stream()).await? < target.seq {
                return Err(Failed::Lagging);
            }
            message = nats.queued_at(job, target.seq).await?;
        }
        Ok(Self::of(target, message, last))
    }

    /// From the message of an attempt and the last record of its task; none when the attempt is over.
    pub fn of(target: &Target, message: Option<Queued>, last: Option<At>) -> Option<Self> {
        let (seq, before) = match last {
            Some((seq, record)) => (seq, Some(record)),
            None => (0, None),
        };
        (seq == target.expected).then(|| Self {
            target: target.clone(),
            message,
            before,
        })
    }

    /// The task, with its id, from the message or from the record before.
    fn task(&self) -> Option<air_protocol::task::Task> {
        let message = self
            .message
            .as_ref()
            .and_then(|message| message.task.as_ref().ok());
        let task = message.or_else(|| self.before.as_ref()?.spec.as_ref());
        task.cloned().map(|mut task| {
            task.id = Some(self.target.task.clone());
            task
        })
    }

    /// Who queued the task.
    fn parent(&self) -> Option<String> {
        let message = self.message.as_ref();
        let message = message.and_then(|message| message.parent.clone());
        message.or_else(|| self.before.as_ref()?.parent.clone())
    }

    /// Which account pays for the task, and how deep it stands: as its message says, or the record before.
    fn leash(&self) -> Leash {
        match (&self.message, &self.before) {
            (Some(message), _) => message.leash.clone(),
            (None, Some(before)) => Leash::of_record(before),
            (None, None) => Leash::default(),
        }
    }

    /// The rest of a family: tried again without limit, so that no member is lost.
    fn is_fanout(&self) -> bool {
        self.task()
            .is_some_and(|task| matches!(task.work, Work::Fanout(_)))
    }

    /// A record of the attempt under a lease, with its status still open.
    pub fn record(&self, lease: &Lease, claim: Claim, now: Time) -> Record {
        let target = &self.target;
        let mut record = Record::new(target.task.clone(), Status::Failed, target.attempt, now);
        record.after = target.expected;
        if let Some(before) = &self.before {
            record.previous = Some(before.status);
            record.replies.clone_from(&before.replies);
            if before.status != Status::Reset {
                record.failures = before.failures;
                record.losses = before.losses;
            }
        }
        record.seq = Some(target.seq);
        record.run = Some(lease.runner);
        record.fence = claim.fence;
        record.released = Some(claim.released);
        record.backend = Some(lease.backend.clone());
        record.claimed = Some(lease.claimed);
        if let Some(message) = &self.message {
            record.queued = Some(message.queued);
            record.traceparent.clone_from(&message.traceparent);
        }
        record.parent = self.parent();
        record.set_leash(self.leash().or(lease.budget.as_ref()));
        record.spec = self.task();
        if let Some(Err(invalid)) = self.message.as_ref().map(|message| &message.task) {
            record.tail = Some(invalid.head.clone());
        }
        record
    }

    /// The task's next attempt.
    fn again(&self, job: &JobName, account: Option<&JobName>) -> Option<NewTask> {
        Some(NewTask {
            job: job.clone(),
            id: self.target.task.clone(),
            task: self.task()?,
            attempt: next_attempt(self.target.attempt),
            parent: self.parent(),
            leash: self.leash().or(account),
            traceparent: self
                .message
                .as_ref()
                .and_then(|message| message.traceparent.clone()),
        })
    }

    /// Fills in what becomes of the task after `outcome`.
    pub fn fate(
        &self,
        job: &JobName,
        spec: &Spec,
        outcome: Outcome,
        record: &mut Record,
        with: &mut Vec<With>,
    ) {
        let before = Tally {
            failures: record.failures,
            losses: record.losses,
        };
        let outcome = match outcome {
            Outcome::Lost if self.is_fanout() => Outcome::Later(None),
            other => other,
        };
        let retry = self
            .task()
            .map(|task| spec.retry_of(&task))
            .unwrap_or_default();
        let jitter = record.run.map_or(0, |run| run.as_bytes()[15]);
        let fate = fate(outcome, before, &retry, record.ended, jitter);
        record.failures = fate.tally.failures;
        record.losses = fate.tally.losses;
        record.status = fate.status;
        record.retry_at = fate.retry_at;
        let Some(at) = fate.retry_at else { return };
        match self.again(job, record.budget.as_ref()) {
            Some(task) if at <= record.ended => with.push(With::Task(task)),
            Some(task) => with.push(With::Schedule(task, at)),
            None => {
                record.status = Status::Failed;
                record.retry_at = None;
                record.error = Some(GONE.into());
            }
        }
    }
}

/// Commits a record; what the server will never take becomes a plain failed record with its text.
pub(crate) async fn store(
    shared: &Shared,
    job: &JobName,
    record: Record,
    with: Vec<With>,
) -> Result<u64, Failed> {
    let wire = shared.spec(job).unwrap_or_default().wire;
    let mut commit = Commit {
        job: job.clone(),
        record,
        with,
        wire,
    };
    let seq = match shared.nats.commit(&commit).await? {
        Committed::At(seq) => seq,
        Committed::Over => return last_seq(shared, job, &commit.record.task).await,
        Committed::Refused(text) => {
            commit.with.clear();
            commit.record.status = Status::Failed;
            commit.record.retry_at = None;
            let reason = format!("the server does not take the record: {text}");
            commit.record.error = Some(error_text(&reason));
            match shared.nats.commit(&commit).await? {
                Committed::At(seq) => seq,
                Committed::Over | Committed::Refused(_) => {
                    return last_seq(shared, job, &commit.record.task).await;
                }
            }
        }
    };
    tell(shared, job, &commit.record, seq).await;
    Ok(seq)
}

/// Why, as an event says it.
fn reason_of(record: &Record) -> Option<String> {
    let waits = record.waits.as_ref().map(|waits| waits.text().to_owned());
    record.error.clone().or(waits)
}

async fn tell(shared: &Shared, job: &JobName, record: &Record, seq: u64) {
    let data = Data {
        task: Some(record.task.clone()),
        attempt: Some(record.attempt),
        run: record.run,
        fence: record.fence,
        status: Some(record.status.as_str().to_owned()),
        record: Some(seq),
        reason: reason_of(record),
        ..Data::default()
    };
    let special = match record.status {
        Status::Retrying => Some(Kind::Retrying),
        Status::Skipped => Some(Kind::Skipped),
        Status::Parked => Some(Kind::Parked),
        Status::Failed if record.spec.is_none() => Some(Kind::Rejected),
        _ => None,
    };
    if let Some(kind) = special {
        shared.tell(kind, job, data.clone()).await;
    }
    shared.tell(Kind::Committed, job, data).await;
}

/// The sequence of a task's last record, 0 for none.
pub(crate) async fn last_seq(shared: &Shared, job: &JobName, task: &TaskId) -> Result<u64, Failed> {
    let last = shared.nats.last_record(job, task).await?;
    Ok(last.map_or(0, |(seq, _)| seq))
}

#[cfg(test)]
mod tests;
