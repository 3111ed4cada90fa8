//! `cargo xtask powercut`: every mode of the test of power cuts, of which `cargo xtask ci` runs those that must lose nothing.
//!
//! It mounts images of disks, which takes root. docs/durability.md has its table.

use crate::error::Result;
use crate::test;

/// Options of `cargo xtask powercut`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Cuts in each mode
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    cuts: u64,
    /// Only the modes whose name has this in it, such as `one server`
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

/// Runs the test with these cuts.
pub(crate) fn run(options: &Options) -> Result<()> {
    let variables = [
        ("AIR_POWERCUT_CUTS", options.cuts.to_string()),
        ("AIR_POWERCUT_ONLY", options.only.clone()),
    ];
    test::long(
        "powercut",
        "what_was_synced_survives_a_power_cut",
        variables,
    )
}
