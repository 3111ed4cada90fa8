//! `cargo xtask model` and `cargo xtask sim`: the search and the simulation of the crate `air-model`.

use crate::command;
use crate::error::Result;

/// What people gave to a verb of `air-model`, whose own options these are.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Options of the verb of `air-model`; `--help` lists them
    #[arg(
        value_name = "OPTIONS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    options: Vec<String>,
}

/// Runs a verb of the model. It is built as for tests: the
/// crates of its inner loop are optimised there.
pub(crate) fn run(verb: &str, options: &Options) -> Result<()> {
    let mut model = command::cargo("run --quiet -p air-model --");
    command::run(model.arg(verb).args(&options.options))
}
