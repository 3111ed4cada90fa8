//! The fleet: the backends of one manager, and the places that their runners take.
//!
//! It is all that the rest of the manager knows of backends: an order goes to the one that it names, and a runner that
//! is to be ended to the one that its lease names. A backend that was unavailable is left alone for a while.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use air_protocol::limits::SWEEP_EVERY;
use air_protocol::names::JobName;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Backend, End, Exit, Later, Order, SpawnError, Spawned};
use crate::offers::{Offer, Room, away_for};
use crate::shared::now;

/// Runners at once: in all, and of each backend that has a limit of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Of all backends together.
    pub runners_max: usize,
    /// Of single backends, by their names.
    pub of: BTreeMap<String, usize>,
}

/// The backends of a manager, in the order in which they are tried.
#[derive(Debug, Clone)]
pub(crate) struct Fleet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    members: Vec<Arc<dyn Backend>>,
    places: Arc<Mutex<Places>>,
    /// The runners that this manager started and that live, with their places. Never locked together with the places.
    held: Mutex<HashMap<Uuid, Place>>,
    /// Those of them whose end no backend tells, with their fences: when their jobs' keys name them no longer they have ended.
    unheard: Mutex<HashMap<JobName, (Uuid, u64)>>,
    /// Changes whenever there may be more room than before.
    freed: watch::Sender<()>,
}

#[derive(Debug)]
struct Places {
    limits: Limits,
    taken: HashMap<String, usize>,
    away: HashMap<String, Away>,
    freed: watch::Sender<()>,
}

/// A backend could not start a runner.
#[derive(Debug, Clone, Copy)]
struct Away {
    until: Instant,
    /// How often in a row.
    failures: u32,
}

impl Places {
    fn all_taken(&self) -> usize {
        self.taken.values().sum()
    }

    fn free(&self) -> usize {
        self.limits.runners_max.saturating_sub(self.all_taken())
    }

    fn free_of(&self, backend: &str) -> usize {
        let taken = self.taken.get(backend).copied().unwrap_or(0);
        let most = self.limits.of.get(backend).copied();
        most.map_or(usize::MAX, |most| most.saturating_sub(taken))
            .min(self.free())
    }
}

/// The place of a runner; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    backend: String,
    places: Arc<Mutex<Places>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = lock(&self.places);
        if let Some(taken) = places.taken.get_mut(&self.backend) {
            *taken = taken.saturating_sub(1);
        }
        let _ = places.freed.send(());
    }
}

/// Everything that could be done to end a runner was done. Only [`Fleet::kill`] makes it, and nothing is committed on
/// behalf of a runner without it: what still runs of its task must not work beside the next attempt. It holds how the runner was found to
/// have ended, where that is known.
#[derive(Debug)]
pub(crate) struct Killed(Option<Exit>);

impl Killed {
    /// How the runner was found to have ended, where that is known.
    pub(crate) fn found(&self) -> Option<Exit> {
        self.0
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleet {
    pub(crate) fn new(members: Vec<Arc<dyn Backend>>, limits: Limits) -> Self {
        let freed = watch::Sender::new(());
        let places = Places {
            limits,
            taken: HashMap::new(),
            away: HashMap::new(),
            freed: freed.clone(),
        };
        Self(Arc::new(Inner {
            members,
            places: Arc::new(Mutex::new(places)),
            held: Mutex::default(),
            unheard: Mutex::default(),
            freed,
        }))
    }

    /// What the backends offer now, in their order.
    pub(crate) fn offers(&self) -> Vec<Offer> {
        let mut offers: Vec<Offer> = self.0.members.iter().map(|one| one.offer()).collect();
        let places = lock(&self.0.places);
        for offer in &mut offers {
            let away = places.away.get(&offer.backend);
            let left = away.map_or(Duration::ZERO, |away| {
                away.until.saturating_duration_since(Instant::now())
            });
            if !left.is_zero() {
                offer.room = Room::Away(now().after(left));
            } else if offer.room == Room::Free && places.free_of(&offer.backend) == 0 {
                offer.room = Room::Full;
            }
        }
        offers
    }

    /// The names of the backends that can be had now.
    pub(crate) fn names(&self) -> Vec<String> {
        let there = |offer: &Offer| !matches!(offer.room, Room::Away(_));
        let offers = self.offers().into_iter();
        offers.filter(there).map(|offer| offer.backend).collect()
    }

    /// Changes whenever there may be more room than before.
    pub(crate) fn freed(&self) -> watch::Receiver<()> {
        self.0.freed.subscribe()
    }

    /// Runners that could be started, whatever their backend.
    pub(crate) fn free(&self) -> usize {
        lock(&self.0.places).free()
    }

    /// Runners that this backend could start.
    pub(crate) fn free_of(&self, backend: &str) -> usize {
        lock(&self.0.places).free_of(backend)
    }

    /// Other limits from now on. Runners above them go on to their end.
    pub(crate) fn set_limits(&self, limits: Limits) {
        lock(&self.0.places).limits = limits;
        let _ = self.0.freed.send(());
    }

    /// Takes a place, if there is one.
    pub(crate) fn take(&self, backend: &str) -> Option<Place> {
        let mut places = lock(&self.0.places);
        if places.free_of(backend) == 0 {
            return None;
        }
        *places.taken.entry(backend.to_owned()).or_default() += 1;
        // Made while its lock is held, so nothing here may drop it.
        Some(Place {
            backend: backend.to_owned(),
            places: self.0.places.clone(),
        })
    }

    /// Starts a runner; its place is given back when it has ended, or was not started.
    pub(crate) async fn spawn(&self, order: Order, place: Place) -> Result<Spawned, SpawnError> {
        let order = Arc::new(order);
        let Some(member) = self.member(&order.backend) else {
            let text = format!("this manager has no backend `{}`", order.backend);
            return Err(SpawnError::Unavailable(text));
        };
        // Before it starts: its end may be heard of at once.
        let starting = Starting::new(self, order.runner, place);
        if !member.tells_ends() {
            self.expect_release(&order);
        }
        let spawned = member.spawn(order.clone()).await;
        match &spawned {
            Ok(_) => {
                lock(&self.0.places).away.remove(&order.backend);
                starting.succeeded();
            }
            Err(SpawnError::Unavailable(reason)) => self.leave_alone(&order.backend, reason),
            Err(SpawnError::Refused(_)) => {}
        }
        spawned
    }

    fn leave_alone(&self, backend: &str, reason: &str) {
        let mut places = lock(&self.0.places);
        let failures = places.away.get(backend).map_or(0, |away| away.failures);
        let wait = away_for(failures);
        let away = Away {
            until: Instant::now() + wait,
            failures: failures.saturating_add(1),
        };
        places.away.insert(backend.to_owned(), away);
        drop(places);
        tracing::warn!(backend, reason, ?wait, "the backend is away");
    }

    fn member(&self, backend: &str) -> Option<&Arc<dyn Backend>> {
        let mut members = self.0.members.iter();
        members.find(|one| one.offer().backend == backend)
    }

    /// The end of this runner will be told by the key of its job alone.
    fn expect_release(&self, order: &Order) {
        let mut unheard = lock(&self.0.unheard);
        let before = unheard.insert(order.job.clone(), (order.runner, order.fence));
        drop(unheard);
        // A job has one runner at a time.
        if let Some((before, _)) = before {
            self.ended(before);
        }
    }

    /// The key of a job names this runner at this revision: another one, whose end no backend tells, has ended.
    pub(crate) fn key_names(&self, job: &JobName, revision: u64, runner: Option<Uuid>) {
        let mut unheard = lock(&self.0.unheard);
        let over = |(one, fence): &(Uuid, u64)| revision > *fence && runner != Some(*one);
        if !unheard.get(job).is_some_and(over) {
            return;
        }
        let ended = unheard.remove(job);
        drop(unheard);
        if let Some((ended, _)) = ended {
            self.ended(ended);
        }
    }

    /// Revisions count anew: nothing will be told of the runners of before.
    pub(crate) fn forget_keys(&self) {
        let unheard = std::mem::take(&mut *lock(&self.0.unheard));
        for (runner, _) in unheard.into_values() {
            self.ended(runner);
        }
    }

    /// Runners that this manager started and that live.
    pub(crate) fn running(&self) -> usize {
        lock(&self.0.held).len()
    }

    /// Those of them whose end will be told.
    pub(crate) fn awaited(&self) -> usize {
        let unheard: Vec<Uuid> = lock(&self.0.unheard)
            .values()
            .map(|(one, _)| *one)
            .collect();
        let held = lock(&self.0.held);
        held.keys().filter(|one| !unheard.contains(one)).count()
    }

    /// A runner has ended; gives the name of its backend, where this manager started it.
    pub(crate) fn ended(&self, runner: Uuid) -> Option<String> {
        let place = lock(&self.0.held).remove(&runner);
        place.map(|place| place.backend.clone())
    }

    /// Runners that this manager started and that live, and their backends.
    fn held(&self) -> Vec<(Uuid, String)> {
        let held = lock(&self.0.held);
        held.iter()
            .map(|(runner, place)| (*runner, place.backend.clone()))
            .collect()
    }

    /// Asks all runners of this manager to end.
    pub(crate) async fn stop(&self) {
        for (runner, backend) in self.held() {
            if let Some(member) = self.member(&backend) {
                member.stop(runner).await;
            }
        }
    }

    /// Ends a runner that was judged dead. Where it ran on a backend that this manager does not have, all are asked: its id is
    /// its own, and who sees nothing of it finds nothing.
    pub(crate) async fn kill(&self, backend: &str, runner: Uuid) -> Killed {
        let mut found = None;
        match self.member(backend) {
            Some(member) => found = member.kill(runner).await,
            None => {
                for member in &self.0.members {
                    found = member.kill(runner).await.or(found);
                }
            }
        }
        self.ended(runner);
        Killed(found)
    }

    /// Looks for runners that live no longer, among those whose leases name the realm of a backend: `wanted` lists them. Those
    /// that this manager started are left out, since it hears of their end.
    pub(crate) fn look_for(
        &self,
        mut wanted: impl FnMut(&str, Duration) -> HashSet<Uuid>,
    ) -> Option<Later<'static, HashSet<Uuid>>> {
        let mut looks = Vec::new();
        for member in &self.0.members {
            let offer = member.offer();
            let there = !matches!(offer.room, Room::Away(_));
            let Some(realm) = offer.realm.filter(|_| there) else {
                continue;
            };
            let mut runners = wanted(&realm, member.spawn_within());
            let held = lock(&self.0.held);
            runners.retain(|runner| !held.contains_key(runner));
            if !runners.is_empty() {
                looks.push((member.clone(), runners));
            }
        }
        if looks.is_empty() {
            return None;
        }
        Some(Box::pin(async move {
            let mut gone = HashSet::new();
            for (member, runners) in looks {
                gone.extend(member.gone(runners).await);
            }
            gone
        }))
    }

    /// Has all backends tell of the ends of runners, and clear away what dead runners left, again and again, for ever.
    pub(crate) fn watch(&self, ends: &mpsc::UnboundedSender<End>, feeds: &mut JoinSet<()>) {
        for member in &self.0.members {
            feeds.spawn(member.clone().watch(ends.clone()));
            let member = member.clone();
            feeds.spawn(async move {
                loop {
                    member.clear().await;
                    tokio::time::sleep(SWEEP_EVERY).await;
                }
            });
        }
    }
}

/// A runner is about to start: its place is given back unless it did, also where nobody waits for that any more.
struct Starting<'a> {
    fleet: &'a Fleet,
    runner: Uuid,
    started: bool,
}

impl<'a> Starting<'a> {
    fn new(fleet: &'a Fleet, runner: Uuid, place: Place) -> Self {
        lock(&fleet.0.held).insert(runner, place);
        Self {
            fleet,
            runner,
            started: false,
        }
    }

    fn succeeded(mut self) {
        self.started = true;
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        if !self.started {
            self.fleet.ended(self.runner);
        }
    }
}

#[cfg(test)]
mod tests;
