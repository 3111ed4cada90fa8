//! I5: whose sub-tasks are there.

use super::*;

fn child_of(run: Uuid) -> Option<Parent> {
    Some(Parent {
        job: job(),
        task: task("a"),
        run: Some(run),
    })
}

/// `a` succeeded and queued `b` here and `c` in another job.
fn family() -> History {
    let mut parent = done(&[("a", Succeeded), ("b", Succeeded)]);
    parent.records[0].record.run = Some(RUN);
    parent.records[0].record.subtasks = 2;
    parent.records[0].record.jobs = vec!["other".parse().unwrap()];
    parent.records[1].parent = child_of(RUN);
    let completed = JobStatus::Completed { drained: 99 };
    parent.state = Some(status(completed, &parent.records));
    let other = JobHistory {
        queue: vec![TaskMessage {
            parent: child_of(RUN),
            ..queued(12, "c", 1)
        }],
        parents_known: true,
        ..JobHistory::default()
    };
    let mut history = history(parent);
    history.jobs.insert("other".parse().unwrap(), other);
    history
}

#[test]
fn i5_whole_families() {
    assert_eq!(check_all(&family()), []);
    let other: JobName = "other".parse().unwrap();
    let breaks = |change: fn(&mut JobHistory), part: &str| {
        let mut bad = family();
        change(bad.jobs.get_mut(&other).unwrap());
        let text = texts(Invariant::WholeFamilies, &bad);
        assert!(text.contains(part), "{text}");
    };
    breaks(
        |bad| bad.queue[0].parent = child_of(OTHER),
        "demo/a: it never succeeded in the run 00000000-0000-0000-0000-000000000002, but has the sub-tasks other/c (at [12])",
    );
    breaks(
        |bad| {
            let seq = 13;
            let twin = task("d");
            bad.queue.push(TaskMessage {
                seq,
                task: twin,
                ..bad.queue[0].clone()
            });
        },
        "it queued 2 sub-tasks, but 3 are there (at [10])",
    );
    breaks(
        |bad| bad.queue[0] = queued(12, "c", 1),
        "it queued 2 sub-tasks, but 1 are there",
    );
}

#[test]
fn i5_a_pending_fan_out_holds_the_rest() {
    let mut history = family();
    let demo = history.jobs.get_mut(&job()).unwrap();
    demo.records[0].record.subtasks = 5000;
    let ledger = &mut demo.state.as_mut().unwrap().ledger;
    ledger.counters.subtasks = 5000;
    assert!(texts(Invariant::WholeFamilies, &history).contains("5000 sub-tasks, but 2"));
    let fanout = Fanout {
        run: RUN,
        parent: "demo/a".into(),
        page: 1,
        pages: 6,
    };
    let demo = history.jobs.get_mut(&job()).unwrap();
    demo.state.as_mut().unwrap().status = JobStatus::Waiting;
    demo.queue.push(TaskMessage {
        parent: child_of(RUN),
        fanout: Some(fanout),
        ..queued(30, "_30", 1)
    });
    assert_eq!(check_all(&history), []);
    let demo = history.jobs.get_mut(&job()).unwrap();
    demo.schedules = std::mem::take(&mut demo.queue);
    assert_eq!(check_all(&history), []);
}

/// A record of the system's own task that queues a page of what `a` wants.
fn page(status: Status) -> StoredRecord {
    let mut page = chain(&[("_30", status)]).remove(0);
    page.seq = 30;
    page.parent = child_of(RUN);
    page.record.run = Some(OTHER);
    page.record.spec = Some(Task::new(Work::Fanout(Fanout {
        run: RUN,
        parent: "demo/a".into(),
        page: 1,
        pages: 6,
    })));
    page
}

/// The family with one more record in the job `demo`.
fn with(stored: StoredRecord, subtasks: u64) -> History {
    let mut history = family();
    let demo = history.jobs.get_mut(&job()).unwrap();
    demo.records[0].record.subtasks = subtasks;
    demo.records.push(stored);
    let completed = JobStatus::Completed { drained: 99 };
    demo.state = Some(status(completed, &demo.records));
    history
}

#[test]
fn i5_a_fan_out_is_no_sub_task_and_has_none() {
    let mut page = page(Succeeded);
    page.record.subtasks = 4;
    assert_eq!(check_all(&with(page, 2)), []);
}

#[test]
fn i5_only_a_success_has_sub_tasks() {
    let mut failed = chain(&[("f", Failed)]).remove(0);
    (failed.seq, failed.record.run) = (30, Some(OTHER));
    failed.record.subtasks = 4;
    assert_eq!(check_all(&with(failed, 2)), []);
}

#[test]
fn i5_each_counts_its_own() {
    let mut history = family();
    let demo = history.jobs.get_mut(&job()).unwrap();
    (demo.records[1].record.run, demo.records[1].record.subtasks) = (Some(OTHER), 1);
    let completed = JobStatus::Completed { drained: 99 };
    demo.state = Some(status(completed, &demo.records));
    let parent = Some(Parent {
        job: job(),
        task: task("b"),
        run: None,
    });
    let other = history.jobs.get_mut(&"other".parse().unwrap()).unwrap();
    other.queue.push(TaskMessage {
        parent,
        ..queued(13, "d", 1)
    });
    assert_eq!(check_all(&history), []);
}

#[test]
fn i5_what_cannot_be_counted_is_not_missed() {
    let mut missing = family();
    let other: JobName = "other".parse().unwrap();
    missing.jobs.get_mut(&other).unwrap().queue.clear();
    assert!(texts(Invariant::WholeFamilies, &missing).contains("but 1 are there"));
    let holds = |change: fn(&mut JobHistory)| {
        let mut changed = missing.clone();
        change(changed.jobs.get_mut(&other).unwrap());
        assert_eq!(check_all(&changed), []);
    };
    holds(|other| other.parents_known = false);
    holds(|other| other.removed = true);
    holds(|other| {
        let mut purged = status(JobStatus::Waiting, &[]);
        purged.ledger.purged_to = 5;
        other.state = Some(purged);
    });
    missing.jobs.remove(&other);
    assert_eq!(check_all(&missing), []);
}

#[test]
fn i5_a_fan_out_that_was_cancelled_queues_nothing_more() {
    assert_eq!(check_all(&with(page(Cancelled), 5000)), []);
    let done = with(page(Succeeded), 5000);
    assert!(texts(Invariant::WholeFamilies, &done).contains("5000 sub-tasks, but 2"));
}

#[test]
fn i5_a_parent_that_may_be_gone_is_not_missed() {
    let strange = |name: &str, run: Option<Uuid>| {
        let mut history = family();
        let parent = Some(Parent {
            job: job(),
            task: task(name),
            run,
        });
        let other = history.jobs.get_mut(&"other".parse().unwrap()).unwrap();
        other.queue.push(TaskMessage {
            parent,
            ..queued(13, "d", 1)
        });
        history
    };
    let changed = |mut history: History, change: fn(&mut JobHistory)| {
        change(history.jobs.get_mut(&job()).unwrap());
        history
    };
    let purge = |demo: &mut JobHistory| demo.state.as_mut().unwrap().ledger.purged_to = 5;
    let unknown = strange("z", None);
    assert!(texts(Invariant::WholeFamilies, &unknown).contains("demo/z: it never succeeded"));
    assert_eq!(check_all(&changed(unknown.clone(), purge)), []);
    assert_eq!(check_all(&changed(unknown, |demo| demo.removed = true)), []);
    let known = changed(strange("a", Some(OTHER)), purge);
    assert!(texts(Invariant::WholeFamilies, &known).contains("demo/a: it never succeeded"));
}
