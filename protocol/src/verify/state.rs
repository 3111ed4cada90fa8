//! I4 and I8: what the key says, against what the records said; and what became of suspects.

use std::time::Duration;

use super::{JobCheck, Message, Now, Place, Suspect};
use crate::invariants::Invariant;
use crate::invariants::records::{ledger_faults, unfolded};
use crate::job::{JobState, JobStatus};
use crate::lease::Phase;
use crate::ledger::Ledger;
use crate::limits::POLL_MAX;
use crate::record::Record;

/// What a busy machine may add to a take-over.
const SLACK: Duration = Duration::from_secs(10);

const CHANGED: &str = "the job changed each time while it was being read";
const PURGED: &str = "records were purged or removed while they were being read";
const UNCOUNTED: &str = "the last records are not counted yet";
const UNSEEN: &str = "a task came that no manager has looked at yet";
const UNMANAGED: &str = "no manager runs that could take the lease over";

/// The counters as the records say.
#[derive(Debug)]
pub(super) struct Fold {
    ledger: Ledger,
    accounted: u64,
    purged_to: u64,
    /// Records behind the last one that the key has counted.
    behind: u64,
}

impl Fold {
    pub(super) fn new(state: Option<&JobState>) -> Self {
        let kept = state.map(|state| state.ledger.clone()).unwrap_or_default();
        Self {
            ledger: unfolded(&kept),
            accounted: kept.accounted,
            purged_to: kept.purged_to,
            behind: 0,
        }
    }

    pub(super) fn fold(&mut self, seq: u64, record: &Record) {
        if seq > self.accounted {
            self.behind += 1;
        } else if seq > self.purged_to {
            self.ledger.fold(seq, record);
        }
    }
}

/// Whether records went while they were read: to retention, or with a removed job whose name is used again.
fn is_cut(before: Option<&JobState>, after: Option<&JobState>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => {
            let (before, after) = (&before.ledger, &after.ledger);
            before.purged_to != after.purged_to || after.accounted < before.accounted
        }
        (None, None) => false,
        (Some(_), None) | (None, Some(_)) => true,
    }
}

impl JobCheck {
    /// Whether the history must be read anew, since the key that it is held against has changed.
    pub fn is_outdated(&self, now: &Now) -> bool {
        let over = self.state.as_ref().is_some_and(|one| one.status.is_over());
        is_cut(self.state.as_ref(), now.state.as_ref()) || (over && !now.unchanged)
    }

    pub(super) fn end_state(&mut self, now: &Now) {
        self.check_ghost(now);
        let Some(state) = self.state.clone() else {
            return;
        };
        let job = self.job.to_string();
        if is_cut(Some(&state), now.state.as_ref()) {
            for invariant in [Invariant::OneCommit, Invariant::TrueCounters] {
                self.findings.doubt(invariant, PURGED, job.as_str());
            }
            return;
        }
        if self.blind {
            return;
        }
        for text in ledger_faults(&state.ledger, &self.fold.ledger) {
            let places = vec![Place::Key(now.revision)];
            self.finding(Invariant::TrueCounters, None, places, text);
        }
        if !state.status.is_over() {
            return;
        }
        if !now.unchanged {
            self.findings
                .doubt(Invariant::TrueCounters, CHANGED, job.as_str());
        } else if self.fold.behind > 0 {
            self.findings
                .doubt(Invariant::TrueCounters, UNCOUNTED, job.as_str());
        } else {
            self.check_status(&state, now);
        }
    }

    fn check_status(&mut self, state: &JobState, now: &Now) {
        let open = self.fold.ledger.counters.open();
        let text = match &state.status {
            JobStatus::Completed { .. } if open > 0 => {
                format!("the job is completed, but {open} tasks are open")
            }
            JobStatus::Failed { .. } if self.fold.ledger.failing == 0 => {
                // A manager moves it on within its poll.
                if now.age <= POLL_MAX + SLACK || !now.managed {
                    return;
                }
                "the job is failed, but no task is".to_owned()
            }
            _ => return,
        };
        let places = vec![Place::Key(now.revision)];
        self.finding(Invariant::TrueCounters, None, places, text);
    }

    /// A lease that nobody renews is taken over in time. Both times are of the server's clock.
    fn check_ghost(&mut self, now: &Now) {
        let Some(lease) = now.state.as_ref().and_then(JobState::lease) else {
            return;
        };
        let limit = match lease.phase {
            Phase::Starting { .. } => lease.start_within.0,
            Phase::Running(_)
            | Phase::Stopping { .. }
            | Phase::Settling { .. }
            | Phase::Recovering { .. } => lease.ttl.0,
        };
        if now.age <= limit + POLL_MAX + SLACK {
            return;
        }
        if !now.managed {
            self.findings
                .doubt(Invariant::NoGhost, UNMANAGED, self.job.as_str());
            return;
        }
        let text = format!(
            "the lease of {} is {} and was not renewed for {} s, and nobody has taken it over",
            lease.runner,
            lease.phase.as_str(),
            now.age.as_secs()
        );
        let task = lease.phase.target().map(|target| target.task.clone());
        let places = vec![Place::Key(now.revision)];
        self.finding(Invariant::NoGhost, task.as_ref(), places, text);
    }

    /// A suspect that is still so by the leader.
    pub fn confirm(&mut self, suspect: Suspect) {
        match suspect {
            Suspect::Unqueued(task, seq) => {
                let text = "its next attempt is neither queued nor scheduled".to_owned();
                let places = vec![Place::Record(Some(task.clone()), seq)];
                self.finding(Invariant::NothingLost, Some(&task), places, text);
            }
            Suspect::Orphan(message) => {
                let attempt = message.attempt;
                let text = format!(
                    "attempt {attempt} waits, but no record of attempt {} asks for it",
                    attempt.saturating_sub(1)
                );
                let places = vec![message.place(&self.job)];
                self.finding(Invariant::OneCommit, Some(&message.task), places, text);
            }
            Suspect::Live(message) => self.confirm_live(&message),
            Suspect::Overtaken(message, by) => {
                let text = format!("it waits, although the later message {by} had its turn");
                let places = vec![message.place(&self.job)];
                self.finding(Invariant::Order, Some(&message.task), places, text);
            }
            Suspect::Gone(task, seq, place) => {
                let who = match place {
                    Place::Key(_) => "the job's key",
                    _ => "an event",
                };
                let text = format!("{who} tells of the record {seq}, which is gone");
                let places = vec![Place::Record(task.clone(), seq), place];
                self.finding(Invariant::NothingLost, task.as_ref(), places, text);
            }
            Suspect::Pages(..) => {}
            Suspect::Output(task, seq, blob) => {
                let text = format!("its output is in the blob {blob}, which is gone");
                let places = vec![Place::Record(Some(task.clone()), seq), Place::Blob(blob)];
                self.finding(Invariant::NothingLost, Some(&task), places, text);
            }
        }
    }

    /// A page of a fan-out that waits is not there.
    pub fn page_is_missing(&mut self, message: &Message, blob: String) {
        let text = format!("it must queue the sub-tasks in the blob {blob}, which is gone");
        let places = vec![message.place(&self.job), Place::Blob(blob)];
        self.finding(Invariant::WholeFamilies, Some(&message.task), places, text);
    }

    fn confirm_live(&mut self, message: &Message) {
        let status = self.state.as_ref().map(|state| &state.status);
        let (word, drained) = match status {
            Some(JobStatus::Completed { drained }) => ("completed", *drained),
            Some(JobStatus::Cancelled { drained }) => ("cancelled", *drained),
            _ => return,
        };
        if message.seq > drained {
            let example = format!("{}/{} at {}", self.job, message.task, message.seq);
            self.findings
                .doubt(Invariant::TrueCounters, UNSEEN, example);
            return;
        }
        let text = format!(
            "the job is {word} and its queue was seen empty up to {drained}, but a live task waits"
        );
        let places = vec![message.place(&self.job)];
        self.finding(Invariant::TrueCounters, Some(&message.task), places, text);
    }
}
