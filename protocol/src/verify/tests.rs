//! A history that keeps every invariant, and what each change to it is called; and that one pass finds
//! what a look at the whole history finds.

mod families;
mod fates;
mod runs;
mod state;
mod whole;

use uuid::Uuid;

use super::*;
use crate::event::Data;
use crate::lease::{Lease, Phase, Running, Target};
use crate::ledger::Ledger;
use crate::limits::POLL_MAX;
use crate::record::Status::{self, Cancelled, Failed, Parked, Reset, Retrying, Succeeded};
use crate::task::Work;
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

    /// The check, once it has all records.
    fn check(&self, families: &mut Families) -> JobCheck {
        let mut check = JobCheck::new(job(), self.before.clone(), self.now.revision);
        for (seq, record) in &self.records {
            check.record(*seq, &record.task, record, families);
        }
        check
    }

    /// Takes it through the check; every suspect is confirmed.
    fn findings(&self) -> Findings {
        let mut families = Families::new(None);
        let mut check = self.check(&mut families);
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

fn lease(phase: Phase, runner: Uuid) -> Lease {
    Lease {
        runner,
        manager: "m".into(),
        backend: "process".into(),
        realm: None,
        budget: None,
        claimed: Time::default(),
        renewed: Time::default(),
        ttl: Span(Duration::from_secs(30)),
        start_within: Span(Duration::from_secs(300)),
        phase,
    }
}

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
fn findings_are_counted_beyond_those_that_are_listed() {
    let mut all = Findings::default();
    for _ in 0..3 {
        let mut some = Findings::default();
        for _ in 0..=LISTED_MAX {
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
    assert_eq!(all.count[&Invariant::Order], 303);
    assert_eq!(all.doubts[&(Invariant::Order, "why")].times, 3);
}

#[test]
fn verdicts_have_the_words_that_programs_read() {
    let words = [Verdict::Proven, Verdict::NotProven, Verdict::Refuted].map(Verdict::as_str);
    assert_eq!(words, ["proven", "not-proven", "refuted"]);
}
