//! A history that keeps every invariant, and what each change to it is called; and that one pass finds
//! what a look at the whole history finds.

mod whole;

use uuid::Uuid;

use super::*;
use crate::event::Data;
use crate::lease::{Lease, Running, Target};
use crate::ledger::Ledger;
use crate::limits::POLL_MAX;
use crate::record::Status::{self, Cancelled, Failed, Reset, Retrying, Succeeded};
use crate::time::{Span, Time};

fn job() -> JobName {
    "demo".parse().unwrap()
}

fn task(name: &str) -> TaskId {
    name.parse().unwrap()
}

fn run(number: u64) -> Uuid {
    Uuid::from_u128(number.into())
}

/// A job as it is stored; what was read of it.
#[derive(Debug, Clone)]
struct Story {
    before: Option<JobState>,
    records: Vec<(u64, Record)>,
    messages: Vec<Message>,
    events: Vec<Event>,
    now: Now,
}

/// Records at 10, 20, …; each consumed the message one before it, by a run of its own under a fence of
/// its own, that was claimed when the record before was released.
fn story(steps: &[(&str, Status)]) -> Story {
    let mut records: Vec<(u64, Record)> = Vec::new();
    for (at, (name, status)) in (1..).zip(steps) {
        let before = records.iter().rev().find(|one| one.1.task == task(name));
        let (after, previous, last) = before.map_or((0, None, 0), |(seq, record)| {
            (*seq, Some(record.status), record.attempt)
        });
        let attempt = last + u32::from(*status != Reset);
        let mut record =
            Record::new(task(name), *status, attempt, Time::default()).follows(previous, after);
        if *status != Reset {
            record.run = Some(run(at));
            record.fence = Some(at * 3);
            record.released = Some(records.last().map_or(0, |(seq, _)| *seq));
            record.seq = Some(at);
            record.started = Some(Time::default());
            record.spec = Some(Task::new(Work::Run("true".into())));
        }
        records.push((at * 10, record));
    }
    let mut ledger = Ledger::default();
    for (seq, record) in &records {
        ledger.fold(*seq, record);
    }
    let state = JobState {
        status: JobStatus::Completed { drained: 1000 },
        last_record: ledger.accounted,
        ledger,
        ..JobState::new(Time::default())
    };
    Story {
        now: now(state.clone()),
        before: Some(state),
        records,
        messages: Vec::new(),
        events: Vec::new(),
    }
}

fn now(state: JobState) -> Now {
    Now {
        state: Some(state),
        revision: 500,
        age: Duration::ZERO,
        unchanged: true,
        managed: true,
    }
}

impl Story {
    /// Changes what the key held before and after.
    fn key(&mut self, change: impl Fn(&mut JobState)) {
        for state in [&mut self.before, &mut self.now.state] {
            change(state.as_mut().unwrap());
        }
    }

    fn record(&mut self, at: usize) -> &mut Record {
        &mut self.records[at].1
    }

    /// Takes it through the check; every suspect is confirmed.
    fn findings(&self) -> Findings {
        let mut families = Families::new(None);
        let mut check = JobCheck::new(job(), self.before.clone(), self.now.revision);
        for (seq, record) in &self.records {
            check.record(*seq, &record.task, record, &mut families);
        }
        for message in &self.messages {
            check.message(message, &mut families);
        }
        for (seq, event) in (1..).zip(&self.events) {
            check.event(seq, event);
        }
        for suspect in check.suspects() {
            check.confirm(suspect);
        }
        let mut findings = check.end(&self.now);
        for parent in families.doubtful(10) {
            families.resolve(&parent, None, &mut findings);
        }
        families.end(&mut findings);
        findings
    }

    #[track_caller]
    fn holds(&self) {
        let findings = self.findings();
        for invariant in Invariant::ALL {
            let wanted = match invariant {
                Invariant::NoSurvivors => Verdict::NotProven,
                _ => Verdict::Proven,
            };
            assert_eq!(findings.verdict(invariant), wanted, "{findings:#?}");
        }
    }

    /// It refutes this invariant, with this text.
    #[track_caller]
    fn refutes(&self, invariant: Invariant, text: &str) -> Vec<Place> {
        let findings = self.findings();
        let mut of_it = findings.listed.iter();
        let found = of_it.find(|one| one.invariant == invariant && one.text.contains(text));
        let found = found.unwrap_or_else(|| panic!("`{text}` is not in {findings:#?}"));
        assert_eq!(findings.verdict(invariant), Verdict::Refuted);
        found.places.clone()
    }

    /// It proves nothing, for this reason, and refutes nothing.
    #[track_caller]
    fn doubts(&self, invariant: Invariant, why: &str) {
        let findings = self.findings();
        assert_eq!(findings.listed, [], "{findings:#?}");
        assert_eq!(
            findings.verdict(invariant),
            Verdict::NotProven,
            "{findings:#?}"
        );
        let mut all = findings.doubts.keys();
        assert!(
            all.any(|(one, text)| *one == invariant && text.contains(why)),
            "{findings:#?}"
        );
    }
}

fn message(seq: u64, name: &str, attempt: u32) -> Message {
    Message {
        scheduled: false,
        seq,
        task: task(name),
        attempt,
        parent: None,
        fanout: None,
        binds: attempt == 1,
    }
}

fn event(kind: Kind, of: u64, fence: u64, record: Option<u64>) -> Event {
    let data = Data {
        job: Some(job()),
        run: Some(run(of)),
        fence: Some(fence),
        record,
        ..Data::default()
    };
    Event::new(kind, data, Time::default(), run(of))
}

fn two() -> Story {
    story(&[("a", Succeeded), ("b", Succeeded)])
}

#[test]
fn what_a_healthy_system_writes_is_proven() {
    two().holds();
    let steps = [
        ("a", Retrying),
        ("b", Failed),
        ("a", Succeeded),
        ("b", Reset),
        ("b", Cancelled),
    ];
    let mut long = story(&steps);
    long.holds();
    long.messages = vec![
        message(5, "a", 1),
        message(6, "a", 2),
        message(2000, "a", 1),
    ];
    long.events = vec![
        event(Kind::Claimed, 1, 3, None),
        event(Kind::Started, 1, 3, None),
        event(Kind::Committed, 1, 3, Some(10)),
        event(Kind::Claimed, 2, 6, None),
        event(Kind::Claimed, 3, 9, None),
        event(Kind::Claimed, 5, 15, None),
        event(Kind::Claimed, 9, 18, None),
        event(Kind::Released, 9, 18, None),
    ];
    long.holds();
}

#[test]
fn i1_runs_follow_one_another() {
    let breaks = |change: fn(&mut Story), text: &str| {
        let mut bad = two();
        change(&mut bad);
        bad.refutes(Invariant::OneRunner, text)
    };
    let both = breaks(
        |bad| {
            bad.record(1).released = Some(5);
            bad.record(1).seq = Some(2);
        },
        "two leases at once",
    );
    assert_eq!(
        both,
        [
            Place::Record(Some(task("a")), 10),
            Place::Record(Some(task("b")), 20)
        ]
    );
    breaks(
        |bad| bad.record(1).fence = Some(2),
        "a stale run has committed",
    );
    breaks(|bad| bad.record(1).fence = Some(3), "belongs to two runs");
    breaks(
        |bad| bad.record(1).run = Some(run(1)),
        "under the fences 3 and 6",
    );
    breaks(|bad| bad.now.revision = 5, "no claim had it");
    breaks(
        |bad| bad.events.push(event(Kind::Claimed, 9, 6, None)),
        "belongs to the run",
    );
    breaks(
        |bad| bad.events.push(event(Kind::Claimed, 2, 7, None)),
        "and also 6",
    );
    breaks(
        |bad| {
            bad.record(1).released = None;
            bad.record(0).ended = Time::from_millis(5);
            for at in 0..2 {
                bad.record(at).host = Some("h".into());
            }
        },
        "overlap by the clock of their host",
    );
}

#[test]
fn i1_a_message_that_came_after_a_run_was_not_run_before_it() {
    let mut good = two();
    good.record(1).released = None;
    good.record(1).seq = Some(11);
    good.holds();
}

#[test]
fn i1_what_ran_nothing_overlaps_with_nothing() {
    let mut good = two();
    good.record(0).started = None;
    good.record(1).released = Some(5);
    good.key(|state| state.ledger.counters.attempts = 1);
    good.holds();
}

#[test]
fn i1_without_proof_it_is_not_proven() {
    let mut old = two();
    old.record(1).released = None;
    old.doubts(Invariant::OneRunner, "older version");
    let mut rebuilt = two();
    rebuilt.record(1).released = Some(0);
    rebuilt.doubts(Invariant::OneRunner, "made anew");
    let mut endless = two();
    endless.events = vec![event(Kind::Started, 9, 4, None)];
    endless.doubts(Invariant::OneRunner, "no event tells its end");
    endless.events.push(event(Kind::Lost, 9, 4, None));
    endless.doubts(Invariant::OneRunner, "no event tells of its claim");
    let mut moving = two();
    moving.events = vec![event(Kind::Started, 9, 40, None)];
    moving.key(|state| state.status = JobStatus::Waiting);
    moving.now.unchanged = false;
    moving.holds();
}

fn lease(phase: Phase, runner: Uuid) -> Lease {
    Lease {
        runner,
        manager: "m".into(),
        backend: "process".into(),
        realm: None,
        claimed: Time::default(),
        renewed: Time::default(),
        ttl: Span(Duration::from_secs(30)),
        start_within: Span(Duration::from_secs(300)),
        phase,
    }
}

use crate::lease::Phase;

fn running(fence: u64) -> Phase {
    Phase::Running(Running {
        target: target(),
        fence,
        started: Time::default(),
        host: "h".into(),
    })
}

fn target() -> Target {
    Target {
        task: task("c"),
        seq: 900,
        attempt: 1,
        expected: 0,
    }
}

fn working(phase: Phase, runner: Uuid) -> Story {
    let mut story = two();
    story.key(|state| {
        state.status = JobStatus::Working {
            lease: lease(phase.clone(), runner),
        };
    });
    story
}

#[test]
fn i1_a_lease_is_not_older_than_the_last_record() {
    working(running(9), run(9)).holds();
    let starting = |target| Phase::Starting { target };
    working(starting(target()), run(9)).holds();
    working(starting(target()), run(2)).holds();
    let is_old = |story: Story| story.refutes(Invariant::OneRunner, "older than the last record");
    is_old(working(running(4), run(9)));
    is_old(working(starting(target()), run(1)));
    let from = Box::new(running(4));
    let by = "m".to_owned();
    is_old(working(Phase::Recovering { from, by }, run(9)));
    working(running(6), run(9)).refutes(Invariant::OneRunner, "belongs to two runs");
}

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
    other.child("demo/a", &"k".parse().unwrap(), &task("c"), place);
    one.merge(other);
    let mut findings = Findings::default();
    one.end(&mut findings);
    assert_eq!(findings, Findings::default());
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
    purged.doubts(Invariant::OneCommit, "purged records while");
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
fn findings_are_counted_beyond_those_that_are_listed() {
    let mut all = Findings::default();
    for _ in 0..3 {
        let mut some = Findings::default();
        for _ in 0..LISTED_MAX {
            some.add(Finding {
                invariant: Invariant::Order,
                job: job(),
                task: None,
                places: Vec::new(),
                text: String::new(),
            });
        }
        some.doubt(Invariant::Order, "why", "first");
        all.merge(some);
    }
    assert_eq!(all.listed.len(), LISTED_MAX);
    assert_eq!(all.count[&Invariant::Order], 300);
    assert_eq!(all.doubts[&(Invariant::Order, "why")].times, 3);
}
