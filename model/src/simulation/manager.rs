//! A manager's memory: agenda, leases, backlogs, what the watch says. As `manager/src/control.rs`, whose
//! loop is bound to NATS and so written again here; agenda, leases and waits are its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use air_manager::agenda::Agenda;
use air_manager::backlog::Backlog;
use air_manager::circle::Waits;
use air_manager::decide::{Me, Rest};
use air_manager::leases::{Leases, Suspect};
use air_nats::jobs::Key;
use air_protocol::job::{JobState, JobStatus};
use air_protocol::names::JobName;
use air_protocol::time::Time;

use crate::actor::look::Look;
use crate::store::Store;

/// Time that the manager whose runner gave a job back has before others look at it.
const OTHERS_AFTER: Duration = Duration::from_millis(100);
/// Time after which a failed look is repeated.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// A manager.
#[derive(Debug)]
pub struct Memory {
    /// Who it is.
    pub me: Me,
    /// What it looks at next.
    pub agenda: Agenda,
    /// The leases that it watches.
    pub leases: Leases,
    /// Tasks that wait for others.
    pub waits: Waits,
    /// What it knows of queues.
    pub backlogs: BTreeMap<JobName, Box<Backlog>>,
    /// Jobs that are open, by what the watch says.
    pub known: BTreeMap<JobName, Key>,
    /// Jobs that are over, and the last record that is folded.
    pub quiet: BTreeMap<JobName, u64>,
    /// Jobs whose leases it takes over.
    pub recovering: BTreeSet<JobName>,
}

impl Memory {
    /// A manager that knows nothing.
    pub fn new(id: String, now: Instant) -> Self {
        Self {
            me: Me { id },
            agenda: Agenda::default(),
            leases: Leases::new(now),
            waits: Waits::default(),
            backlogs: BTreeMap::new(),
            known: BTreeMap::new(),
            quiet: BTreeMap::new(),
            recovering: BTreeSet::new(),
        }
    }

    /// A wake-up, or the poll, names a job.
    pub fn look_for_tasks(&mut self, job: &JobName) {
        if let Some(backlog) = self.backlogs.get_mut(job) {
            backlog.expect_more();
        }
        let state = self.known.get(job).and_then(Key::state);
        let working = state.is_some_and(|state| state.lease().is_some());
        if !working || self.agenda.has(job) {
            self.agenda.now(job);
        }
    }

    /// The watch says what a key holds.
    pub fn on_job(&mut self, job: &JobName, key: Key, now: Instant) {
        let before = self.known.get(job);
        if before.is_some_and(|known| known.revision() > key.revision()) {
            return;
        }
        let before = before.and_then(Key::state);
        let lease = before.and_then(JobState::lease);
        let mine = lease.is_some_and(|lease| lease.manager == self.me.id);
        let record = before.map_or(0, |state| state.last_record);
        self.leases.observe(job, key.revision(), key.state(), now);
        let Some(state) = key.state() else {
            self.known.insert(job.clone(), key);
            self.agenda.now(job);
            return;
        };
        if state.last_record > record {
            for waiter in self.waits.waiters(job) {
                self.agenda.now(&waiter);
            }
        }
        self.quiet.remove(job);
        match &state.status {
            JobStatus::Waiting if mine => self.agenda.now(job),
            JobStatus::Cancelling | JobStatus::Removing if mine => self.agenda.urgently(job),
            JobStatus::Waiting | JobStatus::Cancelling | JobStatus::Removing => {
                self.agenda.at(job, now + OTHERS_AFTER);
            }
            JobStatus::Working { .. } => self.agenda.forget(job),
            JobStatus::Completed { .. }
            | JobStatus::Failed { .. }
            | JobStatus::Cancelled { .. } => {
                self.quiet.insert(job.clone(), state.ledger.accounted);
                self.known.remove(job);
                return;
            }
        }
        self.known.insert(job.clone(), key);
    }

    /// The poll: queues, quiet jobs that are behind, open jobs.
    pub fn poll(&mut self, store: &Store) {
        for job in store.all_jobs() {
            if store.count(&store.names().tasks(&job)) > 0 {
                self.look_for_tasks(&job);
            }
        }
        for (job, accounted) in &self.quiet {
            if !store.records_after(&store.air, job, *accounted).is_empty() {
                self.agenda.urgently(job);
            }
        }
        for (job, key) in &self.known {
            if key.state().is_none_or(|state| state.lease().is_none()) {
                self.agenda.urgently(job);
            }
        }
    }

    /// The leases to be taken over now, in an order that is the same in every run.
    pub fn suspects(&self, now: Instant) -> Vec<Suspect> {
        let mut suspects = self.leases.suspects(now);
        suspects.sort_by(|one, other| one.job.cmp(&other.job));
        suspects
    }

    /// The next look, if there is one.
    pub fn next_look(&mut self) -> Option<Look> {
        let job = self.agenda.pop(true)?;
        let waits = |key: &&Key| {
            key.state()
                .is_some_and(|state| state.status == JobStatus::Waiting)
        };
        let key = self.known.get(&job).filter(waits).cloned();
        let fresh = || Box::new(Backlog::new(job.clone()));
        let backlog = self.backlogs.remove(&job).unwrap_or_else(fresh);
        Some(Look::new(job, self.me.clone(), key, backlog))
    }

    /// A look is over.
    pub fn on_looked(&mut self, look: Look, now: Time, instant: Instant) {
        match look.rest {
            Some(Rest::Held(until)) => {
                let wait = until.since(now) + Duration::from_millis(1);
                self.agenda.at(&look.job, instant + wait);
            }
            Some(_) => {}
            None => self.agenda.at(&look.job, instant + AGAIN_AFTER),
        }
        self.agenda.done(&look.job);
        if !look.backlog.is_empty() {
            self.backlogs.insert(look.job, look.backlog);
        }
    }
}
