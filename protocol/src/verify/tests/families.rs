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
    assert_eq!(two(50), Verdict::Refuted);
    assert_eq!(two(49), Verdict::NotProven);
}

/// A record of a success that queued so many.
fn success(subtasks: u64) -> Record {
    let mut record = Record::new(task("a"), Succeeded, 1, Time::default());
    record.subtasks = subtasks;
    record.jobs = vec!["k".parse().unwrap()];
    record
}

fn other() -> JobName {
    "k".parse().unwrap()
}

/// What is said of families in the end: violations, and examples of what is not proven.
fn said(families: Families) -> (Vec<String>, Vec<String>) {
    let mut findings = Findings::default();
    families.end(&mut findings);
    let texts = findings.listed.into_iter().map(|one| one.text);
    let examples = findings.doubts.into_values().map(|doubt| doubt.example);
    (texts.collect(), examples.collect())
}

fn child(families: &mut Families, parent: &str, job: &JobName, name: &str) {
    let place = Place::Queue(job.clone(), 60);
    families.child(parent, job, &task(name), 60, place);
}

#[test]
fn i5_of_one_job_only_its_own_families_are_judged() {
    let mut ours = Families::new(Some(job()));
    assert_eq!(ours.only(), Some(&job()));
    ours.parent(&other(), &task("a"), 50, &success(3));
    child(&mut ours, "k/a", &other(), "c");
    ours.pending("k/a");
    assert_eq!((ours.doubtful(9), ours.elsewhere().len()), (vec![], 0));
    assert_eq!(said(ours), (vec![], vec![]));
    let mut ours = Families::new(Some(job()));
    ours.parent(&job(), &task("a"), 50, &success(3));
    child(&mut ours, "demo/a", &other(), "c");
    assert!(ours.elsewhere().contains(&other()));
    assert_eq!(said(ours), (vec![], vec!["demo/a: 2 of 3".into()]));
    // Sub-tasks of another job's task are in other jobs too.
    let mut partly = Families::new(Some(job()));
    child(&mut partly, "k/a", &job(), "c");
    let parent = partly.doubtful(9).remove(0);
    assert_eq!((&parent.job, parent.in_own_job), (&other(), false));
    assert_eq!(partly.doubtful(0), []);
    let mut findings = Findings::default();
    partly.resolve(&parent, Some((3, 50)), &mut findings);
    assert_eq!(findings, Findings::default());
    assert_eq!(said(partly), (vec![], vec![]));
}

#[test]
fn i5_what_is_unknown_is_not_proven() {
    let mut unknown = Families::new(None);
    child(&mut unknown, "demo/a", &job(), "c");
    child(&mut unknown, "demo/a", &other(), "d");
    assert!(unknown.doubtful(9)[0].in_own_job, "the first one is kept");
    assert_eq!(said(unknown), (vec![], vec!["demo/a".into()]));
    let mut told = Families::new(None);
    told.parent(&job(), &task("a"), 50, &success(0));
    assert_eq!(told.doubtful(9), []);
    assert_eq!(said(told), (vec![], vec![]));
    let mut failed = Families::new(None);
    let mut record = success(1);
    record.status = Failed;
    failed.parent(&job(), &task("a"), 50, &record);
    assert_eq!(said(failed), (vec![], vec![]));
    let mut waits = Families::new(None);
    waits.pending("demo/a");
    let parent = waits.doubtful(9).remove(0);
    let mut findings = Findings::default();
    waits.resolve(&parent, None, &mut findings);
    assert_eq!(findings, Findings::default(), "it has no sub-task to tell");
}

#[test]
fn i5_what_was_seen_in_several_jobs_adds_up() {
    let part = |change: fn(&mut Families)| {
        let mut families = Families::new(None);
        change(&mut families);
        families
    };
    let parts: [fn(&mut Families); 3] = [
        |one| one.parent(&job(), &task("a"), 50, &success(3)),
        |one| child(one, "demo/a", &job(), "c"),
        |one| child(one, "demo/a", &other(), "d"),
    ];
    let merged = |order: [usize; 3]| {
        let mut all = Families::new(None);
        for at in order {
            all.merge(part(parts[at]));
        }
        all
    };
    for order in [[0, 1, 2], [1, 2, 0], [2, 0, 1]] {
        let all = merged(order);
        assert!(all.elsewhere().contains(&other()));
        assert_eq!(all.doubtful(9), []);
        assert_eq!(said(all), (vec![], vec!["demo/a: 1 of 3".into()]));
        let mut waits = merged(order);
        waits.merge(part(|one| one.pending("demo/a")));
        assert_eq!(said(waits), (vec![], vec![]));
        let mut partly = Families::new(Some(other()));
        child(&mut partly, "demo/a", &other(), "e");
        let mut all = part(parts[0]);
        all.merge(partly);
        assert_eq!(said(all), (vec![], vec![]));
        let mut unknown = Families::new(None);
        unknown.merge(part(|one| child(one, "k/z", &other(), "y")));
        unknown.merge(part(|one| child(one, "k/z", &job(), "x")));
        assert!(unknown.doubtful(9)[0].in_own_job, "the first one is kept");
    }
}
