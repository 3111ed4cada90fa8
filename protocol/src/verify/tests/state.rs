//! I4 and I8: what the key says; and what is not judged.

use super::*;

#[test]
fn i4_a_lease_is_renewed_or_taken_over() {
    let mut late = working(running(9), run(9));
    let most = Duration::from_secs(30) + POLL_MAX;
    late.now.age = most;
    late.holds();
    late.now.age = most + Duration::from_secs(11);
    late.refutes(Invariant::NoGhost, "nobody has taken it over");
    late.now.managed = false;
    late.doubts(Invariant::NoGhost, "no manager runs");
    let mut starting = working(Phase::Starting { target: target() }, run(9));
    starting.now.age = most + Duration::from_secs(11);
    starting.holds();
}

#[test]
fn what_cannot_be_read_hides_what_follows_from_it() {
    let good = story(&[("a", Retrying), ("a", Succeeded)]);
    let mut check = JobCheck::new(job(), good.before.clone(), 500);
    check.unreadable("air.results.demo.a", Some(&task("a")), 10);
    let mut families = Families::new(None);
    check.record(20, &task("a"), &good.records[1].1, &mut families);
    check.unreadable("air.results.demo.b", Some(&task("b")), 30);
    check.message(&message(31, "b", 2), &mut families);
    assert_eq!(check.suspects(), []);
    let findings = check.end(&good.now);
    assert_eq!(findings.listed, [], "{findings:#?}");
    assert_eq!(findings.verdict(Invariant::OneCommit), Verdict::NotProven);
}

#[test]
fn a_replica_that_lags_proves_nothing() {
    let mut behind = two();
    behind.records.pop();
    let mut check = behind.check(&mut Families::new(None));
    assert_eq!(check.ends_before(), Some(20));
    check.lags();
    let findings = check.end(&behind.now);
    assert_eq!(findings.listed, [], "{findings:#?}");
    assert_eq!(
        findings.verdict(Invariant::TrueCounters),
        Verdict::NotProven
    );
    behind.refutes(Invariant::TrueCounters, "the counters are");
}

#[test]
fn records_end_where_the_key_says_or_before() {
    let ends_before = |story: &Story| story.check(&mut Families::new(None)).ends_before();
    let mut whole = two();
    assert_eq!(ends_before(&whole), None);
    whole.records.pop();
    assert_eq!(ends_before(&whole), Some(20));
    whole.key(|state| state.ledger.purged_to = 20);
    assert_eq!(ends_before(&whole), None, "retention took the last one");
}

#[test]
fn i8_the_key_says_what_the_records_say() {
    let mut bad = two();
    bad.key(|state| state.ledger.counters.succeeded = 3);
    bad.refutes(Invariant::TrueCounters, "the counters are");
    let mut open = story(&[("a", Retrying)]);
    open.messages = vec![message(2000, "a", 2)];
    open.refutes(Invariant::TrueCounters, "1 tasks are open");
    let mut live = two();
    live.messages = vec![message(900, "c", 1)];
    live.refutes(Invariant::TrueCounters, "a live task waits");
    live.messages = vec![message(1001, "c", 1)];
    live.doubts(Invariant::TrueCounters, "no manager has looked at yet");
    let mut failed = two();
    failed.key(|state| state.status = JobStatus::Failed { task: None });
    failed.holds();
    failed.now.age = POLL_MAX * 2;
    failed.refutes(Invariant::TrueCounters, "no task is");
}

#[test]
fn i8_what_is_not_counted_yet_is_not_wrong() {
    let mut behind = two();
    behind.key(|state| {
        state.ledger = Ledger::default();
        state.ledger.fold(10, &two().records[0].1);
    });
    behind.doubts(Invariant::TrueCounters, "not counted yet");
    behind.key(|state| state.status = JobStatus::Waiting);
    behind.holds();
    let mut changed = two();
    changed.now.unchanged = false;
    changed.doubts(Invariant::TrueCounters, "changed each time");
    let mut purged = two();
    purged
        .now
        .state
        .as_mut()
        .unwrap()
        .ledger
        .purge(10, crate::ledger::Counters::default());
    purged.doubts(Invariant::OneCommit, "purged or removed while");
    let mut anew = two();
    anew.records.clear();
    anew.key(|state| (state.status, state.last_record) = (JobStatus::Waiting, 0));
    anew.now.state = Some(JobState::new(Time::default()));
    let findings = anew.findings();
    assert_eq!(
        findings.verdict(Invariant::TrueCounters),
        Verdict::NotProven
    );
}

#[test]
fn records_that_retention_purged_are_counted_as_the_key_says() {
    let mut cut = story(&[("a", Succeeded), ("b", Succeeded)]);
    let mut first = Ledger::default();
    first.fold(10, &cut.records[0].1);
    cut.key(|state| state.ledger.purge(10, first.counters));
    cut.holds();
    cut.records.remove(0);
    cut.holds();
}

#[test]
fn a_job_that_is_removed_or_has_no_key_is_not_judged() {
    let mut removed = story(&[("a", Succeeded), ("a", Failed)]);
    removed.now.state.as_mut().unwrap().status = JobStatus::Removing;
    for invariant in Invariant::ALL {
        removed.doubts(invariant, "being removed");
    }
    let mut keyless = two();
    (keyless.before, keyless.now.state) = (None, None);
    keyless.doubts(Invariant::TrueCounters, "no key");
    assert_eq!(
        keyless.findings().verdict(Invariant::OneCommit),
        Verdict::Proven
    );
}

#[test]
fn times_are_over_when_they_are_exceeded() {
    let grace = POLL_MAX + Duration::from_secs(10);
    let mut late = working(running(9), run(9));
    late.now.age = Duration::from_secs(30) + grace;
    late.holds();
    late.now.age += Duration::from_millis(1);
    late.refutes(Invariant::NoGhost, "nobody has taken it over");
    let mut failed = two();
    failed.key(|state| state.status = JobStatus::Failed { task: None });
    failed.now.age = grace;
    failed.holds();
    failed.now.age += Duration::from_millis(1);
    failed.refutes(Invariant::TrueCounters, "no task is");
    failed.now.managed = false;
    failed.holds();
    let mut rightly = story(&[("a", Failed)]);
    rightly.key(|state| state.status = JobStatus::Failed { task: None });
    rightly.now.age = 2 * grace;
    rightly.holds();
}

#[test]
fn i8_every_open_task_of_a_completed_job_is_told() {
    let steps = [
        ("a", Retrying),
        ("b", Retrying),
        ("c", Parked),
        ("b", Reset),
    ];
    story(&steps).refutes(Invariant::TrueCounters, "but 3 tasks are open");
}

#[test]
fn i8_a_queue_that_was_seen_empty_stays_so() {
    let mut live = two();
    live.messages = vec![message(1000, "c", 1)];
    live.refutes(Invariant::TrueCounters, "seen empty up to 1000");
    live.key(|state| state.status = JobStatus::Cancelled { drained: 1000 });
    live.refutes(Invariant::TrueCounters, "the job is cancelled");
    live.key(|state| state.status = JobStatus::Waiting);
    live.holds();
}

#[test]
fn a_history_is_read_again_if_its_key_went_on() {
    let is_outdated = |story: &Story| {
        let check = JobCheck::new(job(), story.before.clone(), 500);
        check.is_outdated(&story.now)
    };
    let after = |story: &mut Story, change: fn(&mut Ledger)| {
        change(&mut story.now.state.as_mut().unwrap().ledger);
    };
    let mut same = two();
    assert!(!is_outdated(&same));
    after(&mut same, |ledger| ledger.accounted += 10);
    assert!(!is_outdated(&same), "records go on");
    same.now.unchanged = false;
    assert!(is_outdated(&same), "of a job that was over");
    same.key(|state| state.status = JobStatus::Waiting);
    assert!(!is_outdated(&same));
    let mut purged = two();
    after(&mut purged, |ledger| ledger.purged_to = 10);
    assert!(is_outdated(&purged));
    let mut anew = two();
    after(&mut anew, |ledger| ledger.accounted = 10);
    assert!(is_outdated(&anew));
    anew.now.state = None;
    assert!(is_outdated(&anew));
    anew.before = None;
    assert!(!is_outdated(&anew));
}

#[test]
fn i5_a_page_that_is_gone_is_told() {
    let mut check = JobCheck::new(job(), None, 0);
    check.page_is_missing(&message(7, "_30", 1), "blob".into());
    let found = &check.findings.listed[0];
    assert_eq!(found.invariant, Invariant::WholeFamilies);
    let places = [Place::Queue(job(), 7), Place::Blob("blob".into())];
    assert_eq!(found.places, places);
}
