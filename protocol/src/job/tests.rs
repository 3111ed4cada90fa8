//! The state machine of a job as tables and properties. Start at `every_event_in_every_state`.

mod properties;
mod samples;

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{Change, Event, JobState, PurgeTo};
use crate::codec::{self, decode_state};
use crate::lease::Ending;
use crate::spec::Wire;
use samples::{NOW, events, states};

/// A cell of the table: the target, `.` for nothing to do, `-` for invalid.
fn cell(state: &JobState, event: &super::Event) -> String {
    match state.apply(event, NOW) {
        Ok(Change::To(next)) => samples::full_name(&next),
        Ok(Change::NoOp) => ".".to_owned(),
        Err(_) => "-".to_owned(),
    }
}

#[test]
fn every_event_in_every_state() {
    let mut table = String::from("`.` nothing to do   `-` invalid\n");
    for (name, state) in states() {
        write!(table, "\n{name}\n").unwrap();
        for (event, what) in events() {
            let line = format!("    {event:<32} {}", cell(&state, &what));
            writeln!(table, "{line}").unwrap();
        }
    }
    insta::assert_snapshot!("states_by_events", table);
}

#[test]
fn the_graph() {
    let mut edges = BTreeSet::new();
    for (_, state) in states() {
        for (_, event) in events() {
            if let Ok(Change::To(next)) = state.apply(&event, NOW)
                && state.name() != next.name()
            {
                let (from, to) = (state.name(), next.name());
                edges.insert(format!("{from} --{}--> {to}", event.as_str()));
            }
        }
    }
    let graph: Vec<_> = edges.into_iter().collect();
    insta::assert_snapshot!("graph", graph.join("\n"));
}

#[test]
fn every_state_survives_both_codecs() {
    for (name, state) in states() {
        let json = codec::encode(Wire::Json, &state);
        let text = String::from_utf8_lossy(&json);
        assert_eq!(decode_state(&json).as_ref(), Ok(&state), "{name}: {text}");
        let packed = codec::encode(Wire::Msgpack, &state);
        let value: serde_json::Value = rmp_serde::from_slice(&packed).unwrap();
        let back: JobState = serde_json::from_value(value).unwrap();
        assert_eq!(back, state, "{name}");
    }
}

#[test]
fn an_invalid_event_says_what_and_when() {
    let (_, waiting) = states().swap_remove(0);
    let (_, start) = events().swap_remove(3);
    let error = waiting.apply(&start, NOW).unwrap_err();
    let text = "`start` cannot happen while the job is waiting";
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_second_zombie_does_not_hide_the_first() {
    let first = NOW.after(samples::TTL);
    let mut state = JobState::new(NOW);
    state.zombie_until = Some(first);
    let mut lease = samples::starting(samples::OWN);
    lease.ttl = crate::time::Span(samples::TTL / 10);
    let [start, _, _, _, take_over, recovered] = samples::of_runner(samples::OWN);
    for event in [super::Event::Claim(lease), start, take_over, recovered] {
        let Ok(Change::To(next)) = state.apply(&event, NOW) else {
            panic!("{event:?} in {}", state.name());
        };
        state = *next;
    }
    assert_eq!(state.zombie_until, Some(first));
}

/// A start that nobody can blame the task for does not bring it nearer to its failed attempt.
#[test]
fn a_lost_start_counts_only_if_it_says_so() {
    let mut state = JobState::new(NOW);
    let mut apply = |event: Event| match state.apply(&event, NOW).unwrap() {
        Change::To(next) => state = *next,
        Change::NoOp => panic!("{event:?}"),
    };
    let (runner, by) = (samples::OWN, "manager-2".to_owned());
    for counts in [true, false, true] {
        apply(Event::Claim(samples::starting(runner)));
        apply(Event::TakeOver {
            runner,
            by: by.clone(),
        });
        apply(Event::Recovered {
            runner,
            record: 0,
            hold_until: None,
            counts,
            reason: format!("counts: {counts}"),
        });
    }
    assert_eq!(state.failed_starts, 2);
    let error = state.start_error.unwrap();
    assert!(
        error.ends_with("before it started: counts: true"),
        "{error}"
    );
}

#[test]
fn the_bound_of_a_purge_is_set_once_and_goes_with_the_status() {
    let to = |stream| PurgeTo {
        stream,
        logs: 1,
        spec: 0,
    };
    let apply = |state: &JobState, event: &Event| match state.apply(event, NOW).unwrap() {
        Change::To(next) => *next,
        Change::NoOp => state.clone(),
    };
    let cancelling = apply(&JobState::new(NOW), &Event::Stop(Ending::Cancel));
    let bound = apply(&cancelling, &Event::Bound(to(5)));
    assert_eq!(bound.purge_to, Some(to(5)));
    assert_eq!(apply(&bound, &Event::Bound(to(9))), bound);
    let removing = apply(&bound, &Event::Stop(Ending::Remove));
    assert_eq!(removing.purge_to, None, "a removal reads the ends anew");
    let cancelled = apply(&bound, &Event::Emptied { at: 5 });
    assert_eq!(cancelled.purge_to, None);
}

#[test]
fn a_rebuilt_job_is_held_and_expects_who_may_live() {
    let state = JobState::rebuilt(NOW, samples::TTL);
    let until = NOW.after(samples::TTL);
    assert_eq!(state.hold_until, Some(until));
    assert_eq!(state.zombie_until, Some(until));
    assert!(state.is_held(NOW));
    assert!(!state.is_held(until), "until then, and no longer");
}

#[test]
fn failed_starts_are_counted_written_and_held_for_the_longest() {
    let (first, sooner) = (NOW.after(samples::TTL), NOW.after(samples::TTL / 2));
    let mut state = JobState::new(NOW);
    let bytes = |state: &JobState| String::from_utf8(codec::encode(Wire::Json, state)).unwrap();
    assert!(!bytes(&state).contains("failed_starts"), "nothing failed");
    for (counts, hold_until) in [(true, first), (true, sooner), (false, sooner)] {
        for event in [
            Event::Claim(samples::starting(samples::OWN)),
            Event::StartFailed {
                runner: samples::OWN,
                hold_until,
                counts,
                reason: "no image".into(),
            },
        ] {
            let Ok(Change::To(next)) = state.apply(&event, NOW) else {
                panic!("{event:?}")
            };
            state = *next;
        }
        assert_eq!(state.hold_until, Some(first));
    }
    assert_eq!(state.failed_starts, 2);
    assert!(bytes(&state).contains(r#""failed_starts":2"#));
}

#[test]
fn what_an_account_lacks_is_said_until_the_job_is_claimed_or_it_has_enough() {
    let apply = |state: &JobState, event: &Event| match state.apply(event, NOW).unwrap() {
        Change::To(next) => *next,
        Change::NoOp => panic!("{event:?} means nothing"),
    };
    let over = apply(&JobState::new(NOW), &samples::over_budget());
    let lack = over.over_budget.clone().unwrap();
    assert_eq!(lack.account.as_str(), "root");
    assert_eq!(
        over.apply(&samples::over_budget(), NOW).unwrap(),
        Change::NoOp
    );
    assert_eq!(
        apply(&over, &Event::OverBudget(None)).over_budget,
        None,
        "others only hold what is left"
    );
    let claimed = apply(&over, &Event::Claim(samples::starting(samples::OWN)));
    assert_eq!(claimed.over_budget, None);
    assert!(claimed.apply(&samples::over_budget(), NOW).is_err());
}
