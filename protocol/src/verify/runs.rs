//! I1, as records and events come by: one claim for each run, and each run over before the next claim.
//!
//! What proves the latter is in the records: the key names the last record that a release handed
//! over, a claim is a write of that key, and a record says what the key named when its run was
//! claimed (`released`). A run that was not over by then had not released. No clock is needed.

use std::collections::HashMap;

use uuid::Uuid;

use super::{JobCheck, Now, Place, short};
use crate::event::{Event, Kind};
use crate::invariants::Invariant;
use crate::lease::Phase;
use crate::names::TaskId;
use crate::record::Record;
use crate::time::Time;

const OLD: &str = "records of an older version do not say what was over when their run was claimed";
const REBUILT: &str =
    "the job's key was made anew between two runs, and no longer says what was over";
const ENDLESS: &str = "a run started that left no record, and no event tells its end";
const UNTOLD: &str = "a run left a record, but no event tells of its claim, start or end";

/// A claim that left a record.
#[derive(Debug, Clone)]
struct Claim {
    fence: u64,
    run: Uuid,
    task: TaskId,
    /// Its last record.
    seq: u64,
    host: Option<String>,
    ended: Time,
    lost: bool,
}

/// A fence and its run, as a record tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    fence: u64,
    run: u64,
    told: bool,
}

/// The runs of a job.
#[derive(Debug, Default)]
pub(super) struct Runs {
    pairs: Vec<Pair>,
    /// Run and fence, in the order of runs; made once all records were read.
    by_run: Vec<(u64, u64)>,
    /// The newest claim, and its record.
    newest: Option<Claim>,
    /// The newest claim under which something ran.
    ran: Option<Claim>,
    /// Fences and runs of which only events tell.
    events: HashMap<u64, u64>,
    events_by_run: HashMap<u64, u64>,
    /// Runs that started and left no record, and their events.
    open: HashMap<u64, (Uuid, u64)>,
    lowest_told: Option<u64>,
}

impl JobCheck {
    pub(super) fn check_run(&mut self, seq: u64, task: &TaskId, record: &Record) {
        let (Some(fence), Some(run)) = (record.fence, record.run) else {
            return;
        };
        let claim = Claim {
            fence,
            run,
            task: task.clone(),
            seq,
            host: record.host.clone(),
            ended: record.ended,
            lost: record.lost,
        };
        let pair = Pair {
            fence,
            run: short(run),
            told: false,
        };
        let newest = self.runs.newest.clone();
        match newest {
            Some(newest) if fence < newest.fence => {
                let text = format!(
                    "a record of the fence {fence} stands behind one of {}: a stale run has committed",
                    newest.fence
                );
                self.two_records(&newest, &claim, text);
                self.runs.pairs.push(pair);
                return;
            }
            Some(newest) if fence == newest.fence => {
                if newest.run != run {
                    let text = format!(
                        "the fence {fence} belongs to two runs, {} and {run}",
                        newest.run
                    );
                    self.two_records(&newest, &claim, text);
                }
            }
            _ => {
                self.runs.pairs.push(pair);
                self.check_handover(&claim, record);
            }
        }
        if record.started.is_some() || record.lost {
            self.runs.ran = Some(claim.clone());
        }
        self.runs.newest = Some(claim);
    }

    /// The run before must have been over when this one was claimed.
    fn check_handover(&mut self, claim: &Claim, record: &Record) {
        let Some(before) = self.runs.ran.clone() else {
            return;
        };
        let consumed_later = record.seq.is_some_and(|seq| seq > before.seq);
        let over = record.released.is_some_and(|seq| seq >= before.seq);
        if over || consumed_later {
            return;
        }
        let example = format!("{}/{} at {}", self.job, claim.task, claim.seq);
        match record.released {
            Some(0) => self.findings.doubt(Invariant::OneRunner, REBUILT, example),
            Some(released) => {
                let text = format!(
                    "the run {} (fence {}) was claimed when the job was handed over up to {released}, before the run {} (fence {}) was over: two leases at once",
                    claim.run, claim.fence, before.run, before.fence
                );
                self.two_records(&before, claim, text);
            }
            None => {
                let same_host = claim.host.is_some() && claim.host == before.host && !before.lost;
                if same_host && record.started.is_some_and(|at| at < before.ended) {
                    let text = format!(
                        "the runs {} and {} overlap by the clock of their host",
                        before.run, claim.run
                    );
                    self.two_records(&before, claim, text);
                } else {
                    self.findings.doubt(Invariant::OneRunner, OLD, example);
                }
            }
        }
    }

    fn two_records(&mut self, first: &Claim, second: &Claim, text: String) {
        let place = |claim: &Claim| Place::Record(Some(claim.task.clone()), claim.seq);
        let places = vec![place(first), place(second)];
        self.finding(Invariant::OneRunner, Some(&second.task), places, text);
    }

    /// All records were read: from now on pairs are looked up.
    fn sort_runs(&mut self) {
        if !self.runs.by_run.is_empty() || self.runs.pairs.is_empty() {
            return;
        }
        self.runs.pairs.sort_unstable();
        let pairs = self.runs.pairs.iter();
        self.runs.by_run = pairs.map(|pair| (pair.run, pair.fence)).collect();
        self.runs.by_run.sort_unstable();
        let mut texts = Vec::new();
        for two in self.runs.pairs.windows(2) {
            if two[0].fence == two[1].fence && two[0].run != two[1].run {
                texts.push(format!("the fence {} belongs to two runs", two[0].fence));
            }
        }
        for two in self.runs.by_run.windows(2) {
            if two[0].0 == two[1].0 && two[0].1 != two[1].1 {
                let (one, other) = (two[0].1, two[1].1);
                texts.push(format!(
                    "one run has committed under the fences {one} and {other}"
                ));
            }
        }
        for text in texts {
            self.finding(Invariant::OneRunner, None, Vec::new(), text);
        }
    }

    pub(super) fn check_told_run(&mut self, seq: u64, kind: Kind, event: &Event) {
        let (Some(fence), Some(run)) = (event.data.fence, event.data.run) else {
            return;
        };
        self.sort_runs();
        let runs = &mut self.runs;
        let name = short(run);
        let at = runs.pairs.partition_point(|pair| pair.fence < fence);
        let recorded = runs.pairs.get_mut(at).filter(|pair| pair.fence == fence);
        let is_recorded = recorded.is_some();
        let by_fence = match recorded {
            Some(pair) => {
                pair.told = true;
                pair.run
            }
            None => *runs.events.entry(fence).or_insert(name),
        };
        let at = runs.by_run.partition_point(|(one, _)| *one < name);
        let by_run = match runs.by_run.get(at).filter(|(one, _)| *one == name) {
            Some((_, fence)) => *fence,
            None => *runs.events_by_run.entry(name).or_insert(fence),
        };
        runs.lowest_told = Some(runs.lowest_told.map_or(fence, |lowest| lowest.min(fence)));
        match kind {
            Kind::Started if !is_recorded => drop(runs.open.insert(fence, (run, seq))),
            Kind::Released | Kind::Lost | Kind::Recovered => drop(runs.open.remove(&fence)),
            _ => {}
        }
        let text = if by_fence != name {
            format!(
                "the fence {fence} belongs to the run {run}, as this event says, and to another one"
            )
        } else if by_run != fence {
            format!("the run {run} has the fence {fence}, as this event says, and also {by_run}")
        } else {
            return;
        };
        let places = vec![Place::Event(kind, seq)];
        self.finding(Invariant::OneRunner, event.data.task.as_ref(), places, text);
    }

    pub(super) fn end_runs(&mut self, now: &Now) {
        self.sort_runs();
        self.check_key(now);
        let lease = now.state.as_ref().and_then(|state| state.lease());
        let mut open: Vec<_> = std::mem::take(&mut self.runs.open).into_iter().collect();
        open.sort_unstable();
        let newest = self.runs.newest.as_ref().map_or(0, |newest| newest.fence);
        for (fence, (run, seq)) in open {
            // What ran while the history was read has its record behind the end of what was read.
            let is_read = now.unchanged || fence < newest;
            if is_read && lease.is_none_or(|lease| lease.runner != run) {
                let example = format!("{}: run {run}, fence {fence}, event {seq}", self.job);
                self.findings.doubt(Invariant::OneRunner, ENDLESS, example);
            }
        }
        let Some(lowest) = self.runs.lowest_told else {
            return;
        };
        let pairs = self.runs.pairs.iter();
        let untold = pairs.filter(|pair| pair.fence > lowest && !pair.told);
        for pair in untold {
            let example = format!("{}: fence {}", self.job, pair.fence);
            self.findings.doubt(Invariant::OneRunner, UNTOLD, example);
        }
    }

    /// The key was read after the records: no record may be of a later claim than it knows.
    fn check_key(&mut self, now: &Now) {
        let (Some(newest), Some(state)) = (self.runs.newest.clone(), &now.state) else {
            return;
        };
        let mut texts = Vec::new();
        if newest.fence > now.revision {
            texts.push(format!(
                "its fence {} is above the revision {} of the job's key: no claim had it",
                newest.fence, now.revision
            ));
        }
        if let Some(lease) = state.lease() {
            let phase = match &lease.phase {
                Phase::Recovering { from, .. } => from,
                phase => phase,
            };
            let fence = match phase {
                Phase::Running(running) | Phase::Stopping { running, .. } => Some(running.fence),
                Phase::Starting { .. } | Phase::Settling { .. } | Phase::Recovering { .. } => {
                    let name = short(lease.runner);
                    let at = self.runs.by_run.partition_point(|(one, _)| *one < name);
                    let known = self.runs.by_run.get(at);
                    known
                        .filter(|(one, _)| *one == name)
                        .map(|(_, fence)| *fence)
                }
            };
            if let Some(fence) = fence.filter(|fence| *fence < newest.fence) {
                texts.push(format!(
                    "the key holds the lease of the run {} (fence {fence}), but a later run has committed under the fence {}: the lease is older than the last record",
                    lease.runner, newest.fence
                ));
            }
            let same = newest.run != lease.runner && fence == Some(newest.fence);
            if same {
                texts.push(format!(
                    "the fence {} belongs to two runs, {} and {}",
                    newest.fence, newest.run, lease.runner
                ));
            }
        }
        for text in texts {
            let record = Place::Record(Some(newest.task.clone()), newest.seq);
            let places = vec![record, Place::Key(now.revision)];
            self.finding(Invariant::OneRunner, Some(&newest.task), places, text);
        }
    }
}
