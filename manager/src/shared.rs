//! What all looks at jobs share: the connection, the backend, and what is known of other jobs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use air_nats::Nats;
use air_protocol::event::{Data, Kind};
use air_protocol::names::JobName;
use air_protocol::spec::Spec;
use air_protocol::time::Time;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::backend::process::Process;
use crate::circle::Waits;
use crate::decide::Me;

/// What all looks at jobs share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) nats: Nats,
    pub(crate) me: Me,
    pub(crate) backend: Process,
    /// Places for runners.
    pub(crate) places: Arc<Semaphore>,
    /// Age at which a left-over message may be deleted: the server has synced its record by then.
    pub(crate) delete_after: Duration,
    specs: Mutex<HashMap<JobName, Result<Spec, String>>>,
    waits: Mutex<Waits>,
}

impl Shared {
    pub(crate) fn new(
        nats: Nats,
        me: Me,
        backend: Process,
        places: usize,
        delete_after: Duration,
    ) -> Self {
        Self {
            nats,
            me,
            backend,
            places: Arc::new(Semaphore::new(places)),
            delete_after,
            specs: Mutex::default(),
            waits: Mutex::default(),
        }
    }

    /// The spec of a job, as last heard of.
    pub(crate) fn spec(&self, job: &JobName) -> Result<Spec, String> {
        let specs = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
        specs
            .get(job)
            .cloned()
            .unwrap_or_else(|| Ok(Spec::default()))
    }

    /// The spec of a job has changed; none when it is gone.
    pub(crate) fn set_spec(&self, job: &JobName, spec: Option<Result<Spec, String>>) {
        let mut specs = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
        match spec {
            Some(spec) => drop(specs.insert(job.clone(), spec)),
            None => drop(specs.remove(job)),
        }
    }

    pub(crate) fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
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
