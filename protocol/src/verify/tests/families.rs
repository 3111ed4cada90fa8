//! I5: sub-tasks and their parents.

use super::*;

#[test]
fn i5_families_are_whole() {
    let family = |subtasks: u64, children: u64| {
        let mut story = story(&[("a", Succeeded)]);
        story.record(0).subtasks = subtasks;
        story.key(|state| state.ledger.counters.subtasks = subtasks);
        story.key(|state| state.status = JobStatus::Waiting);
        for child in 0..children {
            story.messages.push(Message {
                parent: Some("demo/a".into()),
                ..message(11 + child, &format!("c{child}"), 1)
            });
        }
        story
    };
    family(2, 2).holds();
    family(1, 2).refutes(Invariant::WholeFamilies, "it queued 1 sub-tasks, but 2 say");
    family(0, 1).refutes(Invariant::WholeFamilies, "but 1 sub-tasks, such as demo/c0");
    family(2, 1).doubts(Invariant::WholeFamilies, "left no trace");
    let mut pending = family(2, 1);
    pending.messages.push(Message {
        fanout: Some(Fanout {
            run: run(1),
            parent: "demo/a".into(),
            page: 1,
            pages: 2,
        }),
        parent: Some("demo/a".into()),
        ..message(12, "rest", 1)
    });
    pending.holds();
    let mut failed = family(0, 1);
    failed.record(0).status = Failed;
    failed.key(|state| {
        state.ledger.counters.failed = 1;
        state.ledger.counters.succeeded = 0;
        state.ledger.failing = 1;
    });
    failed.refutes(Invariant::WholeFamilies, "no record of a success");
}

#[test]
fn i5_sub_tasks_count_once_wherever_they_are_seen() {
    let mut both = story(&[("a", Succeeded), ("c", Retrying), ("c", Succeeded)]);
    both.record(0).subtasks = 1;
    both.key(|state| state.ledger.counters.subtasks = 1);
    for at in 1..3 {
        both.record(at).parent = Some("demo/a".into());
    }
    both.messages = vec![Message {
        parent: Some("demo/a".into()),
        ..message(11, "c", 1)
    }];
    both.holds();
    let mut one = Families::new(None);
    let record = &both.records[0].1;
    one.parent(&job(), &task("a"), 10, record);
    let mut other = Families::new(None);
    let place = Place::Record(None, 30);
    other.child("demo/a", &"k".parse().unwrap(), &task("c"), 11, place);
    one.merge(other);
    let mut findings = Findings::default();
    one.end(&mut findings);
    assert_eq!(findings, Findings::default());
}

#[test]
fn i5_sub_tasks_of_an_earlier_life_of_their_parent_prove_nothing() {
    let two = |oldest: u64| {
        let mut families = Families::new(None);
        let mut record = Record::new(task("a"), Succeeded, 1, Time::default());
        record.subtasks = 1;
        families.parent(&job(), &task("a"), 50, &record);
        for (child, message) in [("c", oldest), ("d", 51)] {
            let place = Place::Queue(job(), message);
            families.child("demo/a", &job(), &task(child), message, place);
        }
        let mut findings = Findings::default();
        families.end(&mut findings);
        findings.verdict(Invariant::WholeFamilies)
    };
    assert_eq!(two(51), Verdict::Refuted);
    assert_eq!(two(49), Verdict::NotProven);
}
