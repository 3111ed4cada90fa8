//! `cargo xtask chaos`: the long form of the chaos test, whose bounded form is among the tests of `cargo xtask ci`.

use crate::error::Result;
use crate::test;

/// Options of `cargo xtask chaos`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long faults are injected
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Chooses the faults and the tasks; a fresh one, which is printed, if none is given
    #[arg(long)]
    seed: Option<u64>,
    /// Tasks that are published meanwhile, besides those that they queue themselves
    #[arg(long, default_value_t = 10_000)]
    tasks: u64,
}

/// Runs the test with this length.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut variables = vec![
        ("AIR_CHAOS_SECONDS", (60 * options.minutes).to_string()),
        ("AIR_CHAOS_TASKS", options.tasks.to_string()),
    ];
    variables.extend(
        options
            .seed
            .map(|seed| ("AIR_CHAOS_SEED", seed.to_string())),
    );
    test::long("chaos", "another_seed", variables)
}
