//! One look at one job: reads what [`decide`] asks for, does what it says, until there is nothing to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use air_nats::Error as NatsError;
use air_nats::jobs::{Key, Swap};
use air_protocol::codec::encode;
use air_protocol::event::{Data, Kind};
use air_protocol::job::{Invalid, JobState, JobStatus};
use air_protocol::names::JobName;
use air_protocol::spec::Wire;
use uuid::Uuid;

use crate::backend::Order;
use crate::backlog::{Backlog, Pick, Ready};
use crate::decide::{Folded, Pending, Refused, Rest, Step, View, decide};
use crate::expire::Expired;
use crate::launch::Launch;
use crate::requeue::{self, Found};
use crate::shared::{Shared, now};
use crate::{budget, empty, remove, settle};

mod charge;
mod read;

use read::PAGE;

/// Steps of one look; more than a job ever needs.
const STEPS_MAX: usize = 200;
/// Bytes of state that a runner is handed over; the kernel takes 128 KiB for one variable.
const HAND_OVER_BYTES_MAX: usize = 32 * 1024;
/// Delay after the first failed start; doubled for each further one.
const HOLD_FIRST: Duration = Duration::from_millis(500);
/// Longest delay after a failed start.
pub(crate) const HOLD_MAX: Duration = Duration::from_secs(60);

/// A look at a job failed; the job is looked at again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// NATS.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// The state machine refused what was decided.
    #[error("{0}: a bug")]
    Bug(#[from] Invalid),
    /// The replies are older than what the key names.
    #[error("replies lag behind the job's key")]
    Lagging,
    /// There is no end to it.
    #[error("too many steps in one look")]
    Endless,
}

/// How a look at a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A task was claimed, and its runner is being started.
    Started,
    /// There is nothing to do, for now.
    Rest(Rest),
    /// Records whose time is over are left: the next look purges more.
    More,
    /// There is no such job.
    Gone,
}

/// One look at one job.
pub(crate) struct Look<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    era: u64,
    pub(crate) job: &'a JobName,
    pub(crate) backlog: &'a mut Backlog,
    key: Key,
    folded: Option<Folded>,
    pick: Option<Pick>,
    pending: Option<Pending>,
    /// Why nothing could be reserved for a task.
    refused: Option<Refused>,
    foreign_asked: bool,
    scanned_anew: bool,
    searched: bool,
    expired: Option<Expired>,
    /// As many records were purged as are in one go.
    purged_full: bool,
}

/// Looks at a job, from the key as the watch knows it, or else from the leader. What is remembered in
/// `backlog` is of `era`.
pub(crate) async fn advance(
    shared: &Arc<Shared>,
    era: u64,
    job: &JobName,
    key: Option<Key>,
    backlog: &mut Backlog,
) -> Result<Outcome, Failed> {
    let key = match key {
        Some(key) => key,
        None => shared.nats.job(job).await?,
    };
    shared.learn_spec(job, key == Key::Absent).await?;
    budget::learn(shared).await;
    let mut look = Look {
        shared,
        era,
        job,
        backlog,
        key,
        folded: None,
        pick: None,
        pending: None,
        refused: None,
        foreign_asked: false,
        scanned_anew: false,
        searched: shared.is_searched(job, now()),
        expired: None,
        purged_full: false,
    };
    let outcome = look.run().await;
    look.delete_leftovers().await?;
    outcome
}

impl Look<'_> {
    async fn run(&mut self) -> Result<Outcome, Failed> {
        for _ in 0..STEPS_MAX {
            let spec = self.shared.spec(self.job);
            let offers = self.shared.fleet.offers();
            let view = View {
                now: now(),
                key: &self.key,
                spec: &spec,
                folded: self.folded.as_ref(),
                pick: self.pick.as_ref(),
                pending: self.pending,
                refused: self.refused.as_ref(),
                limited: self.shared.key_limited(now()),
                searched: self.searched,
                runner: Uuid::now_v7(),
                offers: &offers,
            };
            let step = decide(&view, &self.shared.me)?;
            tracing::trace!(job = %self.job, ?step, "step");
            match step {
                Step::ReadRecords => self.read_records().await?,
                Step::ReadQueue => self.read_queue(&spec).await?,
                Step::Count => self.count().await?,
                Step::Requeue => self.requeue().await?,
                Step::Write(state) => self.write(&state).await?,
                Step::Claim(state, ready) => match self.claim(*state, *ready).await? {
                    Some(outcome) => return Ok(outcome),
                    None => continue,
                },
                Step::Settle(state) => {
                    if self.swap(&state).await? {
                        settle::settle(self.shared, self.job, &self.key).await?;
                        self.reread().await?;
                    }
                }
                Step::Empty => {
                    empty::empty(self.shared, self.job, &self.key).await?;
                    *self.backlog = Backlog::new(self.job.clone());
                    self.reread().await?;
                }
                Step::Forget => {
                    let revision = self.key.revision();
                    self.shared.nats.erase_job(self.job, revision).await?;
                    self.reread().await?;
                }
                Step::Remove => {
                    if let Some(outcome) = self.remove().await? {
                        return Ok(outcome);
                    }
                }
                Step::Rest(_) if self.key == Key::Absent => return Ok(Outcome::Gone),
                Step::Rest(_) if self.purged_full => return Ok(Outcome::More),
                Step::Rest(rest) => return Ok(Outcome::Rest(rest)),
            }
        }
        Err(Failed::Endless)
    }

    /// Reads the key from the leader, and forgets what was seen before.
    async fn reread(&mut self) -> Result<(), Failed> {
        self.key = self.shared.nats.job(self.job).await?;
        self.forget();
        Ok(())
    }

    fn forget(&mut self) {
        self.expired = None;
        self.folded = None;
        self.pick = None;
        self.pending = None;
    }

    /// Writes the state; when somebody else did, reads what it wrote.
    async fn swap(&mut self, state: &JobState) -> Result<bool, Failed> {
        match self
            .shared
            .nats
            .write_job(self.job, state, self.key.revision())
            .await?
        {
            Swap::Won(revision) => {
                self.key = Key::State(Box::new(state.clone()), revision);
                if let Some(expired) = self.expired.take() {
                    self.purge(&expired).await?;
                }
                Ok(true)
            }
            Swap::Lost => {
                self.reread().await?;
                Ok(false)
            }
        }
    }

    /// Purges records whose time is over; the key says so by now, so that it can be repeated.
    async fn purge(&mut self, expired: &Expired) -> Result<(), Failed> {
        let nats = &self.shared.nats;
        for blob in &expired.blobs {
            nats.delete_blob(blob).await?;
        }
        let names = nats.names();
        let records = names.job_results(self.job);
        nats.purge(&names.stream(), &records, Some(expired.up_to))
            .await?;
        if expired.more {
            self.backlog.expire_again();
            self.purged_full = true;
        }
        Ok(())
    }

    async fn write(&mut self, state: &JobState) -> Result<(), Failed> {
        let before = self.key.state().map(|state| state.status.as_str());
        let was_over = self
            .key
            .state()
            .is_some_and(|key| key.over_budget.is_some());
        if !self.swap(state).await? {
            return Ok(());
        }
        if let Some(lack) = state.over_budget.as_ref().filter(|_| !was_over) {
            tracing::warn!(job = %self.job, account = %lack.account, reason = lack.reason, "over budget");
            let reason = format!("account {}: {}", lack.account, lack.reason);
            let data = Data {
                reason: Some(reason),
                ..Data::default()
            };
            self.shared.tell(Kind::OverBudget, self.job, data).await;
        }
        self.pick = None;
        self.pending = None;
        let status = state.status.as_str();
        let kind = match state.status {
            JobStatus::Completed { .. } => Kind::Completed,
            JobStatus::Failed { .. } => Kind::Failed,
            _ => return Ok(()),
        };
        if before != Some(status) {
            tracing::info!(job = %self.job, status);
            self.shared.tell(kind, self.job, Data::default()).await;
        }
        Ok(())
    }

    async fn claim(&mut self, state: JobState, ready: Ready) -> Result<Option<Outcome>, Failed> {
        let Some(lease) = state.lease().cloned() else {
            return Ok(None);
        };
        let Some(place) = self.shared.fleet.take(&lease.backend) else {
            return Ok(Some(Outcome::Rest(Rest::Full(vec![lease.backend]))));
        };
        if !self.reserve(lease.runner, &ready).await? {
            return Ok(None);
        }
        air_nats::crash::point("reserved");
        if !self.swap(&state).await? {
            self.give_back(lease.runner, &ready).await?;
            return Ok(None);
        }
        air_nats::crash::point("claimed");
        let fence = self.key.revision();
        let target = &ready.target;
        let data = Data {
            task: Some(target.task.clone()),
            attempt: Some(target.attempt),
            run: Some(lease.runner),
            fence: Some(fence),
            ..Data::default()
        };
        let order = Order {
            job: self.job.clone(),
            seq: target.seq,
            runner: lease.runner,
            fence,
            backend: lease.backend,
            state: hand_over(&state),
            image: ready.image,
            resources: ready.resources,
        };
        let state = Box::new(state);
        // At once, and not when the look is over: what is left of it asks NATS for more.
        self.shared.start(Launch {
            order,
            place,
            state,
            data,
        });
        Ok(Some(Outcome::Started))
    }

    async fn remove(&mut self) -> Result<Option<Outcome>, Failed> {
        if let held @ Rest::Held(_) = remove::remove(self.shared, self.job, &self.key).await? {
            return Ok(Some(Outcome::Rest(held)));
        }
        *self.backlog = Backlog::new(self.job.clone());
        self.reread().await?;
        Ok(None)
    }

    /// Publishes again what is lost. A key that counts what its records do not say is rebuilt from them.
    async fn requeue(&mut self) -> Result<(), Failed> {
        self.searched = true;
        let Some(folded) = &self.folded else {
            return Ok(());
        };
        match requeue::requeue(self.shared, self.job, &folded.ledger).await? {
            Found::Lost(0) => self.shared.set_searched(self.job, now()),
            Found::Lost(_) => {
                self.backlog.expect_more();
                self.reread().await?;
            }
            Found::Miscounted => self.rebuild("it counts what its records do not say"),
        }
        Ok(())
    }

    /// The key is taken for unreadable, which has it rebuilt from the records, and held.
    fn rebuild(&mut self, reason: &str) {
        let revision = self.key.revision();
        self.key = Key::Garbage(revision, reason.to_owned());
        *self.backlog = Backlog::new(self.job.clone());
        self.forget();
    }

    /// Deletes what is left over; off the path of the next task. Each message is read before: in a stream
    /// that was restored from an older state, its sequence may be another's.
    async fn delete_leftovers(&mut self) -> Result<(), Failed> {
        let nats = &self.shared.nats;
        let mut due = self.backlog.leftovers(now(), self.shared.delete_after);
        while let Some((first, _)) = due.first_key_value() {
            let (there, pending) = nats.queued(self.job, *first, PAGE).await?;
            let read_to = there.last().filter(|_| pending > 0);
            let later = read_to.map_or_else(BTreeMap::new, |last| due.split_off(&(last.seq + 1)));
            for (seq, left) in std::mem::replace(&mut due, later) {
                if left.is_among(seq, &there) && self.era == self.shared.era() {
                    nats.delete(seq).await?;
                }
                self.backlog.deleted(seq);
            }
        }
        Ok(())
    }
}

/// The state as text for the runner's environment, if it fits.
fn hand_over(state: &JobState) -> Option<String> {
    let text = String::from_utf8(encode(Wire::Json, state)).ok()?;
    (text.len() <= HAND_OVER_BYTES_MAX).then_some(text)
}

/// The delay after this many failed starts before.
pub fn hold(failed_starts: u32) -> Duration {
    HOLD_FIRST
        .saturating_mul(2_u32.saturating_pow(failed_starts.min(16)))
        .min(HOLD_MAX)
}
