//! Tests of the decision: one view, one step.

mod budget;

use std::time::Duration;

use air_protocol::lease::Target;

use super::*;

mod offers;

const NOW: Time = Time::from_millis(1_000_000);

fn me() -> Me {
    Me { id: "m".into() }
}

fn target() -> Target {
    Target {
        task: "t".parse().unwrap(),
        seq: 5,
        attempt: 1,
        expected: 0,
    }
}

fn ready(backend: Option<&str>) -> Pick {
    let backend = backend.map(str::to_owned);
    let ready = Ready {
        target: target(),
        backend,
        image: None,
        agent: false,
        charge: None,
        resources: None,
    };
    Pick {
        ready: Some(ready),
        scanned_to: 5,
        ..Pick::default()
    }
}

/// What is seen of a job, in the order in which a look sees it.
struct Seen {
    key: Key,
    spec: Result<Spec, String>,
    folded: Option<Folded>,
    pick: Option<Pick>,
    pending: Option<Pending>,
    refused: Option<Refused>,
    limited: Option<Time>,
    searched: bool,
    offers: Vec<Offer>,
}

impl Seen {
    fn of(state: JobState) -> Self {
        Self {
            key: Key::State(Box::new(state), 7),
            spec: Ok(Spec::default()),
            folded: Some(Folded::default()),
            pick: Some(Pick::default()),
            pending: Some(Pending {
                schedules: 0,
                last_queued: 0,
                last_seq: 9,
            }),
            refused: None,
            limited: None,
            searched: false,
            offers: vec![Offer::plain("process")],
        }
    }

    fn waiting() -> Self {
        Self::of(JobState::new(NOW))
    }

    fn step(&self) -> Step {
        let view = View {
            now: NOW,
            key: &self.key,
            spec: &self.spec,
            folded: self.folded.as_ref(),
            pick: self.pick.as_ref(),
            pending: self.pending,
            refused: self.refused.as_ref(),
            limited: self.limited,
            searched: self.searched,
            runner: Uuid::nil(),
            offers: &self.offers,
        };
        decide(&view, &me()).unwrap()
    }

    /// The status that the step writes.
    fn writes(&self) -> String {
        match self.step() {
            Step::Write(state) | Step::Claim(state, _) | Step::Settle(state) => state.name(),
            other => panic!("{other:?}"),
        }
    }
}

fn state(events: &[Event]) -> JobState {
    events.iter().fold(JobState::new(NOW), |state, event| {
        then(&state, event, NOW).unwrap()
    })
}

#[test]
fn a_look_asks_for_one_thing_after_another() {
    let mut seen = Seen::waiting();
    (seen.folded, seen.pick, seen.pending) = (None, None, None);
    assert_eq!(seen.step(), Step::ReadRecords);
    seen.folded = Some(Folded::default());
    assert_eq!(seen.step(), Step::ReadQueue);
    seen.pick = Some(Pick::default());
    assert_eq!(seen.step(), Step::Count);
    seen.pending = Seen::waiting().pending;
    assert_eq!(seen.writes(), "completed");
}

#[test]
fn a_task_that_may_run_is_claimed() {
    let mut seen = Seen::waiting();
    seen.pick = Some(ready(None));
    let Step::Claim(state, claimed) = seen.step() else {
        panic!("no claim")
    };
    assert_eq!(claimed.target, target());
    assert_eq!(state.lease().unwrap().phase.target(), Some(&target()));
    for key in [
        Key::Absent,
        Seen::of(super::tests::state(&[Event::Drained { at: 1 }])).key,
    ] {
        seen.key = key;
        assert_eq!(
            seen.writes(),
            "working/starting",
            "a new job, or one that goes on"
        );
    }
}

#[test]
fn decisions_come_before_tasks() {
    let mut seen = Seen::waiting();
    let verdict = Verdict::Skip { reason: "x".into() };
    let decisions = vec![Decision {
        target: target(),
        verdict,
    }];
    seen.pick = Some(Pick {
        decisions: decisions.clone(),
        ..ready(None)
    });
    let Step::Settle(state) = seen.step() else {
        panic!("not settled")
    };
    assert_eq!(state.lease().unwrap().phase, Phase::Settling { decisions });
}

#[test]
fn a_runner_that_cannot_start_is_a_failed_attempt() {
    let mut state = JobState::new(NOW);
    state.failed_starts = FAILED_STARTS_MAX;
    state.start_error = Some("no such image".into());
    let mut seen = Seen::of(state);
    seen.pick = Some(ready(None));
    let Step::Settle(state) = seen.step() else {
        panic!("not settled")
    };
    let Phase::Settling { decisions } = &state.lease().unwrap().phase else {
        panic!("{state:?}")
    };
    assert!(
        matches!(&decisions[0].verdict, Verdict::Unstartable { reason } if reason.ends_with("no such image"))
    );
}

#[test]
fn policy_and_wishes_of_the_user_come_first() {
    let mut failing = Folded::default();
    failing.ledger.failing = 1;
    let mut seen = Seen::waiting();
    seen.pick = Some(ready(None));
    seen.folded = Some(failing);
    assert_eq!(seen.writes(), "failed");
    seen.spec = Ok(Spec {
        on_failure: OnFailure::Continue,
        ..Spec::default()
    });
    assert_eq!(seen.writes(), "working/starting");
    seen.folded = Some(Folded::default());
    seen.spec = Ok(Spec {
        paused: true,
        ..Spec::default()
    });
    assert_eq!(seen.step(), Step::Rest(Rest::Paused));
    seen.spec = Err("no JSON".into());
    assert_eq!(seen.step(), Step::Rest(Rest::BadSpec));
    seen.key = Key::Absent;
    assert_eq!(seen.writes(), "waiting", "people see that there is a job");
    seen.pick = Some(Pick::default());
    assert_eq!(seen.step(), Step::Rest(Rest::BadSpec));
    let mut held = JobState::new(NOW);
    held.hold_until = Some(NOW.after(Duration::from_secs(1)));
    seen = Seen::of(held);
    seen.pick = Some(ready(None));
    assert!(matches!(seen.step(), Step::Rest(Rest::Held(_))));
}

#[test]
fn a_failed_job_without_a_failure_goes_on() {
    let mut seen = Seen::of(state(&[Event::Fail { task: None }]));
    seen.pick = Some(ready(None));
    assert_eq!(seen.writes(), "waiting");
    seen.folded.as_mut().unwrap().ledger.failing = 1;
    assert!(
        matches!(seen.step(), Step::Write(_)),
        "the ledger is brought up to date"
    );
}

#[test]
fn a_job_is_not_done_while_anything_is_left() {
    let left = |change: fn(&mut Seen)| {
        let mut seen = Seen::waiting();
        change(&mut seen);
        seen.step()
    };
    let rest = Step::Rest(Rest::Blocked);
    assert_eq!(
        left(|seen| seen.pending.as_mut().unwrap().schedules = 1),
        rest
    );
    assert_eq!(
        left(|seen| seen.pending.as_mut().unwrap().last_queued = 1),
        rest
    );
    let blocked = |seen: &mut Seen| {
        seen.pick.as_mut().unwrap().blocked = vec![("b".parse().unwrap(), vec![])]
    };
    assert_eq!(left(blocked), rest);
    for change in [
        |counters: &mut air_protocol::ledger::Counters| counters.parked = 1,
        |counters: &mut air_protocol::ledger::Counters| counters.retrying = 1,
        |counters: &mut air_protocol::ledger::Counters| counters.reset = 1,
    ] {
        let mut state = JobState::new(NOW);
        change(&mut state.ledger.counters);
        let ledger = state.ledger.clone();
        let mut seen = Seen::of(state);
        seen.folded.as_mut().unwrap().ledger = ledger;
        seen.searched = true;
        assert_eq!(seen.step(), rest);
    }
    let mut seen = Seen::waiting();
    seen.pick.as_mut().unwrap().scanned_to = 1;
    seen.pending.as_mut().unwrap().last_queued = 1;
    assert_eq!(
        seen.writes(),
        "completed",
        "a message that is left over is no task"
    );
}

#[test]
fn a_task_to_be_tried_again_of_which_no_message_is_known_is_searched_for() {
    let mut state = JobState::new(NOW);
    (state.ledger.counters.retrying, state.ledger.counters.reset) = (2, 1);
    let ledger = state.ledger.clone();
    let mut seen = Seen::of(state);
    seen.folded.as_mut().unwrap().ledger = ledger;
    let pick = Pick {
        blocked: vec![
            ("b".parse().unwrap(), vec![]),
            ("c".parse().unwrap(), vec![]),
        ],
        again: 1,
        scanned_to: 5,
        ..Pick::default()
    };
    let rest = Step::Rest(Rest::Blocked);
    let step = |pick: &Pick, pending: Option<(u64, u64)>, searched| {
        let pending = pending.map(|(schedules, last_queued)| Pending {
            schedules,
            last_queued,
            last_seq: 9,
        });
        let (pick, key, spec) = (Some(pick.clone()), seen.key.clone(), seen.spec.clone());
        let folded = seen.folded.clone();
        let seen = Seen {
            key,
            spec,
            folded,
            pick,
            pending,
            refused: None,
            limited: None,
            searched,
            offers: vec![Offer::plain("process")],
        };
        seen.step()
    };
    assert_eq!(step(&pick, None, false), Step::Count);
    assert_eq!(
        step(&pick, Some((2, 5)), false),
        rest,
        "two schedules and one in the queue"
    );
    assert_eq!(
        step(&pick, Some((1, 5)), false),
        Step::Requeue,
        "others wait meanwhile"
    );
    assert_eq!(
        step(&pick, Some((1, 6)), false),
        rest,
        "the newest message was not looked at"
    );
    assert_eq!(step(&pick, Some((1, 5)), true), rest, "once is enough");
    assert_eq!(step(&Pick::default(), Some((2, 0)), false), Step::Requeue);
    let queued = Pick { again: 3, ..pick };
    assert_eq!(step(&queued, None, false), rest, "nothing is to be counted");
}

#[test]
fn a_key_that_is_gone_is_rebuilt_and_held() {
    let mut seen = Seen::waiting();
    seen.key = Key::Deleted(3);
    seen.pick = Some(ready(None));
    let Step::Write(state) = seen.step() else {
        panic!("not rebuilt")
    };
    assert_eq!(state.name(), "waiting");
    assert_eq!(state.hold_until, Some(NOW.after(Duration::from_secs(30))));
    seen.key = Key::Garbage(3, "no JSON".into());
    assert_eq!(seen.writes(), "waiting");
    seen.key = Key::Newer(3, "v is 2".into());
    assert_eq!(seen.step(), Step::Rest(Rest::Newer), "never replaced");
    seen.key = Key::Absent;
    seen.pick = Some(Pick::default());
    assert_eq!(
        seen.step(),
        Step::Rest(Rest::Done),
        "no key is made for a job without tasks"
    );
}

#[test]
fn what_others_drive_or_hold_is_left_to_them() {
    let mut seen = Seen::waiting();
    seen.pick = Some(ready(None));
    let Step::Claim(working, _) = seen.step() else {
        panic!("no claim")
    };
    assert_eq!(Seen::of(*working).step(), Step::Rest(Rest::Working));
    let stop = |then| Event::Stop(then);
    assert_eq!(
        Seen::of(state(&[stop(air_protocol::lease::Ending::Cancel)])).step(),
        Step::Empty
    );
    assert_eq!(
        Seen::of(state(&[stop(air_protocol::lease::Ending::Remove)])).step(),
        Step::Remove
    );
}

#[test]
fn a_blocked_task_opens_a_job_that_is_over() {
    let mut seen = Seen::of(state(&[Event::Drained { at: 4 }]));
    let blocked = vec![("t".parse().unwrap(), vec!["u".parse().unwrap()])];
    seen.pick = Some(Pick {
        blocked,
        scanned_to: 5,
        ..Pick::default()
    });
    assert_eq!(seen.writes(), "waiting");
    seen.key = Seen::waiting().key;
    assert_eq!(seen.step(), Step::Rest(Rest::Blocked));
}

#[test]
fn a_completed_job_waits_for_news_and_is_forgotten_at_last() {
    let mut completed = state(&[Event::Drained { at: 9 }]);
    let mut seen = Seen::of(completed.clone());
    assert_eq!(seen.step(), Step::Rest(Rest::Done));
    seen.pick.as_mut().unwrap().scanned_to = 12;
    seen.pending.as_mut().unwrap().last_seq = 12;
    assert_eq!(
        seen.writes(),
        "completed",
        "what was left over is gone: drained moves on"
    );
    completed.ledger.accounted = 8;
    completed.ledger.purged_to = 8;
    completed.updated = Time::from_millis(0);
    let ledger = completed.ledger.clone();
    seen = Seen::of(completed);
    seen.folded.as_mut().unwrap().ledger = ledger;
    assert_eq!(seen.step(), Step::Rest(Rest::Done));
    let Key::State(state, _) = &mut seen.key else {
        unreachable!()
    };
    state.ledger.counters.succeeded = 0;
    let view_later = View {
        now: NOW.after(KEEP_DEFAULT),
        key: &seen.key,
        spec: &seen.spec,
        folded: seen.folded.as_ref(),
        pick: seen.pick.as_ref(),
        pending: seen.pending,
        refused: None,
        limited: None,
        searched: false,
        runner: Uuid::nil(),
        offers: &[],
    };
    assert_eq!(decide(&view_later, &me()).unwrap(), Step::Forget);
}

#[test]
fn a_count_older_than_the_last_record_is_made_again() {
    let mut state = JobState::new(NOW);
    state.last_record = 10;
    let mut seen = Seen::of(state);
    assert_eq!(seen.step(), Step::Count, "the count has seen only up to 9");
    seen.pending.as_mut().unwrap().last_seq = 10;
    assert_eq!(seen.writes(), "completed");
}

#[test]
fn a_new_job_that_cannot_go_on_is_looked_into_first() {
    let mut seen = Seen::waiting();
    (seen.key, seen.pick) = (Key::Absent, None);
    seen.spec = Err("no JSON".into());
    assert_eq!(seen.step(), Step::ReadQueue, "it may have no task at all");
}

#[test]
fn a_hold_longer_than_any_is_a_clock_that_was_ahead() {
    let held = |delay| {
        let mut state = JobState::new(NOW);
        state.hold_until = Some(NOW.after(delay));
        let mut seen = Seen::of(state);
        seen.pick = Some(ready(None));
        matches!(seen.step(), Step::Rest(Rest::Held(_)))
    };
    assert!(held(HOLD_MAX));
    assert!(!held(HOLD_MAX + Duration::from_secs(1)));
}

#[test]
fn a_job_that_was_drained_up_to_here_is_not_counted_again() {
    let mut seen = Seen::of(state(&[Event::Drained { at: 9 }]));
    (seen.pick.as_mut().unwrap().scanned_to, seen.pending) = (9, None);
    assert_eq!(seen.step(), Step::Rest(Rest::Done));
    seen.pick.as_mut().unwrap().scanned_to = 10;
    assert_eq!(seen.step(), Step::Count);
}

#[test]
fn a_job_is_forgotten_only_when_all_its_records_are_purged() {
    let forgotten = |accounted, purged_to, since: Duration| {
        let mut state = state(&[Event::Drained { at: 9 }]);
        (state.ledger.accounted, state.ledger.purged_to) = (accounted, purged_to);
        state.updated = Time::from_millis(0);
        let mut seen = Seen::of(state.clone());
        seen.folded.as_mut().unwrap().ledger = state.ledger;
        let view = View {
            now: Time::from_millis(0).after(since),
            key: &seen.key,
            spec: &seen.spec,
            folded: seen.folded.as_ref(),
            pick: seen.pick.as_ref(),
            pending: seen.pending,
            refused: None,
            limited: None,
            searched: false,
            runner: Uuid::nil(),
            offers: &[],
        };
        decide(&view, &me()).unwrap() == Step::Forget
    };
    assert!(forgotten(8, 8, KEEP_DEFAULT));
    assert!(!forgotten(8, 7, KEEP_DEFAULT), "a record is left");
    assert!(!forgotten(0, 0, KEEP_DEFAULT), "it never had any");
    let sooner = KEEP_DEFAULT - Duration::from_millis(1);
    assert!(!forgotten(8, 8, sooner));
}
