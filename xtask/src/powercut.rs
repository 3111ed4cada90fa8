//! `cargo xtask powercut`: cuts the power of servers under load, and counts what was acknowledged and is gone.
//!
//! It mounts images of disks, which takes root. docs/durability.md has its table.

use crate::bench;
use crate::error::Result;

/// Options of `cargo xtask powercut`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Cuts in each mode
    #[arg(long, default_value_t = 3)]
    cuts: usize,
    /// Only the modes whose name has this in it, such as `one server`
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// Builds what is shipped, and cuts its power.
///
/// # Errors
/// No image can be mounted, something synced was lost, or an invariant does not hold.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut arguments = vec!["powercut".to_owned(), options.cuts.to_string()];
    arguments.extend(options.only.clone());
    bench::start(&arguments)
}
