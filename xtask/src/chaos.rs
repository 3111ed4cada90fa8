//! `cargo xtask chaos`: the long form of the chaos test, whose bounded form is among the tests of `cargo xtask ci`.

use crate::error::Result;
use crate::{command, tools, workspace};

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

/// Builds everything and runs the test with this length.
pub(crate) fn run(options: &Options) -> Result<()> {
    command::run(&mut command::cargo(
        "build --workspace --exclude xtask --bins",
    ))?;
    let mut test =
        command::cargo("test -p air-tests --test chaos -- --exact another_seed --nocapture");
    if let Some(seed) = options.seed {
        test.env("AIR_CHAOS_SEED", seed.to_string());
    }
    command::run(
        test.env("AIR_CHAOS_SECONDS", (60 * options.minutes).to_string())
            .env("AIR_CHAOS_TASKS", options.tasks.to_string())
            .env("AIR_BIN_DIR", workspace::target()?.join("debug"))
            .env("AIR_NATS_SERVER", tools::nats_server()?)
            .env("AIR_NATS_CLI", tools::nats()?),
    )
}
