//! One state of each kind, with each phase of a lease, and one event of each kind.

use std::time::Duration;

use uuid::Uuid;

use crate::job::{Event, JobState, JobStatus, OverBudget, PurgeTo};
use crate::lease::{Decision, Ending, Lease, Phase, Running, Target, Verdict};
use crate::ledger::Ledger;
use crate::record::Status;
use crate::record::tests::record;
use crate::time::{Span, Time};

pub(super) const NOW: Time = Time::from_millis(1_800_000_000_000);
pub(super) const TTL: Duration = Duration::from_secs(30);
/// The holder of every sample's lease.
pub(super) const OWN: Uuid = Uuid::from_u128(1);
/// Somebody else.
pub(super) const OTHER: Uuid = Uuid::from_u128(2);

/// Status and phase, with what a stop or a recovery remembers.
pub(super) fn full_name(state: &JobState) -> String {
    let Some(lease) = state.lease() else {
        return state.name();
    };
    format!("{}/{}", state.status.as_str(), phase_name(&lease.phase))
}

fn phase_name(phase: &Phase) -> String {
    match phase {
        Phase::Stopping { then, .. } => format!("stopping-{then:?}").to_lowercase(),
        Phase::Recovering { from, .. } => format!("recovering-from-{}", phase_name(from)),
        Phase::Starting { .. } | Phase::Running(_) | Phase::Settling { .. } => {
            phase.as_str().to_owned()
        }
    }
}

fn target() -> Target {
    Target {
        task: "build".parse().unwrap(),
        seq: 40,
        attempt: 2,
        expected: 39,
    }
}

fn running() -> Running {
    Running {
        target: target(),
        fence: 7,
        started: NOW,
        host: "host-1".into(),
    }
}

fn settling() -> Phase {
    let verdicts = [
        Verdict::Skip {
            reason: "needs `a`, which failed".into(),
        },
        Verdict::Fail {
            reason: "no valid task".into(),
        },
        Verdict::Unstartable {
            reason: "no such image".into(),
        },
        Verdict::Move {
            until: NOW.after(TTL),
        },
    ];
    let decide = |verdict| Decision {
        target: target(),
        verdict,
    };
    Phase::Settling {
        decisions: verdicts.map(decide).into(),
    }
}

pub(super) fn lease(runner: Uuid, phase: Phase) -> Lease {
    Lease {
        runner,
        manager: "manager-1".into(),
        backend: "process".into(),
        realm: Some("machine-1".into()),
        budget: None,
        claimed: NOW,
        renewed: NOW,
        ttl: Span(TTL),
        start_within: Span(Duration::from_secs(10)),
        phase,
    }
}

pub(super) fn starting(runner: Uuid) -> Lease {
    lease(runner, Phase::Starting { target: target() })
}

fn plain_phases() -> Vec<Phase> {
    let stopping = |then| Phase::Stopping {
        running: running(),
        then,
    };
    vec![
        Phase::Starting { target: target() },
        Phase::Running(running()),
        stopping(Ending::Cancel),
        stopping(Ending::Remove),
        settling(),
    ]
}

fn recovering(from: Phase) -> Phase {
    Phase::Recovering {
        from: Box::new(from),
        by: "manager-2".into(),
    }
}

/// Every state, by name.
pub(super) fn states() -> Vec<(String, JobState)> {
    let mut statuses = vec![JobStatus::Waiting];
    let phases = plain_phases().into_iter();
    let phases = phases.chain(plain_phases().into_iter().map(recovering));
    statuses.extend(phases.map(|phase| JobStatus::Working {
        lease: lease(OWN, phase),
    }));
    statuses.extend([
        JobStatus::Completed { drained: 50 },
        JobStatus::Failed {
            task: Some("build".parse().unwrap()),
        },
        JobStatus::Cancelling,
        JobStatus::Cancelled { drained: 50 },
        JobStatus::Removing,
    ]);
    let state = |status| JobState {
        status,
        ..JobState::new(NOW)
    };
    let states = statuses.into_iter().map(state);
    states.map(|state| (full_name(&state), state)).collect()
}

fn folded() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.fold(39, &record("build", Status::Failed, 1, None, 0));
    ledger
}

/// Every event, by name; those of a runner once by the holder, once by somebody else.
pub(super) fn events() -> Vec<(String, Event)> {
    let mut events = vec![
        ("work".to_owned(), Event::Work),
        ("claim (starting)".into(), Event::Claim(starting(OTHER))),
        (
            "claim (settling)".into(),
            Event::Claim(lease(OTHER, settling())),
        ),
    ];
    for (who, runner) in [("own", OWN), ("other", OTHER)] {
        let by_runner = of_runner(runner);
        events.extend(by_runner.map(|event| (format!("{} ({who})", event.as_str()), event)));
    }
    events.extend([
        ("claim (own, again)".into(), Event::Claim(starting(OWN))),
        (
            "claim (running)".into(),
            Event::Claim(lease(OTHER, Phase::Running(running()))),
        ),
    ]);
    let plain = [
        Event::Fold(folded()),
        Event::Fail { task: None },
        Event::Stop(Ending::Cancel),
        Event::Stop(Ending::Remove),
        Event::Bound(PurgeTo {
            stream: 60,
            logs: 7,
            spec: 3,
        }),
        Event::Emptied { at: 60 },
        Event::Retry,
        Event::Resume,
    ];
    events.extend(plain.map(|event| (event.as_str().to_owned(), event)));
    events.extend([
        ("over-budget (some)".into(), over_budget()),
        ("over-budget (none)".into(), Event::OverBudget(None)),
        ("fold (nothing new)".into(), Event::Fold(Ledger::default())),
        ("drained (later)".into(), Event::Drained { at: 60 }),
        ("drained (earlier)".into(), Event::Drained { at: 50 }),
    ]);
    events
}

/// The account has not enough left.
pub(super) fn over_budget() -> Event {
    Event::OverBudget(Some(OverBudget {
        account: "root".parse().unwrap(),
        reason: "the next task wants 1.00 USD, and 0.25 USD are left".into(),
    }))
}

/// Every event that names a runner.
pub(super) fn of_runner(runner: Uuid) -> [Event; 6] {
    [
        Event::Start {
            runner,
            fence: 7,
            host: "host-1".into(),
        },
        Event::Renew { runner },
        Event::Release { runner, record: 41 },
        Event::StartFailed {
            runner,
            hold_until: NOW.after(TTL),
            counts: true,
            reason: "no such image".into(),
        },
        Event::TakeOver {
            runner,
            by: "manager-3".into(),
        },
        Event::Recovered {
            runner,
            record: 41,
            hold_until: None,
            counts: true,
            reason: "its process is gone".into(),
        },
    ]
}
