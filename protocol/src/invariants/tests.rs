//! For each invariant a history that keeps it, and at least one that breaks it and nothing else.

mod counters;
mod families;

use std::time::Duration;

use super::*;
use crate::event::{Data, Kind};
use crate::job::JobStatus;
use crate::lease::{Lease, Phase, Running, Target};
use crate::ledger::Ledger;
use crate::record::Status::{Cancelled, Failed, Parked, Reset, Retrying, Skipped, Succeeded};
use crate::record::{Status, tests::record};
use crate::task::{Task, Work};

const RUN: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);

fn job() -> JobName {
    "demo".parse().unwrap()
}

fn task(name: &str) -> TaskId {
    name.parse().unwrap()
}

/// Records of tasks at sequences 10, 20, …, chained and numbered as they must be.
fn chain(steps: &[(&str, Status)]) -> Vec<StoredRecord> {
    let mut stored: Vec<StoredRecord> = Vec::new();
    for (at, (name, status)) in steps.iter().enumerate() {
        let before = stored
            .iter()
            .rev()
            .find(|one| one.record.task == task(name));
        let (after, previous, last) = before.map_or((0, None, 0), |one| {
            (one.seq, Some(one.record.status), one.record.attempt)
        });
        let attempt = last + u32::from(*status != Reset);
        let record = record(name, *status, attempt, previous, after);
        let seq = (at as u64 + 1) * 10;
        let parent = None;
        stored.push(StoredRecord {
            seq,
            record,
            parent,
        });
    }
    stored
}

fn status(status: JobStatus, records: &[StoredRecord]) -> JobState {
    let mut ledger = Ledger::default();
    for stored in records {
        ledger.fold(stored.seq, &stored.record);
    }
    JobState {
        status,
        ledger,
        ..JobState::new(Time::default())
    }
}

/// A quiet, completed job with these records.
fn done(steps: &[(&str, Status)]) -> JobHistory {
    let records = chain(steps);
    JobHistory {
        state: Some(status(JobStatus::Completed { drained: 99 }, &records)),
        records,
        quiet: true,
        parents_known: true,
        ..JobHistory::default()
    }
}

fn history(job_history: JobHistory) -> History {
    History {
        jobs: [(job(), job_history)].into(),
        ..History::default()
    }
}

fn queued(seq: u64, name: &str, attempt: u32) -> TaskMessage {
    TaskMessage {
        seq,
        task: task(name),
        attempt,
        parent: None,
        fanout: None,
    }
}

fn assert_holds(job_history: JobHistory) {
    assert_eq!(check_all(&history(job_history)), []);
}

/// The only violations are of this invariant; gives back their texts.
fn texts(invariant: Invariant, history: &History) -> String {
    let violations = check_all(history);
    assert!(!violations.is_empty(), "{invariant:?} is not broken");
    for violation in &violations {
        assert_eq!(violation.invariant, invariant, "{violation}");
        assert_eq!(violation.job, job(), "{violation}");
    }
    let texts = violations.iter().map(Violation::to_string);
    texts.collect::<Vec<_>>().join("\n")
}

/// The job breaks only this invariant, and the text says so.
#[track_caller]
fn assert_breaks(invariant: Invariant, job_history: JobHistory, part: &str) {
    let text = texts(invariant, &history(job_history));
    assert!(text.contains(part), "`{part}` is not in: {text}");
    assert!(text.starts_with(invariant.as_str()), "{text}");
}

fn ran(stored: &mut StoredRecord, run: Uuid, fence: u64, from: u64, to: u64) {
    let record = &mut stored.record;
    (record.run, record.fence) = (Some(run), Some(fence));
    record.host = Some("host-1".into());
    record.started = Some(Time::from_millis(from));
    record.ended = Time::from_millis(to);
    record.seq = Some(stored.seq - 5);
    record.spec = Some(Task::new(Work::Run("true".into())));
}

/// Two tasks, one after another, by two runs.
fn two_runs() -> JobHistory {
    let mut good = done(&[("a", Succeeded), ("b", Succeeded)]);
    ran(&mut good.records[0], RUN, 3, 1000, 2000);
    ran(&mut good.records[1], OTHER, 6, 2000, 3000);
    let completed = JobStatus::Completed { drained: 99 };
    good.state = Some(status(completed, &good.records));
    good
}

fn event(kind: Kind, run: Uuid, fence: u64) -> Event {
    let data = Data {
        job: Some(job()),
        run: Some(run),
        fence: Some(fence),
        ..Data::default()
    };
    Event::new(kind, data, Time::default(), run)
}

#[test]
fn i1_one_runner() {
    let mut good = two_runs();
    let claimed = event(Kind::Claimed, RUN, 3);
    good.events = vec![
        claimed,
        event(Kind::Started, RUN, 3),
        event(Kind::Started, OTHER, 6),
    ];
    assert_holds(good.clone());
    let breaks = |change: fn(&mut JobHistory), part: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        assert_breaks(Invariant::OneRunner, bad, part);
    };
    breaks(
        |bad| bad.events[2].data.fence = Some(3),
        "the fence 3 belongs to two runs",
    );
    breaks(
        |bad| bad.events.push(event(Kind::Released, RUN, 9)),
        "has two fences, 3 and 9",
    );
    breaks(|bad| bad.events.swap(1, 2), "started after the fence 6");
    let mut told_late = good.clone();
    told_late.events[2].time = Time::from_millis(1);
    told_late.events.swap(1, 2);
    assert_holds(told_late);
    let mut claimed_late = good.clone();
    claimed_late.events.rotate_left(1);
    assert_holds(claimed_late);
    let mut by_one_claim = good.clone();
    by_one_claim.events.clear();
    for stored in &mut by_one_claim.records {
        (stored.record.run, stored.record.fence) = (None, Some(3));
    }
    assert_holds(by_one_claim);
    breaks(
        |bad| bad.records[1].record.started = Some(Time::from_millis(1999)),
        "overlap on host-1 (at [10, 20])",
    );
    let mut elsewhere = good.clone();
    elsewhere.records[1].record.started = Some(Time::from_millis(1999));
    elsewhere.records[1].record.host = Some("host-2".into());
    assert_holds(elsewhere);
    let mut one_run = good.clone();
    one_run.events.clear();
    ran(&mut one_run.records[1], RUN, 3, 1999, 3000);
    assert_holds(one_run);
    let mut lost = good;
    lost.records[1].record.started = Some(Time::from_millis(1999));
    lost.records[0].record.lost = true;
    lost.state = None;
    assert_holds(lost);
}

#[test]
fn i1_a_record_of_an_older_claim_comes_too_late() {
    let mut bad = two_runs();
    ran(&mut bad.records[0], RUN, 7, 1000, 2000);
    bad.records[0].record.spec = None;
    assert_breaks(Invariant::OneRunner, bad, "stands behind one of 7");
}

fn process(run: Uuid, is_runner: bool) -> Process {
    Process {
        host: "host-1".into(),
        pid: 17,
        run,
        job: job(),
        is_runner,
    }
}

#[test]
fn i1_two_runners_live_only_when_one_was_judged_dead() {
    let mut two = history(two_runs());
    two.processes = Some(vec![process(RUN, true), process(OTHER, true)]);
    assert!(texts(Invariant::OneRunner, &two).contains("several runners live"));
    let mut of_two_jobs = two.clone();
    let other = "other".parse().unwrap();
    of_two_jobs.processes.as_mut().unwrap()[1].job = other;
    assert_eq!(check_all(&of_two_jobs), []);
    let lost = event(Kind::Lost, RUN, 3);
    two.jobs.get_mut(&job()).unwrap().events.push(lost);
    assert_eq!(check_all(&two), []);
}

#[test]
fn i2_one_commit() {
    let mut parked = done(&[
        ("a", Retrying),
        ("a", Failed),
        ("a", Reset),
        ("a", Cancelled),
        ("b", Skipped),
        ("a", Reset),
        ("a", Retrying),
        ("a", Parked),
    ]);
    parked.state.as_mut().unwrap().status = JobStatus::Waiting;
    assert_holds(parked.clone());
    let breaks = |change: fn(&mut Record), part: &str| {
        let mut bad = parked.clone();
        change(&mut bad.records[1].record);
        let text = texts(Invariant::OneCommit, &history(bad));
        assert!(text.contains(part), "{text}");
    };
    breaks(|record| record.attempt = 1, "failed attempt 1 should be 2");
    breaks(|record| record.attempt = 3, "failed attempt 3 should be 2");
    breaks(
        |record| record.after = 9,
        "it follows 9, not 10 (at [10, 20])",
    );
    let mut twice = done(&[("a", Succeeded), ("a", Failed)]);
    twice.state = None;
    assert_breaks(
        Invariant::OneCommit,
        twice,
        "failed follows the final record succeeded",
    );
}

#[test]
fn i2_a_status_before_that_was_not() {
    let mut bad = done(&[("a", Failed), ("a", Reset), ("a", Failed)]);
    bad.records[2].record.previous = Some(Failed);
    bad.state = None;
    assert_breaks(
        Invariant::OneCommit,
        bad,
        "its `previous` is failed, not reset",
    );
}

#[test]
fn i2_the_beginning_is_missing() {
    let mut bad = done(&[("a", Failed), ("a", Reset), ("a", Succeeded)]);
    bad.records.remove(0);
    bad.state = None;
    assert_breaks(
        Invariant::OneCommit,
        bad.clone(),
        "the first record is reset, attempt 1",
    );
    let mut purged = status(JobStatus::Waiting, &[]);
    purged.ledger.purge(10, crate::ledger::Counters::default());
    bad.state = Some(purged);
    bad.quiet = false;
    assert_holds(bad);
}

#[test]
fn i2_a_chain_begins_with_the_first_attempt_or_where_it_was_cut() {
    let fault = |after, attempt, previous, status, purged_to| {
        let first = record("a", status, attempt, previous, after);
        records::beginning_fault(&first, purged_to).is_some()
    };
    assert!(!fault(0, 1, None, Failed, 0));
    assert!(fault(0, 1, None, Reset, 0) && fault(0, 2, None, Failed, 0));
    assert!(fault(0, 1, Some(Reset), Failed, 0) && fault(0, 2, Some(Reset), Failed, 9));
    assert!(!fault(5, 2, Some(Reset), Failed, 5) && fault(5, 2, Some(Reset), Failed, 4));
    assert!(fault(5, 1, None, Failed, 0));
}

#[test]
fn i3_nothing_lost() {
    let mut good = done(&[("a", Retrying), ("b", Reset), ("c", Parked), ("d", Failed)]);
    good.state.as_mut().unwrap().status = JobStatus::Waiting;
    good.queue = vec![queued(41, "a", 2), queued(42, "e", 1)];
    good.records[1].record.attempt = 1;
    good.schedules = vec![queued(43, "b", 1)];
    good.records.remove(1);
    good.state = Some(status(JobStatus::Waiting, &good.records));
    good.acknowledged = ["a", "b", "c", "d", "e"].map(task).into();
    assert_holds(good.clone());
    let breaks = |change: fn(&mut JobHistory), part: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        assert_breaks(Invariant::NothingLost, bad, part);
    };
    breaks(
        |bad| bad.queue[0].attempt = 1,
        "demo/a: attempt 2 is neither queued nor scheduled (at [10])",
    );
    breaks(|bad| bad.schedules.clear(), "demo/b: the task is neither");
    breaks(|bad| bad.acknowledged.push(task("f")), "demo/f: the task");
    let mut purged = good.clone();
    purged.acknowledged.push(task("f"));
    purged.state.as_mut().unwrap().ledger.purged_to = 5;
    assert_holds(purged);
    good.queue.clear();
    good.removed = true;
    assert_holds(good.clone());
    good.removed = false;
    good.state = Some(status(JobStatus::Cancelling, &good.records));
    assert_holds(good);
}

fn working(phase: Phase) -> JobHistory {
    let lease = Lease {
        runner: RUN,
        manager: "manager-1".into(),
        backend: "process".into(),
        realm: None,
        budget: None,
        claimed: Time::from_millis(0),
        renewed: Time::from_millis(20_000),
        ttl: Span(Duration::from_secs(30)),
        start_within: Span(Duration::from_secs(10)),
        phase,
    };
    JobHistory {
        state: Some(status(JobStatus::Working { lease }, &[])),
        queue: vec![queued(5, "a", 1)],
        ..JobHistory::default()
    }
}

#[test]
fn i4_no_ghost() {
    let target = Target {
        task: task("a"),
        seq: 5,
        attempt: 1,
        expected: 0,
    };
    let running = Phase::Running(Running {
        target: target.clone(),
        fence: 3,
        started: Time::default(),
        host: "host-1".into(),
    });
    for (phase, limit) in [(Phase::Starting { target }, 15), (running, 55)] {
        let mut good = history(working(phase));
        good.poll = Span(Duration::from_secs(5));
        good.now = Some(Time::from_millis(limit * 1000));
        assert_eq!(check_all(&good), []);
        good.now = Some(Time::from_millis(limit * 1000 + 1));
        let text = texts(Invariant::NoGhost, &good);
        assert!(text.contains("demo/a: the lease of"), "{text}");
    }
}

#[test]
fn i6_no_survivors() {
    let mut good = history(two_runs());
    good.processes = Some(vec![process(RUN, true), process(RUN, false)]);
    assert_eq!(check_all(&good), []);
    good.processes = Some(vec![process(OTHER, true), process(RUN, false)]);
    let text = texts(Invariant::NoSurvivors, &good);
    assert!(text.contains("the process 17 on host-1 lives"), "{text}");
}

#[test]
fn i7_order() {
    let mut job_history = two_runs();
    job_history.records[0].record.seq = Some(16);
    assert_breaks(
        Invariant::Order,
        job_history.clone(),
        "the message 16 had its turn (fence 3) before 15 (fence 6) (at [15, 16])",
    );
    let mut same = job_history.clone();
    same.records[1].record.fence = same.records[0].record.fence;
    assert_breaks(Invariant::OneRunner, same, "");
    let first = job_history.records[1].record.spec.as_mut().unwrap();
    first.needs = vec!["a".parse().unwrap()];
    assert_holds(job_history);
}

#[test]
fn every_invariant_has_its_number() {
    for (number, invariant) in (1..).zip(Invariant::ALL) {
        assert!(invariant.as_str().starts_with(&format!("I{number} ")));
    }
}

#[test]
fn what_is_broken_means_something_of_its_own() {
    let means = Invariant::ALL.map(Invariant::broken_means);
    let different: std::collections::BTreeSet<_> = means.into();
    assert_eq!(different.len(), Invariant::ALL.len());
    assert!(!different.contains(""));
}
