//! Infrastructures that are asked and have to be polled: what they have in common as a backend.
//!
//! [`Remote`] is what one of them can be asked for single runs; [`Polled`] makes a [`Backend`] of it. One list of all runs that
//! live, as often as is configured, finds those that ended; nobody is asked for single runs but for the last word on one that is
//! not in the list, since lists are read page by page while runs come and go.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use uuid::Uuid;

use super::http::{ANSWER_WITHIN, Fault};
use super::{Backend, End, Exit, Later, Order, SpawnError, Spawned};
use crate::offers::{Offer, Room};
use crate::shared::now;

/// Time after which an infrastructure is looked at again before it is given a run, and that long one that is away is not asked.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Longest time between two attempts to reach one that is away.
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// Time from a claim until its run is there: a look and an order, each with a credential that is renewed.
const SPAWN_WITHIN: Duration = Duration::from_secs(4 * ANSWER_WITHIN.as_secs());

/// What an infrastructure is asked. Everything may be asked twice.
pub(crate) trait Remote: Debug + Send + Sync + 'static {
    /// What it can run; the realm and whether there is room are filled in.
    fn offer(&self) -> Offer;

    /// Whether it could start runs now; gives a name of it that no other has.
    fn look(&self) -> Later<'_, Result<String, Fault>>;

    /// Starts a run; the same order makes no second one.
    fn start<'a>(&'a self, order: &'a Order) -> Later<'a, Result<Spawned, SpawnError>>;

    /// Has the run of a runner end, whoever started it; one that is over or not there is fine.
    fn end(&self, runner: Uuid) -> Later<'_, Result<(), Fault>>;

    /// The runners of all runs that wait or go on, whoever started them; may lack some that come or go meanwhile.
    fn live(&self) -> Later<'_, Result<HashSet<Uuid>, Fault>>;

    /// How the run of this runner ended; none where it, or what it left, may still be there.
    fn exit(&self, runner: Uuid) -> Later<'_, Result<Option<Exit>, Fault>>;
}

/// A backend of an infrastructure that is polled.
#[derive(Debug)]
pub(crate) struct Polled<R> {
    remote: R,
    /// Time between two lists.
    every: Duration,
    /// The runners that this manager started.
    own: Mutex<HashSet<Uuid>>,
    /// None while it is away.
    up: Mutex<Option<Up>>,
}

/// An infrastructure that answers.
#[derive(Debug, Clone)]
struct Up {
    realm: String,
    /// When it was looked at.
    at: Instant,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R: Remote> Polled<R> {
    pub(crate) fn new(remote: R, every: Duration) -> Self {
        Self {
            remote,
            every,
            own: Mutex::default(),
            up: Mutex::default(),
        }
    }

    /// Looks at it, unless that was done just now.
    async fn look(&self) -> Result<(), Fault> {
        let fresh = |up: &Up| up.at.elapsed() < LOOK_EVERY;
        if lock(&self.up).as_ref().is_some_and(fresh) {
            return Ok(());
        }
        let looked = self.remote.look().await;
        let mut up = lock(&self.up);
        match looked {
            Ok(realm) => {
                if up.is_none() {
                    tracing::info!(backend = self.remote.offer().backend, realm, "it answers");
                }
                let at = Instant::now();
                *up = Some(Up { realm, at });
                Ok(())
            }
            Err(fault) => {
                *up = None;
                Err(fault)
            }
        }
    }

    async fn start(&self, order: &Order) -> Result<Spawned, SpawnError> {
        self.look()
            .await
            .map_err(|fault| SpawnError::Unavailable(fault.to_string()))?;
        let started = self.remote.start(order).await;
        match &started {
            Ok(_) => drop(lock(&self.own).insert(order.runner)),
            Err(SpawnError::Unavailable(_)) => *lock(&self.up) = None,
            Err(SpawnError::Refused(_)) => {}
        }
        started
    }

    /// One poll: tells of own runners that have ended.
    async fn poll(&self, ends: &mpsc::UnboundedSender<End>) -> Result<(), Fault> {
        self.look().await?;
        let own: HashSet<Uuid> = lock(&self.own).clone();
        for (runner, exit) in self.ended(own).await? {
            if lock(&self.own).remove(&runner) {
                let _ = ends.send(End { runner, exit });
            }
        }
        Ok(())
    }

    /// Those of these runners that have ended, and how.
    async fn ended(&self, runners: HashSet<Uuid>) -> Result<Vec<(Uuid, Exit)>, Fault> {
        if runners.is_empty() {
            return Ok(Vec::new());
        }
        let live = self.remote.live().await?;
        let mut ended = Vec::new();
        for runner in runners.difference(&live) {
            match self.remote.exit(*runner).await {
                Ok(exit) => ended.extend(exit.map(|exit| (*runner, exit))),
                // One that it cannot answer for keeps nobody from hearing of the others.
                Err(error @ Fault::Answer(..)) => {
                    tracing::warn!(%runner, %error, "no word of a run; asking again");
                }
                Err(away) => return Err(away),
            }
        }
        Ok(ended)
    }

    async fn end(&self, runner: Uuid) {
        if let Err(fault) = self.remote.end(runner).await {
            tracing::warn!(%runner, error = %fault, "could not have a run end");
        }
    }
}

impl<R: Remote> Backend for Polled<R> {
    fn offer(&self) -> Offer {
        let realm = lock(&self.up).as_ref().map(|up| up.realm.clone());
        let room = match realm {
            Some(_) => Room::Free,
            None => Room::Away(now().after(self.every)),
        };
        Offer {
            realm,
            room,
            ..self.remote.offer()
        }
    }

    fn spawn_within(&self) -> Duration {
        SPAWN_WITHIN
    }

    fn spawn(&self, order: Arc<Order>) -> Later<'_, Result<Spawned, SpawnError>> {
        Box::pin(async move { self.start(&order).await })
    }

    fn watch(self: Arc<Self>, ends: mpsc::UnboundedSender<End>) -> Later<'static, ()> {
        Box::pin(async move {
            let mut wait = self.every;
            loop {
                match self.poll(&ends).await {
                    Ok(()) => wait = self.every,
                    Err(error) => {
                        *lock(&self.up) = None;
                        let backend = self.remote.offer().backend;
                        tracing::warn!(backend, %error, ?wait, "no word of its runs; asking again");
                    }
                }
                tokio::time::sleep(wait).await;
                if lock(&self.up).is_none() {
                    wait = (2 * wait).min(AGAIN_MAX.max(self.every));
                }
            }
        })
    }

    fn stop(&self, runner: Uuid) -> Later<'_, ()> {
        Box::pin(self.end(runner))
    }

    fn kill(&self, runner: Uuid) -> Later<'_, Option<Exit>> {
        lock(&self.own).remove(&runner);
        Box::pin(async move {
            self.end(runner).await;
            None
        })
    }

    fn gone(&self, runners: HashSet<Uuid>) -> Later<'_, HashSet<Uuid>> {
        Box::pin(async move {
            let ended = self.ended(runners).await.unwrap_or_default();
            ended.into_iter().map(|(runner, _)| runner).collect()
        })
    }

    /// Nothing: a run that nobody waits for ends by itself.
    fn clear(&self) -> Later<'_, ()> {
        Box::pin(async {})
    }
}

#[cfg(test)]
mod tests;
