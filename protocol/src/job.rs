//! The state machine of a job: the value of its key in the bucket `air-jobs`.
//!
//! ```text
//!  (none) ── first task ──▶ waiting ── claim ──▶ working/starting ── start ──▶ working/running
//!                           ▲  │ ▲                 │ spawn failed, lost          │        │
//!                           │  │ └─────────────────┴──── released ◀── committed ─┘        │ judged dead
//!                           │  │ └───── released ◀── committed on behalf ◀── working/recovering
//!       a live task, or     │  ├── no live task, no schedule ──▶ completed
//!       airx retry, resume  │  ├── a task failed for good, policy `stop` ──▶ failed
//!                           │  └── airx cancel ──▶ cancelling ── queue and schedules purged ──▶ cancelled
//!                           └──────────────────── completed · failed · cancelled
//!       airx cancel while working: working/stopping ── runner ends, or is judged dead ──▶ cancelling
//! ```
//!
//! [`JobState::apply`] is the only way to change a state. It never looks at a clock: whoever calls
//! it writes the result by compare-and-swap at the revision that it read.

mod event;
mod status;

pub use event::{Change, Event, Invalid};
pub use status::{JobStatus, OverBudget, PurgeTo};

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::VERSION;
use crate::lease::{Ending, Lease, Phase, Running};
use crate::ledger::Ledger;
use crate::names::TaskId;
use crate::time::Time;

/// What the key of a job holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobState {
    /// Version of the state.
    pub v: u8,
    /// The status, with the data that it needs.
    #[serde(flatten)]
    pub status: JobStatus,
    /// Counters, folded from the records.
    #[serde(flatten)]
    pub ledger: Ledger,
    /// Stream sequence of the last record that a release named: no reply older than this is heeded.
    pub last_record: u64,
    /// No manager claims the job before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<Time>,
    /// Starts that failed one after another.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed_starts: u32,
    /// Why the last start failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_error: Option<String>,
    /// What the account of the next task lacks; none once it can be claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_budget: Option<OverBudget>,
    /// Until this moment a runner or manager whose lease was taken may still try to commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zombie_until: Option<Time>,
    /// What may be purged while the job is being cancelled or removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purge_to: Option<PurgeTo>,
    /// When the state was last written.
    pub updated: Time,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl JobState {
    /// The state of a job that nobody has worked on.
    pub fn new(at: Time) -> Self {
        Self {
            v: VERSION,
            status: JobStatus::Waiting,
            ledger: Ledger::default(),
            last_record: 0,
            hold_until: None,
            failed_starts: 0,
            start_error: None,
            over_budget: None,
            zombie_until: None,
            purge_to: None,
            updated: at,
        }
    }

    /// The state of a job whose key was lost: held until no runner that the key may have named can live.
    pub fn rebuilt(at: Time, lease_ttl: Duration) -> Self {
        let until = Some(at.after(lease_ttl));
        Self {
            hold_until: until,
            zombie_until: until,
            ..Self::new(at)
        }
    }

    /// The lease, while somebody holds it.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.status {
            JobStatus::Working { lease } => Some(lease),
            JobStatus::Waiting
            | JobStatus::Completed { .. }
            | JobStatus::Failed { .. }
            | JobStatus::Cancelling
            | JobStatus::Cancelled { .. }
            | JobStatus::Removing => None,
        }
    }

    /// Whether claims must wait at `now`.
    pub fn is_held(&self, now: Time) -> bool {
        self.hold_until.is_some_and(|until| now < until)
    }

    /// Status and phase in one word.
    pub fn name(&self) -> String {
        match self.lease() {
            Some(lease) => format!("{}/{}", self.status.as_str(), lease.phase.as_str()),
            None => self.status.as_str().to_owned(),
        }
    }

    /// What `event` at the moment `at` makes of this state.
    ///
    /// # Errors
    /// [`Invalid`] when the event cannot happen in this state.
    pub fn apply(&self, event: &Event, at: Time) -> Result<Change, Invalid> {
        let mut next = self.clone();
        next.updated = at;
        if next.hold_until.is_some_and(|until| until <= at) {
            next.hold_until = None;
        }
        let changed = match event {
            Event::Work => next.on_work(),
            Event::Claim(lease) => next.on_claim(lease),
            Event::Start {
                runner,
                fence,
                host,
            } => next.on_start(*runner, *fence, host, at),
            Event::Renew { runner } => next.on_renew(*runner, at),
            Event::Release { runner, record } => next.on_release(*runner, *record),
            Event::StartFailed {
                runner,
                hold_until,
                counts,
                reason,
            } => next.on_start_failed(*runner, *hold_until, *counts, reason),
            Event::TakeOver { runner, by } => next.on_take_over(*runner, by, at),
            Event::Recovered {
                runner,
                record,
                hold_until,
                counts,
                reason,
            } => next.on_recovered(*runner, *record, *hold_until, *counts, reason, at),
            Event::Fold(ledger) => next.on_fold(ledger),
            Event::Drained { at } => next.on_drained(*at),
            Event::Fail { task } => next.on_fail(task.clone()),
            Event::Stop(then) => next.on_stop(*then, at),
            Event::Bound(to) => next.on_bound(*to),
            Event::Emptied { at } => next.on_emptied(*at),
            Event::OverBudget(lack) => next.on_over_budget(lack.as_ref()),
            Event::Retry => next.on_retry(),
            Event::Resume => next.on_resume(),
        };
        match changed {
            Some(true) => Ok(Change::To(Box::new(next))),
            Some(false) => Ok(Change::NoOp),
            None => Err(Invalid {
                event: event.as_str(),
                status: self.name(),
            }),
        }
    }
}

/// One method for each event: `Some(true)` changed, `Some(false)` nothing to do, `None` invalid.
impl JobState {
    fn to(&mut self, status: JobStatus) -> Option<bool> {
        self.status = status;
        self.purge_to = None;
        self.over_budget = None;
        Some(true)
    }

    /// The lease, if `runner` holds it.
    fn held_by(&mut self, runner: Uuid) -> Option<&mut Lease> {
        match &mut self.status {
            JobStatus::Working { lease } if lease.runner == runner => Some(lease),
            _ => None,
        }
    }

    fn on_work(&mut self) -> Option<bool> {
        match self.status {
            JobStatus::Completed { .. } | JobStatus::Cancelled { .. } => {
                self.to(JobStatus::Waiting)
            }
            JobStatus::Waiting
            | JobStatus::Working { .. }
            | JobStatus::Failed { .. }
            | JobStatus::Cancelling
            | JobStatus::Removing => Some(false),
        }
    }

    fn on_claim(&mut self, lease: &Lease) -> Option<bool> {
        let fresh = matches!(lease.phase, Phase::Starting { .. } | Phase::Settling { .. });
        match self.status {
            JobStatus::Waiting if fresh => self.to(JobStatus::Working {
                lease: lease.clone(),
            }),
            JobStatus::Working { lease: ref held } if held.runner == lease.runner => Some(false),
            _ => None,
        }
    }

    fn on_start(&mut self, runner: Uuid, fence: u64, host: &str, at: Time) -> Option<bool> {
        let lease = self.held_by(runner)?;
        match &lease.phase {
            Phase::Starting { target } => {
                let running = Running {
                    target: target.clone(),
                    fence,
                    started: at,
                    host: host.to_owned(),
                };
                lease.phase = Phase::Running(running);
                lease.renewed = at;
                self.forget_failed_starts();
                Some(true)
            }
            Phase::Running(_) => Some(false),
            Phase::Stopping { .. } | Phase::Settling { .. } | Phase::Recovering { .. } => None,
        }
    }

    fn on_renew(&mut self, runner: Uuid, at: Time) -> Option<bool> {
        let lease = self.held_by(runner)?;
        match lease.phase {
            Phase::Running(_) | Phase::Stopping { .. } | Phase::Settling { .. } => {
                lease.renewed = at;
                Some(true)
            }
            Phase::Starting { .. } | Phase::Recovering { .. } => None,
        }
    }

    fn on_release(&mut self, runner: Uuid, record: u64) -> Option<bool> {
        let lease = self.held_by(runner)?;
        let settled = lease.phase.gave_up_starting();
        let next = match lease.phase {
            Phase::Running(_) | Phase::Settling { .. } => JobStatus::Waiting,
            Phase::Stopping { then, .. } => after(then),
            Phase::Starting { .. } | Phase::Recovering { .. } => return None,
        };
        if settled {
            self.forget_failed_starts();
        }
        self.last_record = self.last_record.max(record);
        self.to(next)
    }

    fn on_start_failed(
        &mut self,
        runner: Uuid,
        hold: Time,
        counts: bool,
        reason: &str,
    ) -> Option<bool> {
        let lease = self.held_by(runner)?;
        if !matches!(lease.phase, Phase::Starting { .. }) {
            return None;
        }
        self.hold(Some(hold));
        self.failed_starts = self.failed_starts.saturating_add(u32::from(counts));
        self.start_error = Some(reason.to_owned());
        self.to(JobStatus::Waiting)
    }

    fn on_take_over(&mut self, runner: Uuid, by: &str, at: Time) -> Option<bool> {
        let lease = self.held_by(runner)?;
        let from = match &lease.phase {
            Phase::Recovering { from, .. } => from.clone(),
            phase => Box::new(phase.clone()),
        };
        lease.phase = Phase::Recovering {
            from,
            by: by.to_owned(),
        };
        lease.renewed = at;
        Some(true)
    }

    fn on_recovered(
        &mut self,
        runner: Uuid,
        record: u64,
        hold: Option<Time>,
        counts: bool,
        reason: &str,
        at: Time,
    ) -> Option<bool> {
        let lease = self.held_by(runner)?;
        let Phase::Recovering { from, .. } = &lease.phase else {
            return None;
        };
        let zombie = from.may_commit();
        let starting = matches!(**from, Phase::Starting { .. });
        let next = match **from {
            Phase::Stopping { then, .. } => after(then),
            _ => JobStatus::Waiting,
        };
        let ttl = lease.ttl;
        let settled = from.gave_up_starting();
        if zombie {
            self.expect_zombie(at.after(ttl.0));
        }
        if settled {
            self.forget_failed_starts();
        }
        if starting {
            self.failed_starts = self.failed_starts.saturating_add(u32::from(counts));
            self.start_error = Some(format!("the runner was lost before it started: {reason}"));
        }
        self.hold(hold);
        self.last_record = self.last_record.max(record);
        self.to(next)
    }

    /// Keeps the later of two holds: one stays through every status until it has passed.
    fn hold(&mut self, until: Option<Time>) {
        self.hold_until = self.hold_until.max(until);
    }

    /// Notes that a holder whose lease was taken may still try to commit.
    fn expect_zombie(&mut self, until: Time) {
        self.zombie_until = self.zombie_until.max(Some(until));
    }

    /// The next task, or the next attempt, begins with a clean slate.
    fn forget_failed_starts(&mut self) {
        self.failed_starts = 0;
        self.start_error = None;
    }

    fn on_fold(&mut self, ledger: &Ledger) -> Option<bool> {
        if self.lease().is_some() {
            return None;
        }
        let changed = self.ledger != *ledger;
        self.ledger = ledger.clone();
        Some(changed)
    }

    fn on_drained(&mut self, drained: u64) -> Option<bool> {
        match self.status {
            JobStatus::Waiting => self.to(JobStatus::Completed { drained }),
            JobStatus::Completed { drained: before } if before < drained => {
                self.to(JobStatus::Completed { drained })
            }
            JobStatus::Completed { .. } => Some(false),
            _ => None,
        }
    }

    fn on_fail(&mut self, task: Option<TaskId>) -> Option<bool> {
        match self.status {
            JobStatus::Waiting => self.to(JobStatus::Failed { task }),
            JobStatus::Failed { .. } => Some(false),
            _ => None,
        }
    }

    fn on_stop(&mut self, then: Ending, at: Time) -> Option<bool> {
        match &mut self.status {
            JobStatus::Working { lease } => match lease.phase.stopping(then) {
                Some(phase) if phase == lease.phase => Some(false),
                Some(phase) => {
                    lease.phase = phase;
                    Some(true)
                }
                None => {
                    if lease.phase.may_commit() {
                        let until = at.after(lease.ttl.0);
                        self.expect_zombie(until);
                    }
                    self.to(after(then))
                }
            },
            JobStatus::Waiting
            | JobStatus::Completed { .. }
            | JobStatus::Failed { .. }
            | JobStatus::Cancelled { .. } => self.to(after(then)),
            JobStatus::Cancelling if then == Ending::Remove => self.to(JobStatus::Removing),
            JobStatus::Cancelling | JobStatus::Removing => Some(false),
        }
    }

    /// The first bound stays: what came after it may belong to a new job of the same name.
    fn on_bound(&mut self, to: PurgeTo) -> Option<bool> {
        match self.status {
            JobStatus::Cancelling | JobStatus::Removing => {
                Some(self.purge_to.is_none() && self.purge_to.replace(to).is_none())
            }
            _ => None,
        }
    }

    fn on_emptied(&mut self, drained: u64) -> Option<bool> {
        match self.status {
            JobStatus::Cancelling => self.to(JobStatus::Cancelled { drained }),
            JobStatus::Cancelled { .. } => Some(false),
            _ => None,
        }
    }

    fn on_over_budget(&mut self, lack: Option<&OverBudget>) -> Option<bool> {
        let is_new = self.over_budget.as_ref() != lack;
        match self.status {
            JobStatus::Waiting => {
                self.over_budget = lack.cloned();
                Some(is_new)
            }
            _ => None,
        }
    }

    fn on_retry(&mut self) -> Option<bool> {
        match self.status {
            JobStatus::Failed { .. }
            | JobStatus::Cancelled { .. }
            | JobStatus::Completed { .. } => self.to(JobStatus::Waiting),
            JobStatus::Waiting | JobStatus::Working { .. } => Some(false),
            JobStatus::Cancelling | JobStatus::Removing => None,
        }
    }

    fn on_resume(&mut self) -> Option<bool> {
        match self.status {
            JobStatus::Failed { .. } => {
                self.ledger.forgive();
                self.to(JobStatus::Waiting)
            }
            JobStatus::Waiting
            | JobStatus::Working { .. }
            | JobStatus::Completed { .. }
            | JobStatus::Cancelled { .. } => Some(false),
            JobStatus::Cancelling | JobStatus::Removing => None,
        }
    }
}

/// The status of a job whose runner was stopped.
fn after(then: Ending) -> JobStatus {
    match then {
        Ending::Cancel => JobStatus::Cancelling,
        Ending::Remove => JobStatus::Removing,
    }
}

#[cfg(test)]
mod tests;
