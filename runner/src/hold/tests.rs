//! Tests of the lease as its holder sees it: whose it is, how long it lasts, and what a start expects.

use air_protocol::lease::{Ending, Lease};
use air_protocol::time::Span;

use super::*;

const RUNNER: Uuid = Uuid::from_u128(1);
const FENCE: u64 = 7;
const NOW: Time = Time::from_millis(1_000_000);

fn apply(state: &JobState, event: &Event) -> JobState {
    match state.apply(event, NOW).unwrap() {
        Change::To(next) => *next,
        Change::NoOp => panic!("{} means nothing here", event.as_str()),
    }
}

fn target() -> Target {
    Target {
        task: "t".parse().unwrap(),
        seq: 5,
        attempt: 2,
        expected: 3,
    }
}

/// A job that is claimed for `runner`.
fn claimed(runner: Uuid) -> JobState {
    let lease = Lease {
        runner,
        manager: "m".into(),
        backend: "process".into(),
        realm: None,
        budget: None,
        claimed: NOW,
        renewed: NOW,
        ttl: Span(Duration::from_secs(30)),
        start_within: Span(Duration::from_secs(10)),
        phase: Phase::Starting { target: target() },
    };
    apply(&JobState::new(NOW), &Event::Claim(lease))
}

/// A job whose lease `runner` holds since the claim at `fence`.
fn running(runner: Uuid, fence: u64) -> JobState {
    let host = "h".to_owned();
    let event = Event::Start {
        runner,
        fence,
        host,
    };
    apply(&claimed(runner), &event)
}

fn key(state: JobState, revision: u64) -> Key {
    Key::State(Box::new(state), revision)
}

fn held() -> Held {
    Held {
        state: running(RUNNER, FENCE),
        revision: 9,
        renewed: Duration::from_secs(100),
    }
}

fn claim() -> Claim {
    Claim {
        job: "j".parse().unwrap(),
        seq: 5,
        runner: RUNNER,
        fence: FENCE,
        state: None,
    }
}

#[test]
fn the_grace_fits_into_the_margin() {
    let seconds = Duration::from_secs;
    let usual = Times::of_ttl(seconds(30));
    assert_eq!(
        (usual.every, usual.usable, usual.grace),
        (seconds(10), seconds(18), KILL_GRACE)
    );
    for ttl in [0, 1, 2, 3, 5, 10, 60, 600] {
        let times = Times::of_ttl(seconds(ttl));
        assert!(times.grace <= KILL_GRACE);
        if ttl >= 3 {
            assert!(times.usable + times.grace < seconds(ttl), "{ttl}");
            assert!(times.every < times.usable, "{ttl}");
        }
    }
    let short = Times::of_ttl(seconds(6));
    let (half, third) = (Duration::from_millis(1500), seconds(2));
    assert_eq!((short.every, short.usable), (third, seconds(3)));
    assert_eq!(short.grace, half, "half of a short margin is kept free");
}

#[test]
fn a_lease_is_ours_by_runner_and_fence() {
    let of = |state: JobState| ours(&key(state, 9), RUNNER, FENCE);
    assert_eq!(of(running(RUNNER, FENCE)), Some(Ours::Running));
    assert_eq!(of(running(Uuid::from_u128(2), FENCE)), None, "another's");
    assert_eq!(of(running(RUNNER, FENCE + 1)), None, "of another claim");
    let stopped = |state: JobState| apply(&state, &Event::Stop(Ending::Cancel));
    assert_eq!(of(stopped(running(RUNNER, FENCE))), Some(Ours::Stopping));
    assert_eq!(of(stopped(running(RUNNER, FENCE + 1))), None);
    assert_eq!(of(stopped(running(Uuid::from_u128(2), FENCE))), None);
    assert_eq!(of(claimed(RUNNER)), None, "it has not started");
    let by = "rescuer".to_owned();
    let runner = RUNNER;
    let taken = apply(&running(RUNNER, FENCE), &Event::TakeOver { runner, by });
    assert_eq!(of(taken), None, "it was judged dead");
    assert_eq!(of(JobState::new(NOW)), None);
    assert_eq!(ours(&Key::Deleted(9), RUNNER, FENCE), None);
}

#[test]
fn a_lease_of_another_runner_ends_the_work() {
    let mut ours = held();
    let theirs = key(running(Uuid::from_u128(2), FENCE), 12);
    assert_eq!(ours.heed(&theirs, RUNNER, FENCE), Err(Mine::No));
    assert_eq!(ours.revision, 9, "nothing is taken in of it");
    for gone in [Key::Deleted(12), Key::Absent, key(JobState::new(NOW), 12)] {
        assert_eq!(ours.heed(&gone, RUNNER, FENCE), Err(Mine::No), "{gone:?}");
    }
}

#[test]
fn what_others_write_of_our_lease_is_taken_in() {
    let mut ours = held();
    let stopping = apply(&ours.state, &Event::Stop(Ending::Cancel));
    let seen = ours.heed(&key(stopping.clone(), 12), RUNNER, FENCE);
    assert_eq!(seen, Ok(Ours::Stopping));
    assert_eq!((ours.revision, &ours.state), (12, &stopping));
    let again = ours.heed(&key(stopping, 12), RUNNER, FENCE);
    assert_eq!(again, Ok(Ours::Stopping), "what is known is no older sight");
}

#[test]
fn an_older_answer_says_nothing() {
    let mut ours = held();
    let older = key(running(Uuid::from_u128(2), FENCE), 8);
    assert_eq!(ours.heed(&older, RUNNER, FENCE), Err(Mine::Unknown));
    let deleted = ours.heed(&Key::Deleted(8), RUNNER, FENCE);
    assert_eq!((deleted, ours.revision), (Err(Mine::Unknown), 9));
}

#[test]
fn a_lease_is_surely_ours_only_so_long_after_its_renewal() {
    let seconds = Duration::from_secs;
    let remaining = |boot| held().remaining(seconds(18), seconds(boot));
    assert_eq!(remaining(100), seconds(18));
    assert_eq!(remaining(117), seconds(1));
    assert!(remaining(118).is_zero() && remaining(500).is_zero());
}

#[test]
fn a_start_is_written_only_in_place_of_its_claim() {
    let start = |state: &JobState, claim: &Claim| Start::of(state, claim, "h", NOW);
    let begin = start(&claimed(RUNNER), &claim()).unwrap();
    assert_eq!((begin.expected, &begin.target), (FENCE, &target()));
    assert_eq!(begin.next, running(RUNNER, FENCE));
    assert_eq!((begin.claimed, begin.ttl), (NOW, Duration::from_secs(30)));
    assert_eq!(start(&claimed(Uuid::from_u128(2)), &claim()), None);
    assert_eq!(start(&running(RUNNER, FENCE), &claim()), None, "it started");
    assert_eq!(start(&JobState::new(NOW), &claim()), None);
    let other = Claim { seq: 6, ..claim() };
    assert_eq!(start(&claimed(RUNNER), &other), None, "another message");
}
