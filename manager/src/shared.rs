//! What all looks at jobs share: the connection, the backends, and what is known of other jobs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use air_nats::Nats;
use air_protocol::event::{Data, Kind};
use air_protocol::names::JobName;
use air_protocol::spec::Spec;
use air_protocol::time::Time;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::backend::fleet::Fleet;
use crate::budget::Seen;
use crate::circle::Waits;
use crate::decide::Me;
use crate::launch::{Launch, launch};

/// Time between two searches of one manager for the lost messages of a job.
const SEARCH_EVERY: Duration = Duration::from_secs(30);

/// What was heard of specs.
#[derive(Debug, Default)]
struct Specs {
    /// The spec of each job, or what is wrong with it, and its revision.
    of: HashMap<JobName, (u64, Result<Spec, String>)>,
    is_current: bool,
}

/// What all looks at jobs share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) nats: Nats,
    pub(crate) me: Me,
    pub(crate) fleet: Fleet,
    /// Age at which a left-over message may be deleted: the server has synced its record by then.
    pub(crate) delete_after: Duration,
    /// How often the server was found to have lost what was seen of it.
    rollbacks: AtomicU64,
    specs: Mutex<Specs>,
    waits: Mutex<Waits>,
    budgets: Mutex<Seen>,
    /// Id of the key of the service that runners on this machine use.
    key: Option<String>,
    /// Jobs in which nothing was lost when it was last searched for.
    searched: Mutex<HashMap<JobName, Time>>,
    /// Runners that are being started.
    launches: Mutex<JoinSet<()>>,
}

impl Shared {
    pub(crate) fn new(nats: Nats, me: Me, fleet: Fleet, delete_after: Duration) -> Self {
        Self {
            nats,
            me,
            fleet,
            delete_after,
            rollbacks: AtomicU64::new(0),
            specs: Mutex::default(),
            waits: Mutex::default(),
            budgets: Mutex::default(),
            key: air_runner::key::id_in_environment(),
            searched: Mutex::default(),
            launches: Mutex::default(),
        }
    }

    /// Starts the runner of a claim, while others go on.
    pub(crate) fn start(self: &Arc<Self>, claimed: Launch) {
        let (shared, job) = (self.clone(), claimed.order.job.clone());
        let mut launches = self.launches();
        while launches.try_join_next().is_some() {}
        launches.spawn(async move {
            if let Err(error) = launch(&shared, claimed).await {
                tracing::warn!(%job, %error, "could not give a claim back; it is taken over when its time is over");
            }
        });
    }

    /// Waits for the runners that are being started.
    pub(crate) async fn launched(&self) {
        let mut launches = std::mem::take(&mut *self.launches());
        while launches.join_next().await.is_some() {}
    }

    fn launches(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.launches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the times after which the server may have lost what was seen of it: sequences and
    /// revisions of another era may belong to other messages.
    pub(crate) fn era(&self) -> u64 {
        self.nats.link().borrow().losses + self.rollbacks.load(Ordering::Relaxed)
    }

    /// The server was found to have an older state.
    pub(crate) fn went_back(&self) {
        self.rollbacks.fetch_add(1, Ordering::Relaxed);
    }

    /// The spec of a job, as last heard of.
    pub(crate) fn spec(&self, job: &JobName) -> Result<Spec, String> {
        let specs = self.specs();
        let heard = specs.of.get(job).map(|(_, spec)| spec.clone());
        heard.unwrap_or_else(|| Ok(Spec::default()))
    }

    /// A job's spec was seen at a revision.
    pub(crate) fn set_spec(&self, job: &JobName, revision: u64, spec: Result<Spec, String>) {
        let mut specs = self.specs();
        if specs.of.get(job).is_some_and(|(seen, _)| *seen > revision) {
            return;
        }
        if spec == Ok(Spec::default()) {
            specs.of.remove(job);
        } else {
            specs.of.insert(job.clone(), (revision, spec));
        }
    }

    /// The watch has told all specs that there were when it began.
    pub(crate) fn specs_are_current(&self) {
        self.specs().is_current = true;
    }

    /// Forgets what was heard of other jobs and of specs: the server may have lost it.
    pub(crate) fn forget(&self) {
        *self.specs() = Specs::default();
        *self.waits() = Waits::default();
        *self.budgets() = Seen::default();
        self.searches().clear();
    }

    /// Lost messages of a job were searched for in vain: there is no need to do so again for a while.
    pub(crate) fn set_searched(&self, job: &JobName, now: Time) {
        let mut searched = self.searches();
        searched.retain(|_, when| now.since(*when) < SEARCH_EVERY);
        searched.insert(job.clone(), now);
    }

    /// Whether lost messages of a job were searched for a short while ago.
    pub(crate) fn is_searched(&self, job: &JobName, now: Time) -> bool {
        let searched = self.searches();
        searched
            .get(job)
            .is_some_and(|when| now.since(*when) < SEARCH_EVERY)
    }

    fn searches(&self) -> MutexGuard<'_, HashMap<JobName, Time>> {
        self.searched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a job's spec where the watch may not have told it: of a job that is `new`, whose spec was
    /// written just before its first task, and of any job until the watch has told all that there are.
    pub(crate) async fn learn_spec(&self, job: &JobName, new: bool) -> Result<(), air_nats::Error> {
        if new || !self.specs().is_current {
            let (spec, revision) = self.nats.spec(job).await?;
            self.set_spec(job, revision, spec);
        }
        Ok(())
    }

    fn specs(&self) -> MutexGuard<'_, Specs> {
        self.specs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What polls have seen of accounts.
    pub(crate) fn budgets(&self) -> MutexGuard<'_, Seen> {
        self.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when the key of the service is limited that runners on this machine use.
    pub(crate) fn key_limited(&self, now: Time) -> Option<Time> {
        self.budgets().limited(self.key.as_ref()?, now)
    }

    /// Tells that a claim was given back whose runner could not be started.
    pub(crate) async fn tell_unstarted(
        &self,
        job: &JobName,
        runner: Uuid,
        fence: u64,
        reason: String,
    ) {
        let data = Data {
            run: Some(runner),
            fence: Some(fence),
            reason: Some(reason),
            ..Data::default()
        };
        self.tell(Kind::Released, job, data).await;
    }

    /// Tells that something happened to a job.
    pub(crate) async fn tell(&self, kind: Kind, job: &JobName, data: Data) {
        let manager = Some(self.me.id.clone());
        self.nats
            .emit(
                kind,
                Data {
                    job: Some(job.clone()),
                    manager,
                    ..data
                },
            )
            .await;
    }
}

/// The wall clock: for people, and for delays that all managers share. No lease is judged by it.
pub(crate) fn now() -> Time {
    SystemTime::now().into()
}
