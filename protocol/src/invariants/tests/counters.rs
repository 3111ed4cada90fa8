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
