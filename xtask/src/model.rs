//! `cargo xtask model` and `cargo xtask sim`: the search and the simulation of the crate `air-model`.

use crate::command;
use crate::error::Result;

/// Runs a verb of the model with the options that people gave it, which are its own. It is built as for tests: the
/// crates of its inner loop are optimised there.
pub(crate) fn run(verb: &str, options: &[String]) -> Result<()> {
    let mut model = command::cargo("run --quiet -p air-model --");
    command::run(model.arg(verb).args(options))
}
