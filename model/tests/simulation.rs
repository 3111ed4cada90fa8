//! Some seeds of the simulation; that a seed gives the same run each time; that failures are found and
//! made smaller.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

use air_model::bug::Bug;
use air_model::simulation::plan::Plan;
use air_model::simulation::{run, shrink};

#[test]
fn a_seed_gives_the_same_run() {
    for seed in 1..20 {
        let plan = Plan::of(seed);
        assert_eq!(run(&plan, None), run(&plan, None), "seed {seed}");
    }
}

#[test]
fn every_job_ends_and_nothing_is_broken() {
    for seed in 1..400 {
        if let Err(failure) = run(&Plan::of(seed), None) {
            panic!("cargo xtask sim --seed {seed}: {}", failure.text);
        }
    }
}

/// The first seed that fails with a bug, made smaller.
fn found(bug: Bug) -> String {
    let fails = |seed: &u64| run(&Plan::of(*seed), Some(bug)).is_err();
    let seed = (1..3000).find(fails).expect("a seed that fails");
    let plan = Plan::of(seed);
    let smaller = shrink(plan.clone(), Some(bug));
    let things = |plan: &Plan| plan.tasks.len() + plan.deeds.len() + plan.faults.len();
    assert!(things(&smaller) <= things(&plan));
    let failure = run(&smaller, Some(bug)).unwrap_err();
    assert_eq!(
        Err(failure.clone()),
        run(&smaller, Some(bug)),
        "it is replayed"
    );
    println!(
        "{bug:?}: seed {seed}, {} of {} things left: {}",
        things(&smaller),
        things(&plan),
        failure.text
    );
    println!("{smaller:#?}\n{}", failure.log.join("\n"));
    failure.text
}

#[test]
fn a_commit_without_an_expectation_is_found() {
    let text = found(Bug::CommitWithoutExpectation);
    assert!(text.contains("I2") || text.contains("I5"), "{text}");
}

#[test]
fn a_message_deleted_before_its_commit_is_found() {
    let text = found(Bug::DeleteBeforeCommit);
    assert!(text.contains("I3") || text.contains("I5"), "{text}");
}

#[test]
fn a_removal_told_of_late_by_a_deposed_leader_takes_nothing_of_a_new_job() {
    run(&Plan::of(8018), None).unwrap();
}

#[test]
fn a_schedule_that_fires_during_a_removal_leaves_no_task_that_is_claimed_for_ever() {
    run(&Plan::of(9194), None).unwrap();
}

#[test]
fn a_cancel_that_lists_from_a_lagging_replica_is_found() {
    let text = found(Bug::CancelListsFromAReplica);
    assert!(text.contains("I3 nothing-lost"), "{text}");
}
