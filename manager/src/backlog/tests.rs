//! Tests of the backlog: what it picks, decides, and forgets.

use air_nats::queue::Invalid;
use air_protocol::budget::Leash;
use air_protocol::lease::Verdict;
use air_protocol::limits::{DECISIONS_BYTES_MAX, DECISIONS_MAX};
use air_protocol::spec::Spec;
use air_protocol::task::{Task, Work};
use air_protocol::time::Span;

use super::*;
use crate::circle;

mod approval;
mod charged;
mod remembered;

const NOW: Time = Time::from_millis(1_000_000);

fn job() -> JobName {
    "j".parse().unwrap()
}

fn id(task: &str) -> TaskId {
    task.parse().unwrap()
}

fn message(seq: u64, task: &str, attempt: u32, needs: &[&str]) -> Queued {
    let mut work = Task::new(Work::Run("true".into()));
    work.needs = needs.iter().map(|need| need.parse().unwrap()).collect();
    Queued {
        seq,
        queued: NOW,
        id: id(task),
        attempt,
        parent: None,
        leash: Leash::default(),
        traceparent: None,
        task: Ok(work),
    }
}

fn record(task: &str, status: Status, attempt: u32) -> Record {
    Record::new(id(task), status, attempt, NOW)
}

fn lasts(records: &[(u64, Record)], up_to: u64) -> Lasts {
    let key = |record: &Record| (job(), record.task.clone());
    let records = records
        .iter()
        .map(|(seq, record)| (key(record), (*seq, record.clone())));
    Lasts {
        records: records.collect(),
        up_to: Some(up_to),
    }
}

fn pick_with(backlog: &Backlog, spec: &Spec, now: Time) -> Pick {
    let mut waits = circle::Waits::default();
    waits.replace(&job(), backlog.waiting());
    backlog.pick(Context {
        now,
        spec,
        waits: &waits,
    })
}

fn pick(backlog: &Backlog) -> Pick {
    pick_with(backlog, &Spec::default(), NOW)
}

fn ready(pick: &Pick) -> Option<(&str, u64)> {
    let target = &pick.ready.as_ref()?.target;
    Some((target.task.as_str(), target.expected))
}

fn left(backlog: &Backlog) -> Vec<u64> {
    backlog.leftovers(NOW, Duration::ZERO).into_keys().collect()
}

fn backlog(messages: Vec<Queued>, records: &[(u64, Record)]) -> Backlog {
    let mut backlog = Backlog::new(job());
    backlog.begin(0, 0, NOW);
    backlog.admit(messages, &lasts(records, 100), 0, NOW);
    backlog
}

#[test]
fn the_first_live_task_is_picked() {
    let messages = vec![
        message(1, "a", 1, &[]),
        message(2, "b", 1, &[]),
        message(3, "c", 2, &[]),
    ];
    let records = [
        (5, record("a", Status::Succeeded, 1)),
        (6, record("c", Status::Retrying, 1)),
    ];
    let mut backlog = backlog(messages, &records);
    assert_eq!(ready(&pick(&backlog)), Some(("b", 0)));
    assert_eq!(left(&backlog), [1], "a is done");
    backlog.learn(7, &record("b", Status::Succeeded, 1), NOW);
    assert_eq!(ready(&pick(&backlog)), Some(("c", 6)));
    assert_eq!(left(&backlog), [1, 2]);
    assert!(
        backlog.leftovers(NOW, Duration::from_secs(1)).is_empty(),
        "not old enough"
    );
    backlog.deleted(1);
    assert_eq!(left(&backlog), [2]);
}

#[test]
fn a_stale_reply_deletes_nothing() {
    // The truth is a reset at 30 and this message at 31; the reply has seen only up to 20.
    let mut backlog = Backlog::new(job());
    let stale = lasts(&[(20, record("a", Status::Failed, 1))], 20);
    backlog.admit(vec![message(31, "a", 2, &[])], &stale, 0, NOW);
    assert!(pick(&backlog).ready.is_none() && backlog.leftovers(NOW, Duration::ZERO).is_empty());
    assert!(backlog.is_empty(), "the next look begins anew");
}

#[test]
fn a_task_waits_for_what_it_needs() {
    let mut backlog = backlog(
        vec![message(1, "b", 1, &["a"]), message(2, "a", 1, &[])],
        &[],
    );
    let first = pick(&backlog);
    assert_eq!(ready(&first), Some(("a", 0)));
    assert_eq!(first.blocked, [(id("b"), vec!["a".parse().unwrap()])]);
    assert_eq!(backlog.newly_blocked(), [(id("b"), 1, "a".to_owned())]);
    assert!(backlog.newly_blocked().is_empty(), "told once");
    backlog.learn(3, &record("a", Status::Retrying, 1), NOW);
    assert_eq!(pick(&backlog).ready, None);
    backlog.learn(4, &record("a", Status::Succeeded, 2), NOW);
    assert_eq!(ready(&pick(&backlog)), Some(("b", 0)));
}

#[test]
fn a_need_that_cannot_be_met_skips() {
    let records = [(5, record("a", Status::Cancelled, 1))];
    let backlog = backlog(vec![message(1, "b", 1, &["a"])], &records);
    let pick = pick(&backlog);
    let Verdict::Skip { reason } = &pick.decisions[0].verdict else {
        panic!("{pick:?}")
    };
    assert_eq!(reason, "needs a to succeed, which is cancelled");
}

#[test]
fn a_need_that_nobody_publishes_has_a_time() {
    let spec = Spec {
        needs_timeout: Some(Span(Duration::from_secs(60))),
        ..Spec::default()
    };
    let backlog = backlog(
        vec![message(1, "b", 1, &["a", "c"]), message(2, "c", 1, &["x"])],
        &[],
    );
    assert!(
        pick_with(&backlog, &spec, NOW.after(Duration::from_secs(59)))
            .decisions
            .is_empty()
    );
    let pick = pick_with(&backlog, &spec, NOW.after(Duration::from_secs(60)));
    let decided: Vec<_> = pick
        .decisions
        .iter()
        .map(|decision| decision.target.task.as_str())
        .collect();
    assert_eq!(decided, ["b", "c"]);
}

#[test]
fn a_circle_fails() {
    let backlog = backlog(
        vec![
            message(1, "a", 1, &["b"]),
            message(2, "b", 1, &["a"]),
            message(3, "c", 1, &["a"]),
        ],
        &[],
    );
    let pick = pick(&backlog);
    assert_eq!(pick.decisions.len(), 2);
    assert!(
        matches!(&pick.decisions[0].verdict, Verdict::Fail { reason } if reason.contains("a → b → a"))
    );
    assert_eq!(pick.blocked.len(), 1, "c is skipped once a has failed");
}

#[test]
fn an_invalid_message_and_a_task_before_its_time_are_decided() {
    let mut invalid = message(1, "_1", 1, &[]);
    invalid.task = Err(Invalid {
        reason: "it is no JSON".into(),
        head: "{".into(),
    });
    let mut early = message(2, "a", 1, &[]);
    early.task.as_mut().unwrap().not_before = Some(NOW.after(Duration::from_secs(9)));
    let backlog = backlog(vec![invalid, early, message(3, "b", 1, &[])], &[]);
    let pick = pick(&backlog);
    assert!(matches!(pick.decisions[0].verdict, Verdict::Fail { .. }));
    assert!(matches!(pick.decisions[1].verdict, Verdict::Move { until } if until > NOW));
    assert_eq!(ready(&pick), Some(("b", 0)));
}

#[test]
fn what_others_folded_is_learned_or_forgotten() {
    let mut backlog = backlog(vec![message(1, "a", 1, &[])], &[]);
    backlog.learn(4, &record("x", Status::Succeeded, 1), NOW);
    let mut removed = backlog.clone();
    assert_eq!(removed.begin(9, 0, NOW), 4);
    assert_eq!(removed.begin(0, 0, NOW), 0, "the job was removed");
    assert!(removed.is_empty());
    assert_eq!(
        backlog.begin(9, 0, NOW),
        4,
        "records 5 to 9 are to be learned"
    );
    assert_eq!(
        backlog.begin(9, 7, NOW),
        9,
        "they are purged: everything is read anew"
    );
    assert!(backlog.is_empty());
}

#[test]
fn more_is_read_only_while_nothing_can_be_done() {
    let mut backlog = Backlog::new(job());
    let waits = circle::Waits::default();
    let spec = Spec::default();
    let context = Context {
        now: NOW,
        spec: &spec,
        waits: &waits,
    };
    assert!(backlog.wants_more(context));
    backlog.admit(vec![message(1, "b", 1, &["a"])], &lasts(&[], 100), 5, NOW);
    assert!(backlog.wants_more(context), "all that is known waits");
    backlog.admit(vec![message(2, "c", 1, &[])], &lasts(&[], 100), 4, NOW);
    assert!(!backlog.wants_more(context));
    assert_eq!(backlog.next_seq(), 3);
}

#[test]
fn further_attempts_that_wait_are_counted() {
    let blocked = |attempt, last: Option<u64>| {
        let lasts: Vec<_> = last
            .map(|seq| (seq, record("b", Status::Reset, attempt - 1)))
            .into_iter()
            .collect();
        let backlog = backlog(vec![message(9, "b", attempt, &["a"])], &lasts);
        let pick = pick(&backlog);
        (pick.blocked.len(), pick.again)
    };
    assert_eq!(blocked(1, None), (1, 0));
    assert_eq!(blocked(2, Some(8)), (1, 1));
}

#[test]
fn what_is_remembered_is_read_anew_after_a_while_and_told_once() {
    let messages = || vec![message(1, "b", 1, &["a"])];
    let mut backlog = backlog(messages(), &[]);
    assert_eq!(backlog.newly_blocked().len(), 1);
    backlog.begin(0, 0, NOW.after(ANEW_EVERY - Duration::from_millis(1)));
    assert_eq!((backlog.len(), backlog.next_seq()), (1, 2));
    backlog.begin(0, 0, NOW.after(ANEW_EVERY));
    assert_eq!((backlog.len(), backlog.next_seq()), (0, 1));
    backlog.admit(messages(), &lasts(&[], 100), 0, NOW);
    assert!(
        backlog.newly_blocked().is_empty(),
        "that b waits was told before"
    );
}

#[test]
fn a_message_that_is_left_over_is_known_by_task_and_attempt() {
    let backlog = backlog(
        vec![message(1, "a", 1, &[])],
        &[(5, record("a", Status::Succeeded, 1))],
    );
    let left = backlog.leftovers(NOW, Duration::ZERO);
    assert!(left[&1].is(&message(1, "a", 1, &[])));
    assert!(!left[&1].is(&message(1, "a", 2, &[])), "another attempt");
    assert!(!left[&1].is(&message(1, "b", 1, &[])), "another task");
    assert!(left[&1].is_among(1, &[message(1, "a", 1, &[])]));
    assert!(!left[&1].is_among(1, &[]), "it was not read");
    let elsewhere = [message(2, "a", 1, &[]), message(1, "b", 1, &[])];
    assert!(
        !left[&1].is_among(1, &elsewhere),
        "its sequence is another's"
    );
}

#[test]
fn decisions_fit_into_a_lease() {
    let bad = |seq| Queued {
        task: Err(Invalid {
            reason: "x".repeat(20 * 1024),
            head: String::new(),
        }),
        ..message(seq, &format!("t{seq}"), 1, &[])
    };
    let pick = pick(&backlog((1..=10).map(bad).collect(), &[]));
    assert_eq!(
        pick.decisions.len(),
        4,
        "the first beyond 64 KiB is the last"
    );
}

#[test]
fn a_need_of_another_job_is_late_only_if_its_queue_was_searched() {
    let spec = Spec {
        needs_timeout: Some(Span(Duration::from_secs(1))),
        ..Spec::default()
    };
    let mut backlog = backlog(vec![message(1, "a", 1, &["k/x", "k/y"])], &[]);
    let waits = circle::Waits::default();
    let unsure = |backlog: &Backlog, now| {
        backlog.unsure(Context {
            now,
            spec: &spec,
            waits: &waits,
        })
    };
    let late = NOW.after(Duration::from_secs(1));
    assert!(unsure(&backlog, NOW).is_empty());
    let task = |task: &str| ("k".parse().unwrap(), id(task));
    assert_eq!(
        unsure(&backlog, late),
        BTreeSet::from([task("x"), task("y")])
    );
    assert!(pick_with(&backlog, &spec, late).decisions.is_empty());
    backlog.searched(vec![task("x")], &BTreeSet::from([task("x")]), late);
    assert_eq!(unsure(&backlog, late), BTreeSet::from([task("y")]));
    assert!(pick_with(&backlog, &spec, late).decisions.is_empty());
    backlog.searched(vec![task("y")], &BTreeSet::new(), late);
    let picked = pick_with(&backlog, &spec, late);
    assert!(matches!(picked.decisions[0].verdict, Verdict::Skip { .. }));
    backlog.begin(0, 0, late);
    assert!(
        pick_with(&backlog, &spec, late).decisions.is_empty(),
        "y may have been published since"
    );
}

#[test]
fn a_later_attempt_of_a_task_that_is_over_is_not_picked() {
    let records = [(5, record("a", Status::Retrying, 1))];
    let mut backlog = backlog(vec![message(1, "a", 2, &[])], &records);
    assert_eq!(ready(&pick(&backlog)), Some(("a", 5)));
    backlog.learn(6, &record("a", Status::Cancelled, 1), NOW);
    assert_eq!(pick(&backlog).ready, None);
    assert!(left(&backlog).is_empty(), "a reset may still make it live");
    backlog.learn(7, &record("a", Status::Reset, 1), NOW);
    assert_eq!(ready(&pick(&backlog)), Some(("a", 7)));
}

#[test]
fn there_is_a_task_if_it_may_run_is_decided_or_waits() {
    let invalid = || Queued {
        task: Err(Invalid {
            reason: "no JSON".into(),
            head: "{".into(),
        }),
        ..message(1, "a", 1, &[])
    };
    assert!(!pick(&backlog(vec![], &[])).has_live());
    assert!(pick(&backlog(vec![message(1, "a", 1, &[])], &[])).has_live());
    assert!(pick(&backlog(vec![invalid()], &[])).has_live());
    let waiting = pick(&backlog(vec![message(4, "a", 1, &["b"])], &[]));
    assert!(waiting.has_live());
    assert_eq!(waiting.scanned_to, 4);
}

#[test]
fn decisions_are_bounded_in_number_and_bytes() {
    let bad = |seq: u64, bytes: usize| Queued {
        task: Err(Invalid {
            reason: "x".repeat(bytes),
            head: String::new(),
        }),
        ..message(seq, &format!("t{seq}"), 1, &[])
    };
    let decided = |messages| pick(&backlog(messages, &[])).decisions.len();
    let many = DECISIONS_MAX as u64 + 1;
    assert_eq!(
        decided((1..=many).map(|seq| bad(seq, 1)).collect()),
        DECISIONS_MAX
    );
    let full = vec![bad(1, DECISIONS_BYTES_MAX), bad(2, 1)];
    assert_eq!(decided(full), 1, "there is no byte left");
}

#[test]
fn a_task_runs_from_its_time_on() {
    let at = |not_before: Time| {
        let mut message = message(1, "a", 1, &[]);
        message.task.as_mut().unwrap().not_before = Some(not_before);
        pick(&backlog(vec![message], &[])).ready.is_some()
    };
    assert!(at(Time::from_millis(1)) && at(NOW));
    assert!(!at(NOW.after(Duration::from_millis(1))));
}

#[test]
fn a_need_that_stands_in_the_queue_is_never_overdue() {
    let spec = Spec {
        needs_timeout: Some(Span(Duration::from_secs(1))),
        ..Spec::default()
    };
    let late = NOW.after(Duration::from_secs(9));
    let messages = vec![message(1, "a", 1, &["b"]), message(2, "b", 1, &[])];
    assert!(
        pick_with(&backlog(messages, &[]), &spec, late)
            .decisions
            .is_empty()
    );
    let mut half = Backlog::new(job());
    half.admit(vec![message(1, "a", 1, &["b"])], &lasts(&[], 100), 1, NOW);
    let picked = pick_with(&half, &spec, late);
    assert!(
        picked.decisions.is_empty(),
        "b may stand in what is not read yet"
    );
}

#[test]
fn a_search_for_a_task_of_another_job_is_good_for_a_while() {
    let spec = Spec {
        needs_timeout: Some(Span(Duration::from_secs(1))),
        ..Spec::default()
    };
    let mut backlog = backlog(vec![message(1, "a", 1, &["k/x"])], &[]);
    let waits = circle::Waits::default();
    let task: TaskRef = ("k".parse().unwrap(), id("x"));
    backlog.searched(vec![task.clone()], &BTreeSet::from([task]), NOW);
    let unsure = |now| {
        let spec = &spec;
        let waits = &waits;
        !backlog.unsure(Context { now, spec, waits }).is_empty()
    };
    assert!(!unsure(NOW.after(ANEW_EVERY - Duration::from_millis(1))));
    assert!(unsure(NOW.after(ANEW_EVERY)));
}
