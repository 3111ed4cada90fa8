//! I1, I4 and I6: who works on a job, and what is left of who did.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{History, Invariant, JobHistory, Violation};
use crate::event::Kind;
use crate::lease::Phase;
use crate::names::JobName;
use crate::record::Record;
use crate::time::Time;

/// I1 one-runner. The key cannot hold two leases; told are the traces that two runners would leave:
/// one fence for two runs, or two fences for one; fences that go back in the records or among the
/// starts; two runs on one host (one clock) that overlap in time; two live runner processes.
///
/// A run that was lost may overlap its successor, and is left out. A start that is told late is none out
/// of order unless its time says so too. It does not see an overlap on two hosts, since it compares no
/// clocks, nor one after the job's key or bucket was deleted by hand.
pub fn one_runner(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, job) in &history.jobs {
        let tell = |text| Violation::new(Invariant::OneRunner, name, text);
        violations.extend(mixed_fences(name, job));
        let lost = lost_runs(job);
        violations.extend(backward_fences(name, job, &lost));
        violations.extend(overlaps_on_one_host(name, job, &lost));
        let processes = history.processes.iter().flatten();
        let alive: BTreeSet<_> = processes
            .filter(|process| process.is_runner && process.job == *name)
            .map(|process| process.run)
            .filter(|run| !lost.contains(run))
            .collect();
        if alive.len() > 1 {
            violations.push(tell(format!("several runners live: {alive:?}")));
        }
    }
    violations
}

/// Runs that overlap by the clock of their host.
fn overlaps_on_one_host(name: &JobName, job: &JobHistory, lost: &BTreeSet<Uuid>) -> Vec<Violation> {
    let ran = job.records.iter().filter_map(|stored| {
        let record = &stored.record;
        let run = record.run.filter(|run| !lost.contains(run))?;
        let host = record.host.as_ref()?;
        Some((host, record.started?, record.ended, run, stored.seq))
    });
    let mut ran: Vec<_> = ran.collect();
    ran.sort_unstable();
    let mut violations = Vec::new();
    for pair in ran.windows(2) {
        let (host, _, ended, one, first) = pair[0];
        let (next_host, started, _, other, second) = pair[1];
        if host == next_host && one != other && started < ended {
            let text = format!("the runs {one} and {other} overlap on {host}");
            let violation = Violation::new(Invariant::OneRunner, name, text);
            violations.push(violation.at([first, second]));
        }
    }
    violations
}

/// Runs and fences, in records and events, that do not belong together one to one.
fn mixed_fences(name: &JobName, job: &JobHistory) -> Vec<Violation> {
    let of_records = job.records.iter().filter_map(|stored| {
        let record = &stored.record;
        Some((record.fence?, record.run?, Some(stored.seq)))
    });
    let of_events = job.events.iter();
    let of_events = of_events.filter_map(|event| Some((event.data.fence?, event.data.run?, None)));
    let mut runs = BTreeMap::new();
    let mut fences = BTreeMap::new();
    let mut violations = Vec::new();
    for (fence, run, seq) in of_records.chain(of_events) {
        let known = *runs.entry(fence).or_insert(run);
        if known != run {
            let text = format!("the fence {fence} belongs to two runs, {known} and {run}");
            let violation = Violation::new(Invariant::OneRunner, name, text);
            violations.push(violation.at(Vec::from_iter(seq)));
        }
        let known = *fences.entry(run).or_insert(fence);
        if known != fence {
            let text = format!("the run {run} has two fences, {known} and {fence}");
            let violation = Violation::new(Invariant::OneRunner, name, text);
            violations.push(violation.at(Vec::from_iter(seq)));
        }
    }
    violations
}

/// Records, or starts, of an older claim behind those of a newer one.
fn backward_fences(name: &JobName, job: &JobHistory, lost: &BTreeSet<Uuid>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let (mut newest, mut newest_seq) = (0, 0);
    for stored in &job.records {
        let Some(fence) = stored.record.fence else {
            continue;
        };
        if fence < newest {
            let text = format!("a record of the fence {fence} stands behind one of {newest}");
            let violation = Violation::new(Invariant::OneRunner, name, text);
            let violation = violation.of(&stored.record.task);
            violations.push(violation.at([newest_seq, stored.seq]));
        } else {
            (newest, newest_seq) = (fence, stored.seq);
        }
    }
    // What a lost run still told before it froze may arrive after its successor's start.
    let in_time = |run: Option<Uuid>| run.is_none_or(|run| !lost.contains(&run));
    let started = |event: &&crate::event::Event| {
        event.known_kind() == Some(Kind::Started) && in_time(event.data.run)
    };
    // Events are published without waiting, and one from a machine that is cut off waits on its way while other machines
    // go on. So their order in the stream alone proves nothing: what they tell of their time must say the same.
    let (mut newest, mut newest_time) = (0, Time::default());
    for event in job.events.iter().filter(started) {
        let fence = event.data.fence.unwrap_or(newest);
        if fence >= newest {
            (newest, newest_time) = (fence, event.time);
        } else if event.time >= newest_time {
            let text = format!("the fence {fence} started after the fence {newest}");
            violations.push(Violation::new(Invariant::OneRunner, name, text));
        }
    }
    violations
}

/// The runs that were judged dead.
fn lost_runs(job: &JobHistory) -> BTreeSet<Uuid> {
    let lost = |record: &Record| record.run.filter(|_| record.lost);
    let of_records = job.records.iter().filter_map(|stored| lost(&stored.record));
    let of_events = job.events.iter().filter_map(|event| {
        let lost = matches!(event.known_kind(), Some(Kind::Lost | Kind::Recovered));
        event.data.run.filter(|_| lost)
    });
    of_records.chain(of_events).collect()
}

/// I4 no-ghost. A lease is renewed within its TTL (`start_within` while starting), or somebody has
/// recovered it one poll later; and so is a lease that is being recovered.
///
/// It needs `now`, compared with times that runners and managers wrote by their own clocks. It cannot
/// decide for a job without `now`, and cannot see a runner that renews but does no work.
pub fn no_ghost(history: &History) -> Vec<Violation> {
    let Some(now) = history.now else {
        return Vec::new();
    };
    let mut violations = Vec::new();
    for (name, job) in &history.jobs {
        let Some(lease) = job.state.as_ref().and_then(|state| state.lease()) else {
            continue;
        };
        let (since, limit) = match lease.phase {
            Phase::Starting { .. } => (lease.claimed, lease.start_within),
            Phase::Running(_)
            | Phase::Stopping { .. }
            | Phase::Settling { .. }
            | Phase::Recovering { .. } => (lease.renewed, lease.ttl),
        };
        let deadline = since.after(limit.0).after(history.poll.0);
        if now > deadline {
            let text = format!(
                "the lease of {} is {} since {since}, and nobody recovered it by {deadline}",
                lease.runner,
                lease.phase.as_str(),
            );
            let violation = Violation::new(Invariant::NoGhost, name, text);
            violations.push(match lease.phase.target() {
                Some(target) => violation.of(&target.task).at([target.seq]),
                None => violation,
            });
        }
    }
    violations
}

/// I6 no-survivors. Each live process of a task has its live runner on the same host.
///
/// It needs `processes`, and sees of them only what the caller could see: a process that shed both
/// its environment and its ancestry is invisible without cgroups. The caller waits first for as long
/// as a manager takes to sweep.
pub fn no_survivors(history: &History) -> Vec<Violation> {
    let processes = history.processes.as_deref().unwrap_or_default();
    let runners: BTreeSet<_> = processes
        .iter()
        .filter(|process| process.is_runner)
        .map(|process| (&process.host, process.run))
        .collect();
    let survivors = processes
        .iter()
        .filter(|process| !runners.contains(&(&process.host, process.run)));
    let tell = |process: &super::Process| {
        let (pid, host, run) = (process.pid, &process.host, process.run);
        let text = format!("the process {pid} on {host} lives, but its runner {run} is gone");
        Violation::new(Invariant::NoSurvivors, &process.job, text)
    };
    survivors.map(tell).collect()
}
