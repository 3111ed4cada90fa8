//! Hearing: what news of jobs, specs and managers put on the agenda.

use std::time::Instant;

use air_nats::Entry;
use air_nats::jobs::Key;
use air_nats::specs::spec_of;
use air_protocol::event::{Data, Kind};
use air_protocol::job::JobStatus;
use air_protocol::names::JobName;

use super::{Control, Known, OTHERS_AFTER, Quiet};
use crate::feeds::News;
use crate::shared::Shared;

/// Tasks under a name that no job can have are told of, and deleted.
pub(super) async fn reject(shared: &Shared, job: &str) {
    let reason = format!("`{job}` is no job name; use 1 to 64 of the characters A-Z a-z 0-9 _ -");
    tracing::warn!(reason, "deleting tasks");
    let nats = &shared.nats;
    nats.emit(
        Kind::Rejected,
        Data {
            reason: Some(reason),
            ..Data::default()
        },
    )
    .await;
    let subject = format!("{}.tasks.{job}", nats.names().prefix());
    if let Err(error) = nats.delete_subject(&subject).await {
        tracing::debug!(%error, "could not delete them");
    }
}

impl Control {
    pub(super) async fn hear(&mut self, news: News) {
        match news {
            News::Job(entry) => self.on_job(&entry),
            News::Spec(entry) => {
                self.specs_told.seen = self.specs_told.seen.max(entry.revision);
                let Ok(job) = entry.key.parse::<JobName>() else {
                    return;
                };
                let spec = spec_of(Some(&entry));
                if let Err(error) = &spec {
                    tracing::warn!(%job, error, "the spec cannot be read; the job is not claimed");
                }
                self.shared.set_spec(&job, entry.revision, spec);
                if self.known.contains_key(&job) {
                    self.agenda.now(&job);
                }
            }
            News::SpecsAreCurrent => self.shared.specs_are_current(),
            News::Manager(heartbeat) => self.leases.heard(&heartbeat.manager, Instant::now()),
            News::Wakeup(job) => match job.parse::<JobName>() {
                Ok(job) => {
                    self.look_for_tasks(&job);
                    self.woken.insert(job);
                }
                Err(_) => reject(&self.shared, &job).await,
            },
            News::Signal(job) => {
                self.backlogs.expect_more(&job);
                self.agenda.urgently(&job);
                self.has_room(&job);
            }
        }
    }

    /// A job is signalled also when its account has room again: those that wait for it are looked at.
    fn has_room(&mut self, account: &JobName) {
        for job in self.over_budget.remove(account).into_iter().flatten() {
            self.agenda.now(&job);
        }
    }

    pub(super) fn look_for_tasks(&mut self, job: &JobName) {
        self.backlogs.expect_more(job);
        let working = self
            .known
            .get(job)
            .and_then(|known| known.key.state())
            .is_some_and(|state| state.lease().is_some());
        if !working || self.agenda.has(job) {
            self.agenda.now(job);
        }
    }

    /// The watch says what a job's key holds.
    pub(super) fn on_job(&mut self, entry: &Entry) {
        self.jobs_told.seen = self.jobs_told.seen.max(entry.revision);
        let Ok(job) = entry.key.parse::<JobName>() else {
            return;
        };
        let before = self.known.get(&job);
        if before.is_some_and(|known| known.key.revision() > entry.revision) {
            return;
        }
        let lease_before = before.and_then(|known| known.key.state()?.lease());
        let mine = lease_before.is_some_and(|lease| lease.manager == self.shared.me.id);
        let record_before = before
            .and_then(|known| known.key.state())
            .map_or(0, |state| state.last_record);
        let key = Key::of_entry(Some(entry));
        let now = Instant::now();
        self.leases.observe(&job, entry.revision, key.state(), now);
        let lease = key.state().and_then(|state| state.lease());
        let runner = lease.map(|lease| lease.runner);
        self.shared.fleet.key_names(&job, entry.revision, runner);
        if let Key::Newer(_, reason) = &key {
            tracing::error!(%job, reason, "the job is left to managers of a newer version");
        }
        let Some(state) = key.state() else {
            self.known.insert(job.clone(), Known { key });
            self.agenda.now(&job);
            return;
        };
        if state.last_record > record_before {
            for waiter in self.shared.waits().waiters(&job) {
                self.agenda.now(&waiter);
            }
        }
        self.quiet.remove(&job);
        match &state.status {
            JobStatus::Waiting if mine => self.agenda.now(&job),
            JobStatus::Waiting => self.agenda.at(&job, now + OTHERS_AFTER),
            JobStatus::Cancelling | JobStatus::Removing if mine => self.agenda.urgently(&job),
            JobStatus::Cancelling | JobStatus::Removing => self.agenda.at(&job, now + OTHERS_AFTER),
            JobStatus::Working { .. } => self.agenda.forget(&job),
            JobStatus::Completed { .. }
            | JobStatus::Failed { .. }
            | JobStatus::Cancelled { .. } => {
                let quiet = Quiet {
                    accounted: state.ledger.accounted,
                    updated: state.updated,
                    expires: !matches!(state.status, JobStatus::Failed { .. }),
                };
                self.quiet.insert(job.clone(), quiet);
                self.known.remove(&job);
                return;
            }
        }
        self.known.insert(job, Known { key });
    }
}
