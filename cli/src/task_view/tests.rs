//! What tasks are doing, told from messages and records alone.

use air_protocol::budget::Leash;
use air_protocol::record::Record;
use air_protocol::task::Work;

use super::*;

fn message(seq: u64, id: &str, attempt: u32, needs: &[&str]) -> Queued {
    let mut task = Task::new(Work::Run(format!("do {id}")));
    task.needs = needs.iter().map(|need| need.parse().unwrap()).collect();
    Queued {
        seq,
        queued: Time::from_millis(seq),
        id: id.parse().unwrap(),
        attempt,
        parent: None,
        leash: Leash::default(),
        traceparent: None,
        task: Ok(task),
    }
}

fn last(known: &mut Known, id: &str, seq: u64, status: Status, attempt: u32) {
    let mut record = Record::new(id.parse().unwrap(), status, attempt, Time::from_millis(seq));
    record.retry_at = (status == Status::Retrying).then_some(Time::from_millis(99));
    known.lasts.insert(record.task.clone(), (seq, record));
}

#[test]
fn a_task_is_where_its_live_message_is() {
    let job: JobName = "j".parse().unwrap();
    let mut known = Known {
        queued: vec![
            message(1, "done", 1, &[]),
            message(2, "again", 2, &[]),
            message(3, "free", 1, &["done"]),
            message(4, "blocked", 1, &["again", "done"]),
            message(5, "lonely", 1, &["nobody", "k/other"]),
            message(6, "free", 1, &[]),
        ],
        scheduled: vec![message(7, "later", 3, &[])],
        ..Known::default()
    };
    last(&mut known, "done", 11, Status::Succeeded, 1);
    last(&mut known, "again", 12, Status::Retrying, 1);
    last(&mut known, "later", 13, Status::Retrying, 2);
    last(&mut known, "broken", 14, Status::Failed, 4);
    let views = known.views(&job, None);
    let said: Vec<_> = views
        .iter()
        .map(|view| (view.task.as_str(), view.status, view.attempt))
        .collect();
    assert_eq!(
        said,
        [
            ("done", "succeeded", 1),
            ("broken", "failed", 4),
            ("again", "queued", 2),
            ("free", "queued", 1),
            ("blocked", "blocked", 1),
            ("lonely", "blocked", 1),
            ("later", "scheduled", 3),
        ]
    );
    assert_eq!(views[4].waits_for, ["again".parse().unwrap()]);
    assert!(views[4].unknown.is_empty());
    assert_eq!(views[5].unknown.len(), 2);
    assert_eq!(views[6].due, Some(Time::from_millis(99)));
}
