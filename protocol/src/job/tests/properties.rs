//! What holds after every step of any walk through the states.

use proptest::prelude::*;
use uuid::Uuid;

use super::samples::{NOW, OTHER, OWN, TTL, lease, of_runner, over_budget, starting};
use crate::job::{Change, Event, JobState};
use crate::lease::{Decision, Ending, Lease, Phase, Target, Verdict};
use crate::ledger::Ledger;
use crate::record::tests::record;
use crate::record::{Record, Status};
use crate::time::{Span, Time};

/// A step: milliseconds that pass, then an event.
type Step = (u64, Event);

fn runner() -> impl Strategy<Value = Uuid> {
    prop_oneof![5 => Just(OWN), 1 => Just(OTHER)]
}

fn given_up(runner: Uuid) -> Event {
    let target = Target {
        task: "build".parse().unwrap(),
        seq: 40,
        attempt: 1,
        expected: 0,
    };
    let reason = "no such image".into();
    let verdict = Verdict::Unstartable { reason };
    let decisions = vec![Decision { target, verdict }];
    Event::Claim(lease(runner, Phase::Settling { decisions }))
}

fn event() -> impl Strategy<Value = Event> {
    let by_runner = (runner(), 0..6_usize).prop_map(|(who, which)| of_runner(who)[which].clone());
    let hold = (runner(), 0..500_000_u64).prop_map(|(runner, millis)| Event::Recovered {
        runner,
        record: 41,
        hold_until: Some(Time::from_millis(NOW.as_millis() + millis)),
        counts: millis % 2 == 0,
        reason: "its process is gone".into(),
    });
    prop_oneof![
        3 => (runner(), prop_oneof![Just(TTL), Just(TTL / 10)]).prop_map(|(who, ttl)| {
            Event::Claim(Lease { ttl: Span(ttl), ..starting(who) })
        }),
        1 => runner().prop_map(given_up),
        9 => by_runner,
        3 => hold,
        5 => prop::sample::select(vec![
            Event::Work,
            Event::Fold(Ledger::default()),
            Event::Drained { at: 60 },
            Event::Fail { task: None },
            Event::Stop(Ending::Cancel),
            Event::Stop(Ending::Remove),
            Event::Emptied { at: 60 },
            Event::Retry,
            Event::Resume,
            over_budget(),
            Event::OverBudget(None),
        ]),
    ]
}

fn walk() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0..4_000_u64, event()), 1..120)
}

/// Applies the steps, and shows every change that really happens.
fn follow(steps: &[Step], mut see: impl FnMut(&JobState, &Event, &JobState, Time)) {
    let mut state = JobState::new(NOW);
    let mut at = NOW.as_millis();
    for (millis, event) in steps {
        at += millis;
        let now = Time::from_millis(at);
        if let Ok(Change::To(next)) = state.apply(event, now) {
            see(&state, event, &next, now);
            state = *next;
        }
    }
}

fn started(phase: &Phase) -> bool {
    match phase {
        Phase::Running(_) | Phase::Stopping { .. } => true,
        Phase::Recovering { from, .. } => started(from),
        Phase::Starting { .. } | Phase::Settling { .. } => false,
    }
}

proptest! {
    /// One holder follows another only through a state without a lease.
    #[test]
    fn never_two_leases(steps in walk()) {
        follow(&steps, |before, event, after, _| {
            if let (Some(old), Some(new)) = (before.lease(), after.lease()) {
                assert_eq!(old.runner, new.runner, "{event:?}");
                assert_eq!(old.claimed, new.claimed, "{event:?}");
            }
            if before.lease().is_none() && after.lease().is_some() {
                assert!(matches!(event, Event::Claim(_)), "{event:?}");
            }
        });
    }

    /// A hold stays in the key, whatever happens, until it has passed (V6); it may only grow.
    #[test]
    fn a_hold_lasts_until_it_has_passed(steps in walk()) {
        follow(&steps, |before, event, after, now| {
            if before.is_held(now) {
                assert!(after.hold_until >= before.hold_until, "{event:?}");
            } else if !matches!(event, Event::StartFailed { .. } | Event::Recovered { .. }) {
                assert_eq!(after.hold_until, None, "{event:?}");
            }
        });
    }

    /// Whoever may have committed when the lease was taken may still do so for one TTL, and the key says so.
    #[test]
    fn a_taken_lease_leaves_its_zombie_behind(steps in walk()) {
        follow(&steps, |before, event, after, now| {
            let working = before.lease().is_some_and(|lease| lease.phase.may_commit());
            let taken = after.lease().is_none() && !matches!(event, Event::Release { .. });
            if working && taken {
                let ttl = before.lease().unwrap().ttl;
                assert!(after.zombie_until >= Some(now.after(ttl.0)));
            }
            assert!(after.zombie_until >= before.zombie_until, "{event:?}");
        });
    }

    /// A lease that ran ends only by its holder, or by recovery: no user and no error drops it.
    #[test]
    fn a_run_ends_by_release_or_recovery(steps in walk()) {
        follow(&steps, |before, event, after, _| {
            let ran = before.lease().is_some_and(|lease| started(&lease.phase));
            if ran && after.lease().is_none() {
                let fine = matches!(event, Event::Release { .. } | Event::Recovered { .. });
                assert!(fine, "{event:?}");
            }
        });
    }

    /// Events of a runner that does not hold the lease change nothing.
    #[test]
    fn who_does_not_hold_the_lease_changes_nothing(steps in walk()) {
        let nobody = Uuid::from_u128(99);
        follow(&steps, |_, _, after, now| {
            for event in of_runner(nobody) {
                let change = after.apply(&event, now);
                assert!(!matches!(change, Ok(Change::To(_))), "{event:?}");
            }
        });
    }

    /// A start that succeeded, or a task given up, takes the failed starts off the account.
    #[test]
    fn failed_starts_are_paid_once(steps in walk()) {
        follow(&steps, |before, event, after, _| {
            let given_up = before.lease().is_some_and(|lease| lease.phase.gave_up_starting());
            let over = given_up && matches!(event, Event::Release { .. });
            if over || matches!(event, Event::Start { .. }) {
                assert_eq!((after.failed_starts, &after.start_error), (0, &None));
            }
        });
    }

    /// What was done once is done: the same event again never changes more than times.
    #[test]
    fn once_more_changes_nothing_more(steps in walk()) {
        follow(&steps, |_, event, after, now| {
            if let Ok(Change::To(again)) = after.apply(event, now) {
                assert_eq!(&*again, after, "{event:?}");
            }
        });
    }
}

/// Records of three tasks with any statuses, at growing sequences, each chained to the one before.
fn records() -> impl Strategy<Value = Vec<(u64, Record)>> {
    let one = (0..3_usize, prop::sample::select(&Status::ALL), 1..5_u64);
    prop::collection::vec(one, 0..40).prop_map(|choices| {
        let mut last: [Option<(u64, Status, u32)>; 3] = [None; 3];
        let mut seq = 0;
        let mut records = Vec::new();
        for (task, status, step) in choices {
            seq += step;
            let (after, previous, attempt) = match last[task] {
                Some((after, previous, attempt)) => (after, Some(previous), attempt + 1),
                None => (0, None, 1),
            };
            let name = ["a", "b", "c"][task];
            records.push((seq, record(name, status, attempt, previous, after)));
            last[task] = Some((seq, status, attempt));
        }
        records
    })
}

/// Tasks whose last record is a failure that nobody has forgiven, counted without any fold.
fn count_failing(records: &[(u64, Record)], forgiven: u64) -> u64 {
    let is_last = |at: usize| {
        let later = &records[at + 1..];
        later
            .iter()
            .all(|(_, record)| record.task != records[at].1.task)
    };
    let failing = (0..records.len()).filter(|&at| {
        let (seq, record) = &records[at];
        is_last(at) && record.status == Status::Failed && *seq > forgiven
    });
    failing.count() as u64
}

proptest! {
    /// Folding one by one, with failures forgiven somewhere, is the same as counting at the end.
    #[test]
    fn failing_tasks_are_those_that_a_recount_finds(records in records(), cut in 0..40_usize) {
        let mut ledger = Ledger::default();
        for (at, (seq, record)) in records.iter().enumerate() {
            if at == cut {
                ledger.forgive();
            }
            ledger.fold(*seq, record);
            ledger.fold(*seq, record);
            let expected = count_failing(&records[..=at], ledger.forgiven);
            prop_assert_eq!(ledger.failing, expected);
        }
        let mut fresh = Ledger { forgiven: ledger.forgiven, ..Ledger::default() };
        for (seq, record) in &records {
            fresh.fold(*seq, record);
        }
        prop_assert_eq!(fresh, ledger);
    }
}
