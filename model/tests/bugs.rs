//! Each guard left out is found: a search that finds nothing would prove nothing.

#![allow(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::time::Duration;

use air_model::bug::Bug;
use air_model::search::scenario;
use air_model::search::table::search;

/// Searches a scenario with a bug, and gives what broke.
fn found(bug: Bug, name: &str) -> String {
    let mut all = scenario::all().into_iter();
    let scenario = all
        .find(|one| one.name == name)
        .expect("a scenario of that name");
    let found = search(scenario, Some(bug), Duration::from_secs(60), 1);
    let broken = found.broken.expect("the bug is found");
    println!("{bug:?}: {} steps: {}", broken.steps.len(), broken.text);
    for (number, step) in (1..).zip(&broken.steps) {
        println!("{number:4}  {step:?}");
    }
    broken.text
}

#[test]
fn a_start_without_the_fence() {
    let text = found(Bug::StartWithoutFence, "family, take-over");
    assert!(text.contains("I1") || text.contains("I2"), "{text}");
}

#[test]
fn a_commit_without_an_expectation() {
    let text = found(Bug::CommitWithoutExpectation, "family, take-over");
    assert!(text.contains("I2 one-commit"), "{text}");
}

#[test]
fn a_message_deleted_before_its_commit() {
    let text = found(Bug::DeleteBeforeCommit, "family");
    assert!(text.contains("I3") || text.contains("I5"), "{text}");
}

#[test]
fn two_timers_for_one_retry() {
    let text = found(Bug::TwoTimers, "family");
    assert!(text.contains("waits twice"), "{text}");
}

#[test]
fn a_watch_that_is_trusted() {
    let text = found(Bug::TrustTheWatch, "family");
    assert!(text.contains("I1 one-runner"), "{text}");
}

#[test]
fn a_take_over_without_the_judged_revision() {
    let text = found(Bug::TakeOverWithoutRevision, "family");
    assert!(text.contains("I1 one-runner"), "{text}");
}
