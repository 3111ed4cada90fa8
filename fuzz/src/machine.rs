//! The state machine of a job, its ledger, and what follows from a record: from any state that can be read, whatever
//! happens.

use air_protocol::codec::{self, decode_record, decode_state};
use air_protocol::fate::{Outcome, Tally, fate};
use air_protocol::job::{Change, Event, JobState, PurgeTo};
use air_protocol::lease::{Ending, Lease, Phase, Target};
use air_protocol::ledger::Ledger;
use air_protocol::record::{Record, is_live};
use air_protocol::spec::Wire;
use air_protocol::task::Retry;
use air_protocol::time::{Span, Time};
use uuid::Uuid;

use crate::truths::{comes_back, is_told_well};

/// A state in JSON on the first line; after it, two bytes for each thing that happens.
pub(crate) fn states(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (state, happens) = (parts.next().unwrap_or_default(), parts.next());
    let mut state = match decode_state(state) {
        Err(error) => return is_told_well(&error),
        Ok(state) => state,
    };
    for pair in happens.unwrap_or_default().chunks_exact(2) {
        let at = Time::from_millis(number(pair[1]));
        match state.apply(&event(&state, pair[0], pair[1]), at) {
            Err(invalid) => is_told_well(&invalid),
            Ok(Change::NoOp) => {}
            Ok(Change::To(next)) => state = *next,
        }
        let _ = (state.name(), state.is_held(at), state.status.is_over());
    }
    if !goes_beyond_9999(&state) {
        comes_back(&state, decode_state(&codec::encode(Wire::Json, &state)));
    }
}

/// Times after the year 9999 are written as its end.
fn goes_beyond_9999(state: &JobState) -> bool {
    let last = Time::from_millis(253_402_300_799_999);
    let until = [state.hold_until, state.zombie_until];
    until.into_iter().flatten().any(|time| time > last)
}

/// Small ones and the greatest.
fn number(byte: u8) -> u64 {
    match byte {
        255 => 253_402_300_799_999,
        _ => u64::from(byte),
    }
}

/// Something that happens, most often to who holds the lease.
fn event(state: &JobState, kind: u8, detail: u8) -> Event {
    let held = state.lease().map_or(Uuid::nil(), |lease| lease.runner);
    let runner = if kind < 128 { held } else { Uuid::max() };
    let (counts, reason) = (detail.is_multiple_of(2), "r".to_owned());
    let at = number(detail);
    let ending = if counts {
        Ending::Cancel
    } else {
        Ending::Remove
    };
    match kind % 16 {
        0 => Event::Work,
        1 => Event::Claim(lease(state, runner, detail)),
        2 => Event::Start {
            runner,
            fence: at,
            host: "h".to_owned(),
        },
        3 => Event::Renew { runner },
        4 => Event::Release { runner, record: at },
        5 => Event::StartFailed {
            runner,
            hold_until: Time::from_millis(at),
            counts,
            reason,
        },
        6 => Event::TakeOver {
            runner,
            by: "m".to_owned(),
        },
        7 => Event::Recovered {
            runner,
            record: at,
            hold_until: counts.then(|| Time::from_millis(at)),
            counts,
            reason,
        },
        8 => Event::Fold(ledger(state, at)),
        9 => Event::Drained { at },
        10 => Event::Fail { task: None },
        11 => Event::Stop(ending),
        12 => Event::Bound(PurgeTo {
            stream: at,
            logs: at,
            spec: at,
        }),
        13 => Event::Emptied { at },
        14 => Event::Retry,
        _ => Event::Resume,
    }
}

fn lease(state: &JobState, runner: Uuid, detail: u8) -> Lease {
    let target = Target {
        task: "t".parse().unwrap(),
        seq: number(detail),
        attempt: u32::from(detail),
        expected: 0,
    };
    let phase = match detail % 3 {
        0 => Phase::Settling {
            decisions: Vec::new(),
        },
        _ => Phase::Starting { target },
    };
    state.lease().cloned().unwrap_or(Lease {
        runner,
        manager: "m".to_owned(),
        backend: "b".to_owned(),
        realm: None,
        budget: None,
        claimed: Time::default(),
        renewed: Time::default(),
        ttl: Span::default(),
        start_within: Span::default(),
        phase,
    })
}

fn ledger(state: &JobState, at: u64) -> Ledger {
    let mut ledger = state.ledger.clone();
    ledger.accounted = ledger.accounted.max(at);
    ledger
}

/// A ledger in the state on the first line, and a record in JSON on each line after it.
pub(crate) fn records(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let state = lines.next().map(decode_state);
    let mut ledger = state
        .and_then(Result::ok)
        .map_or_else(Ledger::default, |state| state.ledger);
    for line in lines {
        let record = match decode_record(None, line) {
            Err(error) => return is_told_well(&error),
            Ok(record) => record,
        };
        let before = ledger.accounted;
        ledger.fold(record.seq.unwrap_or(before.saturating_add(1)), &record);
        assert!(ledger.accounted >= before);
        let _ = (ledger.counters.tasks(), ledger.counters.finished());
        follows(&record);
    }
    ledger.forgive();
}

/// What follows from a record, and from an attempt after it.
fn follows(record: &Record) {
    let last = Some(record.last(1));
    let _ = is_live(record.attempt, last);
    let tally = Tally {
        failures: record.failures,
        losses: record.losses,
    };
    for outcome in [
        Outcome::Succeeded,
        Outcome::Failed,
        Outcome::FailedForGood,
        Outcome::Later(record.retry_at),
        Outcome::Parked,
        Outcome::Lost,
        Outcome::Cancelled,
    ] {
        let fate = fate(outcome, tally, &Retry::default(), record.ended, 255);
        assert_eq!(fate.retry_at.is_some(), fate.status.has_next());
    }
}
