//! I1: runs of a job follow one another.

use super::*;

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
    let doubts = endless.findings().doubts;
    assert!(!doubts.keys().any(|(_, why)| why.contains("tells its end")));
    let mut moving = two();
    moving.events = vec![event(Kind::Started, 9, 40, None)];
    moving.key(|state| state.status = JobStatus::Waiting);
    moving.now.unchanged = false;
    moving.holds();
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
fn i1_a_lost_runner_may_have_run() {
    let mut lost = two();
    (lost.record(0).started, lost.record(0).lost) = (None, true);
    (lost.record(1).released, lost.record(1).seq) = (Some(5), Some(2));
    lost.refutes(Invariant::OneRunner, "two leases at once");
    // A message that is as old as the record was there before it.
    lost.record(1).seq = Some(10);
    lost.refutes(Invariant::OneRunner, "two leases at once");
}

#[test]
fn i1_only_one_clock_tells_of_an_overlap() {
    let mut old = two();
    old.record(1).released = None;
    (old.record(0).ended, old.record(1).started) = (Time::from_millis(5), Some(Time::default()));
    let hosts = |old: &mut Story, one: Option<&str>, other: Option<&str>| {
        old.record(0).host = one.map(str::to_owned);
        old.record(1).host = other.map(str::to_owned);
    };
    for (one, other) in [(None, None), (Some("h"), Some("i")), (Some("h"), None)] {
        hosts(&mut old, one, other);
        old.doubts(Invariant::OneRunner, "older version");
    }
    hosts(&mut old, Some("h"), Some("h"));
    old.refutes(Invariant::OneRunner, "overlap by the clock");
    old.record(1).started = Some(Time::from_millis(5));
    old.doubts(Invariant::OneRunner, "older version");
    old.record(1).started = Some(Time::default());
    old.record(0).lost = true;
    let findings = old.findings();
    assert_eq!(findings.verdict(Invariant::OneRunner), Verdict::NotProven);
}

#[test]
fn i1_a_fence_that_comes_back_is_of_one_run() {
    let mut three = story(&[("a", Succeeded), ("b", Succeeded), ("c", Succeeded)]);
    three.record(2).fence = Some(3);
    three.refutes(Invariant::OneRunner, "a stale run has committed");
    three.events = vec![event(Kind::Claimed, 2, 6, None)];
    let texts = |story: &Story| -> Vec<String> {
        let listed = story.findings().listed.into_iter();
        listed.map(|one| one.text).collect()
    };
    let told = texts(&three);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[1], "the fence 3 belongs to two runs");
    three.record(2).run = Some(run(1));
    let told = texts(&three);
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn i1_whoever_holds_the_lease_has_not_ended() {
    working(running(6), run(2)).holds();
    let mut at_claim = two();
    at_claim.now.revision = 6;
    at_claim.holds();
    let started = |of: u64, story: &mut Story| {
        story.events = vec![event(Kind::Started, of, of, None)];
    };
    let mut working = working(running(9), run(9));
    started(9, &mut working);
    working.holds();
    started(8, &mut working);
    working.doubts(Invariant::OneRunner, "no event tells its end");
    let mut moving = two();
    moving.key(|state| state.status = JobStatus::Waiting);
    moving.now.unchanged = false;
    started(5, &mut moving);
    moving.doubts(Invariant::OneRunner, "no event tells its end");
}

#[test]
fn i1_one_run_may_leave_several_records() {
    let mut one = two();
    let second = one.record(1);
    (second.run, second.fence) = (Some(run(1)), Some(3));
    (second.released, second.seq) = (Some(5), Some(2));
    one.holds();
}
