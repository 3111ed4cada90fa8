//! `cargo xtask model` and `cargo xtask sim`: the search and the simulation of the crate `air-model`.

use crate::command;
use crate::error::Result;

/// Options of `cargo xtask model`.
#[derive(Debug, clap::Args)]
pub(crate) struct Search {
    /// The long scenarios too, and each to its end
    #[arg(long)]
    long: bool,
    /// Only scenarios whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Longest time for one scenario, in seconds
    #[arg(long, value_name = "SECONDS")]
    within: Option<u64>,
}

/// Options of `cargo xtask sim`.
#[derive(Debug, clap::Args)]
pub(crate) struct Simulation {
    /// How many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Replay this seed alone
    #[arg(long)]
    seed: Option<u64>,
}

/// Searches the scenarios.
pub(crate) fn search(options: &Search) -> Result<()> {
    let mut words = vec!["check".to_owned()];
    words.extend(options.long.then(|| "--long".to_owned()));
    if let Some(only) = &options.only {
        words.extend(["--only".to_owned(), only.clone()]);
    }
    if let Some(seconds) = options.within {
        words.extend(["--within".to_owned(), seconds.to_string()]);
    }
    run(&words)
}

/// Runs seeds.
pub(crate) fn simulate(options: &Simulation) -> Result<()> {
    let (name, number) = match options.seed {
        Some(seed) => ("--seed", seed),
        None => ("--seeds", options.seeds),
    };
    run(&["sim".to_owned(), name.to_owned(), number.to_string()])
}

/// As it is built for tests: the crates of its inner loop are optimised there.
fn run(words: &[String]) -> Result<()> {
    let mut model = command::cargo("run --quiet -p air-model --");
    command::run(model.args(words))
}
