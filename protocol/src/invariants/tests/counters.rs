//! I8: what the state says of the records.

use super::*;

#[test]
fn i8_true_counters() {
    let good = done(&[("a", Succeeded), ("b", Failed)]);
    let breaks = |change: fn(&mut JobHistory), part: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        assert_breaks(Invariant::TrueCounters, bad, part);
    };
    let count = |bad: &mut JobHistory| bad.state.as_mut().unwrap().ledger.counters.failed = 0;
    breaks(count, "the counters are");
    breaks(
        |bad| bad.state.as_mut().unwrap().ledger.failing = 0,
        "`failing` is 0, the records say 1",
    );
    breaks(
        |bad| {
            bad.records
                .extend(chain(&[("c", Succeeded); 3]).drain(2..).map(|mut one| {
                    one.record = record("c", Succeeded, 1, None, 0);
                    one
                }))
        },
        "records are counted up to 20, but the last is 30",
    );
    breaks(
        |bad| bad.queue.push(queued(40, "c", 1)),
        "the job is completed, but a live task is queued (at [40])",
    );
    assert_holds(good);
}

#[test]
fn i8_a_job_at_work_is_judged_by_what_it_has_counted() {
    let mut behind = done(&[("a", Succeeded), ("b", Succeeded)]);
    behind.state = Some(status(JobStatus::Waiting, &behind.records[..1]));
    behind.quiet = false;
    assert_holds(behind.clone());
    behind.state.as_mut().unwrap().ledger.counters.succeeded = 0;
    assert_breaks(Invariant::TrueCounters, behind, "the counters are");
}

#[test]
fn i8_purged_records_still_count() {
    let mut purged = done(&[("a", Succeeded), ("b", Succeeded)]);
    let mut gone = Ledger::default();
    gone.fold(10, &purged.records.remove(0).record);
    let ledger = &mut purged.state.as_mut().unwrap().ledger;
    ledger.purge(10, gone.counters);
    assert_holds(purged.clone());
    let ledger = &mut purged.state.as_mut().unwrap().ledger;
    ledger.purged = None;
    assert_breaks(Invariant::TrueCounters, purged, "the counters are");
}

#[test]
fn i8_a_failed_job_has_a_failure() {
    let mut failed = done(&[("a", Failed)]);
    failed.state.as_mut().unwrap().status = JobStatus::Failed { task: None };
    assert_holds(failed.clone());
    let mut forgiven = failed;
    forgiven.state.as_mut().unwrap().ledger.forgive();
    assert_breaks(
        Invariant::TrueCounters,
        forgiven,
        "the job is failed, but no task is",
    );
}

#[test]
fn i8_what_was_forgiven_fails_no_more() {
    let mut forgiven = done(&[("a", Failed)]);
    forgiven.state.as_mut().unwrap().ledger.forgive();
    assert_holds(forgiven);
}

#[test]
fn i8_every_open_task_of_a_completed_job_is_told() {
    let steps = [
        ("a", Retrying),
        ("b", Retrying),
        ("c", Parked),
        ("b", Reset),
    ];
    let mut open = done(&steps);
    // Whoever removes a job may take the messages of its tasks.
    open.removed = true;
    assert_breaks(
        Invariant::TrueCounters,
        open.clone(),
        "but 3 tasks are open",
    );
    open.state.as_mut().unwrap().status = JobStatus::Cancelled { drained: 99 };
    assert_holds(open);
    let mut scheduled = done(&[("a", Succeeded)]);
    scheduled.schedules.push(queued(5, "a", 1));
    assert_breaks(
        Invariant::TrueCounters,
        scheduled,
        "but a task is scheduled (at [5])",
    );
}

#[test]
fn i8_only_what_retention_took_may_be_missing() {
    let kept = |accounted, purged_to| Ledger {
        accounted,
        purged_to,
        purged: Some(crate::ledger::Counters::default()),
        ..Ledger::default()
    };
    let told = |kept: &Ledger, last| {
        let fresh = Ledger {
            accounted: last,
            ..Ledger::default()
        };
        records::ledger_faults(kept, &fresh).join("; ")
    };
    assert_eq!(told(&kept(20, 20), 0), "");
    assert_eq!(told(&kept(20, 20), 20), "");
    assert_eq!(told(&kept(20, 10), 20), "");
    for (kept, last) in [(kept(20, 19), 10), (kept(20, 20), 30)] {
        let wanted = format!("records are counted up to 20, but the last is {last}");
        assert_eq!(told(&kept, last), wanted);
    }
    let whole = Ledger {
        purged: None,
        ..kept(20, 20)
    };
    assert!(told(&whole, 10).contains("the last is 10"));
}

#[test]
fn i8_children_are_listed_until_the_list_is_full() {
    let of = |count: usize| Ledger {
        children: (0..count)
            .map(|number| format!("j{number}").parse().unwrap())
            .collect(),
        ..Ledger::default()
    };
    assert_eq!(records::ledger_faults(&of(3), &of(2)), [""; 0]);
    let lacks = records::ledger_faults(&of(1), &of(2)).join("; ");
    assert!(lacks.starts_with("`children` lacks"), "{lacks}");
    let most = crate::limits::CHILDREN_MAX;
    assert_eq!(records::ledger_faults(&of(most), &of(most + 1)), [""; 0]);
}
