//! Budgets: reserves before a claim, and settles what dead runners and managers have left reserved.
//!
//! A reservation is never believed to be dead by a read alone: a runner that begins writes the account, and what is
//! taken away is taken at what was judged. A job without a budget asks for nothing here.

use std::collections::{BTreeMap, HashMap};

use air_nats::budgets::Changed;
use air_protocol::budget::{Account, KeyLimit, Refusal, Reservation, Taken};
use air_protocol::job::JobState;
use air_protocol::limits::LEASE_TTL_MIN;
use air_protocol::names::JobName;
use air_protocol::record::Record;
use air_protocol::spec::Spec;
use air_protocol::time::Time;
use uuid::Uuid;

use crate::advance::Failed;
use crate::backlog::Charge;
use crate::shared::{Shared, now};

/// What was seen of the bucket of accounts, by polls.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Whether it was read at all.
    polled: bool,
    /// Revision up to which it was read.
    revision: u64,
    /// Accounts in which something is reserved: since when the oldest is.
    reserved: HashMap<JobName, Time>,
    /// Keys of the service that are limited.
    limits: HashMap<String, KeyLimit>,
}

impl Seen {
    fn learn(&mut self, changes: Vec<Changed>, revision: u64, now: Time) {
        for change in changes {
            match change {
                Changed::Account(root, account) => {
                    let reserved = account.iter().flat_map(|account| account.reserved.values());
                    match reserved.map(|one| one.since).min() {
                        Some(since) => drop(self.reserved.insert(root, since)),
                        None => drop(self.reserved.remove(&root)),
                    }
                }
                Changed::Limit(key, limit) => drop(self.limits.insert(key, limit)),
            }
        }
        self.limits.retain(|_, limit| limit.until > now);
        self.revision = self.revision.max(revision);
        self.polled = true;
    }

    /// Accounts that hold a reservation so old that its runner may be dead.
    fn due(&self, now: Time) -> Vec<JobName> {
        let is_old = |since: Time| now.since(since) >= LEASE_TTL_MIN;
        let old = self.reserved.iter().filter(|(_, since)| is_old(**since));
        old.map(|(root, _)| root.clone()).collect()
    }

    /// Until when a key of the service is limited.
    pub(crate) fn limited(&self, key: &str, now: Time) -> Option<Time> {
        let limit = self.limits.get(key)?;
        (limit.until > now).then_some(limit.until)
    }
}

/// Why nothing can be reserved of an account that nobody has, in a job whose spec has no budget.
fn gone(root: &JobName) -> Refusal {
    Refusal::Short(format!(
        "there is no account `{root}` (the job was removed, or its spec has no budget any more)"
    ))
}

/// Reserves for the runner of a claim that is about to be made. Where not enough is left, what dead ones hold is
/// given back first.
pub(crate) async fn reserve(
    shared: &Shared,
    charge: &Charge,
    runner: Uuid,
) -> Result<Result<(), Refusal>, Failed> {
    let reserved = try_reserve(shared, charge, runner).await?;
    if matches!(reserved, Err(Refusal::Busy | Refusal::Short(_)))
        && tidy(shared, &charge.account).await?
    {
        return try_reserve(shared, charge, runner).await;
    }
    Ok(reserved)
}

async fn try_reserve(
    shared: &Shared,
    charge: &Charge,
    runner: Uuid,
) -> Result<Result<(), Refusal>, Failed> {
    let root = &charge.account;
    shared.learn_spec(root, false).await?;
    if budget_of(&shared.spec(root)).is_none() {
        // The watch may not have told it yet.
        shared.learn_spec(root, true).await?;
    }
    let spec = shared.spec(root);
    let reserved = shared.nats.change_account(root, |account| {
        reserve_of(account, budget_of(&spec), charge, runner, now())
    });
    Ok(reserved.await?)
}

fn budget_of(spec: &Result<Spec, String>) -> Option<&air_protocol::budget::Budget> {
    spec.as_ref().ok()?.budget.as_ref()
}

/// What is to be written into an account, and whether something is reserved: the budget of the root's spec as it is
/// now; where that has none any more, the account keeps what it had.
fn reserve_of(
    account: Option<Account>,
    budget: Option<&air_protocol::budget::Budget>,
    charge: &Charge,
    runner: Uuid,
    now: Time,
) -> (Option<Account>, Result<(), Refusal>) {
    let Some(mut next) = account.or_else(|| budget.cloned().map(Account::new)) else {
        return (None, Err(gone(&charge.account)));
    };
    if let Some(budget) = budget {
        next.limits.clone_from(budget);
    }
    match next.reserve(runner, &charge.wants, now) {
        Ok(changed) => {
            next.overrun = None;
            (changed.then_some(next), Ok(()))
        }
        Err(Refusal::Short(reason)) if next.overrun.is_none() => {
            next.overrun = Some(reason.clone());
            (Some(next), Err(Refusal::Short(reason)))
        }
        Err(refusal) => (None, Err(refusal)),
    }
}

/// Gives back what was reserved for a runner that will not start.
pub(crate) async fn give_back(
    shared: &Shared,
    account: Option<&JobName>,
    runner: Uuid,
) -> Result<(), Failed> {
    if let Some(account) = account {
        let nats = &shared.nats;
        nats.settle_account(account, runner, Taken::Nothing).await?;
    }
    Ok(())
}

/// Settles runs whose records were read, where nobody has yet: their runners died before they could.
pub(crate) async fn settle_recorded(
    shared: &Shared,
    runs: BTreeMap<JobName, Vec<(Uuid, Taken)>>,
) -> Result<(), Failed> {
    for (root, runs) in runs {
        shared
            .nats
            .change_account(&root, |account| {
                let Some(mut account) = account else {
                    return (None, ());
                };
                let mut changed = false;
                for (runner, taken) in &runs {
                    changed |= account.settle(*runner, *taken);
                }
                (changed.then_some(account), ())
            })
            .await?;
    }
    Ok(())
}

/// What a record says of a run's account: which, whose, and what it took.
pub(crate) fn paid_by(record: &Record) -> Option<(JobName, (Uuid, Taken))> {
    let account = record.budget.clone()?;
    Some((account, (record.run?, Taken::of_record(record))))
}

/// Settles the run of a dead holder, once its lease is taken back.
pub(crate) async fn settle_dead(
    shared: &Shared,
    account: Option<&JobName>,
    runner: Uuid,
) -> Result<(), Failed> {
    let Some(root) = account else { return Ok(()) };
    let (account, _) = shared.nats.account(root).await?;
    let one = account.and_then(|account| account.reserved.get(&runner).cloned());
    if let Some(one) = one
        && let Some(taken) = fate(shared, runner, &one).await?
    {
        shared.nats.settle_if(root, runner, &one, taken).await?;
    }
    Ok(())
}

/// Settles what is reserved for runs that are no more; whether there was any.
pub(crate) async fn tidy(shared: &Shared, root: &JobName) -> Result<bool, Failed> {
    let (Some(account), _) = shared.nats.account(root).await? else {
        // Removed: no change tells it.
        shared.budgets().reserved.remove(root);
        return Ok(false);
    };
    let mut any = false;
    for (runner, one) in &account.reserved {
        // A claim follows its reservation at once; and whoever is alive settles its own.
        let ttl = shared.spec(&one.job).unwrap_or_default().lease_ttl();
        if now().since(one.since) >= ttl
            && let Some(taken) = fate(shared, *runner, one).await?
        {
            tracing::info!(account = %root, %runner, ?taken, "settling what a dead runner or manager left");
            any |= shared.nats.settle_if(root, *runner, one, taken).await?;
        }
    }
    Ok(any)
}

/// What became of a run; none while it holds its lease, by which somebody settles it.
async fn fate(shared: &Shared, runner: Uuid, one: &Reservation) -> Result<Option<Taken>, Failed> {
    let nats = &shared.nats;
    let key = nats.job(&one.job).await?;
    let lease = key.state().and_then(JobState::lease);
    if lease.is_some_and(|lease| lease.runner == runner) {
        return Ok(None);
    }
    let record = nats.record_of_run(&one.job, &one.task, runner).await?;
    Ok(Some(record.map_or_else(
        || one.unknown(),
        |record| Taken::of_record(&record),
    )))
}

/// Sees to it that limits of keys were read once: polls keep them up to date. Without them an agent's task is only
/// started in vain.
pub(crate) async fn learn(shared: &Shared) {
    let polled = shared.budgets().polled;
    if !polled && let Err(error) = poll(shared).await {
        tracing::debug!(%error, "limits of keys are not known yet");
    }
}

/// A poll: learns what changed in the bucket, and settles what is left over.
pub(crate) async fn poll(shared: &Shared) -> Result<(), Failed> {
    let seen = shared.budgets().revision;
    let (changes, end) = shared.nats.budgets_after(seen).await?;
    let due = {
        let mut seen = shared.budgets();
        seen.learn(changes, end, now());
        seen.due(now())
    };
    for root in due {
        tidy(shared, &root).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
