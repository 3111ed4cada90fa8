//! Some seeds of the simulation, and that a seed gives the same run each time.

#![allow(clippy::expect_used, reason = "a test that cannot go on panics")]

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
