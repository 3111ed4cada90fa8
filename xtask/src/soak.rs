//! `cargo xtask soak`: the long form of the soak test, whose bounded form is among the tests of `cargo xtask ci`.

use crate::error::Result;
use crate::{command, test, workspace};

/// Options of `cargo xtask soak`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Tasks in all, with those that others queue
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100..))]
    tasks: u64,
    /// Jobs at work side by side, beside the one that never ends
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    jobs: u64,
}

/// Builds everything as it is shipped, and runs the test with this load.
pub(crate) fn run(options: &Options) -> Result<()> {
    command::run(&mut command::cargo(
        "build --release -p airx -p air-runner --bins",
    ))?;
    let release = workspace::target()?.join("release");
    let variables = [
        ("AIR_SOAK_TASKS", options.tasks.to_string()),
        ("AIR_SOAK_JOBS", options.jobs.to_string()),
        ("AIR_BIN_DIR", release.display().to_string()),
    ];
    test::long("soak", "nothing_grows_with_the_load", variables)
}
