//! The lease that this runner holds: starting under it, renewing it, giving it back.
//!
//! Every write is a compare-and-swap by the state machine of [`air_protocol::job`]. A refused one
//! reads the key: as long as the lease is our own, we go on with the new revision.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use air_nats::jobs::{Key, Swap};
use air_nats::{Error, Nats};
use air_protocol::event::{Data, Kind};
use air_protocol::job::{Change, Event, JobState};
use air_protocol::lease::{Phase, Target};
use air_protocol::limits::KILL_GRACE;
use air_protocol::names::JobName;
use air_protocol::time::Time;
use uuid::Uuid;

use crate::brake::{Brake, Why};
use crate::clock;
use crate::options::Claim;
use crate::patience::{Patience, again};

/// Time for which an answer that is older than what we know is asked for again.
pub(crate) const STALE_MAX: Duration = Duration::from_secs(5);
/// Time kept free between the end of the tree and the end of the lease.
const SLACK: Duration = Duration::from_secs(2);
/// The least time kept free at the end of a lease.
const MARGIN_MIN: Duration = Duration::from_secs(1);

/// The lease, from start to release.
pub(crate) struct Hold {
    pub(crate) nats: Nats,
    pub(crate) job: JobName,
    pub(crate) runner: Uuid,
    pub(crate) fence: u64,
    pub(crate) host: String,
    pub(crate) target: Target,
    /// The account with which something is reserved for this run.
    pub(crate) account: Option<JobName>,
    /// When the manager claimed.
    pub(crate) claimed: Time,
    pub(crate) brake: Brake,
    pub(crate) times: Times,
    held: Mutex<Held>,
}

/// The key as we last knew it.
struct Held {
    state: JobState,
    revision: u64,
    /// Boot clock at the beginning of the last write that went through.
    renewed: Duration,
}

impl Held {
    /// Time, from `boot` on, for which the lease is still surely ours; zero when it may not be.
    fn remaining(&self, usable: Duration, boot: Duration) -> Duration {
        self.renewed.saturating_add(usable).saturating_sub(boot)
    }

    /// Takes in what the key holds, and says whether the work goes on. An answer that is older than what we
    /// know says nothing; a lease of anybody else, or of another claim, is not ours.
    fn heed(&mut self, key: &Key, runner: Uuid, fence: u64) -> Result<Ours, Mine> {
        if key.revision() < self.revision && *key != Key::Absent {
            return Err(Mine::Unknown);
        }
        let (Key::State(state, revision), Some(ours)) = (key, ours(key, runner, fence)) else {
            return Err(Mine::No);
        };
        self.state = (**state).clone();
        self.revision = *revision;
        Ok(ours)
    }
}

/// The times that follow from the length of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Time between renewals.
    pub every: Duration,
    /// Time after a renewal for which the lease is surely ours and the tree may still run.
    pub usable: Duration,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
}

impl Times {
    /// The times of a lease of this length.
    pub fn of_ttl(ttl: Duration) -> Self {
        let margin = (ttl / 2).min(KILL_GRACE + SLACK).max(MARGIN_MIN);
        Self {
            every: ttl / 3,
            usable: ttl.saturating_sub(margin),
            grace: margin - SLACK.min(margin / 2),
        }
    }
}

/// What a look at the key says of our lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mine {
    /// It is ours.
    Yes,
    /// The answer is older than what we know, and says nothing.
    Unknown,
    /// It is not ours any more.
    No,
}

impl Hold {
    /// Starts under `claim`; none when it is not, or no longer, ours.
    pub(crate) async fn start(
        nats: &Nats,
        claim: &Claim,
        host: String,
    ) -> Result<Option<Self>, Error> {
        let state = match &claim.state {
            Some(state) => Some(state.clone()),
            None => read_claim(nats, claim).await?,
        };
        let Some(state) = state else { return Ok(None) };
        let Some(begin) = Start::of(&state, claim, &host, clock::now()) else {
            return Ok(None);
        };
        air_nats::crash::point("starting");
        let renewed = clock::boot();
        let write = nats.write_job(&claim.job, &begin.next, begin.expected);
        let Swap::Won(revision) = write.await? else {
            return Ok(None);
        };
        air_nats::crash::point("started");
        Ok(Some(Self {
            nats: nats.clone(),
            job: claim.job.clone(),
            runner: claim.runner,
            fence: claim.fence,
            host,
            target: begin.target,
            account: begin.account,
            claimed: begin.claimed,
            brake: Brake::new(),
            times: Times::of_ttl(begin.ttl),
            held: Mutex::new(Held {
                state: begin.next,
                revision,
                renewed,
            }),
        }))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sequence of the last record that the job's key names.
    pub(crate) fn last_record(&self) -> u64 {
        self.held().state.last_record
    }

    /// Boot clock at the beginning of the last renewal.
    pub(crate) fn renewed(&self) -> Duration {
        self.held().renewed
    }

    /// Time for which the lease is still surely ours; zero when it may not be.
    pub(crate) fn remaining(&self) -> Duration {
        self.held().remaining(self.times.usable, clock::boot())
    }

    /// `work`, or none as soon as the lease is lost.
    pub(crate) async fn unless_lost<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.brake.lost() => None,
            done = work => Some(done),
        }
    }

    /// Takes in what the key holds, and ends the task if it says so.
    pub(crate) fn heed(&self, key: &Key) -> Mine {
        match self.held().heed(key, self.runner, self.fence) {
            Ok(Ours::Running) => Mine::Yes,
            Ok(Ours::Stopping) => {
                self.brake.pull(Why::Cancelled);
                Mine::Yes
            }
            Err(mine) => mine,
        }
    }

    /// Renews the lease; the answer is no when it is not ours any more.
    pub(crate) async fn renew(&self) -> Result<Mine, Error> {
        let event = Event::Renew {
            runner: self.runner,
        };
        self.swap(&event, |held, next, revision, begun| {
            *held = Held {
                state: next,
                revision,
                renewed: begun,
            };
        })
        .await
    }

    /// Gives the lease back, naming the last record; one that is not ours any more needs nothing.
    pub(crate) async fn release(&self, record: u64) -> Result<(), Error> {
        let event = Event::Release {
            runner: self.runner,
            record,
        };
        let released = self.swap(&event, |held, next, revision, _| {
            held.state = next;
            held.revision = revision;
        });
        let released = released.await?;
        air_nats::crash::point("released");
        if released == Mine::Yes {
            let data = Data {
                record: Some(record),
                ..self.event_data()
            };
            self.nats.emit(Kind::Released, data).await;
        }
        Ok(())
    }

    /// Applies `event` by compare-and-swap, as long as the lease is ours.
    async fn swap(
        &self,
        event: &Event,
        won: impl Fn(&mut Held, JobState, u64, Duration),
    ) -> Result<Mine, Error> {
        let mut patience = Patience::new();
        loop {
            let begun = clock::boot();
            let (changed, revision) = {
                let held = self.held();
                (held.state.apply(event, clock::now()), held.revision)
            };
            let Ok(Change::To(next)) = changed else {
                return Ok(Mine::No);
            };
            match self.nats.write_job(&self.job, &next, revision).await? {
                Swap::Won(revision) => {
                    won(&mut self.held(), *next, revision, begun);
                    return Ok(Mine::Yes);
                }
                Swap::Lost => {
                    let key = again(async || self.nats.job(&self.job).await).await?;
                    if self.heed(&key) == Mine::No {
                        return Ok(Mine::No);
                    }
                }
            }
            patience.wait().await;
        }
    }

    /// What every event of this attempt says.
    pub(crate) fn event_data(&self) -> Data {
        Data {
            job: Some(self.job.clone()),
            task: Some(self.target.task.clone()),
            attempt: Some(self.target.attempt),
            run: Some(self.runner),
            fence: Some(self.fence),
            ..Data::default()
        }
    }
}

/// The state at the revision of the claim; none when the key is at another one.
async fn read_claim(nats: &Nats, claim: &Claim) -> Result<Option<Box<JobState>>, Error> {
    let begun = clock::boot();
    let mut patience = Patience::new();
    loop {
        let key = again(async || nats.job(&claim.job).await).await?;
        match key {
            Key::State(state, revision) if revision == claim.fence => return Ok(Some(state)),
            // A server that has not seen the claim yet, or was deposed.
            key if key.revision() < claim.fence && clock::boot() < begun + STALE_MAX => {
                patience.wait().await;
            }
            _ => return Ok(None),
        }
    }
}

/// What a key says of a lease that is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ours {
    /// The work goes on.
    Running,
    /// A user wants it stopped.
    Stopping,
}

/// What a key says of the lease of `runner`; none where it does not hold it, or not any more.
pub fn ours(key: &Key, runner: Uuid, fence: u64) -> Option<Ours> {
    let lease = key.state()?.lease()?;
    match &lease.phase {
        _ if lease.runner != runner => None,
        Phase::Running(running) if running.fence == fence => Some(Ours::Running),
        Phase::Stopping { running, .. } if running.fence == fence => Some(Ours::Stopping),
        _ => None,
    }
}

/// What a start writes, and where.
#[derive(Debug, PartialEq)]
struct Start {
    next: JobState,
    /// The revision of the claim: whoever took the lease since has moved the key on.
    expected: u64,
    target: Target,
    account: Option<JobName>,
    claimed: Time,
    ttl: Duration,
}

impl Start {
    /// The start under `claim`; none when the state shows no such claim, or one that has started.
    fn of(state: &JobState, claim: &Claim, host: &str, now: Time) -> Option<Self> {
        let lease = state.lease()?;
        let target = match &lease.phase {
            Phase::Starting { target } if target.seq == claim.seq => target.clone(),
            _ => return None,
        };
        let event = Event::Start {
            runner: claim.runner,
            fence: claim.fence,
            host: host.to_owned(),
        };
        let Ok(Change::To(next)) = state.apply(&event, now) else {
            return None;
        };
        Some(Self {
            next: *next,
            expected: claim.fence,
            target,
            account: lease.budget.clone(),
            claimed: lease.claimed,
            ttl: lease.ttl.0,
        })
    }
}

#[cfg(test)]
mod tests;
