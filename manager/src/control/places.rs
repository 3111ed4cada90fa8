//! Places: jobs that wait for one, and limits that change.

use tokio::sync::watch;

use air_protocol::names::JobName;

use super::Control;
use crate::backend::fleet::Limits;

impl Control {
    /// Jobs that waited for a place are looked at where there is one.
    pub(super) fn wake_parked(&mut self) {
        let fleet = &self.shared.fleet;
        for job in self.parked.wake(|backend| fleet.free_of(backend)) {
            self.agenda.now(&job);
        }
    }

    /// Where all is full the job waits its turn; where only the backends are full that can run its task, it waits for these.
    pub(super) fn on_full(&mut self, job: &JobName, backends: Vec<String>) {
        let fleet = &self.shared.fleet;
        if fleet.free() == 0 || backends.iter().any(|backend| fleet.free_of(backend) > 0) {
            self.agenda.again(job);
            return;
        }
        self.parked.park(job.clone(), backends);
        self.pass_on(job);
    }

    pub(super) fn set_limits(&mut self, limits: Limits) {
        tracing::info!(?limits, "other limits");
        self.options.runners_max = limits.runners_max;
        self.beat
            .send_modify(|beat| beat.runners_max = limits.runners_max);
        self.shared.fleet.set_limits(limits);
    }
}

/// Other limits, once there are any.
pub(super) async fn next_limits(limits: &mut Option<watch::Receiver<Limits>>) -> Option<Limits> {
    let Some(told) = limits else {
        return std::future::pending().await;
    };
    match told.changed().await {
        Ok(()) => Some(told.borrow_and_update().clone()),
        Err(_) => {
            *limits = None;
            None
        }
    }
}
