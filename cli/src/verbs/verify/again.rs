//! Looks again, from the leader, at what seems wrong: it may have changed while it was being read.

use std::collections::HashMap;
use std::time::Duration;

use air_nats::Nats;
use air_nats::jobs::Key;
use air_protocol::job::JobStatus;
use air_protocol::names::{JobName, TaskId};
use air_protocol::record::{Last, Status};
use air_protocol::task::Fanout;
use air_protocol::verify::{
    Accounts, Doubtful, Families, Fate, Findings, JobCheck, Message, Suspect, fate_of,
};

use super::PARENTS_MAX;
use super::read::{Read, each_message};
use crate::Failure;

/// Looks at a queue for what should be in it: a replica that lags may not have it yet.
const LOOKS: u32 = 3;
/// Time between two of them.
const PAUSE: Duration = Duration::from_millis(200);

/// Confirms the suspects of a job that are still so.
pub(super) async fn suspects(nats: &Nats, job: &JobName, read: &mut Read) -> Result<(), Failure> {
    let mut all = read.check.suspects();
    all.append(&mut read.outputs);
    let mut unqueued = HashMap::new();
    for suspect in all {
        let confirmed = match &suspect {
            Suspect::Unqueued(task, seq) => {
                unqueued.insert(task.clone(), *seq);
                false
            }
            Suspect::Orphan(message) => is_still(nats, job, message, Fate::Orphan).await?,
            Suspect::Live(message) => is_still(nats, job, message, Fate::Live).await?,
            Suspect::Overtaken(message, _) => {
                is_still(nats, job, message, Fate::Live).await?
                    && last(nats, job, &message.task).await?.is_none()
            }
            Suspect::Gone(_, seq, _) => {
                !nats.is_stored(*seq).await? && must_be_there(nats, job, *seq).await?
            }
            Suspect::Pages(message, fanout) => {
                pages(nats, job, &mut read.check, message, fanout).await?;
                false
            }
            Suspect::Output(_, seq, _) => {
                nats.is_stored(*seq).await? && must_be_there(nats, job, *seq).await?
            }
        };
        if confirmed {
            read.check.confirm(suspect);
        }
    }
    confirm_unqueued(nats, job, &mut read.check, unqueued).await
}

/// Whether the records were read from a replica that lags behind the key; waits a moment then.
pub(super) async fn lags(nats: &Nats, check: &JobCheck) -> Result<bool, Failure> {
    let Some(named) = check.ends_before() else {
        return Ok(false);
    };
    let lags = nats.is_stored(named).await?;
    if lags {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(lags)
}

async fn last(nats: &Nats, job: &JobName, task: &TaskId) -> Result<Option<Last>, Failure> {
    let last = nats.last_record(job, task).await?;
    Ok(last.map(|(seq, record)| record.last(seq)))
}

/// Whether a message is still there, and still what it was to its task.
async fn is_still(
    nats: &Nats,
    job: &JobName,
    message: &Message,
    fate: Fate,
) -> Result<bool, Failure> {
    let last = last(nats, job, &message.task).await?;
    Ok(fate_of(message.attempt, last) == fate && nats.is_stored(message.seq).await?)
}

/// Whether nobody had a right to take a record away: neither retention nor a removal.
async fn must_be_there(nats: &Nats, job: &JobName, seq: u64) -> Result<bool, Failure> {
    Ok(match nats.job(job).await? {
        Key::State(state, _) => state.status != JobStatus::Removing && state.ledger.purged_to < seq,
        Key::Absent | Key::Deleted(_) | Key::Garbage(..) | Key::Newer(..) => false,
    })
}

/// Confirms that a page of a fan-out is gone that nobody has queued yet.
async fn pages(
    nats: &Nats,
    job: &JobName,
    check: &mut JobCheck,
    message: &Message,
    fanout: &Fanout,
) -> Result<(), Failure> {
    for page in fanout.page..fanout.pages {
        let blob = format!("{}.{page}", fanout.run);
        if nats.has_blob(&blob).await? {
            continue;
        }
        if is_still(nats, job, message, Fate::Live).await? {
            check.page_is_missing(message, blob);
        }
        break;
    }
    Ok(())
}

/// Confirms open tasks whose record stays the last one while neither schedules nor queue have their
/// next attempt: it must have been in one of them all the time.
async fn confirm_unqueued(
    nats: &Nats,
    job: &JobName,
    check: &mut JobCheck,
    mut tasks: HashMap<TaskId, u64>,
) -> Result<(), Failure> {
    for look in 0..LOOKS {
        if look > 0 && !tasks.is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
        keep_unchanged(nats, job, &mut tasks).await?;
        if !tasks.is_empty() {
            each_message(nats, job, |queued, _| {
                if queued.attempt > 1 {
                    tasks.remove(&queued.id);
                }
                !tasks.is_empty()
            })
            .await?;
        }
        keep_unchanged(nats, job, &mut tasks).await?;
    }
    let mut tasks: Vec<_> = tasks.into_iter().collect();
    tasks.sort_by_key(|(_, seq)| *seq);
    for (task, seq) in tasks {
        check.confirm(Suspect::Unqueued(task, seq));
    }
    Ok(())
}

async fn keep_unchanged(
    nats: &Nats,
    job: &JobName,
    tasks: &mut HashMap<TaskId, u64>,
) -> Result<(), Failure> {
    for task in tasks.keys().cloned().collect::<Vec<_>>() {
        let last = last(nats, job, &task).await?;
        if last.map(|last| last.seq) != tasks.get(&task).copied() {
            tasks.remove(&task);
        }
    }
    Ok(())
}

/// Judges the accounts of which records told.
pub(super) async fn accounts(
    nats: &Nats,
    accounts: &Accounts,
    findings: &mut Findings,
) -> Result<(), Failure> {
    for root in accounts.told() {
        let (account, revision) = nats.account(root).await?;
        let mut to_come = Vec::new();
        if let Some(account) = &account
            && accounts.is_short(root, account)
        {
            for (runner, one) in &account.reserved {
                to_come.extend(nats.record_of_run(&one.job, &one.task, *runner).await?);
            }
        }
        accounts.judge(root, (account.as_ref(), revision), &to_come, findings);
    }
    Ok(())
}

/// Looks for the records of parents that were not seen.
pub(super) async fn parents(
    nats: &Nats,
    families: &mut Families,
    findings: &mut Findings,
) -> Result<(), Failure> {
    for parent in families.doubtful(PARENTS_MAX) {
        let records = nats.task_records(&parent.job, &parent.task).await?;
        let success = records
            .iter()
            .find(|(_, record)| record.status == Status::Succeeded);
        let said = success.map(|(seq, record)| (record.subtasks, *seq));
        if said.is_some() || is_known(nats, &parent).await? {
            families.resolve(&parent, said, findings);
        }
    }
    Ok(())
}

/// Whether the parent's record would be there if there had been any: nothing was purged, and the job is
/// older than the sub-task. One that was removed takes its records along, and sub-tasks in its own queue.
async fn is_known(nats: &Nats, parent: &Doubtful) -> Result<bool, Failure> {
    let Key::State(state, _) = nats.job(&parent.job).await? else {
        return Ok(false);
    };
    if state.status == JobStatus::Removing || state.ledger.purged_to > 0 {
        return Ok(false);
    }
    if parent.in_own_job {
        return Ok(true);
    }
    let records = nats.record_page(&parent.job, 1).await?.items;
    let queue = nats.queue_page(&parent.job, 1).await?.items;
    let first = records.first().map(|one| one.seq);
    let first = first.into_iter().chain(queue.first().map(|one| one.seq));
    Ok(first.min().is_some_and(|first| first < parent.oldest))
}
