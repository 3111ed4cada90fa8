//! I2, I3 and I7: each task has its chain, its fate and its turn.

use super::*;

#[test]
fn i2_records_form_chains() {
    let steps = [("a", Retrying), ("a", Succeeded)];
    let breaks = |change: fn(&mut Story), text: &str| {
        let mut bad = story(&steps);
        change(&mut bad);
        bad.refutes(Invariant::OneCommit, text)
    };
    breaks(|bad| bad.record(1).after = 9, "it follows 9, not 10");
    breaks(|bad| bad.record(1).attempt = 3, "should be 2");
    breaks(|bad| bad.record(1).previous = None, "`previous` is none");
    breaks(|bad| drop(bad.records.remove(0)), "the first record is");
    story(&[("a", Succeeded), ("a", Failed)])
        .refutes(Invariant::OneCommit, "failed follows the final");
    let places = breaks(
        |bad| bad.messages.push(message(50, "a", 3)),
        "no record of attempt 2 asks",
    );
    assert_eq!(places, [Place::Queue(job(), 50)]);
    breaks(
        |bad| bad.messages.push(message(50, "new", 2)),
        "no record of attempt 1 asks",
    );
}

#[test]
fn i2_a_record_stands_on_the_subject_of_its_task() {
    let mut check = JobCheck::new(job(), None, 0);
    let record = Record::new(task("a"), Succeeded, 1, Time::default());
    check.record(1, &task("b"), &record, &mut Families::new(None));
    let findings = check.end(&two().now);
    assert!(
        findings.listed[0].text.contains("of the task a"),
        "{findings:#?}"
    );
}

#[test]
fn i3_what_is_open_waits_somewhere() {
    let mut open = story(&[("a", Retrying)]);
    open.key(|state| state.status = JobStatus::Waiting);
    open.refutes(Invariant::NothingLost, "neither queued nor scheduled");
    open.messages = vec![message(11, "a", 2)];
    open.holds();
    open.messages[0].scheduled = true;
    open.holds();
    open.messages.clear();
    open.key(|state| state.status = JobStatus::Cancelling);
    open.holds();
}

#[test]
fn i3_a_parked_task_waits_for_a_person() {
    let mut parked = story(&[("a", Parked)]);
    parked.key(|state| state.status = JobStatus::Waiting);
    parked.holds();
    story(&[("a", Parked)]).refutes(Invariant::TrueCounters, "1 tasks are open");
    let mut live = story(&[("a", Parked)]);
    live.messages = vec![message(50, "a", 2)];
    live.key(|state| state.status = JobStatus::Waiting);
    live.refutes(Invariant::OneCommit, "no record of attempt 1 asks");
}

#[test]
fn i3_what_is_told_of_is_there() {
    let mut gone = two();
    gone.events = vec![event(Kind::Committed, 2, 6, Some(20))];
    gone.holds();
    gone.events.push(event(Kind::Committed, 3, 9, Some(30)));
    gone.refutes(Invariant::NothingLost, "an event tells of the record 30");
    gone.events[1] = event(Kind::Committed, 2, 6, Some(9));
    gone.holds();
    let mut named = two();
    named.key(|state| state.last_record = 21);
    named.refutes(
        Invariant::NothingLost,
        "the job's key tells of the record 21",
    );
    named.key(|state| state.ledger.purged_to = 21);
    assert_eq!(
        named.findings().verdict(Invariant::NothingLost),
        Verdict::Proven
    );
    let mut check = JobCheck::new(job(), None, 0);
    check.confirm(Suspect::Output(task("a"), 1, "blob".into()));
    assert!(
        check.findings.listed[0]
            .text
            .contains("its output is in the blob")
    );
}

#[test]
fn i3_what_retention_purged_is_not_missed() {
    let mut cut = story(&[("a", Succeeded), ("b", Succeeded), ("c", Succeeded)]);
    let mut gone = Ledger::default();
    gone.fold(10, &cut.records[0].1);
    gone.fold(20, &cut.records[1].1);
    cut.key(|state| state.ledger.purge(20, gone.counters));
    // The first one stays, as one that another task needs.
    cut.records.remove(1);
    cut.events = vec![event(Kind::Committed, 2, 6, Some(20))];
    let verdict = cut.findings().verdict(Invariant::NothingLost);
    assert_eq!(verdict, Verdict::Proven);
    cut.key(|state| state.ledger.purged_to = 19);
    cut.refutes(Invariant::NothingLost, "an event tells of the record 20");
}

#[test]
fn what_looks_wrong_is_looked_at_again_up_to_a_limit() {
    let mut check = JobCheck::new(job(), None, 0);
    let mut families = Families::new(None);
    for seq in 0..=SUSPECTS_MAX as u64 {
        check.message(&message(seq, "new", 2), &mut families);
    }
    assert_eq!(check.suspects().len(), SUSPECTS_MAX);
    let verdict = check.findings.verdict(Invariant::NothingLost);
    assert_eq!(verdict, Verdict::NotProven);
}

#[test]
fn i7_turns_come_in_the_order_of_messages() {
    let mut bad = story(&[("a", Succeeded), ("b", Succeeded)]);
    bad.record(1).seq = Some(0);
    bad.refutes(Invariant::Order, "had its turn");
    bad.record(1).spec.as_mut().unwrap().needs = vec!["a".parse().unwrap()];
    bad.holds();
    let mut overtaken = two();
    overtaken.key(|state| state.status = JobStatus::Waiting);
    overtaken.messages = vec![message(1, "slow", 1)];
    overtaken.refutes(Invariant::Order, "the later message 2 had its turn");
    overtaken.messages[0].binds = false;
    overtaken.holds();
    overtaken.messages = vec![message(2, "slow", 1)];
    overtaken.holds();
}

#[test]
fn i7_one_claim_may_settle_several_in_any_order() {
    let steps = [
        ("a", Succeeded),
        ("b", Succeeded),
        ("c", Succeeded),
        ("d", Succeeded),
    ];
    let turns = |turns: [(u64, u64); 4]| {
        let mut story = story(&steps);
        for (at, (fence, message)) in turns.into_iter().enumerate() {
            let record = story.record(at);
            (record.fence, record.seq) = (Some(fence), Some(message));
        }
        story
    };
    let verdict = |story: Story| story.findings().verdict(Invariant::Order);
    assert_eq!(
        verdict(turns([(3, 1), (6, 5), (6, 4), (9, 6)])),
        Verdict::Proven
    );
    let late = turns([(3, 1), (3, 5), (6, 4), (9, 6)]);
    late.refutes(Invariant::Order, "after the message 5");
    assert_eq!(
        verdict(turns([(3, 1), (6, 5), (9, 5), (12, 6)])),
        Verdict::Proven
    );
    // That is the matter of I1.
    assert_eq!(
        verdict(turns([(3, 1), (6, 3), (9, 4), (5, 2)])),
        Verdict::Proven
    );
}

#[test]
fn i3_what_is_nowhere_is_told_in_its_order() {
    let names = ["h", "c", "a", "g", "b", "f", "e", "d"];
    let mut open = story(&names.map(|name| (name, Retrying)));
    open.before = None;
    let mut check = open.check(&mut Families::new(None));
    let suspects = check.suspects().into_iter();
    let wanted = (10..).step_by(10).zip(names);
    let wanted = wanted.map(|(seq, name)| Suspect::Unqueued(task(name), seq));
    assert_eq!(suspects.collect::<Vec<_>>(), Vec::from_iter(wanted));
}

#[test]
fn a_task_that_was_published_twice_waits_once() {
    let mut twice = two();
    twice.messages = vec![message(900, "c", 1), message(901, "c", 1)];
    let findings = twice.findings();
    assert_eq!(findings.count[&Invariant::TrueCounters], 1);
}
